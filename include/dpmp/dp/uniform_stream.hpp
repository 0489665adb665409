// SPDX-License-Identifier: Apache-2.0
// Uniform integers in the order of a key stream, and uniformly random parts of lists. What is made of them is a pure
// function of (key, nonce).
#pragma once
#include <algorithm>
#include <vector>

#include "dpmp/core/secret_key.hpp"
#include "dpmp/runtime/launch.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// Reads the key stream of (key, nonce) from its start, 64 bits at a time.
class UniformStream {
 public:
  UniformStream(const Key256& key, std::uint64_t nonce);
  ~UniformStream();
  UniformStream(const UniformStream&) = delete;
  UniformStream& operator=(const UniformStream&) = delete;
  /// Uniform in [0, 2^64).
  std::uint64_t next();
  /// Exactly uniform in [0, n), n >= 1: values of the last, incomplete interval of n are drawn again.
  std::uint64_t below(std::uint64_t n);

 private:
  void refill();
  static constexpr std::size_t words = 128;
  SecretKey key_;
  std::uint64_t nonce_, block_ = 0;
  std::size_t used_ = words;
  std::uint64_t buffer_[words];
};

/// Calls keep(k), ascending, for a uniformly random subset of 0 .. size - 1 that has `wanted` elements, 0 <= wanted <= size:
/// element k is taken with probability (still wanted) / (still there). Every subset has the probability 1 / binomial(size,
/// wanted). Source: Knuth, The Art of Computer Programming, volume 2, section 3.4.2, algorithm S.
template <class Keep>
void for_random_subset(index_t size, index_t wanted, UniformStream& stream, Keep&& keep) {
  for (index_t k = 0; wanted > 0; ++k)
    if (stream.below(std::uint64_t(size - k)) < std::uint64_t(wanted)) {
      keep(k);
      --wanted;
    }
}
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
/// One row: the blocks `block` .. `block` + 15 as 128 numbers.
struct KeyStreamChunk {
  using Real = float;  // decides the instruction set only
  Key256 key;
  std::uint64_t nonce, block;
  std::uint64_t* out;

  template <int W>
  DPMP_HOST void operator()(HostTeam<float, W>, index_t) const {
    alignas(64) std::uint32_t bits[256];
    for (int g = 0; g < 16; g += W) chacha20_blocks<W>(key, block + std::uint64_t(g), nonce, bits + g * 16);
    for (int k = 0; k < 128; ++k) out[k] = (std::uint64_t(bits[2 * k + 1]) << 32) | bits[2 * k];
  }
};
}  // namespace detail

DPMP_KEPT_BODY inline UniformStream::UniformStream(const Key256& key, std::uint64_t nonce) : key_(key), nonce_(nonce) {}
DPMP_KEPT_BODY inline UniformStream::~UniformStream() { wipe(buffer_, sizeof buffer_); }

DPMP_KEPT_BODY inline void UniformStream::refill() {
  run_library_rows(0, 1, detail::KeyStreamChunk{key_, nonce_, block_, buffer_});
  block_ += words / 8;
  used_ = 0;
}

DPMP_KEPT_BODY inline std::uint64_t UniformStream::next() {
  if (used_ == words) refill();
  return buffer_[used_++];
}

DPMP_KEPT_BODY inline std::uint64_t UniformStream::below(std::uint64_t n) {
  DPMP_CHECK(n >= 1, "expected an interval of at least one number, got none");
  const std::uint64_t incomplete = (0 - n) % n;  // 2^64 mod n
  for (;;)
    if (const std::uint64_t x = next(); x >= incomplete) return x % n;
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
