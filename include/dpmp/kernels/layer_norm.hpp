// SPDX-License-Identifier: Apache-2.0
// Layer normalisation of rows (Ba, Kiros, Hinton 2016): y = (x - mean) rstd * gain + bias, rstd = 1 / sqrt(variance +
// epsilon). Statistics in compute precision with the biased variance; the backward needs only mean and rstd, so those are
// all that is kept.
#pragma once
#include <cmath>

#include "dpmp/core/low_precision.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
template <class T>
struct LayerNormForward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;  // [rows, width]
  const T* gain;   // [width]
  const T* bias;   // [width]
  T* output;       // [rows, width]
  Real* mean;      // [rows]
  Real* rstd;      // [rows]
  index_t width;
  Real epsilon;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const T* x = input + row * width;
    T* y = output + row * width;
    const Real n = Real(width);
    const Real mu = team.sum(width, [&](auto at) DPMP_LAMBDA { return at.load(x); }) / n;
    // A second pass over a row that is in cache: the one-pass E[x^2] - mu^2 cancels when |mu| is large.
    const Real variance = team.sum(width, [&](auto at) DPMP_LAMBDA {
      const auto d = at.load(x) - mu;
      return d * d;
    }) / n;
    const Real scale = Real(1) / std::sqrt(variance + epsilon);
    team.for_each(width,
                  [&](auto at) DPMP_LAMBDA { at.store(y, (at.load(x) - mu) * scale * at.load(gain) + at.load(bias)); });
    mean[row] = mu;
    rstd[row] = scale;
  }
};

/// With h = (x - mean) rstd and w = g * gain: dx = rstd (w - mean(w) - h mean(w h)).
template <class T>
struct LayerNormBackwardInput {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;            // [rows, width]
  const T* gain;             // [width]
  const T* output_gradient;  // [rows, width]
  const Real* mean;          // [rows]
  const Real* rstd;          // [rows]
  T* input_gradient;         // [rows, width]
  index_t width;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const T* x = input + row * width;
    const T* g = output_gradient + row * width;
    T* dx = input_gradient + row * width;
    const Real mu = mean[row], scale = rstd[row], n = Real(width);
    const Real w_mean = team.sum(width, [&](auto at) DPMP_LAMBDA { return at.load(g) * at.load(gain); }) / n;
    const Real wh_mean =
        team.sum(width, [&](auto at) DPMP_LAMBDA { return at.load(g) * at.load(gain) * ((at.load(x) - mu) * scale); }) / n;
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      const auto h = (at.load(x) - mu) * scale;
      at.store(dx, (at.load(g) * at.load(gain) - w_mean - h * wh_mean) * scale);
    });
  }
};

/// Per-sample gradients of gain and bias: gain_gradient[i] = sum_t g_t * h_t, bias_gradient[i] = sum_t g_t. One sample a
/// row.
template <class T>
struct LayerNormBackwardParameters {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;            // [B, tokens, width]
  const T* output_gradient;  // [B, tokens, width]
  const Real* mean;          // [B, tokens]
  const Real* rstd;          // [B, tokens]
  Real* gain_gradient;       // [B, width]
  Real* bias_gradient;       // [B, width]
  index_t tokens, width;
  static constexpr bool columns_apart = true;
  DPMP_HD index_t columns() const { return width; }

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t sample) const {
    const T* x = input + sample * tokens * width;
    const T* g = output_gradient + sample * tokens * width;
    const Real* mu = mean + sample * tokens;
    const Real* scale = rstd + sample * tokens;
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      typename Team::Pack gain_sum{}, bias_sum{};
      for (index_t t = 0; t < tokens; ++t) {
        const auto gt = at.load(g + t * width);
        gain_sum = gain_sum + gt * ((at.load(x + t * width) - mu[t]) * scale[t]);
        bias_sum = bias_sum + gt;
      }
      at.store(gain_gradient + sample * width, gain_sum);
      at.store(bias_gradient + sample * width, bias_sum);
    });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
