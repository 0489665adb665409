// SPDX-License-Identifier: Apache-2.0
// Windows of an image as rows (im2col), and the adjoint: every input position gathers what its windows hold for it, so no
// two threads write to one place and samples stay apart.
#pragma once
#include "dpmp/core/low_precision.hpp"
#include "dpmp/kernels/windows.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// output[b, oy, ox, ky, kx, :] = input[b, iy, ix, :], 0 in the padding. One (b, oy) a row.
template <class T>
struct Unfold {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;  // [B, H, W, C]
  T* output;       // [B, OH, OW, KH, KW, C]
  Windows windows;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const index_t oy = row % windows.y.output, sample = row / windows.y.output, c = windows.channels;
    // Without dilation the taps of one kernel row are neighbours in the image: one run to copy.
    const bool runs = windows.x.dilation == 1;
    const index_t kernel = windows.x.kernel;
    T* y = output + row * windows.x.output * windows.taps() * c;
    for (index_t ox = 0; ox < windows.x.output; ++ox)
      for (index_t ky = 0; ky < windows.y.kernel; ++ky, y += kernel * c) {
        const index_t iy = windows.y.position(oy, ky), first = windows.x.position(ox, 0);
        if (!windows.y.inside(iy)) {
          zero(team, y, kernel * c);
          continue;
        }
        const T* x = input + (sample * windows.y.input + iy) * windows.x.input * c;
        if (runs) {
          const index_t before = first >= 0 ? 0 : (-first < kernel ? -first : kernel), end = windows.x.input - first,
                        tail = end >= kernel ? kernel : (end > before ? end : before);
          zero(team, y, before * c);
          copy(team, x + (first + before) * c, y + before * c, (tail - before) * c);
          zero(team, y + tail * c, (kernel - tail) * c);
        } else {
          for (index_t kx = 0; kx < kernel; ++kx) {
            const index_t ix = windows.x.position(ox, kx);
            if (windows.x.inside(ix))
              copy(team, x + ix * c, y + kx * c, c);
            else
              zero(team, y + kx * c, c);
          }
        }
      }
  }

 private:
  template <class Team>
  DPMP_HD static void copy(const Team& team, const T* x, T* y, index_t n) {
    team.for_each(n, [&](auto at) DPMP_LAMBDA { at.store(y, at.load(x)); });
  }
  template <class Team>
  DPMP_HD static void zero(const Team& team, T* y, index_t n) {
    team.for_each(n, [&](auto at) DPMP_LAMBDA { at.store(y, typename Team::Pack{}); });
  }
};

/// output[b, iy, ix, :] = sum of input[b, oy, ox, ky, kx, :] over all windows and taps that read (iy, ix), in compute
/// precision. One (b, iy) a row.
template <class T>
struct Fold {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;  // [B, OH, OW, KH, KW, C]
  T* output;       // [B, H, W, C]
  Windows windows;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const index_t iy = row % windows.y.input, sample = row / windows.y.input, c = windows.channels;
    for (index_t ix = 0; ix < windows.x.input; ++ix)
      team.for_each(c, [&](auto at) DPMP_LAMBDA {
        typename Team::Pack sum{};
        windows.for_each_window(iy, ix, [&](index_t oy, index_t ox, index_t tap) DPMP_LAMBDA {
          sum = sum + at.load(input + (windows.window(sample, oy, ox) * windows.taps() + tap) * c);
        });
        at.store(output + (row * windows.x.input + ix) * c, sum);
      });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
