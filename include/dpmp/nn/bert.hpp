// SPDX-License-Identifier: Apache-2.0
// BERT (Devlin et al. 2019, arXiv 1810.04805): an encoder whose norms stand behind attention and feed-forward block, with
// types of tokens, padding, and a head for masked tokens or for classes. Weights from the hub: nn/huggingface_bert.hpp.
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "dpmp/nn/block.hpp"
#include "dpmp/nn/summed_embedding.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// none: rows and, with a pooler, pooled rows. masked_tokens: logits of every token over the vocabulary, by the table of
/// tokens. classes: logits of the pooled row.
enum class BertHead : std::uint8_t { none, masked_tokens, classes };

struct BertConfig {
  index_t vocabulary = 256;
  index_t width = 256;
  index_t layers = 4;
  index_t heads = 4;
  /// Width inside of the feed-forward blocks; 0: 4 * width.
  index_t hidden = 0;
  /// Longest sequence: rows of the table of positions.
  index_t context = 128;
  /// Rows of the table of token types.
  index_t types = 2;
  double norm_epsilon = 1e-12;
  /// gelu or gelu_tanh; also in the head for masked tokens.
  FeedForward feed_forward = FeedForward::gelu;
  BertHead head = BertHead::none;
  /// tanh of a linear layer of the first token; of a model with classes always.
  bool pooler = false;
  /// Logits of a model with classes.
  index_t classes = 2;
  /// Share of activations dropped while training: after the embedding, attention, the feed-forward block, the pooler.
  double dropout = 0;
  /// Number of the first of the 2 * layers + 2 dropouts, with adapters 6 * layers + 2.
  index_t first_dropout = 0;
  /// Of the initial values, where the parameters are the model's own.
  std::uint64_t seed = 0;
  /// rank > 0: all but the head (and the pooler of a model with classes) is frozen, and adapters on the linear layers of
  /// all blocks are trained.
  LoraOptions lora = {};
};

class Bert {
 public:
  /// What is looked at: i32 [B, T] each, T <= context.
  struct Inputs {
    Tensor ids;
    /// Not defined: type 0.
    Tensor types = {};
    /// 0: padding, which nobody sees and whose rows mean nothing; not defined: none.
    Tensor keep = {};
  };
  /// Throws on a configuration that no tensor can have.
  Bert(Context& ctx, const BertConfig& config, const Precision& precision);
  /// A part of a model whose parameters are made in this scope; config.seed is not looked at.
  Bert(const Scope& scope, const BertConfig& config);
  Bert(const Bert&) = delete;
  Bert& operator=(const Bert&) = delete;

  const BertConfig& config() const { return config_; }
  Parameters& parameters() { return *parameters_; }
  const Parameters& parameters() const { return *parameters_; }
  /// Those that it made itself.
  std::span<Parameter* const> own_parameters() const { return parameters_->all().subspan(first_, count_); }

  /// The rows after the last block, [B, T, width].
  Variable rows(Tape& tape, const Inputs& in) const;
  /// rows -> [B, width]; throws without a pooler.
  Variable pooled(const Variable& rows) const;
  /// The head's logits: [B, T, vocabulary], or [B, classes]. Throws without a head.
  Variable operator()(Tape& tape, const Inputs& in) const;

 private:
  struct Layer {
    Attention attention;
    LayerNorm attention_norm;
    GeluFeedForward mlp;
    LayerNorm mlp_norm;
    Dropout after_attention, after_mlp;
  };
  struct MaskedTokens {
    Linear dense;
    LayerNorm norm;
    Parameter* bias;
  };
  static const BertConfig& checked(const BertConfig& c);
  static Layer layer(const Scope& scope, const BertConfig& c, index_t number);
  Bert(std::unique_ptr<Parameters> owned, const BertConfig& config);
  BertConfig config_;
  std::unique_ptr<Parameters> owned_;  // null: the user's
  Parameters* parameters_;
  std::size_t first_, count_ = 0;  // numbers of the parameters
  SummedEmbedding embedding_;
  LayerNorm embedding_norm_;
  Dropout after_embedding_, after_pooler_;
  std::vector<Layer> layers_;
  std::optional<Linear> pooler_, classifier_;
  std::optional<MaskedTokens> masked_tokens_;
  bool wide_logits_ = false;
};
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
#include "dpmp/autograd/rules/activation.hpp"
#include "dpmp/autograd/rules/select.hpp"
#include "dpmp/autograd/rules/shape_ops.hpp"

namespace dpmp::inline DPMP_ABI::nn {
DPMP_KEPT_BODY inline Bert::Bert(Context& ctx, const BertConfig& config, const Precision& precision)
    : Bert(std::make_unique<Parameters>(ctx, precision, checked(config).seed), config) {}

DPMP_KEPT_BODY inline Bert::Bert(std::unique_ptr<Parameters> owned, const BertConfig& config) : Bert(Scope(*owned), config) {
  owned_ = std::move(owned);
}

DPMP_KEPT_BODY inline Bert::Bert(const Scope& scope, const BertConfig& config)
    : config_(checked(config)),
      parameters_(&scope.parameters()),
      first_(parameters_->all().size()),
      embedding_(scope, config.width,
                 {.tables = {{"tokens", config.vocabulary}, {"types", config.types}}, .positions = config.context}),
      embedding_norm_(scope / "embedding_norm", config.width, config.norm_epsilon),
      after_embedding_(config.dropout, std::uint32_t(config.first_dropout)),
      after_pooler_(config.dropout, std::uint32_t(config.first_dropout + 1)) {
  for (index_t k = 0; k < config.layers; ++k) layers_.push_back(layer(scope / ("block" + std::to_string(k)), config, k));
  const std::size_t base = parameters_->all().size();
  if (config.pooler || config.head == BertHead::classes) pooler_.emplace(scope / "pooler", config.width, config.width);
  const Scope head = scope / "head";
  wide_logits_ = head.precision().logits() != head.dtype();
  if (config.head == BertHead::classes) classifier_.emplace(head, config.width, config.classes);
  if (config.head == BertHead::masked_tokens) {
    Linear dense(head / "dense", config.width, config.width);
    LayerNorm norm(head / "norm", config.width, config.norm_epsilon);
    masked_tokens_.emplace(MaskedTokens{dense, norm, &head.constant("bias", {config.vocabulary}, 0)});
  }
  if (config.lora.rank > 0) {
    for (std::size_t k = first_; k < base; ++k) parameters_->all()[k]->set_trainable(false);
    std::vector<LoraLinear*> linears;
    for (Layer& l : layers_) {
      for (LoraLinear* linear : l.attention.linears()) linears.push_back(linear);
      for (LoraLinear* linear : l.mlp.linears()) linears.push_back(linear);
    }
    adapt(linears, config.lora, config.first_dropout + 2 * config.layers + 2);
  }
  count_ = parameters_->all().size() - first_;
}

DPMP_KEPT_BODY inline Bert::Layer Bert::layer(const Scope& scope, const BertConfig& c, index_t number) {
  const bool tanh = c.feed_forward == FeedForward::gelu_tanh;
  const auto dropout = std::uint32_t(c.first_dropout + 2 + 2 * number);
  return {.attention = Attention(scope / "attention", c.width, {.heads = c.heads, .causal = false}),
          .attention_norm = LayerNorm(scope / "attention_norm", c.width, c.norm_epsilon),
          .mlp = GeluFeedForward(scope / "mlp", c.width, c.hidden ? c.hidden : 4 * c.width,
                                 {.form = tanh ? GemmActivation::gelu_tanh : GemmActivation::gelu_erf}),
          .mlp_norm = LayerNorm(scope / "mlp_norm", c.width, c.norm_epsilon),
          .after_attention = Dropout(c.dropout, dropout),
          .after_mlp = Dropout(c.dropout, dropout + 1)};
}

DPMP_KEPT_BODY inline Variable Bert::rows(Tape& tape, const Inputs& in) const {
  DPMP_CHECK(in.ids.shape().rank() == 2 && in.ids.shape()[1] <= config_.context, "expected ids [B, T <= ", config_.context,
             "], got ", in.ids.shape());
  if (in.keep.defined()) check_shape("the padding mask", in.keep, in.ids.shape());
  const Tensor types = in.types.defined() ? in.types : Tensor::zeros(tape.ctx(), in.ids.shape(), DType::i32);
  Variable x = after_embedding_(embedding_norm_(embedding_(tape, {in.ids, types})));
  for (const Layer& l : layers_) {
    const Variable attended = l.after_attention(l.attention(x, in.keep));
    x = l.attention_norm(x, cast(attended, x.dtype())).normed;
    const Variable moved = l.after_mlp(l.mlp(x));
    x = l.mlp_norm(x, cast(moved, x.dtype())).normed;
  }
  return x;
}

DPMP_KEPT_BODY inline Variable Bert::pooled(const Variable& rows) const {
  DPMP_CHECK(pooler_, "expected a BERT with a pooler, got one without");
  const index_t samples = rows.shape()[0];
  const Tensor first = Tensor::zeros(rows.tape().ctx(), {samples, 1}, DType::i32);
  return tanh((*pooler_)(reshape(gather(rows, first), {samples, config_.width})));
}

DPMP_KEPT_BODY inline Variable Bert::operator()(Tape& tape, const Inputs& in) const {
  DPMP_CHECK(config_.head != BertHead::none, "expected a BERT with a head, got one without: ask for its rows");
  const Variable x = rows(tape, in);
  if (classifier_) return classifier_->logits(after_pooler_(pooled(x)));
  const Variable hidden = masked_tokens_->dense(x);
  const Variable active = config_.feed_forward == FeedForward::gelu_tanh ? gelu_tanh(hidden) : gelu(hidden);
  Parameter& table = embedding_.table(0);
  const Variable in_table = cast(masked_tokens_->norm(active), table.dtype());
  return wide_logits_ ? wide_linear(in_table, table, masked_tokens_->bias) : linear(in_table, table, masked_tokens_->bias);
}

DPMP_KEPT_BODY inline const BertConfig& Bert::checked(const BertConfig& c) {
  DPMP_CHECK(c.vocabulary >= 1 && c.width >= 1 && c.layers >= 0 && c.heads >= 1 && c.context >= 1 && c.types >= 1 &&
                 c.width % c.heads == 0,
             "expected sizes >= 1 and heads that divide the width, got vocabulary ", c.vocabulary, ", width ", c.width,
             ", layers ", c.layers, ", heads ", c.heads, ", context ", c.context, ", types ", c.types);
  DPMP_CHECK(c.hidden >= 0 && c.first_dropout >= 0 && c.lora.rank >= 0,
             "expected a hidden width, a first dropout and a LoRA rank >= 0, got ", c.hidden, ", ", c.first_dropout, " and ",
             c.lora.rank);
  DPMP_CHECK(c.feed_forward != FeedForward::swiglu, "expected gelu or gelu_tanh in a BERT, got swiglu");
  DPMP_CHECK(c.head != BertHead::classes || c.classes >= 1, "expected at least one class, got ", c.classes);
  return c;
}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif
