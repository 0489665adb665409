// SPDX-License-Identifier: Apache-2.0
// Rounding to bf16 at random, so that what is added in steps too small for 8 bits is not lost: a number between two stored
// ones goes up as often as it is near the upper one, and the mean of many roundings is the number.
#pragma once
#include "dpmp/core/low_precision.hpp"
#include "dpmp/core/philox.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// The multiple of x's 16-bit unit below x in magnitude, or the next one with the probability (x - below) / unit: exact, as
/// a half has 2^16 values and so many multiples of 2^-16 of the unit lie between the two. Never up to infinity; Inf and NaN
/// stay. half: of equal distribution in [0, 2^16).
DPMP_HD float stochastic_bf16(float x, std::uint32_t half) {
  const std::uint32_t u = dpmp::detail::bits_of(x), up = (u + half) & 0xffff0000u;
  if ((u & 0x7f800000u) == 0x7f800000u) return x;
  return dpmp::detail::float_of((up & 0x7f800000u) == 0x7f800000u ? u & 0xffff0000u : up);
}

/// Words for two values of each element of one parameter at one update: half 0 and half 1 of word e % 4 of the Philox block
/// of counter {e / 4, parameter, update low, update high}. Public numbers, for what was released already.
struct RoundingWords {
  std::uint64_t seed = 0;
  std::uint32_t parameter = 0;

  /// first, second <- rounded to bf16, for a span of FP32 elements whose offset is even on a GPU, else a multiple of 4.
  DPMP_ANY_TEAM
  template <class Span, class Pack>
  DPMP_HD void round(const Span& at, std::uint64_t update, Pack& first, Pack& second) const {
    constexpr int lanes = int(sizeof(Pack) / sizeof(float)), group = lanes < 4 ? lanes : 4;
    for (int k = 0; k < lanes; k += group) {
      const std::uint64_t element = std::uint64_t(at.offset + k);
      const PhiloxBlock block =
          philox4x32({{std::uint32_t(element / 4), parameter, std::uint32_t(update), std::uint32_t(update >> 32)}},
                     std::uint32_t(seed), std::uint32_t(seed >> 32));
      for (int j = 0; j < group; ++j) {
        const std::uint32_t word = block.word[(element + std::uint64_t(j)) % 4];
        first.v[k + j] = stochastic_bf16(first.v[k + j], word & 0xffffu);
        second.v[k + j] = stochastic_bf16(second.v[k + j], word >> 16);
      }
    }
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
