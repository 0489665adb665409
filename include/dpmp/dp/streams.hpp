// SPDX-License-Identifier: Apache-2.0
// Who draws which part of the ChaCha20 key stream. No two draws of a run may ever share a (key, counter, nonce):
//
//   root key, run nonce --> one subkey a stream = first half of block {key: root, counter: run nonce, nonce: tag | stream}
//   noise subkey        --> nonce = step (40 bits) | parameter (24 bits), counter = 16 (element / 128) + element / 2 % 16
//   sampler subkey      --> nonce = step, counter = record / 8
//
// The root key makes subkeys and nothing else. Fields have fixed widths and are checked, so different (stream, step,
// parameter, element) give different inputs of the block function: separation by construction, not by luck.
// Resuming: with the same root key and run nonce a run repeats bit for bit, which reveals nothing new as long as the data
// are the same ones. Whoever resumes one checkpoint with other data takes another run nonce, and gets independent noise.
#pragma once
#include "dpmp/core/chacha20.hpp"
#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// The users of key stream. Numbers are part of checkpoints: add, never renumber.
enum class Stream : std::uint32_t {
  noise = 1,            // Gaussian noise on the clipped sum
  sampler = 2,          // which records a step uses
  auxiliary_noise = 3,  // noise on counts and other scalars
  dropout = 4,          // Philox seeds (no secret needed, but no reuse either)
  initialisation = 5,
};

/// The subkeys of one run.
class StreamKeys {
 public:
  explicit StreamKeys(const Key256& root, std::uint64_t run_nonce = 0) : root_(root), run_nonce_(run_nonce) {}
  const Key256& root() const { return root_; }
  std::uint64_t run_nonce() const { return run_nonce_; }
  Key256 key(Stream stream) const {
    constexpr std::uint64_t tag = 0x64706d7000000000u;  // "dpmp"
    const ChaChaBlock block = chacha20_block(root_, run_nonce_, tag | std::uint64_t(stream));
    Key256 subkey;
    for (std::size_t k = 0; k < 8; ++k) subkey.words[k] = block[k];
    return subkey;
  }
  /// A 64-bit seed for Philox.
  std::uint64_t seed(Stream stream) const {
    const Key256 k = key(stream);
    return (std::uint64_t(k.words[1]) << 32) | k.words[0];
  }

 private:
  Key256 root_;
  std::uint64_t run_nonce_;
};

/// Steps and parameter indices that the counter layout has room for.
inline constexpr index_t max_steps = index_t(1) << 40;
inline constexpr index_t max_parameters = index_t(1) << 24;

/// The nonce of (step, parameter); throws when one of them does not fit its field.
inline std::uint64_t noise_nonce(index_t step, index_t parameter) {
  DPMP_CHECK(step >= 0 && step < max_steps, "expected a step in [0, 2^40), got ", step);
  DPMP_CHECK(parameter >= 0 && parameter < max_parameters, "expected a parameter index in [0, 2^24), got ", parameter);
  return (std::uint64_t(step) << 24) | std::uint64_t(parameter);
}
}  // namespace dpmp::inline DPMP_ABI::dp
