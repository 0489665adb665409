// SPDX-License-Identifier: Apache-2.0
// unfold2d: the windows of channels-last images as rows (im2col), which makes a convolution a linear layer over positions.
// Its backward folds: every pixel gathers its share of all windows that hold it.
#pragma once
#include "dpmp/autograd/rules/windows.hpp"
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// Images x [B, H, W, C], channels last -> [B, T, kernel height * kernel width * C]: row t = oy * (windows along the width)
/// + ox holds the taps of one window in row-major order, channels innermost, 0 where a tap is in the padding. x's dtype.
/// Throws when a window does not fit (see rules::windows_of); an image without positions gives T = 0.
Variable unfold2d(const Variable& x, const WindowOptions& options);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/unfold.hpp"
#include "dpmp/tensor/map.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
struct Unfold2d {
  static constexpr std::string_view name = "unfold2d";
  GradientSlot x;
  kernels::Windows windows;

  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const Tensor g = Tensor::empty(pass.ctx, x.shape, x.dtype);
    dpmp::detail::map_rows<kernels::Fold>(pass.ctx, x.dtype, x.shape[0] * windows.y.input,
                                          windows.x.input * windows.channels * windows.taps(), gradient, g, windows);
    pass.accumulate(x, g);
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable unfold2d(const Variable& x, const WindowOptions& options) {
  Tape& tape = x.tape();
  const kernels::Windows w = rules::windows_of("unfold2d", x.shape(), options);
  const index_t width = w.taps() * w.channels;
  const Tensor y = Tensor::empty(tape.ctx(), {x.shape()[0], w.positions(), width}, x.dtype());
  dpmp::detail::map_rows<kernels::Unfold>(tape.ctx(), x.dtype(), x.shape()[0] * w.y.output, w.x.output * width, x.value(), y,
                                          w);
  return tape.record(y, tape.needs_gradient(x), rules::Unfold2d{x.slot(), w});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
