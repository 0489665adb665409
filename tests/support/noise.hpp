// SPDX-License-Identifier: Apache-2.0
// The noise worked out by hand: ChaCha20 blocks one at a time, Box and Muller's transform in long double, elements by loops.
#pragma once
#include <cmath>
#include <limits>
#include <vector>

#include "dpmp/core/chacha20.hpp"

namespace test {
struct NormalPair {
  long double length, cosine, sine;  // of length 1 times `length`
};
/// What dp::detail::box_muller makes of these bits.
inline NormalPair normal_pair(std::uint64_t radius_bits, std::uint64_t angle_bits) {
  // The uniform is rounded once to double: that is part of its law, not an error. Both summands are exact.
  const double u = (double(radius_bits >> 32) * 0x1p32 + (double(radius_bits & 0xffffffffu) + 0.5)) * 0x1p-64;
  const long double length = std::sqrt(-2 * std::log((long double)u));
  const long double position =
      (((long double)(angle_bits & (~std::uint64_t(0) >> 2)) + 0.5L) * 0x1p-62L - 0.5L) * 1.57079632679489661923L;
  const bool negative = (angle_bits >> 62) & 1, swap = angle_bits >> 63;
  const long double large = (negative ? -1 : 1) * length * std::cos(position), small = length * std::sin(position);
  return {length, swap ? small : large, swap ? large : small};
}

/// How far a drawn normal may be from this file's: 2^-48 of a length that is at most 9.5.
inline constexpr double normal_error = 0x1p-44;

/// z_0 .. z_{n-1} of a key and nonce. NaN where an element belongs to no block, or to two.
inline std::vector<double> normals_by_hand(const dpmp::Key256& key, std::uint64_t nonce, std::size_t n) {
  std::vector<double> z(n);
  std::vector<int> owners(n);
  const auto give = [&](std::size_t element, long double value) {
    if (element >= n) return;
    z[element] = double(value);
    ++owners[element];
  };
  for (std::size_t block = 0; block < (n + 127) / 128 * 16; ++block) {
    const dpmp::ChaChaBlock words = dpmp::chacha20_block(key, block, nonce);
    for (std::size_t pair = 0; pair < 4; ++pair) {
      const auto wide = [&](std::size_t k) { return words[2 * k] | std::uint64_t(words[2 * k + 1]) << 32; };
      const NormalPair normals = normal_pair(wide(pair), wide(4 + pair));
      const std::size_t element = 128 * (block / 16) + 32 * pair + 2 * (block % 16);
      give(element, normals.cosine);
      give(element + 1, normals.sine);
    }
  }
  for (std::size_t j = 0; j < n; ++j)
    if (owners[j] != 1) z[j] = std::numeric_limits<double>::quiet_NaN();
  return z;
}
}  // namespace test
