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

namespace dpmp::inline DPMP_ABI {
namespace rules {
struct Softmax {
  static constexpr std::string_view name = "softmax";
  GradientSlot x;
  Tensor output;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const Tensor g = Tensor::empty(pass.ctx, x.shape, x.dtype);
    const index_t width = x.shape.back();
    dispatch_real(x.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      launch_library_rows(pass.ctx, x.shape.numel(0, x.shape.rank() - 1), width,
                          kernels::SoftmaxBackward<T>{output.data<T>(), gradient.data<T>(), g.data<T>(), width});
    });
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
  dispatch_real(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_library_rows(tape.ctx(), x.shape().numel(0, x.shape().rank() - 1), width,
                        kernels::SoftmaxForward<T>{x.value().data<T>(), y.data<T>(), width});
  });
  return tape.record(y, tape.needs_gradient(x), rules::Softmax{x.slot(), y});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
