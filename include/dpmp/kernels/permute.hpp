// SPDX-License-Identifier: Apache-2.0
// Moving elements without arithmetic: blocks of rows (split, concat) and two swapped axes (transpose).
#pragma once
#include "dpmp/core/low_precision.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// output[r * output_stride + k] = input[r * input_stride + k], 0 <= k < width.
template <class T>
struct CopyRows {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;
  T* output;
  index_t input_stride, output_stride, width;
  static constexpr bool columns_apart = true;
  DPMP_HD index_t columns() const { return width; }

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const T* x = input + row * input_stride;
    T* y = output + row * output_stride;
    team.for_each(width, [&](auto at) DPMP_LAMBDA { at.store(y, at.load(x)); });
  }
};

/// output[o, j, m, i, :] = input[o, i, m, j, :] for an input [outer, rows, middle, columns, inner]; one (o, j, m) a row.
template <class T>
struct SwapAxes {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;
  T* output;
  index_t rows, middle, columns, inner;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const index_t m = row % middle, j = row / middle % columns, o = row / middle / columns;
    const index_t stride = middle * columns * inner;  // from i to i + 1
    const T* x = input + o * rows * stride + (m * columns + j) * inner;
    T* y = output + row * rows * inner;
    if (inner > 1) {
      for (index_t i = 0; i < rows; ++i)
        team.for_each(inner, [&](auto at) DPMP_LAMBDA { at.store(y + i * inner, at.load(x + i * stride)); });
    } else {
      team.for_each(rows, [&](auto at) DPMP_LAMBDA {
        typename Team::Pack gathered;
        for (int k = 0; k < int(sizeof(gathered) / sizeof(Real)); ++k) {
          const index_t i = at.offset + k;  // lanes past the end read the last element again; they are not stored
          gathered.v[k] = to_float(x[(i < rows ? i : rows - 1) * stride]);
        }
        at.store(y, gathered);
      });
    }
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
