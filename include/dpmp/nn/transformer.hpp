// SPDX-License-Identifier: Apache-2.0
// A decoder-only transformer language model: pre-norm blocks of causal attention and a feed-forward block. The defaults are
// GPT-2's (Radford et al. 2019); rms_norm, swiglu, rotary and fewer key heads together are LLaMA's (Touvron et al. 2023).
#pragma once
#include <optional>
#include <variant>

#include "dpmp/autograd/rules/attention.hpp"
#include "dpmp/autograd/rules/rope.hpp"
#include "dpmp/nn/embedding.hpp"
#include "dpmp/nn/feed_forward.hpp"
#include "dpmp/nn/layer_norm.hpp"
#include "dpmp/nn/rms_norm.hpp"

namespace dpmp::inline DPMP_ABI::nn {
enum class Norm : std::uint8_t { layer_norm, rms_norm };
/// gelu: x Phi(x). gelu_tanh: its tanh approximation, which GPT-2 was trained with and a GPU computes inside of products.
enum class FeedForward : std::uint8_t { gelu, gelu_tanh, swiglu };
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
  /// Share of activations dropped behind attention and MLP while training.
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
  Variable operator()(Tape& tape, const Tensor& ids) const {
    DPMP_CHECK(ids.shape().rank() == 2 && ids.shape()[1] <= config_.context, "expected ids [B, T <= ", config_.context,
               "], got ", ids.shape());
    Stream stream{tokens_(tape, ids), std::nullopt};
    if (positions_) stream.x = position_embedding(stream.x, *positions_);
    for (std::size_t k = 0; k < blocks_.size(); ++k) stream = blocks_[k](std::move(stream), k);
    const Variable x = normalised(last_norm_, std::move(stream)).normed;
    return head_ ? (*head_)(x) : linear(x, tokens_.table());
  }

 private:
  using AnyNorm = std::variant<LayerNorm, RmsNorm>;
  using AnyFeedForward = std::variant<GeluFeedForward, SwiGlu>;
  static AnyNorm make_norm(const Scope& scope, const TransformerConfig& c);
  /// The residual stream between blocks: the last branch is added by the norm that follows, in the same pass.
  struct Stream {
    Variable x;
    std::optional<Variable> branch;
  };
  /// By value: the branch lives no longer than its addition.
  static SumAndNorm normalised(const AnyNorm& norm, Stream stream);

  class Block {
   public:
    Block(const Scope& scope, const TransformerConfig& c)
        : config_(c),
          attention_{.heads = c.heads, .key_value_heads = c.key_value_heads, .causal = true},
          attention_norm_(make_norm(scope / "attention_norm", c)),
          qkv_(scope / "attention" / "qkv", c.width, attention_.packed_heads() * head_width()),
          projection_(scope / "attention" / "projection", c.width, c.width, {.weight = residual_start(c, c.width)}),
          mlp_norm_(make_norm(scope / "mlp_norm", c)),
          mlp_(make_feed_forward(scope / "mlp", c)) {}
    Stream operator()(Stream stream, std::size_t layer) const {
      const SumAndNorm x = normalised(attention_norm_, std::move(stream));
      Variable qkv = qkv_(x.normed);
      if (config_.positions == Positions::rotary) qkv = rope(qkv, attention_.heads + attention_.key_heads(), head_width());
      const Variable attended = projection_(attention(qkv, attention_));
      const SumAndNorm y = normalised(mlp_norm_, {x.sum, dropout(2 * layer)(attended)});
      const Variable fed = std::visit([&](const auto& mlp) { return mlp(y.normed); }, mlp_);
      return {y.sum, dropout(2 * layer + 1)(fed)};
    }
    void adapt(std::size_t layer) {
      std::vector<LoraLinear*> linears{&qkv_, &projection_};
      for (LoraLinear* linear : std::visit([](auto& mlp) { return mlp.linears(); }, mlp_)) linears.push_back(linear);
      // Dropout's numbers after those of the blocks.
      for (std::size_t k = 0; k < linears.size(); ++k)
        linears[k]->adapt(config_.lora, std::uint32_t(2 * std::size_t(config_.layers) + linears.size() * layer + k));
    }

   private:
    static AnyFeedForward make_feed_forward(const Scope& scope, const TransformerConfig& c) {
      if (c.feed_forward == FeedForward::swiglu) {
        const index_t hidden = (8 * c.width + 23) / 24 * 8;
        return SwiGlu(scope, c.width, hidden, {.down = residual_start(c, hidden)});
      }
      const index_t hidden = 4 * c.width;
      return GeluFeedForward(
          scope, c.width, hidden,
          {.down = residual_start(c, hidden),
           .form = c.feed_forward == FeedForward::gelu_tanh ? GemmActivation::gelu_tanh : GemmActivation::gelu_erf});
    }
    // Each of the 2 * layers residual branches adds its share to the variance of the stream.
    static Init residual_start(const TransformerConfig& c, index_t inputs) {
      return init::normal(1 / std::sqrt(double(inputs) * 2 * double(c.layers)));
    }
    index_t head_width() const { return config_.width / config_.heads; }
    Dropout dropout(std::size_t number) const { return {config_.dropout, std::uint32_t(number)}; }
    TransformerConfig config_;
    AttentionOptions attention_;
    AnyNorm attention_norm_;
    LoraLinear qkv_, projection_;
    AnyNorm mlp_norm_;
    AnyFeedForward mlp_;
  };

  static const TransformerConfig& checked(const TransformerConfig& c);
  TransformerConfig config_;
  Parameters parameters_;
  Embedding tokens_;
  Parameter* positions_;  // null: rotary
  AnyNorm last_norm_;
  std::vector<Block> blocks_;
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
      last_norm_(make_norm(parameters_ / "norm", config)) {
  for (index_t k = 0; k < config.layers; ++k) blocks_.emplace_back(parameters_ / ("block" + std::to_string(k)), config);
  if (!config.tied) head_.emplace(parameters_ / "head", config.width, config.vocabulary, Linear::Options{.bias = false});
  if (config.lora.rank == 0) return;
  parameters_.set_trainable([](const Parameter&) { return false; });
  for (std::size_t k = 0; k < blocks_.size(); ++k) blocks_[k].adapt(k);
}

DPMP_KEPT_BODY inline Transformer::AnyNorm Transformer::make_norm(const Scope& scope, const TransformerConfig& c) {
  if (c.norm == Norm::rms_norm) return RmsNorm(scope, c.width);
  return LayerNorm(scope, c.width);
}

DPMP_KEPT_BODY inline SumAndNorm Transformer::normalised(const AnyNorm& norm, Stream stream) {
  return std::visit(
      [&](const auto& n) {
        return stream.branch ? n(stream.x, *stream.branch) : SumAndNorm{stream.x, n(stream.x)};
      },
      norm);
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
