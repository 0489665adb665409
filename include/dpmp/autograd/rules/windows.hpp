// SPDX-License-Identifier: Apache-2.0
// Options of everything that slides windows over an image, and how many windows they make of one.
#pragma once
#include "dpmp/kernels/windows.hpp"
#include "dpmp/tensor/tensor.hpp"

namespace dpmp::inline DPMP_ABI {
/// Positions along the height and the width of an image.
struct Size2d {
  index_t height = 1, width = 1;
  friend std::ostream& operator<<(std::ostream& out, Size2d s) { return out << s.height << " x " << s.width; }
};

/// Windows of `kernel` taps, `dilation` positions apart, every `stride` positions of an image with `padding` positions of
/// zeros on all sides.
struct WindowOptions {
  Size2d kernel = {1, 1}, stride = {1, 1}, padding = {0, 0}, dilation = {1, 1};
};

namespace rules {
inline kernels::WindowAxis window_axis(std::string_view name, std::string_view along, index_t input, index_t kernel,
                                       index_t stride, index_t padding, index_t dilation) {
  constexpr index_t largest = index_t(1) << 20;  // so that no product below overflows
  for (const index_t n : {kernel, stride, dilation})
    DPMP_CHECK(n >= 1 && n <= largest, name, ": expected kernel, stride and dilation in [1, 2^20] along the ", along,
               ", got ", kernel, ", ", stride, " and ", dilation);
  DPMP_CHECK(padding >= 0 && padding <= largest, name, ": expected a padding in [0, 2^20] along the ", along, ", got ",
             padding);
  const index_t span = dilation * (kernel - 1) + 1, room = input + 2 * padding;
  DPMP_CHECK(input == 0 || span <= room, name, ": expected a window that fits into the padded image along the ", along,
             ", got a span of ", span, " positions (kernel ", kernel, ", dilation ", dilation, ") and ", room, " (", input,
             " and padding ", padding, ")");
  return {input, input == 0 ? 0 : (room - span) / stride + 1, kernel, stride, padding, dilation};
}

/// The windows over x [B, H, W, C]. An image without positions has no windows; otherwise (H + 2 padding - dilation (kernel -
/// 1) - 1) / stride + 1 along the height, rounded down, and likewise along the width. Throws when a window does not fit.
inline kernels::Windows windows_of(std::string_view name, const Shape& x, const WindowOptions& o) {
  DPMP_CHECK(x.rank() == 4, name, ": expected images x [B, H, W, C], channels last, got ", x);
  return {window_axis(name, "height", x[1], o.kernel.height, o.stride.height, o.padding.height, o.dilation.height),
          window_axis(name, "width", x[2], o.kernel.width, o.stride.width, o.padding.width, o.dilation.width), x[3]};
}
}  // namespace rules
}  // namespace dpmp::inline DPMP_ABI
