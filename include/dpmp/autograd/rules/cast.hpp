// SPDX-License-Identifier: Apache-2.0
// cast: the same numbers in another dtype.
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// x rounded to another floating dtype, to nearest even, past FP32 between f64 and the two-byte dtypes; x itself where it
/// has that dtype. The gradient is rounded to x's dtype. Throws for i32.
Variable cast(const Variable& x, DType dtype);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI {
namespace rules {
struct Cast {
  static constexpr std::string_view name = "cast";
  GradientSlot x;
  void backward(BackwardPass& pass, const Tensor& gradient) const { pass.accumulate(x, cast(pass.ctx, gradient, x.dtype)); }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable cast(const Variable& x, DType dtype) {
  Tape& tape = x.tape();
  DPMP_CHECK(is_real(x.dtype()) && is_real(dtype), "cast: expected two floating dtypes, got ", x.dtype(), " to ", dtype);
  if (x.dtype() == dtype) return x;
  return tape.record(cast(tape.ctx(), x.value(), dtype), tape.needs_gradient(x), rules::Cast{x.slot()});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
