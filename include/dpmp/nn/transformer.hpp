// SPDX-License-Identifier: Apache-2.0
// A decoder-only transformer language model: pre-norm blocks of causal attention and a feed-forward block. The defaults are
// GPT-2's (Radford et al. 2019); rms_norm, swiglu, rotary and fewer key heads together are LLaMA's (Touvron et al. 2023).
#pragma once
#include <optional>

#include "dpmp/nn/block.hpp"
#include "dpmp/nn/embedding.hpp"

namespace dpmp::inline DPMP_ABI::nn {
enum class Positions : std::uint8_t { learned, rotary };

struct TransformerConfig {
  index_t vocabulary = 256;
  index_t width = 256;
  index_t layers = 4;
  index_t heads = 4;
  /// Longest sequence: rows of the table of learned positions.
  index_t context = 128;
  /// The output layer is the embedding table: one parameter with two sites.
  bool tied = false;
  /// Share of activations dropped after attention and feed-forward block while training.
  double dropout = 0;
  /// Of the initial values; dropout is keyed by the run's secret.
  std::uint64_t seed = 0;
  Norm norm = Norm::layer_norm;
  /// gelu, gelu_tanh: 4 * width hidden values. swiglu: 8 / 3 * width, rounded up to a multiple of 8, for as many parameters.
  FeedForward feed_forward = FeedForward::gelu;
  /// rotary: queries and keys are turned (an even width / heads is needed), there is no table.
  Positions positions = Positions::learned;
  /// Heads of keys and values, shared by groups of query heads (Ainslie et al. 2023); 0: as many as heads.
  index_t key_value_heads = 0;
  /// rank > 0: every base parameter is frozen, and adapters on the linear layers of all blocks are trained. Base parameters
  /// keep names and initial values: see train::load_base_weights.
  LoraOptions lora = {};
};

class Transformer {
 public:
  /// Throws on a configuration that no tensor can have (heads must divide width, key and value heads the heads, all
  /// sizes >= 1, dropout in [0, 1)).
  Transformer(Context& ctx, const TransformerConfig& config, DType dtype);
  Transformer(const Transformer&) = delete;
  Transformer& operator=(const Transformer&) = delete;

  const TransformerConfig& config() const { return config_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  /// ids i32 [B, T], T <= context -> logits [B, T, vocabulary].
  Variable operator()(Tape& tape, const Tensor& ids) const;

 private:
  static const TransformerConfig& checked(const TransformerConfig& c);
  static BlockOptions block_options(const TransformerConfig& c);
  TransformerConfig config_;
  Parameters parameters_;
  Embedding tokens_;
  Parameter* positions_;  // null: rotary
  Blocks blocks_;
  std::optional<Linear> head_;
};
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::nn {
DPMP_KEPT_BODY inline Transformer::Transformer(Context& ctx, const TransformerConfig& config, DType dtype)
    : config_(checked(config)),
      parameters_(ctx, dtype, config.seed),
      tokens_(parameters_ / "tokens", config.vocabulary, config.width),
      positions_(config.positions == Positions::learned
                     ? &parameters_.normal("positions.weight", {config.context, config.width}, 0.02)
                     : nullptr),
      blocks_(parameters_, block_options(config)) {
  if (!config.tied) head_.emplace(parameters_ / "head", config.width, config.vocabulary, Linear::Options{.bias = false});
  if (config.lora.rank == 0) return;
  parameters_.set_trainable([](const Parameter&) { return false; });
  // The blocks' dropouts have the numbers 0 .. 2 layers - 1.
  adapt(blocks_.linears(), config.lora, 2 * config.layers);
}

DPMP_KEPT_BODY inline Variable Transformer::operator()(Tape& tape, const Tensor& ids) const {
  DPMP_CHECK(ids.shape().rank() == 2 && ids.shape()[1] <= config_.context, "expected ids [B, T <= ", config_.context,
             "], got ", ids.shape());
  Variable x = tokens_(tape, ids);
  if (positions_) x = position_embedding(x, *positions_);
  x = blocks_(std::move(x));
  return head_ ? (*head_)(x) : linear(x, tokens_.table());
}

DPMP_KEPT_BODY inline BlockOptions Transformer::block_options(const TransformerConfig& c) {
  return {.width = c.width,
          .heads = c.heads,
          .key_value_heads = c.key_value_heads,
          .layers = c.layers,
          .rotary = c.positions == Positions::rotary,
          .norm = c.norm,
          .feed_forward = c.feed_forward,
          .dropout = c.dropout};
}

DPMP_KEPT_BODY inline const TransformerConfig& Transformer::checked(const TransformerConfig& c) {
  DPMP_CHECK(c.vocabulary >= 1 && c.width >= 1 && c.layers >= 0 && c.heads >= 1 && c.context >= 1 && c.width % c.heads == 0,
             "expected sizes >= 1 and heads that divide the width, got vocabulary ", c.vocabulary, ", width ", c.width,
             ", layers ", c.layers, ", heads ", c.heads, ", context ", c.context);
  DPMP_CHECK(c.key_value_heads >= 0 && (c.key_value_heads == 0 || c.heads % c.key_value_heads == 0),
             "expected key and value heads that divide the ", c.heads, " heads (0: as many), got ", c.key_value_heads);
  DPMP_CHECK(c.positions == Positions::learned || c.width / c.heads % 2 == 0,
             "expected an even width of a head for rotary positions, got ", c.width / c.heads);
  DPMP_CHECK(c.lora.rank >= 0, "expected a LoRA rank >= 0 (0: none), got ", c.lora.rank);
  DPMP_CHECK(c.dropout >= 0 && c.dropout < 1, "expected a dropout rate in [0, 1), got ", c.dropout);
  return c;
}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif
