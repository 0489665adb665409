// SPDX-License-Identifier: Apache-2.0
// The row kernels of attention: masking of padding tokens, softmax of scores under a causal and a padding mask, its
// backward.
#pragma once
#include <limits>

#include "dpmp/core/low_precision.hpp"
#include "dpmp/runtime/math.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// Rows of padding tokens become 0, by select: whatever they held (NaN too), 0 * NaN cannot happen later.
template <class T>
struct KeepRows {
  using Real = compute_t<T>;
  using Storage = T;
  T* x;              // [tokens, width], in place
  const Real* keep;  // [tokens], 1 or 0 (padding)
  index_t width;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t token) const {
    using Pack = typename Team::Pack;
    const Pack wanted = Pack::splat(keep[token]);
    T* row = x + token * width;
    team.for_each(width, [&](auto at) DPMP_LAMBDA { at.store(row, select_less(Pack{}, wanted, at.load(row), Pack{})); });
  }
};

/// probabilities[t, :] = softmax of the visible scores[t, :]; 0 where not visible, all 0 when no key is visible or the query
/// is padding. Row t = query t.
template <class T>
struct MaskedSoftmaxForward {
  using Real = compute_t<T>;
  static constexpr bool wide = true;
  using Storage = T;
  const Real* scores;   // [tokens, tokens]
  const Real* keep;     // [tokens], 1: the key may be attended to, 0: padding; null: all may
  Real* probabilities;  // [tokens, tokens], may be scores
  T* rounded;           // [tokens, tokens], the same in storage precision; null: not wanted
  index_t tokens;
  bool causal;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t query) const {
    using Pack = typename Team::Pack;
    const Real* s = scores + query * tokens;
    Real* p = probabilities + query * tokens;
    const index_t visible = causal ? query + 1 : tokens;
    const Pack hidden = Pack::splat(std::numeric_limits<Real>::lowest());
    auto score = [&](auto at)
                     DPMP_LAMBDA { return keep ? select_less(Pack{}, at.load(keep), at.load(s), hidden) : at.load(s); };
    const Real top = team.max(visible, std::numeric_limits<Real>::lowest(), score);
    auto weight = [&](auto at) DPMP_LAMBDA {
      const Pack e = exp(score(at) - top);
      return keep ? select_less(Pack{}, at.load(keep), e, Pack{}) : e;
    };
    team.for_each(visible, [&](auto at) DPMP_LAMBDA { at.store(p, weight(at)); });
    const Real total = team.sum(visible, [&](auto at) DPMP_LAMBDA { return at.load(p); });
    const Real factor = total == Real(0) || (keep && keep[query] == Real(0)) ? Real(0) : Real(1) / total;
    team.for_each(visible, [&](auto at) DPMP_LAMBDA { at.store(p, at.load(p) * factor); });
    team.for_each(tokens - visible, [&](auto at) DPMP_LAMBDA { at.store(p + visible, Pack{}); });
    if (rounded) team.for_each(tokens, [&](auto at) DPMP_LAMBDA { at.store(rounded + query * tokens, at.load(p)); });
  }
};

/// scores_gradient = factor * p * (g - sum_s p_s g_s), rounded to storage. Row t = query t.
template <class T>
struct MaskedSoftmaxBackward {
  using Real = compute_t<T>;
  using Storage = T;
  const Real* probabilities;           // [tokens, tokens]
  const Real* probabilities_gradient;  // [tokens, tokens]
  T* scores_gradient;                  // [tokens, tokens]
  index_t tokens;
  Real factor;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t query) const {
    const Real* p = probabilities + query * tokens;
    const Real* g = probabilities_gradient + query * tokens;
    const Real mean = team.sum(tokens, [&](auto at) DPMP_LAMBDA { return at.load(p) * at.load(g); });
    team.for_each(tokens, [&](auto at) DPMP_LAMBDA {
      at.store(scores_gradient + query * tokens, (at.load(g) - mean) * at.load(p) * factor);
    });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
