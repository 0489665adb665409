// SPDX-License-Identifier: Apache-2.0
// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
// For initialisation and dropout only: it is no cipher, so nothing that a guarantee rests on is drawn from it
// (chacha20.hpp).
#pragma once
#include <cmath>

#include "dpmp/core/config.hpp"

namespace dpmp::inline DPMP_ABI {
/// Four 32-bit random words.
struct PhiloxBlock {
  std::uint32_t word[4];
};

/// The block of a 128-bit counter (words 0..3) under a 64-bit key (words 0, 1): a pure function.
DPMP_HD PhiloxBlock philox4x32(PhiloxBlock counter, std::uint32_t key0, std::uint32_t key1) {
  std::uint32_t c0 = counter.word[0], c1 = counter.word[1], c2 = counter.word[2], c3 = counter.word[3];
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t(0xD2511F53u) * c0, p1 = std::uint64_t(0xCD9E8D57u) * c2;
    c0 = std::uint32_t(p1 >> 32) ^ c1 ^ key0;
    c1 = std::uint32_t(p1);
    c2 = std::uint32_t(p0 >> 32) ^ c3 ^ key1;
    c3 = std::uint32_t(p0);
    key0 += 0x9E3779B9u;  // the golden ratio, and sqrt(3) - 1
    key1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

/// Block `index` of stream `stream` under `seed`. Counter words: index (64 bits), stream (64 bits). Different (seed, stream,
/// index) never share a block; a caller gives each use (parameter, layer and step, sample) a stream of its own.
DPMP_HD PhiloxBlock philox_block(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  return philox4x32({{std::uint32_t(index), std::uint32_t(index >> 32), std::uint32_t(stream), std::uint32_t(stream >> 32)}},
                    std::uint32_t(seed), std::uint32_t(seed >> 32));
}

/// Uniform in the open interval (0, 1): the midpoints of 2^23 equal cells, each exact in FP32.
DPMP_HD float uniform_open(std::uint32_t word) { return (float(word >> 9) + 0.5f) * 0x1p-23f; }

/// Two independent standard normals in FP32.
struct NormalPair {
  float first, second;
};
/// Box and Muller's transform of two words; no value beyond 5.8 in magnitude, so never use it for privacy noise.
DPMP_HD NormalPair normal_pair(std::uint32_t radius_word, std::uint32_t angle_word) {
  const float radius = sqrtf(-2.0f * logf(uniform_open(radius_word))), angle = 6.28318531f * uniform_open(angle_word);
  return {radius * cosf(angle), radius * sinf(angle)};
}
}  // namespace dpmp::inline DPMP_ABI
