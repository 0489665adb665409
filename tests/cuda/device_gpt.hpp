// SPDX-License-Identifier: Apache-2.0
// Token records on the host and a GPT on any device: runs of the same numbers here and there.
#pragma once
#include "dpmp/train/plain_trainer.hpp"
#include "dpmp/train/private_trainer.hpp"
#include "support/gpt.hpp"
#include "support/tiny_training.hpp"

namespace test {
struct DeviceGpt {
  static constexpr int vocabulary = 40;
  static constexpr dpmp::index_t tokens = 16;

  /// Two of the same config, seed and stream, on whatever devices, hold the same weights and records.
  DeviceGpt(dpmp::Context& context, dpmp::DType dtype, dpmp::nn::TransformerConfig config = {},
            dpmp::index_t record_count = 12, std::uint64_t stream = 0)
      : ctx(context), model(context, completed(config), dtype), records(record_count) {
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
  /// The tokens of these records; `filler` in empty slots.
  std::vector<std::int32_t> rows(const std::vector<std::int32_t>& of, std::span<const dpmp::index_t> slots) const {
    std::vector<std::int32_t> values;
    for (const dpmp::index_t slot : slots)
      for (dpmp::index_t t = 0; t < tokens; ++t)
        values.push_back(slot == dpmp::dp::masked_slot ? filler : of[std::size_t(slot * tokens + t)]);
    return values;
  }
  dpmp::Variable loss(dpmp::Tape& tape, const dpmp::Tensor& ids_there, const dpmp::Tensor& targets_there) const {
    return dpmp::cross_entropy(model(tape, ids_there), targets_there, {.divisor = double(tokens)});
  }
  /// What a trainer's step takes.
  auto losses() const {
    return [this](dpmp::Tape& tape, std::span<const dpmp::index_t> slots) {
      const dpmp::Shape shape{dpmp::index_t(slots.size()), tokens};
      return loss(tape, dpmp::Tensor::from(ctx, shape, rows(ids, slots)),
                  dpmp::Tensor::from(ctx, shape, rows(targets, slots)));
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
