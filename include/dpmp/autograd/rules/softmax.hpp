// SPDX-License-Identifier: Apache-2.0
// softmax over the last axis. The output is saved, not the input.
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// exp(x) / sum exp(x) over the last axis of x [B, .., width], in FP32 inside (double for f64) whatever x is stored in.
/// Throws for a rank-1 x: its only axis is the sample axis.
Variable softmax(const Variable& x);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/softmax.hpp"
#include "dpmp/tensor/map.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
struct Softmax {
  static constexpr std::string_view name = "softmax";
  GradientSlot x;
  Tensor output;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const Tensor g = Tensor::empty(pass.ctx, x.shape, x.dtype);
    const index_t width = x.shape.back();
    dpmp::detail::map_rows<kernels::SoftmaxBackward>(pass.ctx, x.dtype, x.shape.numel(0, x.shape.rank() - 1), width, output,
                                                     gradient, g, width);
    pass.accumulate(x, g);
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable softmax(const Variable& x) {
  Tape& tape = x.tape();
  DPMP_CHECK(x.shape().rank() >= 2, "softmax: expected x [B, .., width], got ", x.shape(),
             ": a softmax over the sample axis mixes samples");
  const index_t width = x.shape().back();
  const Tensor y = Tensor::empty(tape.ctx(), x.shape(), x.dtype());
  dpmp::detail::map_rows<kernels::SoftmaxForward>(tape.ctx(), x.dtype(), x.shape().numel(0, x.shape().rank() - 1), width,
                                                  x.value(), y, width);
  return tape.record(y, tape.needs_gradient(x), rules::Softmax{x.slot(), y});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
