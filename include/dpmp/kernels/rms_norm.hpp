// SPDX-License-Identifier: Apache-2.0
// Root-mean-square normalisation of rows (Zhang, Sennrich 2019, arXiv 1910.07467): y = x rstd * gain, rstd = 1 /
// sqrt(mean(x^2)
// + epsilon). No mean is taken off and there is no bias. Statistics in compute precision; the backward needs only rstd.
#pragma once
#include <cmath>

#include "dpmp/core/low_precision.hpp"
#include "dpmp/kernels/token_slices.hpp"

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
    normalise(team, row, [&](auto at) DPMP_LAMBDA { return at.load(input + row * width); });
  }
  /// first(at): the row's elements at `at`, for the first pass; the later one reads `input`, which first may write.
  DPMP_ANY_TEAM
  template <class Team, class First>
  DPMP_HD void normalise(const Team& team, index_t row, const First& first) const {
    const T* x = input + row * width;
    T* y = output + row * width;
    const Real mean_square = team.sum(width, [&](auto at) DPMP_LAMBDA {
      const auto element = first(at);
      return element * element;
    }) / Real(width);
    const Real scale = Real(1) / std::sqrt(mean_square + epsilon);
    team.for_each(width, [&](auto at) DPMP_LAMBDA { at.store(y, at.load(x) * scale * at.load(gain)); });
    rstd[row] = scale;
  }
};

/// One pass over x and the output gradient g for everything. With h = x rstd and w = g * gain:
///   dx = rstd (w - h mean(w h)),   gain_gradient[i] = sum_t g_t * h_t.
/// One slice of a sample's tokens a row; see kernels/token_slices.hpp.
template <class T>
struct RmsNormBackward {
  using Real = compute_t<T>;
  using Storage = Real;      // the widest arrays, the sums
  const T* input;            // [B, tokens, width]
  const T* gain;             // [width]
  const T* output_gradient;  // [B, tokens, width]
  const Real* rstd;          // [B, tokens]
  const T* other_gradient;   // [B, tokens, width] to be added to dx, or null: nothing; may be input_gradient
  T* input_gradient;         // [B, tokens, width], or null: not wanted
  Real* gain_gradient;       // [B, slices, width], or null: not wanted
  double* gain_squares;      // [B], |gain_gradient[i]|^2, where a sample is one slice; else null
  index_t tokens, width;
  TokenSlices slices;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const index_t end = slices.end(row, tokens), first = slices.sample(row) * tokens;
    index_t t = slices.begin(row);
    if (t >= end && gain_gradient) add_tokens<0>(team, row, first, true);
    // The sums are fetched and stored once for two tokens; with four a GPU runs out of registers.
    for (; t + 2 <= end; t += 2) add_tokens<2>(team, row, first + t, t == slices.begin(row));
    for (; t < end; ++t) add_tokens<1>(team, row, first + t, t == slices.begin(row));
    if (!gain_squares) return;
    gain_squares[row] =
        team.sum_of_squares(width, [&](auto at) DPMP_LAMBDA { return at.load(gain_gradient + row * width); });
  }

 private:
  template <int count, class Team>
  DPMP_HD void add_tokens(const Team& team, index_t row, index_t first, bool fresh) const {
    const T *x = input + first * width, *g = output_gradient + first * width;
    const Real* scale = rstd + first;
    Real wh_mean[std::size_t(count + 1)] = {};  // no array is empty
    for (int k = 0; k < count; ++k)
      if (input_gradient) {
        const T *xt = x + k * width, *gt = g + k * width;
        wh_mean[k] = team.sum(width, [&](auto at) DPMP_LAMBDA {
          return at.load(gt) * at.load(gain) * (at.load(xt) * scale[k]);
        }) / Real(width);
      }
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      typename Team::Pack sum{};
      if (gain_gradient && !fresh) sum = at.load(gain_gradient + row * width);
      for (int k = 0; k < count; ++k) {
        const auto gt = at.load(g + k * width), h = at.load(x + k * width) * scale[k];
        sum = sum + gt * h;
        if (input_gradient) {
          auto dx = (gt * at.load(gain) - h * wh_mean[k]) * scale[k];
          if (other_gradient) dx = dx + at.load(other_gradient + (first + k) * width);
          at.store(input_gradient + (first + k) * width, dx);
        }
      }
      if (gain_gradient) at.store(gain_gradient + row * width, sum);
    });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
