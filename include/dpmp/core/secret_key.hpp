// SPDX-License-Identifier: Apache-2.0
// Keys that leave nothing in memory when they are dropped. A core dump, a page in swap, or memory that is handed out again
// without being cleared would otherwise show the key of a run's noise.
#pragma once
#include "dpmp/core/chacha20.hpp"

namespace dpmp::inline DPMP_ABI {
/// Sets bytes to zero, also where nobody reads them afterwards: a compiler may leave out a memset of what is about to be
/// freed, not one whose bytes are handed to an assembler statement that may read all memory.
inline void wipe(void* bytes, std::size_t count) noexcept {
  std::memset(bytes, 0, count);
  asm volatile("" : : "r"(bytes) : "memory");
}

/// A Key256 that is zero before its memory is given back. A copy is a second key that wipes itself; what is moved from is
/// zero at once. What keeps a key for longer than a call keeps it as this. Key256 is the same value in flight: kernels and
/// their arguments take it, because a destructor may not run on a GPU; those copies, in registers or on a stack, are not
/// wiped.
struct SecretKey : Key256 {
  SecretKey() = default;
  SecretKey(const Key256& key) : Key256(key) {}
  SecretKey(const SecretKey&) = default;
  SecretKey& operator=(const SecretKey&) = default;
  SecretKey(SecretKey&& from) noexcept : Key256(from) { wipe(&from.words, sizeof from.words); }
  SecretKey& operator=(SecretKey&& from) noexcept {
    if (this == &from) return *this;
    words = from.words;
    wipe(&from.words, sizeof from.words);
    return *this;
  }
  ~SecretKey() { wipe(&words, sizeof words); }
};
}  // namespace dpmp::inline DPMP_ABI
