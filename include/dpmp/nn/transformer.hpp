// SPDX-License-Identifier: Apache-2.0
// A decoder-only transformer language model: pre-norm blocks of causal attention and a feed-forward block. The defaults are
// GPT-2's (Radford et al. 2019); rms_norm, swiglu, rotary and fewer key heads together are LLaMA's (Touvron et al. 2023).
#pragma once
#include <memory>
#include <optional>

#include "dpmp/autograd/rules/cross_entropy.hpp"
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
  /// What is kept of each block for the backward pass (autograd/checkpointing.hpp): time and memory, no bit of a result.
  Checkpointing checkpointing = Checkpointing::none;
  /// Number of the first of the 2 * layers dropouts, with adapters 6 * layers, where the model has others, too.
  index_t first_dropout = 0;
  /// Of the initial values, where the parameters are the model's own; dropout is keyed by the run's secret.
  std::uint64_t seed = 0;
  Norm norm = Norm::layer_norm;
  /// Added to the variance or mean square in every norm.
  double norm_epsilon = 1e-5;
  FeedForward feed_forward = FeedForward::gelu;
  /// Width inside of the feed-forward blocks. 0: 4 * width for gelu and gelu_tanh; for swiglu 8 / 3 * width, rounded up to a
  /// multiple of 8, for as many parameters.
  index_t hidden = 0;
  /// rotary: queries and keys are turned (an even width / heads is needed), there is no table.
  Positions positions = Positions::learned;
  /// Of the rotary angles (Attention::Options).
  double rope_base = 10000;
  RopeScaling rope_scaling = {};
  /// Whether attention's linear layers have biases.
  bool qkv_bias = true;
  bool projection_bias = true;
  /// Whether SwiGLU's linear layers have biases.
  bool swiglu_bias = false;
  /// Heads of keys and values, shared by groups of query heads (Ainslie et al. 2023); 0: as many as heads.
  index_t key_value_heads = 0;
  /// Logits of a bf16 or f16 model in f32, as with Precision::fp32_logits(), and their loss from these. Generation has them
  /// always.
  bool fp32_logits = false;
  /// With fp32_logits implied, of losses(): logits that are formed some at a time and never stored as a whole
  /// (linear_cross_entropy), in place of the largest tensor of a small model. The same bits as without; the last product is
  /// repeated in the backward pass, and in private training for its norms and its clipped sum.
  bool chunked_head = false;
  /// rank > 0: every base parameter is frozen, and adapters on the linear layers of all blocks are trained. Base parameters
  /// keep names and initial values: see train::load_base_weights.
  LoraOptions lora = {};
};

class Transformer {
 public:
  /// Throws on a configuration that no tensor can have (heads must divide width, key and value heads the heads, all
  /// sizes >= 1, dropout in [0, 1)).
  Transformer(Context& ctx, const TransformerConfig& config, const Precision& precision);
  /// A part of a model whose parameters are made in this scope, in its precision, and outlive the transformer; config.seed
  /// is not looked at. Adapters freeze the base parameters of this transformer and no others.
  Transformer(const Scope& scope, const TransformerConfig& config);
  Transformer(const Transformer&) = delete;
  Transformer& operator=(const Transformer&) = delete;

  const TransformerConfig& config() const { return config_; }
  /// Its own, or those of the scope, which may have others, too.
  Parameters& parameters() { return *parameters_; }
  const Parameters& parameters() const { return *parameters_; }
  /// Those that the transformer made.
  std::span<Parameter* const> own_parameters() const { return parameters_->all().subspan(first_, count_); }

  /// ids i32 [B, T], T <= context -> logits [B, T, vocabulary].
  Variable operator()(Tape& tape, const Tensor& ids) const;

  /// The cross-entropy of the logits of ids and targets i32 [B, T]: losses [B]. What trains and evaluates it.
  Variable losses(Tape& tape, const Tensor& ids, const Tensor& targets, const CrossEntropyOptions& options = {}) const;

  /// An empty cache for sequences of up to `capacity` <= context tokens (0: context).
  KeyValueCache make_cache(index_t samples, index_t capacity = 0) const;
  /// ids i32 [B, T], the tokens that follow those in the cache, on a tape for inference -> their logits
  /// [B, T, vocabulary]; they are in the cache afterwards. counts: how many tokens are a sequence's own, the others are
  /// padding, whose logits mean nothing; none given: all. Throws where the cache has no room.
  Variable operator()(Tape& tape, const Tensor& ids, KeyValueCache& cache, std::span<const index_t> counts = {}) const;
  /// The logits of each sequence's last token alone, f32 [B, vocabulary] (f64 for an f64 model).
  Variable next(Tape& tape, const Tensor& ids, KeyValueCache& cache, std::span<const index_t> counts = {}) const;

 private:
  static const TransformerConfig& checked(const TransformerConfig& c);
  static BlockOptions block_options(const TransformerConfig& c);
  Transformer(std::unique_ptr<Parameters> owned, const TransformerConfig& config);
  /// Rows before the head.
  Variable continued(Tape& tape, const Tensor& ids, KeyValueCache& cache, std::span<const index_t> counts) const;
  /// The same of whole sequences, without a cache.
  Variable rows(Tape& tape, const Tensor& ids) const;
  Parameter& head_weight() const { return head_ ? head_->weight() : tokens_.table(); }
  Variable logits(const Variable& x, bool wide) const;
  TransformerConfig config_;
  std::unique_ptr<Parameters> owned_;  // null: the user's
  Parameters* parameters_;
  std::size_t first_, count_ = 0;  // numbers of the transformer's parameters
  Embedding tokens_;
  Parameter* positions_;  // null: rotary
  Blocks blocks_;
  std::optional<Linear> head_;
  bool fp32_logits_;
};
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
#include "dpmp/autograd/rules/linear_cross_entropy.hpp"
#include "dpmp/autograd/rules/select.hpp"
#include "dpmp/autograd/rules/wide_linear.hpp"

namespace dpmp::inline DPMP_ABI::nn {
DPMP_KEPT_BODY inline Transformer::Transformer(Context& ctx, const TransformerConfig& config, const Precision& precision)
    : Transformer(std::make_unique<Parameters>(ctx, precision, checked(config).seed), config) {}

DPMP_KEPT_BODY inline Transformer::Transformer(std::unique_ptr<Parameters> owned, const TransformerConfig& config)
    : Transformer(Scope(*owned), config) {
  owned_ = std::move(owned);
}

DPMP_KEPT_BODY inline Transformer::Transformer(const Scope& scope, const TransformerConfig& config)
    : config_(checked(config)),
      parameters_(&scope.parameters()),
      first_(parameters_->all().size()),
      tokens_(scope / "tokens", config.vocabulary, config.width),
      positions_(config.positions == Positions::learned
                     ? &(scope / "positions").normal("weight", {config.context, config.width}, 0.02)
                     : nullptr),
      blocks_(scope, block_options(config)) {
  Scope head = scope / "head";
  if (config.fp32_logits || config.chunked_head) head = head.with(head.precision().fp32_logits());
  fp32_logits_ = head.precision().logits() != head.dtype();
  if (!config.tied) head_.emplace(head, config.width, config.vocabulary, Linear::Options{.bias = false});
  count_ = parameters_->all().size() - first_;
  if (config.lora.rank == 0) return;
  for (Parameter* p : own_parameters()) p->set_trainable(false);
  adapt(blocks_.linears(), config.lora, config.first_dropout + 2 * config.layers);
  count_ = parameters_->all().size() - first_;
}

DPMP_KEPT_BODY inline Variable Transformer::rows(Tape& tape, const Tensor& ids) const {
  DPMP_CHECK(ids.shape().rank() == 2 && ids.shape()[1] <= config_.context, "expected ids [B, T <= ", config_.context,
             "], got ", ids.shape());
  Variable x = tokens_(tape, ids);
  if (positions_) x = position_embedding(cast(x, positions_->dtype()), *positions_);
  return blocks_(std::move(x));
}

DPMP_KEPT_BODY inline Variable Transformer::operator()(Tape& tape, const Tensor& ids) const {
  return logits(rows(tape, ids), fp32_logits_);
}

DPMP_KEPT_BODY inline Variable Transformer::losses(Tape& tape, const Tensor& ids, const Tensor& targets,
                                                   const CrossEntropyOptions& options) const {
  if (!config_.chunked_head) return cross_entropy((*this)(tape, ids), targets, options);
  return linear_cross_entropy(cast(rows(tape, ids), head_weight().dtype()), head_weight(), nullptr, targets, options);
}

DPMP_KEPT_BODY inline Variable Transformer::logits(const Variable& x, bool wide) const {
  const Variable in = cast(x, head_weight().dtype());
  return wide ? wide_linear(in, head_weight()) : linear(in, head_weight());
}

DPMP_KEPT_BODY inline KeyValueCache Transformer::make_cache(index_t samples, index_t capacity) const {
  DPMP_CHECK(capacity >= 0 && capacity <= config_.context, "expected a cache of at most the context of ", config_.context,
             " tokens (0: all), got ", capacity);
  return blocks_.make_cache(parameters_->ctx(), samples, capacity == 0 ? config_.context : capacity);
}

DPMP_KEPT_BODY inline Variable Transformer::continued(Tape& tape, const Tensor& ids, KeyValueCache& cache,
                                                      std::span<const index_t> counts) const {
  DPMP_CHECK(ids.shape().rank() == 2 && ids.shape()[0] == cache.samples(), "expected ids [", cache.samples(),
             ", T] for the sequences of the cache, got ", ids.shape());
  DPMP_CHECK(cache.capacity() <= config_.context, "expected a cache of at most the context of ", config_.context,
             " tokens, got ", cache.capacity());
  Variable x = tokens_(tape, ids);
  if (positions_) x = add(cast(x, positions_->dtype()), embedding(tape, cache.positions(ids.shape()[1]), *positions_));
  return blocks_(std::move(x), cache, counts);
}

DPMP_KEPT_BODY inline Variable Transformer::operator()(Tape& tape, const Tensor& ids, KeyValueCache& cache,
                                                       std::span<const index_t> counts) const {
  return logits(continued(tape, ids, cache, counts), fp32_logits_);
}

DPMP_KEPT_BODY inline Variable Transformer::next(Tape& tape, const Tensor& ids, KeyValueCache& cache,
                                                 std::span<const index_t> counts) const {
  const Variable x = continued(tape, ids, cache, counts);
  const index_t samples = x.shape()[0], tokens = x.shape()[1];
  std::vector<std::int32_t> last(std::size_t(samples), std::int32_t(tokens - 1));
  for (std::size_t b = 0; b < counts.size(); ++b) last[b] = std::int32_t(std::max<index_t>(counts[b] - 1, 0));
  const Variable rows = gather(x, Tensor::from(tape.ctx(), {samples, 1}, last));
  return logits(reshape(rows, {samples, config_.width}), true);
}

DPMP_KEPT_BODY inline BlockOptions Transformer::block_options(const TransformerConfig& c) {
  return {.width = c.width,
          .heads = c.heads,
          .key_value_heads = c.key_value_heads,
          .hidden = c.hidden,
          .layers = c.layers,
          .rotary = c.positions == Positions::rotary,
          .rope_base = c.rope_base,
          .rope_scaling = c.rope_scaling,
          .qkv_bias = c.qkv_bias,
          .projection_bias = c.projection_bias,
          .swiglu_bias = c.swiglu_bias,
          .norm = c.norm,
          .norm_epsilon = c.norm_epsilon,
          .feed_forward = c.feed_forward,
          .dropout = c.dropout,
          .checkpointing = c.checkpointing,
          .first_dropout = c.first_dropout};
}

DPMP_KEPT_BODY inline const TransformerConfig& Transformer::checked(const TransformerConfig& c) {
  DPMP_CHECK(c.vocabulary >= 1 && c.width >= 1 && c.layers >= 0 && c.heads >= 1 && c.context >= 1 && c.width % c.heads == 0,
             "expected sizes >= 1 and heads that divide the width, got vocabulary ", c.vocabulary, ", width ", c.width,
             ", layers ", c.layers, ", heads ", c.heads, ", context ", c.context);
  DPMP_CHECK(c.key_value_heads >= 0 && (c.key_value_heads == 0 || c.heads % c.key_value_heads == 0),
             "expected key and value heads that divide the ", c.heads, " heads (0: as many), got ", c.key_value_heads);
  DPMP_CHECK(c.positions == Positions::learned || c.width / c.heads % 2 == 0,
             "expected an even width of a head for rotary positions, got ", c.width / c.heads);
  DPMP_CHECK(c.hidden >= 0 && c.first_dropout >= 0, "expected a hidden width and a first dropout >= 0, got ", c.hidden,
             " and ", c.first_dropout);
  DPMP_CHECK(c.lora.rank >= 0, "expected a LoRA rank >= 0 (0: none), got ", c.lora.rank);
  DPMP_CHECK(c.dropout >= 0 && c.dropout < 1, "expected a dropout rate in [0, 1), got ", c.dropout);
  return c;
}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif
