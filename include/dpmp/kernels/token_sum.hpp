// SPDX-License-Identifier: Apache-2.0
// Per-sample sums over tokens, accumulated in compute precision: the per-sample gradient of a bias.
#pragma once
#include "dpmp/core/low_precision.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// output[i, :] = sum_t input[i, t, :]; one sample a row. Chain length T (math: |error| <= T u sum_t |input|).
template <class T>
struct TokenSum {
  using Real = compute_t<T>;
  using Storage = Real;  // the widest array
  const T* input;  // [B, T, width]
  Real* output;    // [B, width]
  index_t tokens, width;
  static constexpr bool columns_apart = true;
  DPMP_HD index_t columns() const { return width; }

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t sample) const {
    const T* x = input + sample * tokens * width;
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      typename Team::Pack sum{};
      for (index_t t = 0; t < tokens; ++t) sum = sum + at.load(x + t * width);
      at.store(output + sample * width, sum);
    });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
