// SPDX-License-Identifier: Apache-2.0
// Who draws which part of the ChaCha20 key stream. No two draws of a run may ever share a (key, counter, nonce):
//
//   root key, run nonce --> one subkey a stream = first half of block {key: root, counter: run nonce, nonce: tag | stream}
//   noise subkey        --> nonce = step (40 bits) | parameter (24 bits), counter = 16 (element / 128) + element / 2 % 16
//   sampler subkey      --> nonce = step, counter = record / 8; for balls_in_bins nonce = epoch, counter = 0, 1, ..
//   selection subkey    --> nonce = step, counter = 0, 1, ..
//   groups subkey       --> nonce = 0, counter = 0, 1, ..
//   dropout subkey      --> nonce = step, counter = layer
//
// The root key makes subkeys and nothing else. Fields have fixed widths and are checked, so different (stream, step,
// parameter, element) give different inputs of the block function: separation by construction, not by luck.
// A step that differs from the run in public facts takes another run nonce for its noise (StepLedger::begin_step).
// The run nonce is drawn from the operating system for each run, so one root key in two trainers gives independent draws and
// noise (P36). Only StreamKeys::repeat and a checkpoint that is continued unchanged (train/checkpoint.hpp) take a given one.
#pragma once
#include "dpmp/dp/entropy.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// The users of key stream. Numbers are part of checkpoints: add, never renumber.
enum class Stream : std::uint32_t {
  noise = 1,            // Gaussian noise on the clipped sum
  sampler = 2,          // which records a step uses
  auxiliary_noise = 3,  // noise on counts and other scalars
  dropout = 4,          // masks: DropoutKey::secret
  initialisation = 5,
  record_identity = 6,  // RecordIds: content_id, stable_id, place_id
  selection = 7,        // which of the drawn units a step keeps, which records of a user it uses
  groups = 8,           // which group of cyclic_poisson a unit is in: under run nonce 0, for all runs of a root key
};

/// The subkeys of one run. Keys are wiped when they are dropped (core/secret_key.hpp).
class StreamKeys {
 public:
  /// A run of its own: root is a secret (random_key()), the run nonce is drawn here. Throws on an all-zero root, which is no
  /// secret but a key that somebody forgot to draw.
  explicit StreamKeys(const Key256& root) : StreamKeys(root, random_nonce(), false) {}
  /// The draws and the noise of an earlier run once more, in every ledger and trainer made from it: for tests, and for a run
  /// whose sums are the same bits. The difference of two runs of one (root, run_nonce) and different sums has no noise in
  /// it.
  static StreamKeys repeat(const Key256& root, std::uint64_t run_nonce) { return {root, run_nonce, true}; }

  /// What a ledger takes: keys with a fresh run nonce (the given one for repeat()), which in turn start other runs.
  StreamKeys for_new_run() const { return {root_, repeats_ ? run_nonce_ : random_nonce(), false}; }
  const Key256& root() const { return root_; }
  std::uint64_t run_nonce() const { return run_nonce_; }
  SecretKey key(Stream stream) const;

 private:
  StreamKeys(const Key256& root, std::uint64_t run_nonce, bool repeats);
  SecretKey root_;
  std::uint64_t run_nonce_;
  bool repeats_;
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

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline SecretKey StreamKeys::key(Stream stream) const {
  constexpr std::uint64_t tag = 0x64706d7000000000u;  // "dpmp"
  ChaChaBlock block = chacha20_block(root_, run_nonce_, tag | std::uint64_t(stream));
  SecretKey subkey;
  for (std::size_t k = 0; k < 8; ++k) subkey.words[k] = block[k];
  wipe(block.data(), sizeof block);
  return subkey;
}

DPMP_KEPT_BODY inline StreamKeys::StreamKeys(const Key256& root, std::uint64_t run_nonce, bool repeats)
    : root_(root), run_nonce_(run_nonce), repeats_(repeats) {
  DPMP_CHECK(!(root == Key256{}), "expected a random root key (dp::random_key()), got one of zeros");
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
