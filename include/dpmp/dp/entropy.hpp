// SPDX-License-Identifier: Apache-2.0
// Where secrecy starts: bits from the operating system.
#pragma once
#if defined(__APPLE__)
#include <sys/random.h>
#endif
#include <unistd.h>

#include "dpmp/core/error.hpp"
#include "dpmp/core/secret_key.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// Fills bytes [0, count) and returns 0, or returns another number and the bytes mean nothing.
using EntropySource = int (*)(void* bytes, std::size_t count);

/// A fresh key from the operating system (getentropy: the kernel's getrandom, blocking until seeded, all or nothing).
/// There is no fallback: noise from a guessable key protects nobody. Throws when the source fails.
SecretKey random_key(EntropySource source = &getentropy);
/// 64 fresh bits from the same source: of 2^20 runs of one key two share theirs with a probability of 2^-25. Throws when the
/// source fails.
std::uint64_t random_nonce(EntropySource source = &getentropy);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline SecretKey random_key(EntropySource source) {
  SecretKey key;
  const int failed = source(key.words.data(), sizeof key.words);
  DPMP_CHECK(failed == 0, "expected 32 bytes of entropy from the operating system, got the error ", failed);
  return key;
}

DPMP_KEPT_BODY inline std::uint64_t random_nonce(EntropySource source) {
  std::uint64_t nonce = 0;
  const int failed = source(&nonce, sizeof nonce);
  DPMP_CHECK(failed == 0, "expected 8 bytes of entropy from the operating system, got the error ", failed);
  return nonce;
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
