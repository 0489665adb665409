// SPDX-License-Identifier: Apache-2.0
// Average and maximum over windows of an image, and their adjoints in gather form.
#pragma once
#include <limits>

#include "dpmp/core/low_precision.hpp"
#include "dpmp/kernels/carried_sum.hpp"
#include "dpmp/kernels/windows.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// output[b, oy, ox, :] = factor * sum over the window's positions inside the image. One (b, oy) a row.
template <class T>
struct AveragePoolForward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;  // [B, H, W, C]
  T* output;       // [B, OH, OW, C]
  Windows windows;
  Real factor;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const index_t oy = row % windows.y.output, sample = row / windows.y.output, c = windows.channels;
    for (index_t ox = 0; ox < windows.x.output; ++ox)
      team.for_each(c, [&](auto at) DPMP_LAMBDA {
        CarriedSum<typename Team::Pack> sum;
        windows.for_each_tap(oy, ox, [&](index_t iy, index_t ix, index_t) DPMP_LAMBDA {
          sum.add(at.load(input + windows.pixel(sample, iy, ix)));
        });
        at.store(output + (row * windows.x.output + ox) * c, sum.total() * factor);
      });
  }
};

/// The first maximum of each window in row-major order; NaN where the window holds one. One (b, oy) a row.
template <class T>
struct MaxPoolForward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;  // [B, H, W, C]
  T* output;       // [B, OH, OW, C], the maximum; null: not wanted
  Real* winner;    // [B, OH, OW, C], its tap ky * KW + kx; null: not wanted
  Windows windows;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    using Pack = typename Team::Pack;
    constexpr Real infinity = std::numeric_limits<Real>::infinity();
    const index_t oy = row % windows.y.output, sample = row / windows.y.output, c = windows.channels;
    for (index_t ox = 0; ox < windows.x.output; ++ox)
      team.for_each(c, [&](auto at) DPMP_LAMBDA {
        Pack best{}, best_tap{}, nan{};
        bool started = false;
        windows.for_each_tap(oy, ox, [&](index_t iy, index_t ix, index_t place) DPMP_LAMBDA {
          const Pack value = at.load(input + windows.pixel(sample, iy, ix)), tap = Pack::splat(Real(place));
          best_tap = started ? select_less(best, value, tap, best_tap) : tap;
          best = started ? select_less(best, value, value, best) : value;
          started = true;
          // Neither below infinity nor above -1: a NaN. A broken sample must be seen, not passed over.
          nan = nan + select_less(value, Pack::splat(infinity), Pack{}, select_less(Pack{} - 1, value, Pack{}, value));
        });
        if (output) at.store(output + (row * windows.x.output + ox) * c, best + nan);
        if (winner) at.store(winner + (row * windows.x.output + ox) * c, best_tap);
      });
  }
};

/// input_gradient[b, iy, ix, :] = sum over the windows that read (iy, ix) of factor * output_gradient, for a maximum only
/// where that tap won. One (b, iy) a row.
template <class T>
struct PoolBackward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* output_gradient;  // [B, OH, OW, C]
  const Real* winner;        // [B, OH, OW, C]; null: every tap counts (average)
  T* input_gradient;         // [B, H, W, C]
  Windows windows;
  Real factor;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    using Pack = typename Team::Pack;
    const index_t iy = row % windows.y.input, sample = row / windows.y.input, c = windows.channels;
    for (index_t ix = 0; ix < windows.x.input; ++ix)
      team.for_each(c, [&](auto at) DPMP_LAMBDA {
        Pack sum{};
        windows.for_each_window(iy, ix, [&](index_t oy, index_t ox, index_t place) DPMP_LAMBDA {
          const index_t window = windows.window(sample, oy, ox) * c;
          const Pack g = at.load(output_gradient + window) * factor;
          if (winner) {
            const Pack tap = Pack::splat(Real(place)), won = at.load(winner + window);
            sum = sum + select_less(tap, won, Pack{}, select_less(won, tap, Pack{}, g));
          } else {
            sum = sum + g;
          }
        });
        at.store(input_gradient + (row * windows.x.input + ix) * c, sum);
      });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
