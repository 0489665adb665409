// SPDX-License-Identifier: Apache-2.0
// How a token is drawn from logits: the most likely one, or at random, at some temperature, among the most likely.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "dpmp/core/error.hpp"
#include "dpmp/core/philox.hpp"

namespace dpmp::inline DPMP_ABI::nn {
struct Sampling {
  /// Logits are divided by it before a token is drawn; 0: the most likely token, of equal ones the first.
  double temperature = 1;
  /// The token is one of the so many most likely, of equal ones the first; 0: any.
  index_t top_k = 0;
  /// Draws are keyed by it, by a sequence's number and by the token's place in the sequence (Philox): the same on every
  /// machine, and whatever other sequences are drawn in addition.
  std::uint64_t seed = 0;
  /// Number of the first sequence of a batch.
  std::uint64_t first_sequence = 0;

  /// Throws unless the temperature is finite and >= 0, and top_k in [0, vocabulary].
  void check(index_t vocabulary) const;
};

/// A token in [0, logits): number `place` of sequence `sequence`, where what is given counts, too. Throws when a logit is
/// NaN or +infinity, or all are -infinity, and what Sampling::check throws.
std::int32_t sample(std::span<const double> logits, const Sampling& sampling, std::uint64_t sequence, std::uint64_t place);
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace dpmp::inline DPMP_ABI::nn {
DPMP_KEPT_BODY inline void Sampling::check(index_t vocabulary) const {
  DPMP_CHECK(temperature >= 0 && std::isfinite(temperature), "expected a finite temperature >= 0, got ", temperature);
  DPMP_CHECK(top_k >= 0 && top_k <= vocabulary, "expected a top_k in [0, ", vocabulary, "] (0: all), got ", top_k);
}

DPMP_KEPT_BODY inline std::int32_t sample(std::span<const double> logits, const Sampling& sampling, std::uint64_t sequence,
                                          std::uint64_t place) {
  sampling.check(index_t(logits.size()));
  double top = -std::numeric_limits<double>::infinity();
  for (std::size_t v = 0; v < logits.size(); ++v) {
    DPMP_CHECK(logits[v] < std::numeric_limits<double>::infinity(), "expected logits below infinity, got ", logits[v],
               " for token ", v, " of ", logits.size());
    top = std::max(top, logits[v]);
  }
  DPMP_CHECK(std::isfinite(top), "expected a finite logit to draw a token by, got none among ", logits.size());
  if (sampling.temperature == 0 || sampling.top_k == 1)
    return std::int32_t(std::find(logits.begin(), logits.end(), top) - logits.begin());
  std::vector<std::int32_t> tokens(logits.size());
  std::iota(tokens.begin(), tokens.end(), 0);
  if (sampling.top_k > 0 && sampling.top_k < index_t(tokens.size())) {
    std::nth_element(tokens.begin(), tokens.begin() + sampling.top_k, tokens.end(), [&](std::int32_t x, std::int32_t y) {
      const double a = logits[std::size_t(x)], b = logits[std::size_t(y)];
      return a != b ? a > b : x < y;
    });
    tokens.resize(std::size_t(sampling.top_k));
    std::sort(tokens.begin(), tokens.end());
  }
  const auto weight = [&](std::int32_t v) { return std::exp((logits[std::size_t(v)] - top) / sampling.temperature); };
  double total = 0;
  for (const std::int32_t v : tokens) total += weight(v);
  const PhiloxBlock block = philox_block(sampling.seed, sequence, place);
  // The midpoint of one of 2^52 equal cells of (0, 1).
  const double uniform = (double(block.word[0]) * 0x1p20 + double(block.word[1] >> 12) + 0.5) * 0x1p-52;
  double left = uniform * total;
  std::int32_t drawn = tokens.front();
  for (const std::int32_t v : tokens) {
    const double w = weight(v);
    if (w > 0) drawn = v;  // where rounding leaves something at the end, the last one that is possible
    if ((left -= w) < 0) break;
  }
  return drawn;
}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif
