// SPDX-License-Identifier: Apache-2.0
// Token records on the host and a GPT on any device: runs of the same numbers here and there.
#pragma once
#include "dpmp/train/trainer.hpp"
#include "support/gpt.hpp"
#include "support/tiny_training.hpp"

namespace test {
struct DeviceGpt {
  static constexpr int vocabulary = 40;
  static constexpr dpmp::index_t tokens = 16;

  /// Two of the same config, seed and stream, on whatever devices, hold the same weights and records.
  DeviceGpt(dpmp::Context& context, const dpmp::nn::Precision& precision, dpmp::nn::TransformerConfig config = {},
            dpmp::index_t record_count = 12, std::uint64_t stream = 0)
      : ctx(context), model(context, completed(config), precision), records(record_count) {
    Rng rng(seed(), 901 + stream);
    for (dpmp::index_t k = 0; k < records * tokens; ++k) {
      ids.push_back(std::int32_t(rng.integer(0, vocabulary - 1)));
      targets.push_back(std::int32_t(rng.integer(-1, vocabulary - 1)));  // -1: ignored
    }
  }
  static dpmp::nn::TransformerConfig completed(dpmp::nn::TransformerConfig config) {
    config.vocabulary = vocabulary;
    config.width = 32;
    config.layers = 1;
    config.heads = 2;
    config.context = tokens;
    config.seed = seed();
    return config;
  }
  /// The tokens of these records; where `filler` is set, it stands in empty slots, which repeat the first record.
  std::vector<std::int32_t> rows(const std::vector<std::int32_t>& of, std::span<const dpmp::index_t> slots) const {
    std::vector<std::int32_t> values;
    for (std::size_t i = 0; i < slots.size(); ++i)
      for (dpmp::index_t t = 0; t < tokens; ++t)
        values.push_back(filler != 0 && repeats_first(slots, i) ? filler : of[std::size_t(slots[i] * tokens + t)]);
    return values;
  }
  dpmp::Variable loss(dpmp::Tape& tape, const dpmp::Tensor& ids_there, const dpmp::Tensor& targets_there) const {
    return dpmp::cross_entropy(model(tape, ids_there), targets_there, {.divisor = double(tokens)});
  }
  /// What a trainer's step takes.
  auto losses() const {
    return [this](const dpmp::train::Batch& batch) {
      const dpmp::Shape shape{dpmp::index_t(batch.records.size()), tokens};
      return loss(batch.tape, dpmp::Tensor::from(ctx, shape, rows(ids, batch.records)),
                  dpmp::Tensor::from(ctx, shape, rows(targets, batch.records)));
    };
  }
  std::vector<double> masters() const { return test::masters(model.parameters()); }

  dpmp::Context& ctx;
  dpmp::nn::Transformer model;
  dpmp::index_t records;
  std::vector<std::int32_t> ids, targets;  // [records, tokens]
  std::int32_t filler = 0;
};
}  // namespace test
