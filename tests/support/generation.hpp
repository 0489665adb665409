// SPDX-License-Identifier: Apache-2.0
// Random transformers for generation, and the logits that whole forward passes in float64 give.
#pragma once
#include "dpmp/nn/generator.hpp"
#include "support/gpt.hpp"

namespace test {
/// Any form of the transformer: norms, feed-forward blocks, positions, shared key heads, tied tables, biases or none.
/// head_width: a power of 4 has a scale of scores that is exact in every dtype.
inline dpmp::nn::TransformerConfig generating_config(Rng& rng, dpmp::index_t head_width) {
  using namespace dpmp;
  const index_t heads = rng.integer(1, 2) * 2;
  return {.vocabulary = rng.integer(5, 40),
          .width = heads * head_width,
          .layers = rng.integer(1, 2),
          .heads = heads,
          .context = rng.integer(12, 150),
          .tied = rng.integer(0, 1) == 1,
          .seed = seed(),
          .norm = nn::Norm(rng.integer(0, 1)),
          .feed_forward = nn::FeedForward(rng.integer(0, 2)),
          .hidden = 8 * rng.integer(1, 5),
          .positions = nn::Positions(rng.integer(0, 1)),
          .rope_base = rng.uniform(50, 20000),
          .qkv_bias = rng.integer(0, 1) == 1,
          .key_value_heads = rng.integer(0, 1) * 2};
}

using Sequence = std::vector<std::int32_t>;
inline Sequence random_sequence(Rng& rng, dpmp::index_t tokens, dpmp::index_t vocabulary) {
  Sequence ids;
  for (dpmp::index_t t = 0; t < tokens; ++t) ids.push_back(std::int32_t(rng.integer(0, vocabulary - 1)));
  return ids;
}
/// Logits [tokens, vocabulary] of a whole forward pass over one sequence.
inline std::vector<double> whole_logits(const dpmp::nn::Transformer& model, const Sequence& ids) {
  dpmp::Context& ctx = model.parameters().ctx();
  dpmp::Tape tape(ctx, 1, dpmp::TapeMode::inference);
  return model(tape, dpmp::Tensor::from(ctx, {1, dpmp::index_t(ids.size())}, ids)).value().to_doubles();
}
/// Logits of each sequence by the cache: pieces of random length, of all sequences at once, however long each is.
inline std::vector<std::vector<double>> cached_logits(const dpmp::nn::Transformer& model, const std::vector<Sequence>& all,
                                                      Rng& rng) {
  using namespace dpmp;
  Context& ctx = model.parameters().ctx();
  const index_t samples = index_t(all.size()), vocabulary = model.config().vocabulary;
  nn::KeyValueCache cache = model.make_cache(samples);
  std::vector<std::vector<double>> logits(all.size());
  for (bool more = true; more;) {
    std::vector<index_t> counts;
    for (std::size_t b = 0; b < all.size(); ++b) {
      const index_t left = index_t(all[b].size()) - cache.lengths()[b];
      counts.push_back(std::min<index_t>(left, rng.integer(0, 2) == 0 ? rng.integer(0, 9) : 1));
    }
    const index_t tokens = std::max<index_t>(1, *std::max_element(counts.begin(), counts.end()));
    Sequence ids;
    for (std::size_t b = 0; b < all.size(); ++b)
      for (index_t t = 0; t < tokens; ++t) ids.push_back(t < counts[b] ? all[b][std::size_t(cache.lengths()[b] + t)] : 0);
    Tape tape(ctx, samples, TapeMode::inference);
    const std::vector<double> y = model(tape, Tensor::from(ctx, {samples, tokens}, ids), cache, counts).value().to_doubles();
    more = false;
    for (std::size_t b = 0; b < all.size(); ++b) {
      const auto from = y.begin() + std::ptrdiff_t(index_t(b) * tokens * vocabulary);
      logits[b].insert(logits[b].end(), from, from + counts[b] * vocabulary);
      more = more || cache.lengths()[b] < index_t(all[b].size());
    }
  }
  return logits;
}
/// |got - want| as a share of |want|.
inline double relative_distance(const std::vector<double>& got, const std::vector<double>& want) {
  return got.size() == want.size() ? distance(got, want) / norm(want) : INFINITY;
}
}  // namespace test
