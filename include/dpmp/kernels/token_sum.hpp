// SPDX-License-Identifier: Apache-2.0
// Per-sample sums over tokens, accumulated in compute precision: the per-sample gradient of a bias.
#pragma once
#include "dpmp/kernels/token_slices.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// output[i, s, :] = sum of input[i, t, :] over the tokens t of slice s; one slice a row. squares[i] = |output[i]|^2 where a
/// sample is one slice. Chain length T (math: |error| <= T u sum_t |input|).
template <class T>
struct TokenSum {
  using Real = compute_t<T>;
  using Storage = Real;  // the wider array
  const T* input;        // [B, tokens, width]
  Real* output;          // [B, slices, width]
  double* squares;       // [B], or null: not wanted
  index_t tokens, width, token_stride, sample_stride;
  TokenSlices slices;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const T* x = input + slices.sample(row) * sample_stride;
    const index_t begin = slices.begin(row), end = slices.end(row, tokens);
    const double square = team.sum_of_squares(width, [&](auto at) DPMP_LAMBDA {
      typename Team::Pack sum{};
      for (index_t t = begin; t < end; ++t) sum = sum + at.load(x + t * token_stride);
      at.store(output + row * width, sum);
      return sum;
    });
    if (squares) squares[row] = square;
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
