// SPDX-License-Identifier: Apache-2.0
// Cross-entropy of rows of logits against a target class, loss = log sum_v exp(x_v) - x_target, in compute precision.
// Adding the largest logit to the log of the sum would round both to the logit's place: with e_v = exp(x_v - top) they stay
// apart, loss = (top - x_target) + log1p(sum_{v != target} e_v + (e_target - 1)), which is exact to a few units in the last
// place for logits of any size, for a loss near 0 too.
#pragma once
#include <cmath>

#include "dpmp/core/low_precision.hpp"
#include "dpmp/runtime/math.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// What the backward pass needs of each row: p_v = exp(x_v - top) * scale, and 1 - p_target, which cancels when it is formed
/// from p_target.
template <class Real>
struct CrossEntropyRows {
  Real* top;      // [rows], the largest logit
  Real* scale;    // [rows], 1 / sum exp(x - top)
  Real* missing;  // [rows], 1 - p_target
};

/// Per row: the loss (0 for an ignored row). A row is ignored when its target is `ignore`; a target that is no class makes
/// the loss, and the row's gradient, NaN. The sum over the classes is in double.
template <class T>
struct CrossEntropyForward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* logits;              // [rows, classes]
  const std::int32_t* targets;  // [rows]
  Real* loss;                   // [rows]
  CrossEntropyRows<Real> rows;
  index_t classes;
  std::int32_t ignore;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    using Pack = typename Team::Pack;
    const T* x = logits + row * classes;
    const index_t target = targets[row];
    const bool inside = target >= 0 && target < classes;
    const Real top = team.max(classes, std::numeric_limits<Real>::lowest(), [&](auto at) DPMP_LAMBDA { return at.load(x); });
    const double others =
        team.wide_sum(classes, [&](auto at) DPMP_LAMBDA { return at.select_column(target, Pack{}, exp(at.load(x) - top)); });
    const Real picked = inside ? Real(to_float(x[target])) : std::numeric_limits<Real>::quiet_NaN();
    const double chosen = double(std::exp(picked - top)), sum = others + chosen;
    loss[row] = target == ignore ? Real(0) : (top - picked) + std::log1p(Real(others + (chosen - 1)));
    rows.top[row] = top;
    rows.scale[row] = Real(1 / sum);
    rows.missing[row] = Real(others / sum);
  }
};

/// losses[i] = factor * sum of the sample's row losses, in double and rounded once. One sample a row.
template <class Real_>
struct SampleSum {
  using Real = Real_;
  const Real* rows;  // [B, tokens]
  Real* losses;      // [B]
  index_t tokens;
  double factor;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t sample) const {
    losses[sample] =
        Real(factor * team.wide_sum(tokens, [&](auto at) DPMP_LAMBDA { return at.load(rows + sample * tokens); }));
  }
};

/// logits_gradient = weight_i * factor * (softmax - one_hot(target)), zero rows for ignored targets by select: whatever
/// their logits hold, NaN too.
template <class T>
struct CrossEntropyBackward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* logits;              // [B, tokens, classes]
  const std::int32_t* targets;  // [B, tokens]
  CrossEntropyRows<const Real> rows;
  const Real* weights;  // [B], gradient of the losses
  T* logits_gradient;   // [B, tokens, classes]; may be logits
  index_t tokens, classes;
  std::int32_t ignore;
  Real factor;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    using Pack = typename Team::Pack;
    const T* x = logits + row * classes;
    const index_t target = targets[row];
    // Of a target that is no class, scale and missing are NaN.
    const Real top = rows.top[row], weight = weights[row / tokens] * factor, scale = rows.scale[row] * weight;
    const Pack at_target = Pack::splat(-rows.missing[row] * weight),
               kept = Pack::splat(target == ignore ? Real(0) : Real(1));
    team.for_each(classes, [&](auto at) DPMP_LAMBDA {
      const Pack g = at.select_column(target, at_target, exp(at.load(x) - top) * scale);
      at.store(logits_gradient + row * classes, select_less(Pack{}, kept, g, Pack{}));
    });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
