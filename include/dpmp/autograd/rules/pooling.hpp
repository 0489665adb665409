// SPDX-License-Identifier: Apache-2.0
// average_pool2d, max_pool2d, global_average_pool on channels-last data.
#pragma once
#include "dpmp/autograd/rules/shape_ops.hpp"
#include "dpmp/autograd/rules/windows.hpp"

namespace dpmp::inline DPMP_ABI {
struct PoolOptions {
  Size2d kernel = {1, 1}, stride = {1, 1}, padding = {0, 0};
};
/// Images x [B, H, W, C], channels last -> [B, OH, OW, C]: the mean of each window, padding counted as zeros. padding <
/// kernel; throws when a window does not fit. An image without positions gives none.
Variable average_pool2d(const Variable& x, const PoolOptions& options);
/// Images x [B, H, W, C], channels last -> [B, OH, OW, C]: the largest element of each window; padding never wins. The
/// gradient goes to the first maximum in row-major order. padding < kernel; throws when a window does not fit.
Variable max_pool2d(const Variable& x, const PoolOptions& options);
/// The mean over all positions: images [B, H, W, C] or sequences [B, T, C], channels last -> [B, C]. Throws when there are
/// no positions.
Variable global_average_pool(const Variable& x);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/pooling.hpp"
#include "dpmp/tensor/map.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
/// Padding below the kernel: then no window is in the padding alone.
inline kernels::Windows pool_windows(std::string_view name, const Shape& x, const PoolOptions& o) {
  const kernels::Windows w = windows_of(name, x, {o.kernel, o.stride, o.padding, {1, 1}});
  DPMP_CHECK(o.padding.height < o.kernel.height && o.padding.width < o.kernel.width, name,
             ": expected a padding below the kernel ", o.kernel, ", got ", o.padding);
  return w;
}

/// winner: [B, OH, OW, C] in the accumulate dtype for a maximum, not defined for an average.
inline void pool_backward(BackwardPass& pass, const GradientSlot& x, const Tensor& gradient, const Tensor& winner,
                          const kernels::Windows& windows, double factor) {
  const Tensor g = Tensor::empty(pass.ctx, x.shape, x.dtype);
  dpmp::detail::map_rows<kernels::PoolBackward>(pass.ctx, x.dtype, x.shape[0] * windows.y.input,
                                                windows.x.input * windows.channels, gradient, winner, g, windows, factor);
  pass.accumulate(x, g);
}

struct AveragePool2d {
  static constexpr std::string_view name = "average_pool2d";
  GradientSlot x;
  kernels::Windows windows;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    pool_backward(pass, x, gradient, Tensor(), windows, 1 / double(windows.taps()));
  }
};

struct MaxPool2d {
  static constexpr std::string_view name = "max_pool2d";
  Variable x;
  kernels::Windows windows;

  /// Either tensor may be empty: not wanted.
  static void forward(Context& ctx, const Tensor& x, const kernels::Windows& w, const Tensor& y, const Tensor& winner) {
    dpmp::detail::map_rows<kernels::MaxPoolForward>(ctx, x.dtype(), x.shape()[0] * w.y.output,
                                                    w.x.output * w.channels * w.taps(), x, y, winner, w);
  }
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    // Which tap won is found again from the input: nothing but the input is kept.
    const Tensor winner = Tensor::empty(pass.ctx, gradient.shape(), accumulate_dtype(x.dtype()));
    forward(pass.ctx, x.value(), windows, Tensor(), winner);
    pool_backward(pass, x.slot(), gradient, winner, windows, 1);
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable average_pool2d(const Variable& x, const PoolOptions& options) {
  Tape& tape = x.tape();
  const kernels::Windows w = rules::pool_windows("average_pool2d", x.shape(), options);
  const Tensor y = Tensor::empty(tape.ctx(), {x.shape()[0], w.y.output, w.x.output, w.channels}, x.dtype());
  dpmp::detail::map_rows<kernels::AveragePoolForward>(tape.ctx(), x.dtype(), x.shape()[0] * w.y.output,
                                                      w.x.output * w.channels * w.taps(), x.value(), y, w,
                                                      1 / double(w.taps()));
  return tape.record(y, tape.needs_gradient(x), rules::AveragePool2d{x.slot(), w});
}

DPMP_KEPT_BODY inline Variable max_pool2d(const Variable& x, const PoolOptions& options) {
  Tape& tape = x.tape();
  const kernels::Windows w = rules::pool_windows("max_pool2d", x.shape(), options);
  DPMP_CHECK(w.taps() <= index_t(1) << 24, "max_pool2d: expected a kernel of at most 2^24 taps, got ", options.kernel);
  const Tensor y = Tensor::empty(tape.ctx(), {x.shape()[0], w.y.output, w.x.output, w.channels}, x.dtype());
  rules::MaxPool2d::forward(tape.ctx(), x.value(), w, y, Tensor());
  return tape.record(y, tape.needs_gradient(x), rules::MaxPool2d{x, w});
}

DPMP_KEPT_BODY inline Variable global_average_pool(const Variable& x) {
  const Shape& s = x.shape();
  DPMP_CHECK((s.rank() == 3 || s.rank() == 4) && s.numel(1, s.rank() - 1) > 0,
             "global_average_pool: expected x [B, H, W, C] or [B, T, C] with at least one position, got ", s);
  const index_t positions = s.numel(1, s.rank() - 1);
  return reshape(average_pool2d(reshape(x, {s[0], 1, positions, s.back()}), {.kernel = {1, positions}}), {s[0], s.back()});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
