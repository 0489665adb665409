// SPDX-License-Identifier: Apache-2.0
// Normalisation of rows. Centred, layer norm (Ba, Kiros, Hinton 2016): y = (x - mean) rstd * gain + bias, rstd = 1 /
// sqrt(variance + epsilon). Otherwise RMS norm (Zhang, Sennrich 2019, arXiv 1910.07467), the same with a mean and a bias of
// 0: y = x rstd * gain, rstd = 1 / sqrt(mean(x^2) + epsilon). Statistics in compute precision with the biased variance; the
// backward needs only mean and rstd, so those are all that is kept.
#pragma once
#include <cmath>

#include "dpmp/core/low_precision.hpp"
#include "dpmp/kernels/token_slices.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
template <class T, bool centred>
struct LayerNormForward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;  // [rows, width]
  const T* gain;   // [width]
  const T* bias;   // [width]; centred only
  T* output;       // [rows, width]
  Real* mean;      // [rows]; centred only
  Real* rstd;      // [rows]
  index_t width;
  Real epsilon;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    normalise(team, row, [&](auto at) DPMP_LAMBDA { return at.load(input + row * width); });
  }
  /// first(at): the row's elements at `at`, for the first pass; the later ones read `input`, which first may write.
  DPMP_ANY_TEAM
  template <class Team, class First>
  DPMP_HD void normalise(const Team& team, index_t row, const First& first) const {
    const T* x = input + row * width;
    T* y = output + row * width;
    const Real n = Real(width);
    [[maybe_unused]] Real mu = 0;
    if constexpr (centred) mu = team.sum(width, first) / n;
    // Centred, a second pass over a row that is in cache: the one-pass E[x^2] - mu^2 cancels when |mu| is large.
    const Real variance = team.sum(width, [&](auto at) DPMP_LAMBDA {
      const auto d = centred ? at.load(x) - mu : first(at);
      return d * d;
    }) / n;
    const Real scale = Real(1) / std::sqrt(variance + epsilon);
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      if constexpr (centred)
        at.store(y, (at.load(x) - mu) * scale * at.load(gain) + at.load(bias));
      else
        at.store(y, at.load(x) * scale * at.load(gain));
    });
    if constexpr (centred) mean[row] = mu;
    rstd[row] = scale;
  }
};

/// One pass over x and the output gradient g for everything. With h = (x - mean) rstd and w = g * gain:
///   dx = rstd (w - mean(w) - h mean(w h)),   gain_gradient[i] = sum_t g_t * h_t,   bias_gradient[i] = sum_t g_t;
/// not centred, h = x rstd and dx = rstd (w - h mean(w h)).
/// One slice of a sample's tokens a row; see kernels/token_slices.hpp.
template <class T, bool centred>
struct LayerNormBackward {
  using Real = compute_t<T>;
  using Storage = Real;      // the widest arrays, the sums
  const T* input;            // [B, tokens, width]
  const T* gain;             // [width]
  const T* output_gradient;  // [B, tokens, width]
  const Real* mean;          // [B, tokens]; centred only
  const Real* rstd;          // [B, tokens]
  const T* other_gradient;   // [B, tokens, width] to be added to dx, or null: nothing; may be input_gradient
  T* input_gradient;         // [B, tokens, width], or null: not wanted
  Real* gain_gradient;       // [B, slices, width], or null: neither it nor bias_gradient is wanted
  Real* bias_gradient;       // [B, slices, width]; centred only
  double* gain_squares;      // [B], |gain_gradient[i]|^2, where a sample is one slice; else null
  double* bias_squares;      // [B]; centred only
  index_t tokens, width;
  TokenSlices slices;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const index_t end = slices.end(row, tokens), first = slices.sample(row) * tokens;
    index_t t = slices.begin(row);
    if (t >= end && gain_gradient)
      team.for_each(width, [&](auto at) DPMP_LAMBDA {
        at.store(gain_gradient + row * width, typename Team::Pack{});
        if constexpr (centred) at.store(bias_gradient + row * width, typename Team::Pack{});
      });
    // The sums are fetched and stored once for two tokens; with four a GPU runs out of registers.
    for (; t + 2 <= end; t += 2) add_tokens<2>(team, row, first + t, t == slices.begin(row));
    for (; t < end; ++t) add_tokens<1>(team, row, first + t, t == slices.begin(row));
    if (!gain_squares) return;
    gain_squares[row] =
        team.sum_of_squares(width, [&](auto at) DPMP_LAMBDA { return at.load(gain_gradient + row * width); });
    if constexpr (centred)
      bias_squares[row] =
          team.sum_of_squares(width, [&](auto at) DPMP_LAMBDA { return at.load(bias_gradient + row * width); });
  }

 private:
  template <int count, class Team>
  DPMP_HD void add_tokens(const Team& team, index_t row, index_t first, bool fresh) const {
    const T *x = input + first * width, *g = output_gradient + first * width;
    const Real* scale = rstd + first;
    const auto normalised = [&](const auto& at, int k) DPMP_LAMBDA {
      const auto xt = at.load(x + k * width);
      if constexpr (centred)
        return (xt - mean[first + k]) * scale[k];
      else
        return xt * scale[k];
    };
    Real wh_mean[std::size_t(count)] = {};
    [[maybe_unused]] Real w_mean[std::size_t(count)] = {};
    for (int k = 0; k < count; ++k)
      if (input_gradient) {
        const T* gt = g + k * width;
        if constexpr (centred)
          w_mean[k] = team.sum(width, [&](auto at) DPMP_LAMBDA { return at.load(gt) * at.load(gain); }) / Real(width);
        wh_mean[k] = team.sum(width, [&](auto at) DPMP_LAMBDA { return at.load(gt) * at.load(gain) * normalised(at, k); }) /
                     Real(width);
      }
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      typename Team::Pack gain_sum{};
      [[maybe_unused]] typename Team::Pack bias_sum{};
      if (gain_gradient && !fresh) {
        gain_sum = at.load(gain_gradient + row * width);
        if constexpr (centred) bias_sum = at.load(bias_gradient + row * width);
      }
      for (int k = 0; k < count; ++k) {
        const auto gt = at.load(g + k * width), h = normalised(at, k);
        gain_sum = gain_sum + gt * h;
        if constexpr (centred) bias_sum = bias_sum + gt;
        if (input_gradient) {
          auto w = gt * at.load(gain);
          if constexpr (centred) w = w - w_mean[k];
          auto dx = (w - h * wh_mean[k]) * scale[k];
          if (other_gradient) dx = dx + at.load(other_gradient + (first + k) * width);
          at.store(input_gradient + (first + k) * width, dx);
        }
      }
      if (gain_gradient) {
        at.store(gain_gradient + row * width, gain_sum);
        if constexpr (centred) at.store(bias_gradient + row * width, bias_sum);
      }
    });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
