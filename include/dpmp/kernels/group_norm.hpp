// SPDX-License-Identifier: Apache-2.0
// Group normalisation (Wu, He 2018, arXiv 1803.08494) of channels-last data: mean and biased variance over all positions and
// the channels of a group, per sample. Two passes in compute precision. One launch forward and one backward, a sample a row:
// x and the output gradient are read once for the sums and once for what follows from them. Lanes run over channels whatever
// a group's size, and where these are few over those of several neighbouring positions at once (a fold): what belongs to a
// channel is kept once for each of them, so that no loop has to find a lane's channel or group.
#pragma once
#include <cmath>

#include "dpmp/core/low_precision.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// How many positions are walked side by side: a divisor of their number, so that rows of them have no rest.
inline index_t group_norm_fold(index_t positions, index_t channels) {
  constexpr index_t widest = 1024;  // 256 threads, 16 bytes of FP32 each
  index_t fold = 1;
  for (index_t f = 2; f <= positions && f * channels <= widest; ++f)
    if (positions % f == 0) fold = f;
  return fold;
}

/// values [fold, channels]: row 0 = sum of all rows, pair by pair. The others are lost.
DPMP_ANY_TEAM
template <class Team, class Real>
DPMP_HD void sum_folds(const Team& team, Real* values, index_t fold, index_t channels) {
  while (fold > 1) {
    const index_t half = (fold + 1) / 2;
    const Real* upper = values + half * channels;
    team.for_each((fold - half) * channels,
                  [&](auto at) DPMP_LAMBDA { at.store(values, at.load(values) + at.load(upper)); });
    fold = half;
  }
}
/// values [fold, channels]: every row = row 0.
DPMP_ANY_TEAM
template <class Team, class Real>
DPMP_HD void copy_folds(const Team& team, Real* values, index_t fold, index_t channels) {
  for (index_t filled = 1; filled < fold; filled *= 2) {
    const index_t more = fold - filled < filled ? fold - filled : filled;
    Real* next = values + filled * channels;
    team.for_each(more * channels, [&](auto at) DPMP_LAMBDA { at.store(next, at.load(values)); });
  }
}
/// values [channels]: each = finish(sum over its group), for groups of `size` neighbouring channels.
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
  using Storage = Real;  // the widest array
  static constexpr index_t scratch_rows = 4;
  const T* input;  // [B, positions, channels]
  const T* gain;   // [channels]
  const T* bias;   // [channels]
  T* output;       // [B, positions, channels]
  Real* mean;      // [B, channels], that of the channel's group
  Real* rstd;      // [B, channels]
  Real* scratch;   // [B, scratch_rows, fold, channels]
  index_t positions, channels, groups, fold;
  Real epsilon;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t sample) const {
    const T* x = input + sample * positions * channels;
    T* y = output + sample * positions * channels;
    const index_t size = channels / groups, columns = fold * channels, rows = positions / fold;
    Real *mu = scratch + sample * scratch_rows * columns, *scale = mu + columns, *gains = scale + columns,
         *biases = gains + columns;
    const Real share = Real(1) / (Real(positions) * Real(size));
    team.for_each(columns, [&](auto at) DPMP_LAMBDA {
      typename Team::Pack sum{};
      for (index_t r = 0; r < rows; ++r) sum = sum + at.load(x + r * columns);
      at.store(mu, sum);
    });
    sum_folds(team, mu, fold, channels);
    spread_group_sums(team, mu, channels, size, [&](Real sum) DPMP_LAMBDA { return sum * share; });
    copy_folds(team, mu, fold, channels);
    team.for_each(columns, [&](auto at) DPMP_LAMBDA {
      typename Team::Pack sum{};
      const auto m = at.load(mu);
      for (index_t r = 0; r < rows; ++r) {
        const auto d = at.load(x + r * columns) - m;
        sum = sum + d * d;
      }
      at.store(scale, sum);
    });
    sum_folds(team, scale, fold, channels);
    spread_group_sums(team, scale, channels, size,
                      [&](Real sum) DPMP_LAMBDA { return Real(1) / std::sqrt(sum * share + epsilon); });
    team.for_each(channels, [&](auto at) DPMP_LAMBDA {
      at.store(mean + sample * channels, at.load(mu));
      at.store(rstd + sample * channels, at.load(scale));
      at.store(gains, at.load(gain));
      at.store(biases, at.load(bias));
    });
    copy_folds(team, scale, fold, channels);
    copy_folds(team, gains, fold, channels);
    copy_folds(team, biases, fold, channels);
    team.for_each(columns, [&](auto at) DPMP_LAMBDA {
      const auto m = at.load(mu), s = at.load(scale), g = at.load(gains), b = at.load(biases);
      for (index_t r = 0; r < rows; ++r) at.store(y + r * columns, (at.load(x + r * columns) - m) * s * g + b);
    });
  }
};

/// Per-sample gradients of gain and bias and the gradient of x. With h = (x - mean) rstd and w = g * gain:
///   gain_gradient[i] = sum_t g_t * h_t, bias_gradient[i] = sum_t g_t, dx = rstd (w - mean(w) - h mean(w h)),
/// the means over a group; their sums over positions are those of the parameter gradients.
template <class T>
struct GroupNormBackward {
  using Real = compute_t<T>;
  using Storage = Real;  // the widest array
  static constexpr index_t scratch_rows = 5;
  const T* input;            // [B, positions, channels]
  const T* gain;             // [channels]
  const T* output_gradient;  // [B, positions, channels]
  const Real* mean;          // [B, channels]
  const Real* rstd;          // [B, channels]
  Real* gain_gradient;       // [B, channels]
  Real* bias_gradient;       // [B, channels]
  double* gain_squares;      // [B], |gain_gradient[i]|^2
  double* bias_squares;      // [B]
  Real* scratch;             // [B, scratch_rows, fold, channels]
  T* input_gradient;         // [B, positions, channels], or null: not wanted
  index_t positions, channels, groups, fold;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t sample) const {
    const index_t begin = sample * positions * channels, first = sample * channels, size = channels / groups,
                  columns = fold * channels, rows = positions / fold;
    const T *x = input + begin, *gradient = output_gradient + begin;
    Real *mu = scratch + sample * scratch_rows * columns, *scale = mu + columns, *gains = scale + columns,
         *w_mean = gains + columns, *wh_mean = w_mean + columns;
    team.for_each(channels, [&](auto at) DPMP_LAMBDA {
      at.store(mu, at.load(mean + first));
      at.store(scale, at.load(rstd + first));
      at.store(gains, at.load(gain));
    });
    copy_folds(team, mu, fold, channels);
    copy_folds(team, scale, fold, channels);
    copy_folds(team, gains, fold, channels);
    team.for_each(columns, [&](auto at) DPMP_LAMBDA {
      typename Team::Pack gain_sum{}, bias_sum{};
      const auto m = at.load(mu), s = at.load(scale);
      for (index_t r = 0; r < rows; ++r) {
        const auto g = at.load(gradient + r * columns);
        gain_sum = gain_sum + g * ((at.load(x + r * columns) - m) * s);
        bias_sum = bias_sum + g;
      }
      at.store(wh_mean, gain_sum);
      at.store(w_mean, bias_sum);
    });
    sum_folds(team, wh_mean, fold, channels);
    sum_folds(team, w_mean, fold, channels);
    gain_squares[sample] = team.sum_of_squares(channels, [&](auto at) DPMP_LAMBDA { return at.load(wh_mean); });
    bias_squares[sample] = team.sum_of_squares(channels, [&](auto at) DPMP_LAMBDA { return at.load(w_mean); });
    team.for_each(channels, [&](auto at) DPMP_LAMBDA {
      const auto gain_sum = at.load(wh_mean), bias_sum = at.load(w_mean), g = at.load(gains);
      at.store(gain_gradient + first, gain_sum);
      at.store(bias_gradient + first, bias_sum);
      at.store(wh_mean, gain_sum * g);
      at.store(w_mean, bias_sum * g);
    });
    if (!input_gradient) return;
    const Real share = Real(1) / (Real(positions) * Real(size));
    const auto averaged = [&](Real sum) DPMP_LAMBDA { return sum * share; };
    spread_group_sums(team, w_mean, channels, size, averaged);
    spread_group_sums(team, wh_mean, channels, size, averaged);
    copy_folds(team, w_mean, fold, channels);
    copy_folds(team, wh_mean, fold, channels);
    team.for_each(columns, [&](auto at) DPMP_LAMBDA {
      const auto m = at.load(mu), s = at.load(scale), g = at.load(gains), w = at.load(w_mean), wh = at.load(wh_mean);
      for (index_t r = 0; r < rows; ++r) {
        const auto h = (at.load(x + r * columns) - m) * s;
        at.store(input_gradient + begin + r * columns, (at.load(gradient + r * columns) * g - w - h * wh) * s);
      }
    });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
