// SPDX-License-Identifier: Apache-2.0
// Where secrecy starts: 256 bits from the operating system.
#pragma once
#if defined(__APPLE__)
#include <sys/random.h>
#endif
#include <unistd.h>

#include "dpmp/core/chacha20.hpp"
#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// Fills bytes [0, count) and returns 0, or returns another number and the bytes mean nothing.
using EntropySource = int (*)(void* bytes, std::size_t count);

/// A fresh key from the operating system (getentropy: the kernel's getrandom, blocking until seeded, all or nothing).
/// There is no fallback: noise from a guessable key protects nobody. Throws when the source fails.
inline Key256 random_key(EntropySource source = &getentropy) {
  std::array<std::uint8_t, 32> bytes{};
  const int failed = source(bytes.data(), bytes.size());
  DPMP_CHECK(failed == 0, "expected 32 bytes of entropy from the operating system, got the error ", failed);
  return Key256::from_bytes(bytes);
}
}  // namespace dpmp::inline DPMP_ABI::dp
