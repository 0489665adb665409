// SPDX-License-Identifier: Apache-2.0
// XXH64: a fast 64-bit hash of bytes that come piece by piece, for finding damage, not malice: whoever changes a file can
// change its hash. Collet, xxHash, github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md ("xxhsum -H1" computes the same).
#pragma once
#include <bit>
#include <cstddef>
#include <cstring>

#include "dpmp/core/config.hpp"

namespace dpmp::inline DPMP_ABI {
class Xxh64 {
 public:
  explicit Xxh64(std::uint64_t seed = 0) : lanes_{seed + prime1 + prime2, seed + prime2, seed, seed - prime1}, seed_(seed) {}

  void add(const void* data, std::size_t bytes) {
    const unsigned char* at = static_cast<const unsigned char*>(data);
    total_ += bytes;
    if (held_ > 0 || bytes < stripe) {
      const std::size_t taken = bytes < stripe - held_ ? bytes : stripe - held_;
      if (taken > 0) std::memcpy(kept_ + held_, at, taken);
      held_ += taken, at += taken, bytes -= taken;
      if (held_ < stripe) return;
      take(kept_);
      held_ = 0;
    }
    for (; bytes >= stripe; at += stripe, bytes -= stripe) take(at);
    if (bytes > 0) std::memcpy(kept_, at, bytes);
    held_ = bytes;
  }
  /// Of all bytes so far.
  std::uint64_t value() const {
    std::uint64_t hash = seed_ + prime5;
    if (total_ >= stripe) {
      hash = rotated(lanes_[0], 1) + rotated(lanes_[1], 7) + rotated(lanes_[2], 12) + rotated(lanes_[3], 18);
      for (const std::uint64_t lane : lanes_) hash = (hash ^ round(0, lane)) * prime1 + prime4;
    }
    hash += total_;
    const unsigned char *at = kept_, *const end = kept_ + held_;
    for (; end - at >= 8; at += 8) hash = rotated(hash ^ round(0, word(at, 8)), 27) * prime1 + prime4;
    if (end - at >= 4) {
      hash = rotated(hash ^ word(at, 4) * prime1, 23) * prime2 + prime3;
      at += 4;
    }
    for (; at < end; ++at) hash = rotated(hash ^ *at * prime5, 11) * prime1;
    hash = (hash ^ hash >> 33) * prime2;
    hash = (hash ^ hash >> 29) * prime3;
    return hash ^ hash >> 32;
  }

 private:
  static constexpr std::size_t stripe = 32;
  static constexpr std::uint64_t prime1 = 0x9e3779b185ebca87u, prime2 = 0xc2b2ae3d27d4eb4fu, prime3 = 0x165667b19e3779f9u,
                                 prime4 = 0x85ebca77c2b2ae63u, prime5 = 0x27d4eb2f165667c5u;
  static std::uint64_t rotated(std::uint64_t x, int by) { return x << by | x >> (64 - by); }
  static std::uint64_t round(std::uint64_t lane, std::uint64_t word) { return rotated(lane + word * prime2, 31) * prime1; }
  static std::uint64_t word(const unsigned char* at, std::size_t bytes) {
    static_assert(std::endian::native == std::endian::little, "the hash reads little-endian words");
    std::uint64_t x = 0;
    std::memcpy(&x, at, bytes);
    return x;
  }
  void take(const unsigned char* at) {
    for (std::uint64_t& lane : lanes_) lane = round(lane, word(at, 8)), at += 8;
  }

  std::uint64_t lanes_[4], seed_, total_ = 0;
  unsigned char kept_[stripe] = {};  // what is no whole stripe yet
  std::size_t held_ = 0;
};
}  // namespace dpmp::inline DPMP_ABI
