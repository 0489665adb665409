// SPDX-License-Identifier: Apache-2.0
// A sample's tokens cut into slices, a team each: kernels that sum over tokens find work for a whole GPU, or all cores,
// where samples are few. The slices' sums meet in a second pass, in a fixed order.
#pragma once
#include "dpmp/core/low_precision.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// Rows of a launch: sample by sample, `count` slices of `length` tokens each, the last one shorter.
struct TokenSlices {
  index_t count, length;
  DPMP_HD index_t sample(index_t row) const { return row / count; }
  DPMP_HD index_t begin(index_t row) const { return row % count * length; }
  DPMP_HD index_t end(index_t row, index_t tokens) const {
    const index_t past = begin(row) + length;
    return past < tokens ? past : tokens;
  }
};

/// Slices as long as can be for at least `rows` of them, but of at least eight tokens: a slice's sums are written and read
/// once more, 16 bytes a column for f32, compared with the 6 bytes a column and token of a pass over two bf16 arrays into a
/// third.
inline TokenSlices token_slices(index_t samples, index_t tokens, index_t rows) {
  constexpr index_t shortest = 8;
  TokenSlices slices{1, tokens > 1 ? tokens : 1};
  while (slices.length > shortest && samples * slices.count < rows) {
    slices.length = (slices.length + 1) / 2;
    slices.count = (tokens + slices.length - 1) / slices.length;
  }
  return slices;
}

/// Slices of a length that follows from nothing else, so that a sample's sums have the same bits in batches of any size.
inline TokenSlices fixed_token_slices(index_t tokens) {
  constexpr index_t length = 256;
  return tokens <= length ? TokenSlices{1, tokens > 1 ? tokens : 1} : TokenSlices{(tokens + length - 1) / length, length};
}

/// output[i, :] = sum_s parts[i, s, :] and squares[i] = |output[i, :]|^2, of the rounded numbers; one sample a row.
template <class Real_, class Out = Real_>
struct JoinSlices {
  using Real = Real_;
  const Real* parts;  // [B, slices, width]
  Out* output;        // [B, width]
  double* squares;    // [B], or null: not wanted
  index_t slices, width;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t sample) const {
    const Real* part = parts + sample * slices * width;
    const double square = team.sum_of_squares(width, [&](auto at) DPMP_LAMBDA {
      typename Team::Pack sum{};
      for (index_t s = 0; s < slices; ++s) sum = sum + at.load(part + s * width);
      sum = sum.template rounded<Out>();
      at.store(output + sample * width, sum);
      return sum;
    });
    if (squares) squares[sample] = square;
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
