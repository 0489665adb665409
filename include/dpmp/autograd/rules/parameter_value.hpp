// SPDX-License-Identifier: Apache-2.0
// parameter: a bare parameter as a value, for a class token, learned queries, a relative position bias.
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// p [..] -> [B, ..], the same for every sample of the tape. The per-sample gradient of p is the gradient that comes in: a
/// vector as large as p for each sample (SiteForm::vector), so it is for small parameters. Throws where p has five axes.
Variable parameter(Tape& tape, Parameter& p);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/tensor/broadcast.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
struct ParameterValue {
  static constexpr std::string_view name = "parameter";
  Parameter* p;
  std::vector<Parameter*> parameters() const { return {p}; }
  void backward(BackwardPass& pass, const Tensor& gradient) const { pass.emit(ParameterSite::vector(*p, gradient)); }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable parameter(Tape& tape, Parameter& p) {
  DPMP_CHECK(p.shape().rank() < Shape::max_rank, "parameter: expected at most ", Shape::max_rank - 1,
             " axes next to the sample axis, got ", p.name(), " ", p.shape());
  check_device("parameter: " + p.name(), p.value(), tape.ctx());
  Shape shape{tape.samples()};
  for (int axis = 0; axis < p.shape().rank(); ++axis) shape.push_back(p.shape()[axis]);
  return tape.record(broadcast_to(tape.ctx(), p.value(), shape), p.trainable(), rules::ParameterValue{&p});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
