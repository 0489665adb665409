// SPDX-License-Identifier: Apache-2.0
// Exact Poisson subsampling: in every step each record is included independently with the same probability. No capacity, no
// shuffling, no record dropped; the size of a draw is random and 0 is legal.
#pragma once
#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "dpmp/dp/streams.hpp"
#include "dpmp/runtime/launch.hpp"

namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
/// Row r: the 128 uniforms of records 128 r .. 128 r + 127, compared with the threshold into included[0..127].
struct InclusionChunk {
  using Real = float;  // decides the instruction set only
  Key256 key;
  std::uint64_t nonce, threshold;
  std::uint8_t* included;

  template <int W>
  DPMP_HOST void operator()(HostTeam<float, W>, index_t row) const {
    alignas(64) std::uint32_t words[256];
    for (int g = 0; g < 16; g += W) chacha20_blocks<W>(key, std::uint64_t(row * 16 + g), nonce, words + g * 16);
    for (int k = 0; k < 128; ++k) {
      const std::uint64_t uniform = (std::uint64_t(words[2 * k + 1]) << 32) | words[2 * k];
      included[k] = uniform < threshold;
    }
  }
};
}  // namespace detail

/// Draws are a pure function of (key, step): random access, so resuming needs nothing but the number of the step.
class PoissonSampler {
 public:
  /// key: of Stream::sampler. records: the size of the dataset, >= 1. probability: in (0, 1].
  PoissonSampler(const Key256& key, index_t records, double probability);
  index_t records() const { return records_; }
  /// The probability asked for, and accounted.
  double probability() const { return probability_; }
  /// A record is included where a uniform 64-bit integer is below this: with probability threshold / 2^64 <= probability().
  /// Meaningless for probability 1, where every record is included.
  std::uint64_t threshold() const { return threshold_; }

  /// Replaces `indices` by the records of step `step`, ascending. Throws on a step outside of [0, 2^40).
  void draw(index_t step, std::vector<index_t>& indices) const;

 private:
  SecretKey key_;
  index_t records_;
  double probability_;
  std::uint64_t threshold_ = 0;
};
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline PoissonSampler::PoissonSampler(const Key256& key, index_t records, double probability)
    : key_(key), records_(records), probability_(probability) {
  DPMP_CHECK(records >= 1, "expected a dataset of at least one record, got ", records);
  DPMP_CHECK(probability > 0 && probability <= 1, "expected a sampling probability in (0, 1], got ", probability);
  // Scaling by 2^64 is exact and the conversion rounds down, so a record's true probability is never above `probability`.
  threshold_ = probability < 1 ? std::uint64_t(std::ldexp(probability, 64)) : 0;
}

DPMP_KEPT_BODY inline void PoissonSampler::draw(index_t step, std::vector<index_t>& indices) const {
  DPMP_CHECK(step >= 0 && step < max_steps, "expected a step in [0, 2^40), got ", step);
  indices.clear();
  if (probability_ == 1) {
    for (index_t i = 0; i < records_; ++i) indices.push_back(i);
    return;
  }
  std::uint8_t included[128];
  const detail::InclusionChunk chunk{key_, std::uint64_t(step), threshold_, included};
  for (index_t row = 0; row * 128 < records_; ++row) {
    run_library_rows(row, row + 1, chunk);
    const index_t first = row * 128, count = std::min<index_t>(128, records_ - first);
    for (index_t k = 0; k < count; ++k)
      if (included[k]) indices.push_back(first + k);
  }
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
