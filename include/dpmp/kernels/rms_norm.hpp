// SPDX-License-Identifier: Apache-2.0
// Root-mean-square normalisation of rows (Zhang, Sennrich 2019, arXiv 1910.07467): y = x rstd * gain, rstd = 1 /
// sqrt(mean(x^2)
// + epsilon). No mean is taken off and there is no bias. Statistics in compute precision; the backward needs only rstd.
#pragma once
#include <cmath>

#include "dpmp/core/low_precision.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
template <class T>
struct RmsNormForward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;  // [rows, width]
  const T* gain;   // [width]
  T* output;       // [rows, width]
  Real* rstd;      // [rows]
  index_t width;
  Real epsilon;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const T* x = input + row * width;
    T* y = output + row * width;
    const Real mean_square = team.sum(width, [&](auto at) DPMP_LAMBDA { return at.load(x) * at.load(x); }) / Real(width);
    const Real scale = Real(1) / std::sqrt(mean_square + epsilon);
    team.for_each(width, [&](auto at) DPMP_LAMBDA { at.store(y, at.load(x) * scale * at.load(gain)); });
    rstd[row] = scale;
  }
};

/// With h = x rstd and w = g * gain: dx = rstd (w - h mean(w h)).
template <class T>
struct RmsNormBackwardInput {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;            // [rows, width]
  const T* gain;             // [width]
  const T* output_gradient;  // [rows, width]
  const Real* rstd;          // [rows]
  T* input_gradient;         // [rows, width]
  index_t width;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const T* x = input + row * width;
    const T* g = output_gradient + row * width;
    T* dx = input_gradient + row * width;
    const Real scale = rstd[row];
    const Real wh_mean = team.sum(width, [&](auto at) DPMP_LAMBDA {
      return at.load(g) * at.load(gain) * (at.load(x) * scale);
    }) / Real(width);
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      at.store(dx, (at.load(g) * at.load(gain) - at.load(x) * scale * wh_mean) * scale);
    });
  }
};

/// Per-sample gradient of the gain: gain_gradient[i] = sum_t g_t * h_t. One sample a row.
template <class T>
struct RmsNormBackwardGain {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;            // [B, tokens, width]
  const T* output_gradient;  // [B, tokens, width]
  const Real* rstd;          // [B, tokens]
  Real* gain_gradient;       // [B, width]
  index_t tokens, width;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t sample) const {
    const T* x = input + sample * tokens * width;
    const T* g = output_gradient + sample * tokens * width;
    const Real* scale = rstd + sample * tokens;
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      typename Team::Pack sum{};
      for (index_t t = 0; t < tokens; ++t) sum = sum + at.load(g + t * width) * (at.load(x + t * width) * scale[t]);
      at.store(gain_gradient + sample * width, sum);
    });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
