// SPDX-License-Identifier: Apache-2.0
// Group normalisation (Wu, He 2018, arXiv 1803.08494) of channels-last data: mean and biased variance over all positions and
// the channels of a group, per sample. Two passes in compute precision. Lanes run over channels whatever a group's size, and
// the statistics are kept once a channel, so that no kernel has to find a channel's group.
#pragma once
#include <cmath>

#include "dpmp/core/low_precision.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// values[c] = factor * (sum of values over c's group), for groups of `size` neighbouring channels.
template <class Real>
DPMP_HD void spread_group_sums(Real* values, index_t channels, index_t size, Real factor) {
  for (index_t first = 0; first < channels; first += size) {
    Real sum = 0;
    for (index_t c = first; c < first + size; ++c) sum += values[c];
    for (index_t c = first; c < first + size; ++c) values[c] = sum * factor;
  }
}

/// One sample a row.
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
    spread_group_sums(mu, channels, size, share);
    team.for_each(channels, [&](auto at) DPMP_LAMBDA {
      typename Team::Pack sum{};
      for (index_t t = 0; t < positions; ++t) {
        const auto d = at.load(x + t * channels) - at.load(mu);
        sum = sum + d * d;
      }
      at.store(scale, sum);
    });
    spread_group_sums(scale, channels, size, share);
    for (index_t c = 0; c < channels; ++c) scale[c] = Real(1) / std::sqrt(scale[c] + epsilon);
    for (index_t t = 0; t < positions; ++t)
      team.for_each(channels, [&](auto at) DPMP_LAMBDA {
        at.store(y + t * channels,
                 (at.load(x + t * channels) - at.load(mu)) * at.load(scale) * at.load(gain) + at.load(bias));
      });
  }
};

/// Per-sample gradients of gain and bias, with h = (x - mean) rstd: gain_gradient[i] = sum_t g_t * h_t, bias_gradient[i] =
/// sum_t g_t. One sample a row.
template <class T>
struct GroupNormBackwardParameters {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;            // [B, positions, channels]
  const T* output_gradient;  // [B, positions, channels]
  const Real* mean;          // [B, channels]
  const Real* rstd;          // [B, channels]
  Real* gain_gradient;       // [B, channels]
  Real* bias_gradient;       // [B, channels]
  index_t positions, channels;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t sample) const {
    const index_t begin = sample * positions * channels, row = sample * channels;
    team.for_each(channels, [&](auto at) DPMP_LAMBDA {
      typename Team::Pack gain_sum{}, bias_sum{};
      for (index_t t = 0; t < positions; ++t) {
        const auto g = at.load(output_gradient + begin + t * channels);
        gain_sum = gain_sum + g * ((at.load(input + begin + t * channels) - at.load(mean + row)) * at.load(rstd + row));
        bias_sum = bias_sum + g;
      }
      at.store(gain_gradient + row, gain_sum);
      at.store(bias_gradient + row, bias_sum);
    });
  }
};

/// With w = g * gain: dx = rstd (w - mean(w) - h mean(w h)), the means over a group. Their sums over positions are those of
/// the parameter gradients. One sample a row.
template <class T>
struct GroupNormBackwardInput {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;             // [B, positions, channels]
  const T* gain;              // [channels]
  const T* output_gradient;   // [B, positions, channels]
  const Real* mean;           // [B, channels]
  const Real* rstd;           // [B, channels]
  const Real* gain_gradient;  // [B, channels]
  const Real* bias_gradient;  // [B, channels]
  Real* scratch;              // [B, 2, channels]
  T* input_gradient;          // [B, positions, channels]
  index_t positions, channels, groups;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t sample) const {
    const index_t begin = sample * positions * channels, row = sample * channels, size = channels / groups;
    const Real share = Real(1) / (Real(positions) * Real(size));
    Real *w_mean = scratch + 2 * row, *wh_mean = w_mean + channels;
    team.for_each(channels, [&](auto at) DPMP_LAMBDA {
      at.store(w_mean, at.load(bias_gradient + row) * at.load(gain));
      at.store(wh_mean, at.load(gain_gradient + row) * at.load(gain));
    });
    spread_group_sums(w_mean, channels, size, share);
    spread_group_sums(wh_mean, channels, size, share);
    for (index_t t = 0; t < positions; ++t) {
      const index_t here = begin + t * channels;
      team.for_each(channels, [&](auto at) DPMP_LAMBDA {
        const auto scale = at.load(rstd + row), h = (at.load(input + here) - at.load(mean + row)) * scale,
                   w = at.load(output_gradient + here) * at.load(gain);
        at.store(input_gradient + here, (w - at.load(w_mean) - h * at.load(wh_mean)) * scale);
      });
    }
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
