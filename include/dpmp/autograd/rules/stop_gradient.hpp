// SPDX-License-Identifier: Apache-2.0
// stop_gradient: a value as if it were an input.
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// The value of x, of which no gradient is taken. Shares the data. It stays private: what is made of it still is a
/// function of the record.
Variable stop_gradient(const Variable& x);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI {
namespace rules {
struct StopGradient {
  static constexpr std::string_view name = "stop_gradient";
  void backward(BackwardPass&, const Tensor&) const {}
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable stop_gradient(const Variable& x) {
  return x.tape().record(x.value(), false, rules::StopGradient{});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
