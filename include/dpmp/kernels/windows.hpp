// SPDX-License-Identifier: Apache-2.0
// Sliding windows over one image axis: which input position a tap reads, and which windows read an input position.
#pragma once
#include "dpmp/core/config.hpp"

namespace dpmp::inline DPMP_ABI::kernels {
/// `output` windows over `input` positions. Tap k of window o is at o * stride - padding + k * dilation.
struct WindowAxis {
  index_t input, output, kernel, stride, padding, dilation;

  /// May be outside [0, input): there the padding is.
  DPMP_HD index_t position(index_t window, index_t tap) const { return window * stride - padding + tap * dilation; }
  DPMP_HD bool inside(index_t at) const { return at >= 0 && at < input; }
  /// Windows [first_window, end_window) are all that may read input position `at`.
  DPMP_HD index_t first_window(index_t at) const {
    const index_t reach = at + padding - dilation * (kernel - 1);
    return reach <= 0 ? 0 : (reach + stride - 1) / stride;
  }
  DPMP_HD index_t end_window(index_t at) const {
    const index_t end = (at + padding) / stride + 1;
    return end < output ? end : output;
  }
  /// The tap with which one of those windows reads position `at`; -1 where the dilation steps over it.
  DPMP_HD index_t tap(index_t at, index_t window) const {
    const index_t distance = at + padding - window * stride;
    if (dilation == 1) return distance;
    return distance % dilation == 0 ? distance / dilation : -1;
  }
};

/// Windows over images [B, y.input, x.input, channels], channels last.
struct Windows {
  WindowAxis y, x;
  index_t channels;

  DPMP_HD index_t taps() const { return y.kernel * x.kernel; }
  DPMP_HD index_t positions() const { return y.output * x.output; }
  /// The window (oy, ox) of a sample among all windows.
  DPMP_HD index_t window(index_t sample, index_t oy, index_t ox) const { return (sample * y.output + oy) * x.output + ox; }
  /// Where the channels of a position begin.
  DPMP_HD index_t pixel(index_t sample, index_t iy, index_t ix) const {
    return ((sample * y.input + iy) * x.input + ix) * channels;
  }
  /// f(iy, ix, tap) for the taps of window (oy, ox) that are inside of the image, in row-major order.
  DPMP_ANY_TEAM
  template <class F>
  DPMP_HD void for_each_tap(index_t oy, index_t ox, F&& f) const {
    for (index_t ky = 0; ky < y.kernel; ++ky) {
      const index_t iy = y.position(oy, ky);
      if (!y.inside(iy)) continue;
      for (index_t kx = 0; kx < x.kernel; ++kx)
        if (const index_t ix = x.position(ox, kx); x.inside(ix)) f(iy, ix, ky * x.kernel + kx);
    }
  }
  /// f(oy, ox, tap) for the windows that read position (iy, ix), with the tap that does, in row-major order.
  DPMP_ANY_TEAM
  template <class F>
  DPMP_HD void for_each_window(index_t iy, index_t ix, F&& f) const {
    const index_t x_first = x.first_window(ix), x_end = x.end_window(ix);
    for (index_t oy = y.first_window(iy); oy < y.end_window(iy); ++oy) {
      const index_t ky = y.tap(iy, oy);
      if (ky < 0) continue;
      for (index_t ox = x_first; ox < x_end; ++ox)
        if (const index_t kx = x.tap(ix, ox); kx >= 0) f(oy, ox, ky * x.kernel + kx);
    }
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
