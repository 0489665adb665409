// SPDX-License-Identifier: Apache-2.0
// Per-sample mean of squared differences, and its gradient. One sample a row.
#pragma once
#include "dpmp/core/low_precision.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// loss[i] = factor * sum_k (prediction[i, k] - target[i, k])^2, the sum in double, rounded once.
template <class T>
struct SquaredErrorForward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* prediction;  // [B, width]
  const Real* target;   // [B, width]
  Real* loss;           // [B]
  index_t width;
  double factor;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t sample) const {
    const T* x = prediction + sample * width;
    const Real* t = target + sample * width;
    loss[sample] = Real(factor * team.sum_of_squares(width, [&](auto at) DPMP_LAMBDA { return at.load(x) - at.load(t); }));
  }
};

/// prediction_gradient[i, k] = 2 * factor * loss_gradient[i] * (prediction[i, k] - target[i, k]).
template <class T>
struct SquaredErrorBackward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* prediction;        // [B, width]
  const Real* target;         // [B, width]
  const Real* loss_gradient;  // [B]
  T* prediction_gradient;     // [B, width]
  index_t width;
  Real factor;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t sample) const {
    const index_t begin = sample * width;
    const Real scale = Real(2) * factor * loss_gradient[sample];
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      at.store(prediction_gradient + begin, (at.load(prediction + begin) - at.load(target + begin)) * scale);
    });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
