// SPDX-License-Identifier: Apache-2.0
// A residual and the norm after it in one pass: the rounded sum is on its way to memory when the norm needs it, so that
// nothing reads it back from there.
#pragma once
#include "dpmp/kernels/layer_norm.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// sum = round(x + branch), and the norm of its rows, whose input is `sum`. The norm sees the rounded sum and does what it
/// does alone, so that the bits are those of an addition and a norm apart.
template <class T, bool centred>
struct AddNormForward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* x;       // [rows, width]
  const T* branch;  // [rows, width]
  T* sum;           // [rows, width]
  LayerNormForward<T, centred> norm;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const index_t start = row * norm.width;
    norm.normalise(team, row, [&](auto at) DPMP_LAMBDA {
      const auto rounded = (at.load(x + start) + at.load(branch + start)).template rounded<T>();
      at.store(sum + start, rounded);
      return rounded;
    });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
