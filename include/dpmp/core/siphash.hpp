// SPDX-License-Identifier: Apache-2.0
// SipHash-2-4: a keyed 64-bit hash of bytes. Aumasson, Bernstein, "SipHash: a fast short-input PRF" (2012).
#pragma once
#include <cstddef>
#include <span>

#include "dpmp/core/config.hpp"

namespace dpmp::inline DPMP_ABI {
/// The hash of `bytes` under the 128-bit key (key0: its first eight bytes, little-endian). Without the key nobody can tell
/// which inputs share a value.
inline std::uint64_t siphash24(std::uint64_t key0, std::uint64_t key1, std::span<const std::byte> bytes) {
  std::uint64_t a = key0 ^ 0x736f6d6570736575u, b = key1 ^ 0x646f72616e646f6du, c = key0 ^ 0x6c7967656e657261u,
                d = key1 ^ 0x7465646279746573u;
  const auto rotated = [](std::uint64_t x, int by) { return (x << by) | (x >> (64 - by)); };
  const auto rounds = [&](int count) {
    for (int k = 0; k < count; ++k) {
      a += b, b = rotated(b, 13) ^ a, a = rotated(a, 32);
      c += d, d = rotated(d, 16) ^ c;
      a += d, d = rotated(d, 21) ^ a;
      c += b, b = rotated(b, 17) ^ c, c = rotated(c, 32);
    }
  };
  const auto absorb = [&](std::uint64_t word) {
    d ^= word;
    rounds(2);
    a ^= word;
  };
  const std::size_t whole = bytes.size() / 8 * 8;
  const auto word_at = [&](std::size_t first, std::size_t count) {
    std::uint64_t word = 0;
    for (std::size_t k = 0; k < count; ++k) word |= std::uint64_t(bytes[first + k]) << (8 * k);
    return word;
  };
  for (std::size_t k = 0; k < whole; k += 8) absorb(word_at(k, 8));
  absorb(word_at(whole, bytes.size() - whole) | std::uint64_t(bytes.size()) << 56);
  c ^= 0xff;
  rounds(4);
  return a ^ b ^ c ^ d;
}
}  // namespace dpmp::inline DPMP_ABI
