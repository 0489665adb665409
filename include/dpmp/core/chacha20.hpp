// SPDX-License-Identifier: Apache-2.0
// The ChaCha20 block function: RFC 8439 section 2.3, and Bernstein's original layout with a 64-bit block counter and a
// 64-bit nonce. Everything random that the privacy guarantee rests on (noise, sampling) is its key stream.
#pragma once
#include <array>
#include <cstring>
#include <span>

#include "dpmp/core/config.hpp"

namespace dpmp::inline DPMP_ABI {
/// A 256-bit key as eight little-endian words.
struct Key256 {
  std::array<std::uint32_t, 8> words{};
  static Key256 from_bytes(std::span<const std::uint8_t, 32> bytes) {
    Key256 key;
    for (std::size_t k = 0; k < 32; ++k) key.words[k / 4] |= std::uint32_t(bytes[k]) << (8 * (k % 4));
    return key;
  }
  friend bool operator==(const Key256&, const Key256&) = default;
};

/// One block of key stream, as sixteen little-endian words.
using ChaChaBlock = std::array<std::uint32_t, 16>;

namespace detail {
// "expand 32-byte k"
inline constexpr std::uint32_t chacha_0 = 0x61707865u, chacha_1 = 0x3320646eu, chacha_2 = 0x79622d32u,
                               chacha_3 = 0x6b206574u;

// A macro, because one text serves a word (host and device) and a vector of words (which nvcc refuses in device functions).
#define DPMP_CHACHA_STEP(a, b, d, n) a = a + b, d = d ^ a, d = (d << n) | (d >> (32 - n))
#define DPMP_CHACHA_QUARTER(a, b, c, d) \
  DPMP_CHACHA_STEP(a, b, d, 16), DPMP_CHACHA_STEP(c, d, b, 12), DPMP_CHACHA_STEP(a, b, d, 8), DPMP_CHACHA_STEP(c, d, b, 7)
#define DPMP_CHACHA_20_ROUNDS(x) \
  for (int round = 0; round < 10; ++round) { \
    DPMP_CHACHA_QUARTER(x[0], x[4], x[8], x[12]); \
    DPMP_CHACHA_QUARTER(x[1], x[5], x[9], x[13]); \
    DPMP_CHACHA_QUARTER(x[2], x[6], x[10], x[14]); \
    DPMP_CHACHA_QUARTER(x[3], x[7], x[11], x[15]); \
    DPMP_CHACHA_QUARTER(x[0], x[5], x[10], x[15]); \
    DPMP_CHACHA_QUARTER(x[1], x[6], x[11], x[12]); \
    DPMP_CHACHA_QUARTER(x[2], x[7], x[8], x[13]); \
    DPMP_CHACHA_QUARTER(x[3], x[4], x[9], x[14]); \
  }

/// out[16] = block of the state {constant, key[8], tail[4]}.
DPMP_HD void chacha20_state_block(const std::uint32_t* key, const std::uint32_t* tail, std::uint32_t* out) {
  const std::uint32_t start[16] = {chacha_0, chacha_1, chacha_2, chacha_3, key[0],  key[1],  key[2],  key[3],
                                   key[4],   key[5],   key[6],   key[7],   tail[0], tail[1], tail[2], tail[3]};
  std::uint32_t x[16];
  for (int k = 0; k < 16; ++k) x[k] = start[k];
  DPMP_CHACHA_20_ROUNDS(x)
  for (int k = 0; k < 16; ++k) out[k] = x[k] + start[k];
}

// Apart from the function that uses it: GCC drops a vector_size that depends on the user's own template parameter.
template <int W>
struct ChaChaLanes {
  typedef std::uint32_t Word __attribute__((vector_size(4 * W)));
};
}  // namespace detail

/// RFC 8439: 32-bit block counter, 96-bit nonce.
inline ChaChaBlock chacha20_block_rfc8439(const Key256& key, std::uint32_t counter,
                                          const std::array<std::uint32_t, 3>& nonce) {
  const std::uint32_t tail[4] = {counter, nonce[0], nonce[1], nonce[2]};
  ChaChaBlock out;
  detail::chacha20_state_block(key.words.data(), tail, out.data());
  return out;
}

/// Bernstein's layout: 64-bit block counter, 64-bit nonce. The one that dpmp uses.
inline ChaChaBlock chacha20_block(const Key256& key, std::uint64_t counter, std::uint64_t nonce) {
  const std::uint32_t tail[4] = {std::uint32_t(counter), std::uint32_t(counter >> 32), std::uint32_t(nonce),
                                 std::uint32_t(nonce >> 32)};
  ChaChaBlock out;
  detail::chacha20_state_block(key.words.data(), tail, out.data());
  return out;
}

/// Blocks counter .. counter + W - 1 of chacha20_block, one a vector lane: word k of block counter + j is out[k W + j].
/// W: 4, 8 or 16, the 32-bit lanes of the instruction set it is inlined into.
template <int W>
DPMP_HOST void chacha20_lanes(const Key256& key, std::uint64_t counter, std::uint64_t nonce, std::uint32_t* out) {
  using Word = typename detail::ChaChaLanes<W>::Word;
  Word start[16], x[16];
  start[0] = Word{} + detail::chacha_0;
  start[1] = Word{} + detail::chacha_1;
  start[2] = Word{} + detail::chacha_2;
  start[3] = Word{} + detail::chacha_3;
  for (int k = 0; k < 8; ++k) start[4 + k] = Word{} + key.words[std::size_t(k)];
  std::uint32_t counter_low[std::size_t(W)], counter_high[std::size_t(W)];
  for (int lane = 0; lane < W; ++lane) {
    counter_low[lane] = std::uint32_t(counter + std::uint64_t(lane));
    counter_high[lane] = std::uint32_t((counter + std::uint64_t(lane)) >> 32);
  }
  memcpy(&start[12], counter_low, sizeof counter_low);
  memcpy(&start[13], counter_high, sizeof counter_high);
  start[14] = Word{} + std::uint32_t(nonce);
  start[15] = Word{} + std::uint32_t(nonce >> 32);
  for (int k = 0; k < 16; ++k) x[k] = start[k];
  DPMP_CHACHA_20_ROUNDS(x)
  for (int k = 0; k < 16; ++k) {
    x[k] = x[k] + start[k];
    memcpy(out + k * W, &x[k], sizeof x[k]);
  }
}

/// The same blocks one after the other: out [W, 16].
template <int W>
DPMP_HOST void chacha20_blocks(const Key256& key, std::uint64_t counter, std::uint64_t nonce, std::uint32_t* out) {
  alignas(64) std::uint32_t by_word[std::size_t(16 * W)];
  chacha20_lanes<W>(key, counter, nonce, by_word);
  for (int lane = 0; lane < W; ++lane)
    for (int k = 0; k < 16; ++k) out[lane * 16 + k] = by_word[k * W + lane];
}
#undef DPMP_CHACHA_20_ROUNDS
#undef DPMP_CHACHA_QUARTER
#undef DPMP_CHACHA_STEP
}  // namespace dpmp::inline DPMP_ABI
