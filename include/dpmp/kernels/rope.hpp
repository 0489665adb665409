// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding (Su et al. 2021, arXiv 2104.09864): column pairs of a head are turned by an angle that grows
// with the position, so that a product of a query and a key depends on the difference of their positions.
#pragma once
#include "dpmp/core/low_precision.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// Row = a token of a sample. In each of the first `heads` heads, columns k and k + half are the pair of angle k; columns
/// after the heads are copied. direction 1: turns by the angles; -1: back, which is the adjoint.
template <class T>
struct Rope {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;      // [B, tokens, columns]
  T* output;           // [B, tokens, columns]
  const Real* cosine;  // [tokens, half]
  const Real* sine;    // [tokens, half]
  index_t tokens, columns, heads, half;
  Real direction;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const Real* c = cosine + row % tokens * half;
    const Real* s = sine + row % tokens * half;
    const T* x = input + row * columns;
    T* y = output + row * columns;
    for (index_t head = 0; head < heads; ++head) {
      const T *first = x + head * 2 * half, *second = first + half;
      T *turned_first = y + head * 2 * half, *turned_second = turned_first + half;
      team.for_each(half, [&](auto at) DPMP_LAMBDA {
        const auto a = at.load(first), b = at.load(second), cos = at.load(c), sin = at.load(s) * direction;
        at.store(turned_first, a * cos - b * sin);
        at.store(turned_second, b * cos + a * sin);
      });
    }
    const index_t turned = heads * 2 * half;
    team.for_each(columns - turned, [&](auto at) DPMP_LAMBDA { at.store(y + turned, at.load(x + turned)); });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
