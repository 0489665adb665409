// SPDX-License-Identifier: Apache-2.0
// Group normalisation (Wu, He 2018, arXiv 1803.08494) of channels-last data: mean and biased variance over all positions and
// the channels of a group, per sample. Two passes in compute precision. Lanes run over channels whatever a group's size, and
// the statistics are kept once a channel, so that no loop has to find a channel's group. One launch forward and one
// backward, a sample a row: x and the output gradient are read once for the sums and once for what follows from them.
#pragma once
#include <cmath>

#include "dpmp/core/low_precision.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// values[c] = finish(sum of values over c's group), for groups of `size` neighbouring channels.
DPMP_ANY_TEAM
template <class Team, class Real, class Finish>
DPMP_HD void spread_group_sums(const Team& team, Real* values, index_t channels, index_t size, const Finish& finish) {
  using Pack = typename Team::Pack;
  for (index_t first = 0; first < channels; first += size) {
    const Real sum = team.sum(size, [&](auto at) DPMP_LAMBDA { return at.load(values + first); });
    const Pack spread = Pack::splat(finish(sum));
    team.for_each(size, [&](auto at) DPMP_LAMBDA { at.store(values + first, spread); });
  }
}

template <class T>
struct GroupNormForward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;  // [B, positions, channels]
  const T* gain;   // [channels]
  const T* bias;   // [channels]
  T* output;       // [B, positions, channels]
  Real* mean;      // [B, channels], that of the channel's group
  Real* rstd;      // [B, channels]
  index_t positions, channels, groups;
  Real epsilon;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t sample) const {
    const T* x = input + sample * positions * channels;
    T* y = output + sample * positions * channels;
    Real *mu = mean + sample * channels, *scale = rstd + sample * channels;
    const index_t size = channels / groups;
    const Real share = Real(1) / (Real(positions) * Real(size));
    team.for_each(channels, [&](auto at) DPMP_LAMBDA {
      typename Team::Pack sum{};
      for (index_t t = 0; t < positions; ++t) sum = sum + at.load(x + t * channels);
      at.store(mu, sum);
    });
    spread_group_sums(team, mu, channels, size, [&](Real sum) DPMP_LAMBDA { return sum * share; });
    team.for_each(channels, [&](auto at) DPMP_LAMBDA {
      typename Team::Pack sum{};
      for (index_t t = 0; t < positions; ++t) {
        const auto d = at.load(x + t * channels) - at.load(mu);
        sum = sum + d * d;
      }
      at.store(scale, sum);
    });
    spread_group_sums(team, scale, channels, size,
                      [&](Real sum) DPMP_LAMBDA { return Real(1) / std::sqrt(sum * share + epsilon); });
    team.for_each(channels, [&](auto at) DPMP_LAMBDA {
      for (index_t t = 0; t < positions; ++t)
        at.store(y + t * channels,
                 (at.load(x + t * channels) - at.load(mu)) * at.load(scale) * at.load(gain) + at.load(bias));
    });
  }
};

/// Per-sample gradients of gain and bias and the gradient of x. With h = (x - mean) rstd and w = g * gain:
///   gain_gradient[i] = sum_t g_t * h_t, bias_gradient[i] = sum_t g_t, dx = rstd (w - mean(w) - h mean(w h)),
/// the means over a group; their sums over positions are those of the parameter gradients.
template <class T>
struct GroupNormBackward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;            // [B, positions, channels]
  const T* gain;             // [channels]
  const T* output_gradient;  // [B, positions, channels]
  const Real* mean;          // [B, channels]
  const Real* rstd;          // [B, channels]
  Real* gain_gradient;       // [B, channels]
  Real* bias_gradient;       // [B, channels]
  double* gain_squares;      // [B], |gain_gradient[i]|^2
  double* bias_squares;      // [B]
  Real* scratch;             // [B, 2, channels]; not used where no input gradient is wanted
  T* input_gradient;         // [B, positions, channels], or null: not wanted
  index_t positions, channels, groups;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t sample) const {
    const index_t begin = sample * positions * channels, row = sample * channels, size = channels / groups;
    team.for_each(channels, [&](auto at) DPMP_LAMBDA {
      typename Team::Pack gain_sum{}, bias_sum{};
      for (index_t t = 0; t < positions; ++t) {
        const auto g = at.load(output_gradient + begin + t * channels);
        gain_sum = gain_sum + g * ((at.load(input + begin + t * channels) - at.load(mean + row)) * at.load(rstd + row));
        bias_sum = bias_sum + g;
      }
      at.store(gain_gradient + row, gain_sum);
      at.store(bias_gradient + row, bias_sum);
      if (!input_gradient) return;
      at.store(scratch + 2 * row, bias_sum * at.load(gain));
      at.store(scratch + 2 * row + channels, gain_sum * at.load(gain));
    });
    gain_squares[sample] = team.sum_of_squares(channels, [&](auto at) DPMP_LAMBDA { return at.load(gain_gradient + row); });
    bias_squares[sample] = team.sum_of_squares(channels, [&](auto at) DPMP_LAMBDA { return at.load(bias_gradient + row); });
    if (!input_gradient) return;
    Real *w_mean = scratch + 2 * row, *wh_mean = w_mean + channels;
    const Real share = Real(1) / (Real(positions) * Real(size));
    const auto averaged = [&](Real sum) DPMP_LAMBDA { return sum * share; };
    spread_group_sums(team, w_mean, channels, size, averaged);
    spread_group_sums(team, wh_mean, channels, size, averaged);
    team.for_each(channels, [&](auto at) DPMP_LAMBDA {
      for (index_t t = 0; t < positions; ++t) {
        const index_t here = begin + t * channels;
        const auto scale = at.load(rstd + row), h = (at.load(input + here) - at.load(mean + row)) * scale,
                   w = at.load(output_gradient + here) * at.load(gain);
        at.store(input_gradient + here, (w - at.load(w_mean) - h * at.load(wh_mean)) * scale);
      }
    });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
