// SPDX-License-Identifier: Apache-2.0
// Attention with its projections: of a sequence to itself (Vaswani et al. 2017), and of one sequence to another.
#pragma once
#include <array>
#include <cmath>

#include "dpmp/autograd/rules/attention.hpp"
#include "dpmp/autograd/rules/rope.hpp"
#include "dpmp/nn/key_value_cache.hpp"
#include "dpmp/nn/lora.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// Self-attention: `qkv` packs the projections to queries, keys and values in one linear layer, `projection` follows the
/// heads. Both may carry adapters.
class Attention {
 public:
  struct Options {
    /// Divides the width.
    index_t heads = 1;
    /// Heads of keys and values, shared by groups of query heads (Ainslie et al. 2023); 0: as many as heads.
    index_t key_value_heads = 0;
    /// Token t sees tokens 0..t only.
    bool causal = true;
    /// Queries and keys are turned by their position (RoPE); an even width / heads is needed.
    bool rotary = false;
    /// Angle k of a head of width w is position * rope_base^(-2 k / w).
    double rope_base = 10000;
    /// Of these angles, for long contexts.
    RopeScaling rope_scaling = {};
    /// Whether the two linear layers have biases.
    bool qkv_bias = true;
    bool projection_bias = true;
    /// How the weight of `projection` starts.
    Init projection = init::fan_in_normal();
  };
  /// Throws unless the heads divide the width, and key and value heads the heads, and for a rope_base that is not finite and
  /// > 0, or a scaling that RopeScaling::check() refuses.
  Attention(const Scope& scope, index_t width, const Options& options);

  /// x [B, T, width] -> [B, T, width]. keep i32 [B, T], 0: the token is padding, nobody sees it and its output is the bias
  /// of `projection`; not defined: no padding.
  Variable operator()(const Variable& x, const Tensor& keep = Tensor()) const;
  /// x [B, T, width] of the new tokens of the cache's open step -> the same, which see the tokens in the cache, too. layer:
  /// number of this attention in the cache, to whose dtype its projections are cast. Throws unless it is causal and the
  /// cache fits (cache_options).
  Variable operator()(const Variable& x, KeyValueCache& cache, index_t layer) const;
  /// What a cache for one attention like this needs to be.
  KeyValueCache::Options cache_options() const;
  std::array<LoraLinear*, 2> linears() { return {&qkv_, &projection_}; }

 private:
  static AttentionOptions checked(const Scope& scope, index_t width, const Options& options);
  AttentionOptions options_;
  index_t head_width_;
  std::optional<double> rope_base_;
  RopeScaling rope_scaling_;
  LoraLinear qkv_, projection_;
};

/// Attention of one sequence to another, `memory`: a decoder to its encoder, learned queries to an image. `query`,
/// `key_value` (packed) and `projection`. The probabilities [B, heads, T, S] are stored.
class CrossAttention {
 public:
  /// Throws unless the heads divide the width.
  CrossAttention(const Scope& scope, index_t width, index_t memory_width, index_t heads);
  /// x [B, T, width], memory [B, S, memory_width] -> [B, T, width]. keep i32 [B, S] on the host, 0: nobody sees that token
  /// of the memory. Of a sample whose memory nobody sees at all the output is the bias of `projection`.
  Variable operator()(const Variable& x, const Variable& memory, const Tensor& keep = Tensor()) const;

 private:
  index_t width_, heads_;
  Linear query_, key_value_, projection_;
};
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
#include "dpmp/autograd/rules/arithmetic.hpp"
#include "dpmp/autograd/rules/matmul.hpp"
#include "dpmp/autograd/rules/shape_ops.hpp"
#include "dpmp/autograd/rules/softmax.hpp"

namespace dpmp::inline DPMP_ABI::nn {
DPMP_KEPT_BODY inline AttentionOptions Attention::checked(const Scope& scope, index_t width, const Options& options) {
  DPMP_CHECK(width >= 1 && options.heads >= 1 && width % options.heads == 0, scope,
             ": expected a width >= 1 and heads that divide it, got width ", width, " and ", options.heads, " heads");
  DPMP_CHECK(options.key_value_heads >= 0 && (options.key_value_heads == 0 || options.heads % options.key_value_heads == 0),
             scope, ": expected key and value heads that divide the ", options.heads, " heads (0: as many), got ",
             options.key_value_heads);
  DPMP_CHECK(!options.rotary || width / options.heads % 2 == 0, scope,
             ": expected an even width of a head for rotary positions, got ", width / options.heads);
  DPMP_CHECK(!options.rotary || (options.rope_base > 0 && std::isfinite(options.rope_base)), scope,
             ": expected a finite rope_base > 0, got ", options.rope_base);
  options.rope_scaling.check();
  return {.heads = options.heads, .key_value_heads = options.key_value_heads, .causal = options.causal};
}

DPMP_KEPT_BODY inline Attention::Attention(const Scope& scope, index_t width, const Options& options)
    : options_(checked(scope, width, options)),
      head_width_(width / options.heads),
      rope_base_(options.rotary ? std::optional(options.rope_base) : std::nullopt),
      rope_scaling_(options.rope_scaling),
      qkv_(scope / "qkv", width, options_.packed_heads() * head_width_, {.bias = options.qkv_bias}),
      projection_(scope / "projection", width, width, {.bias = options.projection_bias, .weight = options.projection}) {}

DPMP_KEPT_BODY inline Variable Attention::operator()(const Variable& x, const Tensor& keep) const {
  Variable qkv = qkv_(x);
  if (rope_base_) qkv = rope(qkv, options_.heads + options_.key_heads(), head_width_, *rope_base_, rope_scaling_);
  AttentionOptions options = options_;
  options.keep = keep;
  return projection_(attention(qkv, options));
}

DPMP_KEPT_BODY inline Variable Attention::operator()(const Variable& x, KeyValueCache& cache, index_t layer) const {
  return projection_(cache.attend(layer, cast(qkv_(x), cache.dtype()), options_));
}

DPMP_KEPT_BODY inline KeyValueCache::Options Attention::cache_options() const {
  return {.layers = 1,
          .key_heads = options_.key_heads(),
          .head_width = head_width_,
          .rope_base = rope_base_,
          .rope_scaling = rope_scaling_,
          .dtype = qkv_.base().dtype()};
}

DPMP_KEPT_BODY inline CrossAttention::CrossAttention(const Scope& scope, index_t width, index_t memory_width, index_t heads)
    : width_(width),
      heads_(heads),
      query_(scope / "query", width, width),
      key_value_(scope / "key_value", memory_width, 2 * width),
      projection_(scope / "projection", width, width) {
  DPMP_CHECK(heads >= 1 && width % heads == 0, scope, ": expected heads that divide the width ", width, ", got ", heads);
}

DPMP_KEPT_BODY inline Variable CrossAttention::operator()(const Variable& x, const Variable& memory,
                                                          const Tensor& keep) const {
  const auto by_head = [&](const Variable& rows) {
    return transpose(reshape(rows, {rows.shape()[0], rows.shape()[1], heads_, width_ / heads_}), 1, 2);
  };
  const Variable queries = query_(x);
  const std::vector<Variable> key_value = split(cast(key_value_(memory), queries.dtype()), 2, -1);
  Variable scores = matmul(by_head(queries), by_head(key_value[0]), false, true);
  scores = scale(scores, 1 / std::sqrt(double(width_ / heads_)));
  if (keep.defined()) {
    check_shape("cross attention's padding mask", keep, {memory.shape()[0], memory.shape()[1]});
    check_dtype("cross attention's padding mask", keep, DType::i32);
    std::vector<double> shift;
    const auto* kept = keep.host_data<std::int32_t>();
    for (index_t k = 0; k < keep.numel(); ++k) shift.push_back(kept[k] ? 0 : -std::numeric_limits<double>::infinity());
    const Tensor mask = Tensor::from(x.tape().ctx(), {memory.shape()[0], 1, 1, memory.shape()[1]}, scores.dtype(), shift);
    scores = add(scores, x.tape().input(mask));
  }
  return projection_(reshape(transpose(matmul(softmax(scores), by_head(key_value[1])), 1, 2), x.shape()));
}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif
