// SPDX-License-Identifier: Apache-2.0
// Attention of new tokens to keys and values that are kept: what stands around its two matrix products.
#pragma once
#include <limits>

#include "dpmp/core/low_precision.hpp"
#include "dpmp/runtime/math.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// Row = a new token of a sample, whose position is the number of tokens that the sample had and its own number. Writes its
/// queries by head and its keys and values into the cache, queries and keys turned by the position as kernels::Rope does.
/// A token for which there is no room is padding (KeyValueCache::begin sees to it), and its keys and values go nowhere.
/// Lengths are public.
template <class T>
struct CacheTokens {
  using Real = compute_t<T>;
  using Storage = T;
  const T* qkv;                 // [B, tokens, heads + 2 key_heads, width]
  T* queries;                   // [B, heads, tokens, width]
  T* keys;                      // [B, key_heads, capacity, width]
  T* values;                    // [B, key_heads, capacity, width]
  const std::int32_t* lengths;  // [B]
  const Real* cosine;           // [capacity, width / 2]; null: nothing is turned
  const Real* sine;             // [capacity, width / 2]
  index_t tokens, heads, key_heads, width, capacity;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const index_t sample = row / tokens, token = row % tokens, position = lengths[sample] + token;
    const bool fits = position < capacity;
    const index_t angles = fits ? position : capacity - 1;
    const T* x = qkv + row * (heads + 2 * key_heads) * width;
    for (index_t head = 0; head < heads; ++head)
      turn(team, x + head * width, queries + ((sample * heads + head) * tokens + token) * width, angles);
    if (!fits) return;
    for (index_t head = 0; head < key_heads; ++head) {
      const index_t place = ((sample * key_heads + head) * capacity + position) * width;
      turn(team, x + (heads + head) * width, keys + place, angles);
      const T* value = x + (heads + key_heads + head) * width;
      team.for_each(width, [&](auto at) DPMP_LAMBDA { at.store(values + place, at.load(value)); });
    }
  }

 private:
  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void turn(const Team& team, const T* from, T* to, index_t angles) const {
    if (!cosine) {
      team.for_each(width, [&](auto at) DPMP_LAMBDA { at.store(to, at.load(from)); });
      return;
    }
    const index_t half = width / 2;
    const Real *c = cosine + angles * half, *s = sine + angles * half;
    team.for_each(half, [&](auto at) DPMP_LAMBDA {
      const auto a = at.load(from), b = at.load(from + half), cos = at.load(c), sin = at.load(s);
      at.store(to, a * cos - b * sin);
      at.store(to + half, b * cos + a * sin);
    });
  }
};

/// Row = (sample, head, new token): softmax of scale times the scores of the keys that the token sees, which are those of
/// its sample's earlier tokens and its own; 0 for the others.
template <class T>
struct CachedSoftmax {
  using Real = compute_t<T>;
  static constexpr bool wide = true;
  using Storage = T;
  Real* scores;                 // [B, heads, tokens, keys], overwritten
  T* probabilities;             // [B, heads, tokens, keys]
  const std::int32_t* lengths;  // [B]
  index_t heads, tokens, keys;
  Real scale;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    using Pack = typename Team::Pack;
    Real* s = scores + row * keys;
    T* p = probabilities + row * keys;
    const index_t seen = lengths[row / tokens / heads] + row % tokens + 1, visible = seen < keys ? seen : keys;
    const Real top = team.max(visible, std::numeric_limits<Real>::lowest(), [&](auto at) DPMP_LAMBDA { return at.load(s); });
    team.for_each(visible, [&](auto at) DPMP_LAMBDA { at.store(s, exp((at.load(s) - top) * scale)); });
    const Real factor = Real(1) / team.sum(visible, [&](auto at) DPMP_LAMBDA { return at.load(s); });
    team.for_each(visible, [&](auto at) DPMP_LAMBDA { at.store(p, at.load(s) * factor); });
    team.for_each(keys - visible, [&](auto at) DPMP_LAMBDA { at.store(p + visible, Pack{}); });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
