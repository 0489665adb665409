// SPDX-License-Identifier: Apache-2.0
// A BERT-like encoder (Devlin et al. 2019, arXiv 1810.04805) from public pieces: padded sequences of different lengths,
// bidirectional attention that does not see the padding, a class for each sequence.
#pragma once
#include <dpmp/dpmp.hpp>
#include <vector>

namespace examples {
using namespace dpmp;

class Encoder {
 public:
  static constexpr index_t vocabulary = 20, context = 8, width = 16, classes = 3;
  Encoder(Context& ctx, DType dtype, std::uint64_t seed, Checkpointing checkpointing = Checkpointing::none)
      : ctx_(ctx),
        parameters_(ctx, dtype, seed),
        tokens_(parameters_ / "tokens", vocabulary, width),
        positions_(parameters_.normal("positions", {context, width}, 0.02)),
        blocks_(parameters_, {.width = width, .heads = 2, .layers = 2, .causal = false, .checkpointing = checkpointing}),
        head_(parameters_ / "head", width, classes) {}
  nn::Parameters& parameters() { return parameters_; }

  /// Record r has 3 + r % 6 tokens, and the class of its first one. Padding has token 0, which means nothing here.
  static index_t length(index_t r) { return 3 + r % 6; }
  static std::int32_t token(index_t r, index_t t) {
    return std::int32_t(1 + philox_block(5, std::uint64_t(r), std::uint64_t(t)).word[0] % (vocabulary - 1));
  }
  Variable losses(const train::Batch& batch) const {
    std::vector<std::int32_t> ids, keep, labels, first(std::size_t(batch.size()), 0);
    for (const index_t r : batch.records) {
      for (index_t t = 0; t < context; ++t) {
        keep.push_back(t < length(r));
        ids.push_back(t < length(r) ? token(r, t) : 0);
      }
      labels.push_back(token(r, 0) % classes);
    }
    const Shape shape{batch.size(), context};
    const Variable embedded = position_embedding(tokens_(batch.tape, Tensor::from(ctx_, shape, ids)), positions_);
    const Variable encoded = blocks_(embedded, Tensor::from(ctx_, shape, keep));
    // The class is read at the first token, as BERT reads it at [CLS].
    const Variable pooled = gather(encoded, Tensor::from(ctx_, {batch.size(), 1}, first));
    return cross_entropy(head_(reshape(pooled, {batch.size(), width})), Tensor::from(ctx_, {batch.size()}, labels));
  }

 private:
  Context& ctx_;
  nn::Parameters parameters_;
  nn::Embedding tokens_;
  Parameter& positions_;
  nn::Blocks blocks_;
  nn::Linear head_;
};
}  // namespace examples
