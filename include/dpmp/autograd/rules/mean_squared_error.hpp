// SPDX-License-Identifier: Apache-2.0
// mean_squared_error: one loss a sample, so that no sample's gradient depends on another.
#pragma once
#include <algorithm>

#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// Per-sample losses [B] in FP32 (f64 for f64): the sum of a sample's squared differences, in double, divided by its number
/// of elements, which is public, and rounded once. prediction [B, ..]; target: the same shape, in the dtype of the losses.
Variable mean_squared_error(const Variable& prediction, const Tensor& target);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/loss_scale.hpp"
#include "dpmp/kernels/squared_error.hpp"
#include "dpmp/tensor/map.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
struct MeanSquaredError {
  static constexpr std::string_view name = "mean_squared_error";
  Variable prediction;
  Tensor target;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const Tensor g = Tensor::empty(pass.ctx, prediction.shape(), prediction.dtype());
    const index_t width = elements(prediction.shape());
    dpmp::detail::map_rows<kernels::SquaredErrorBackward>(pass.ctx, prediction.dtype(), g.shape().front(), width,
                                                          prediction.value(), target, gradient, g, width, factor(width));
    pass.accumulate(prediction.slot(), g);
  }
  Tensor largest_gradients(Context& ctx, const Tensor& gradient) const {
    const index_t samples = gradient.numel(), width = elements(prediction.shape());
    const Tensor largest = Tensor::empty(ctx, {samples}, gradient.dtype());
    dpmp::detail::map_rows<kernels::LargestSquaredErrorGradients>(
        ctx, prediction.dtype(), samples, width, prediction.value(), target, gradient, largest, width, factor(width));
    return largest;
  }
  static index_t elements(const Shape& shape) { return shape.numel(1, shape.rank()); }
  static double factor(index_t width) { return 1.0 / double(std::max<index_t>(1, width)); }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable mean_squared_error(const Variable& prediction, const Tensor& target) {
  using Rule = rules::MeanSquaredError;
  Tape& tape = prediction.tape();
  const DType dtype = accumulate_dtype(prediction.dtype());
  check_shape("mean_squared_error: a target", target, prediction.shape());
  check_device("mean_squared_error: a target", target, prediction.tape().ctx());
  check_dtype("mean_squared_error: a target", target, dtype);
  const index_t width = Rule::elements(prediction.shape());
  const Tensor loss = Tensor::empty(tape.ctx(), {tape.samples()}, dtype);
  dpmp::detail::map_rows<kernels::SquaredErrorForward>(tape.ctx(), prediction.dtype(), tape.samples(), width,
                                                       prediction.value(), target, loss, width, Rule::factor(width));
  return tape.record(loss, tape.needs_gradient(prediction), Rule{prediction, target});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
