// SPDX-License-Identifier: Apache-2.0
// Cross-entropy of rows of logits against a target class: loss = log sum_v exp(x_v) - x_target, in compute precision.
#pragma once
#include <cmath>

#include "dpmp/core/low_precision.hpp"
#include "dpmp/runtime/math.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// Per row: the loss (0 for an ignored row) and log sum exp. A row is ignored when its target is `ignore`; a target that is
/// no class makes the loss, and the row's gradient, NaN.
template <class T>
struct CrossEntropyForward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* logits;              // [rows, classes]
  const std::int32_t* targets;  // [rows]
  Real* loss;                   // [rows]
  Real* log_sum_exp;            // [rows]
  index_t classes;
  std::int32_t ignore;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const T* x = logits + row * classes;
    const Real top = team.max(classes, std::numeric_limits<Real>::lowest(), [&](auto at) DPMP_LAMBDA { return at.load(x); });
    const Real lse = top + std::log(team.sum(classes, [&](auto at) DPMP_LAMBDA { return exp(at.load(x) - top); }));
    const bool ignored = targets[row] == ignore;
    const bool inside = targets[row] >= 0 && targets[row] < classes;
    const Real picked = inside ? Real(to_float(x[targets[row]])) : std::numeric_limits<Real>::quiet_NaN();
    loss[row] = ignored ? Real(0) : lse - picked;
    log_sum_exp[row] = lse;
  }
};

/// losses[i] = factor * sum of the sample's row losses. One sample a row.
template <class Real_>
struct SampleSum {
  using Real = Real_;
  const Real* rows;  // [B, tokens]
  Real* losses;      // [B]
  index_t tokens;
  Real factor;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t sample) const {
    losses[sample] = factor * team.sum(tokens, [&](auto at) DPMP_LAMBDA { return at.load(rows + sample * tokens); });
  }
};

/// logits_gradient = weight_i * factor * (softmax - one_hot(target)), zero rows for ignored targets by select.
template <class T>
struct CrossEntropyBackward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* logits;              // [B, tokens, classes]
  const std::int32_t* targets;  // [B, tokens]
  const Real* log_sum_exp;      // [B, tokens]
  const Real* weights;          // [B], gradient of the losses
  T* logits_gradient;           // [B, tokens, classes]; may be logits
  index_t tokens, classes;
  std::int32_t ignore;
  Real factor;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const T* x = logits + row * classes;
    const index_t target = targets[row];
    const Real legal = target >= 0 && target < classes ? factor : std::numeric_limits<Real>::quiet_NaN();
    const Real lse = log_sum_exp[row], weight = target == ignore ? Real(0) : weights[row / tokens] * legal;
    team.for_each(classes, [&](auto at) DPMP_LAMBDA {
      const auto p = exp(at.load(x) - lse);
      at.store(logits_gradient + row * classes, at.select_column(target, p - Real(1), p) * weight);
    });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
