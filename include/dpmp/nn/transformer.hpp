// SPDX-License-Identifier: Apache-2.0
// A decoder-only transformer language model (Radford et al. 2019, GPT-2): pre-norm blocks of causal attention and a GELU
// MLP.
#pragma once
#include <optional>

#include "dpmp/autograd/rules/activation.hpp"
#include "dpmp/autograd/rules/attention.hpp"
#include "dpmp/autograd/rules/dropout.hpp"
#include "dpmp/autograd/rules/elementwise.hpp"
#include "dpmp/nn/layers.hpp"

namespace dpmp::inline DPMP_ABI::nn {
struct TransformerConfig {
  index_t vocabulary = 256;
  index_t width = 256;
  index_t layers = 4;
  index_t heads = 4;
  /// Longest sequence: rows of the position table.
  index_t context = 128;
  /// The output layer is the embedding table: one parameter with two sites.
  bool tied = false;
  /// Share of activations dropped behind attention and MLP while training.
  double dropout = 0;
  std::uint64_t seed = 0;
};

/// What dropout's masks are keyed by besides the layer: the step, and which record each sample is (i32 [B]).
struct DropoutRun {
  std::uint32_t step = 0;
  Tensor sample_ids;
};

class Transformer {
 public:
  /// Throws on a configuration that no tensor can have (heads must divide width, all sizes >= 1, dropout in [0, 1)).
  Transformer(Context& ctx, const TransformerConfig& config, DType dtype)
      : config_(checked(config)),
        parameters_(ctx, dtype, config.seed),
        tokens_(parameters_, "tokens", config.vocabulary, config.width, 1 / std::sqrt(double(config.width))),
        positions_(&parameters_.normal("positions.weight", {config.context, config.width}, 0.02)),
        last_norm_(parameters_, "norm", config.width) {
    for (index_t k = 0; k < config.layers; ++k) blocks_.emplace_back(parameters_, "block" + std::to_string(k), config);
    if (!config.tied) head_.emplace(parameters_, "head", config.width, config.vocabulary, Linear::Options{.bias = false});
  }
  Transformer(const Transformer&) = delete;
  Transformer& operator=(const Transformer&) = delete;

  const TransformerConfig& config() const { return config_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  /// ids i32 [B, T], T <= context -> logits [B, T, vocabulary]. dropout: needed when the configuration drops and the tape
  /// trains.
  Variable operator()(Tape& tape, const Tensor& ids, const DropoutRun* dropout = nullptr) const {
    DPMP_CHECK(ids.shape().rank() == 2 && ids.shape()[1] <= config_.context, "expected ids [B, T <= ", config_.context,
               "], got ", ids.shape());
    Variable x = position_embedding(tokens_(tape, ids), *positions_);
    for (std::size_t k = 0; k < blocks_.size(); ++k) x = blocks_[k](x, k, dropout);
    x = last_norm_(x);
    return head_ ? (*head_)(x) : linear(x, tokens_.table());
  }

 private:
  class Block {
   public:
    Block(Parameters& parameters, const std::string& name, const TransformerConfig& c)
        : config_(c),
          attention_norm_(parameters, name + ".attention_norm", c.width),
          qkv_(parameters, name + ".attention.qkv", c.width, 3 * c.width),
          projection_(parameters, name + ".attention.projection", c.width, c.width,
                      {.standard_deviation = residual_scale(c, c.width)}),
          mlp_norm_(parameters, name + ".mlp_norm", c.width),
          up_(parameters, name + ".mlp.up", c.width, 4 * c.width),
          down_(parameters, name + ".mlp.down", 4 * c.width, c.width,
                {.standard_deviation = residual_scale(c, 4 * c.width)}) {}
    Variable operator()(const Variable& x, std::size_t layer, const DropoutRun* run) const {
      const Variable attended = projection_(attention(qkv_(attention_norm_(x)), {.heads = config_.heads, .causal = true}));
      const Variable y = add(x, dropped(attended, 2 * layer, run));
      return add(y, dropped(down_(gelu(up_(mlp_norm_(y)))), 2 * layer + 1, run));
    }

   private:
    // Each of the 2 * layers residual branches adds its share to the variance of the stream.
    static double residual_scale(const TransformerConfig& c, index_t inputs) {
      return 1 / std::sqrt(double(inputs) * 2 * double(c.layers));
    }
    Variable dropped(const Variable& x, std::size_t layer, const DropoutRun* run) const {
      if (config_.dropout == 0 || x.tape().mode() == TapeMode::inference) return x;
      DPMP_CHECK(run, "expected the step and the sample ids for dropout ", config_.dropout, ", got none");
      return dropout(x, config_.dropout, {.seed = config_.seed, .step = run->step, .layer = std::uint32_t(layer)},
                     run->sample_ids);
    }
    TransformerConfig config_;
    LayerNorm attention_norm_;
    Linear qkv_, projection_;
    LayerNorm mlp_norm_;
    Linear up_, down_;
  };

  static const TransformerConfig& checked(const TransformerConfig& c) {
    DPMP_CHECK(
        c.vocabulary >= 1 && c.width >= 1 && c.layers >= 0 && c.heads >= 1 && c.context >= 1 && c.width % c.heads == 0,
        "expected sizes >= 1 and heads that divide the width, got vocabulary ", c.vocabulary, ", width ", c.width,
        ", layers ", c.layers, ", heads ", c.heads, ", context ", c.context);
    DPMP_CHECK(c.dropout >= 0 && c.dropout < 1, "expected a dropout rate in [0, 1), got ", c.dropout);
    return c;
  }
  TransformerConfig config_;
  Parameters parameters_;
  Embedding tokens_;
  Parameter* positions_;
  LayerNorm last_norm_;
  std::vector<Block> blocks_;
  std::optional<Linear> head_;
};
}  // namespace dpmp::inline DPMP_ABI::nn
