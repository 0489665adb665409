// SPDX-License-Identifier: Apache-2.0
// LAMB (You et al. 2020, arXiv 1904.00962, algorithm 2): the direction of Adam, its norm and that of the weights, and the
// weights moved by their ratio. Three kernels: the moments take the noised sum, the norms read the moments, and so does the
// move, which forms the direction again instead of storing it. All of it is computed from what was noised: post-processing.
#pragma once
#include <cmath>

#include "dpmp/kernels/optimiser_update.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2. The weights stay.
template <class Real_>
struct LambMoments {
  using Real = Real_;
  static constexpr bool keeps_weights = true;
  Real* first;
  Real* second;
  Real beta1, share1, beta2, share2;

  DPMP_ANY_TEAM
  template <class Span, class Pack>
  DPMP_HD void operator()(const Span& at, const Pack& sum, const UpdateNumbers& now) const {
    const Pack g = sum * Real(now.gradient_factor);
    at.store(first, at.load(first) * beta1 + g * share1);
    at.store(second, at.load(second) * beta2 + g * g * share2);
  }
};

/// What a parameter's weights move along: m first_correction / (sqrt(v) second_correction + epsilon) + decay w.
template <class Real_>
struct LambDirection {
  using Real = Real_;
  const Real* first;
  const Real* second;
  Real epsilon;
  Real decay_factor;  // 1 or 0: of this parameter

  DPMP_ANY_TEAM
  template <class Span, class Pack>
  DPMP_HD Pack operator()(const Span& at, const Pack& w, const UpdateNumbers& now) const {
    return at.load(first) * Real(now.first_correction) / (sqrt(at.load(second)) * Real(now.second_correction) + epsilon) +
           w * (Real(now.decay) * decay_factor);
  }
};

/// squares[row] = |w|^2 and squares[rows + row] = |direction|^2 of elements width row .. width row + width - 1, in double.
template <class Real_>
struct LambSquares {
  using Real = Real_;
  static constexpr index_t width = 4096;
  LambDirection<Real> direction;
  const Real* weight;  // [n]
  index_t n, rows;
  const UpdateNumbers* numbers;
  double* squares;  // [2, rows]

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const UpdateNumbers now = *numbers;
    const index_t begin = row * width, left = n - begin, count = left < width ? left : width;
    squares[row] = team.sum_of_squares(count, [&](auto at) DPMP_LAMBDA {
      at.offset += begin;
      return at.load(weight);
    });
    squares[rows + row] = team.sum_of_squares(count, [&](auto at) DPMP_LAMBDA {
      at.offset += begin;
      return direction(at, at.load(weight), now);
    });
  }
};

/// ratio[0] = |w| / |direction|, 1 where one of them is 0 or not a number. For a launch of one row.
struct LambTrustRatio {
  using Real = double;
  const double* squares;  // [2, rows]
  index_t rows;
  double* ratio;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t) const {
    const double w = team.sum(rows, [&](auto at) DPMP_LAMBDA { return at.load(squares); });
    const double u = team.sum(rows, [&](auto at) DPMP_LAMBDA { return at.load(squares + rows); });
    ratio[0] = w > 0 && u > 0 ? std::sqrt(w / u) : 1;
  }
};

/// w -= rate rate_factor ratio direction, and the copy of w in the compute dtype.
template <class Real_, class T>
struct LambMove {
  using Real = Real_;
  LambDirection<Real> direction;
  Real* weight;
  T* copy;  // not used where T is Real
  Real rate_factor;
  const UpdateNumbers* numbers;
  const double* ratio;

  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    const UpdateNumbers now = *numbers;
    const auto w = at.load(weight);
    const auto moved = w - direction(at, w, now) * Real(now.rate * double(rate_factor) * ratio[0]);
    at.store(weight, moved);
    if constexpr (!std::is_same_v<T, Real>) at.store(copy, moved);
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
