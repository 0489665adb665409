// SPDX-License-Identifier: Apache-2.0
// Blocks of a transformer: attention and a feed-forward block, each after a norm and added to the residual stream. Causal
// or not, with any norm, any feed-forward block, with padding: decoders, encoders and vision transformers alike.
#pragma once
#include <variant>
#include <vector>

#include "dpmp/autograd/checkpointing.hpp"
#include "dpmp/core/function_ref.hpp"
#include "dpmp/nn/attention.hpp"
#include "dpmp/nn/feed_forward.hpp"
#include "dpmp/nn/layer_norm.hpp"
#include "dpmp/nn/rms_norm.hpp"

namespace dpmp::inline DPMP_ABI::nn {
enum class Norm : std::uint8_t { layer_norm, rms_norm };
/// gelu: x Phi(x). gelu_tanh: its tanh approximation, which GPT-2 was trained with and a GPU computes inside of products.
enum class FeedForward : std::uint8_t { gelu, gelu_tanh, swiglu };

struct BlockOptions {
  index_t width = 0;
  index_t heads = 1;
  /// Heads of keys and values; 0: as many as heads.
  index_t key_value_heads = 0;
  /// Width inside of the feed-forward block. 0: 4 * width for gelu and gelu_tanh; for swiglu 8 / 3 * width, rounded up to a
  /// multiple of 8, for as many parameters.
  index_t hidden = 0;
  /// Blocks of the model: each of the 2 * layers branches adds its share to the variance of the residual stream.
  index_t layers = 1;
  bool causal = true;
  /// Queries and keys are turned by their position (RoPE).
  bool rotary = false;
  /// Of the angles (Attention::Options).
  double rope_base = 10000;
  RopeScaling rope_scaling = {};
  /// Whether attention's linear layers have biases.
  bool qkv_bias = true;
  bool projection_bias = true;
  /// Whether SwiGLU's linear layers have biases; those of gelu and gelu_tanh always do.
  bool swiglu_bias = false;
  Norm norm = Norm::layer_norm;
  /// Added to the variance or mean square in every norm.
  double norm_epsilon = 1e-5;
  FeedForward feed_forward = FeedForward::gelu;
  /// Share of activations dropped after attention and feed-forward block while training.
  double dropout = 0;
  /// What is kept of each block for the backward pass (autograd/checkpointing.hpp): time and memory, no bit of a result.
  Checkpointing checkpointing = Checkpointing::none;
  /// Number of the first dropout; block k has first_dropout + 2 k and the next. No two dropouts of a model may share one.
  index_t first_dropout = 0;
};

/// A norm of either kind.
using AnyNorm = std::variant<LayerNorm, RmsNorm>;
AnyNorm make_norm(const Scope& scope, index_t width, Norm norm, double epsilon = 1e-5);

/// The residual stream between blocks: the norm that follows adds the last branch, in the same pass.
struct ResidualStream {
  Variable x;
  std::optional<Variable> branch;
};
/// The sum of the stream and that normalised. By value: the branch lives no longer than its addition.
SumAndNorm normalised(const AnyNorm& norm, ResidualStream stream);

/// `attention_norm`, `attention`, `mlp_norm`, `mlp`: y = x + attention(norm(x)), y + mlp(norm(y)). A branch is cast to the
/// dtype of the stream before it is added.
class Block {
 public:
  /// number: of this block among those of the model: its dropouts are options.first_dropout + 2 * number and the next.
  /// Throws on sizes that do not fit.
  Block(const Scope& scope, const BlockOptions& options, index_t number = 0);
  /// x [B, T, width] -> the same, in the scope's Precision::residual(). keep i32 [B, T], 0: padding. Checkpointed as the
  /// options say; the block must outlive the tape's last walk.
  Variable operator()(const Variable& x, const Tensor& keep = Tensor()) const;
  /// The same without the last addition, in the dtype that the stream has; never checkpointed.
  ResidualStream operator()(ResidualStream stream, const Tensor& keep = Tensor()) const;
  /// The new tokens of the cache's open step; layer: number of this block's attention in the cache.
  ResidualStream operator()(ResidualStream stream, KeyValueCache& cache, index_t layer) const;
  const Attention& attention() const { return attention_; }
  /// The layers that may carry adapters.
  std::vector<LoraLinear*> linears();

 private:
  using AnyFeedForward = std::variant<GeluFeedForward, SwiGlu>;
  static AnyFeedForward make_feed_forward(const Scope& scope, const BlockOptions& options);
  /// attend: attention of normalised tokens. Without the dropout of the last branch.
  ResidualStream apply(ResidualStream stream, FunctionRef<Variable(const Variable&)> attend) const;
  ResidualStream dropped(ResidualStream stream) const {
    return {stream.x, cast(after_mlp_(*stream.branch), stream.x.dtype())};
  }
  DType residual_;
  Checkpointing checkpointing_;
  AnyNorm attention_norm_;
  Attention attention_;
  AnyNorm mlp_norm_;
  AnyFeedForward mlp_;
  Dropout after_attention_, after_mlp_;
};

/// Blocks one after the other and a last norm: `block0`, `block1`, .. and `norm`. The stream between them is in the scope's
/// Precision::residual(), the result in that of the last norm.
class Blocks {
 public:
  Blocks(const Scope& scope, const BlockOptions& options);
  /// x [B, T, width] -> [B, T, width], normalised. keep i32 [B, T], 0: padding. By value: what is moved in is freed early.
  Variable operator()(Variable x, const Tensor& keep = Tensor()) const;
  /// x [B, T, width], the tokens that follow those in the cache -> [B, T, width], normalised. counts: how many of them are a
  /// sequence's own, the others are padding (KeyValueCache::begin); none given: all. They are in the cache afterwards.
  /// Throws for blocks that are not causal, and where the cache does not fit or has no room.
  Variable operator()(Variable x, KeyValueCache& cache, std::span<const index_t> counts = {}) const;
  /// An empty cache for sequences of up to `capacity` tokens. Throws for blocks that are not causal.
  KeyValueCache make_cache(Context& ctx, index_t samples, index_t capacity) const;
  /// The layers that may carry adapters.
  std::vector<LoraLinear*> linears();
  index_t size() const { return index_t(blocks_.size()); }

 private:
  KeyValueCache::Options cache_options() const;
  DType residual_;
  AnyNorm norm_;
  bool causal_;
  Checkpointing checkpointing_;
  std::vector<Block> blocks_;
};

/// Puts adapters on layers, which freezes their bases; nothing when the rank is 0. first: the adapters' dropouts have this
/// number and those after it, which no other dropout of the model may have. Everything else is trained as before.
void adapt(std::span<LoraLinear* const> layers, const LoraOptions& options, index_t first);
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::nn {
namespace detail {
inline Init residual_start(const BlockOptions& o, index_t inputs) {
  return init::normal(1 / std::sqrt(double(inputs) * 2 * double(o.layers)));
}
inline const BlockOptions& checked(const Scope& scope, const BlockOptions& o) {
  DPMP_CHECK(o.width >= 1 && o.hidden >= 0 && o.layers >= 0, scope,
             ": expected a width >= 1, a hidden width >= 0 and layers >= 0, got ", o.width, ", ", o.hidden, " and ",
             o.layers);
  return o;
}
}  // namespace detail

DPMP_KEPT_BODY inline AnyNorm make_norm(const Scope& scope, index_t width, Norm norm, double epsilon) {
  if (norm == Norm::rms_norm) return RmsNorm(scope, width, epsilon);
  return LayerNorm(scope, width, epsilon);
}

DPMP_KEPT_BODY inline SumAndNorm normalised(const AnyNorm& norm, ResidualStream stream) {
  return std::visit(
      [&](const auto& n) {
        return stream.branch ? n(stream.x, *stream.branch) : SumAndNorm{stream.x, n(stream.x)};
      },
      norm);
}

DPMP_KEPT_BODY inline Block::AnyFeedForward Block::make_feed_forward(const Scope& scope, const BlockOptions& o) {
  if (o.feed_forward == FeedForward::swiglu) {
    const index_t hidden = o.hidden ? o.hidden : (8 * o.width + 23) / 24 * 8;
    return SwiGlu(scope, o.width, hidden, {.down = detail::residual_start(o, hidden), .bias = o.swiglu_bias});
  }
  const index_t hidden = o.hidden ? o.hidden : 4 * o.width;
  return GeluFeedForward(
      scope, o.width, hidden,
      {.down = detail::residual_start(o, hidden),
       .form = o.feed_forward == FeedForward::gelu_tanh ? GemmActivation::gelu_tanh : GemmActivation::gelu_erf});
}

DPMP_KEPT_BODY inline Block::Block(const Scope& scope, const BlockOptions& o, index_t number)
    : residual_(scope.precision().residual()),
      checkpointing_(o.checkpointing),
      attention_norm_(make_norm(scope / "attention_norm", detail::checked(scope, o).width, o.norm, o.norm_epsilon)),
      attention_(scope / "attention", o.width,
                 {.heads = o.heads,
                  .key_value_heads = o.key_value_heads,
                  .causal = o.causal,
                  .rotary = o.rotary,
                  .rope_base = o.rope_base,
                  .rope_scaling = o.rope_scaling,
                  .qkv_bias = o.qkv_bias,
                  .projection_bias = o.projection_bias,
                  .projection = detail::residual_start(o, o.width)}),
      mlp_norm_(make_norm(scope / "mlp_norm", o.width, o.norm, o.norm_epsilon)),
      mlp_(make_feed_forward(scope / "mlp", o)),
      after_attention_(o.dropout, std::uint32_t(o.first_dropout + 2 * number)),
      after_mlp_(o.dropout, std::uint32_t(o.first_dropout + 2 * number + 1)) {}

DPMP_KEPT_BODY inline ResidualStream Block::operator()(ResidualStream stream, const Tensor& keep) const {
  return dropped(apply(std::move(stream), [&](const Variable& x) { return attention_(x, keep); }));
}

DPMP_KEPT_BODY inline ResidualStream Block::operator()(ResidualStream stream, KeyValueCache& cache, index_t layer) const {
  return dropped(apply(std::move(stream), [&](const Variable& x) { return attention_(x, cache, layer); }));
}

DPMP_KEPT_BODY inline ResidualStream Block::apply(ResidualStream stream,
                                                  FunctionRef<Variable(const Variable&)> attend) const {
  const SumAndNorm x = normalised(attention_norm_, std::move(stream));
  const Variable attended = attend(x.normed);
  const SumAndNorm y = normalised(mlp_norm_, {x.sum, cast(after_attention_(attended), x.sum.dtype())});
  return {y.sum, std::visit([&](const auto& mlp) { return mlp(y.normed); }, mlp_)};
}

DPMP_KEPT_BODY inline Variable Block::operator()(const Variable& x, const Tensor& keep) const {
  // What is computed again ends with a product, the last one of the block, which is then left out.
  const auto branches = [this](const Variable& rows, const Tensor& seen) {
    return apply({rows, std::nullopt}, [&](const Variable& normed) { return attention_(normed, seen); });
  };
  const ResidualStream y = dropped(checkpointed(checkpointing_, x.tape(), branches, cast(x, residual_), keep));
  return add(y.x, *y.branch);
}

DPMP_KEPT_BODY inline std::vector<LoraLinear*> Block::linears() {
  std::vector<LoraLinear*> all;
  for (LoraLinear* linear : attention_.linears()) all.push_back(linear);
  for (LoraLinear* linear : std::visit([](auto& mlp) { return mlp.linears(); }, mlp_)) all.push_back(linear);
  return all;
}

DPMP_KEPT_BODY inline Blocks::Blocks(const Scope& scope, const BlockOptions& options)
    : residual_(scope.precision().residual()),
      norm_(make_norm(scope / "norm", detail::checked(scope, options).width, options.norm, options.norm_epsilon)),
      causal_(options.causal),
      checkpointing_(options.checkpointing) {
  for (index_t k = 0; k < options.layers; ++k) blocks_.emplace_back(scope / ("block" + std::to_string(k)), options, k);
}

DPMP_KEPT_BODY inline Variable Blocks::operator()(Variable x, const Tensor& keep) const {
  x = cast(x, residual_);
  if (x.tape().checkpointing(checkpointing_) != Checkpointing::none) {
    // One tensor between blocks, not the stream and its last branch.
    for (const Block& block : blocks_) x = block(x, keep);
    return normalised(norm_, {std::move(x), std::nullopt}).normed;
  }
  ResidualStream stream{std::move(x), std::nullopt};
  for (const Block& block : blocks_) stream = block(std::move(stream), keep);
  return normalised(norm_, std::move(stream)).normed;
}

DPMP_KEPT_BODY inline Variable Blocks::operator()(Variable x, KeyValueCache& cache, std::span<const index_t> counts) const {
  DPMP_CHECK(causal_, "expected causal blocks for a key and value cache, got blocks whose tokens see later ones");
  DPMP_CHECK(x.shape().rank() == 3, "expected x [B, T, width], got ", x.shape());
  DPMP_CHECK(blocks_.empty() || cache.dtype() == cache_options().dtype,
             "expected blocks that fit the cache, whose keys and values are in ", cache.dtype(), ", got ",
             cache_options().dtype);
  cache.begin(x.shape()[1], counts);
  ResidualStream stream{std::move(x), std::nullopt};
  stream.x = cast(stream.x, residual_);
  for (index_t k = 0; k < size(); ++k) stream = blocks_[std::size_t(k)](std::move(stream), cache, k);
  cache.end();
  return normalised(norm_, std::move(stream)).normed;
}

DPMP_KEPT_BODY inline KeyValueCache::Options Blocks::cache_options() const {
  KeyValueCache::Options options;
  if (!blocks_.empty()) options = blocks_[0].attention().cache_options();
  // One dtype for all of it, which holds what every block projects to.
  for (const Block& block : blocks_)
    if (block.attention().cache_options().dtype != options.dtype) options.dtype = accumulate_dtype(options.dtype);
  options.layers = size();
  return options;
}

DPMP_KEPT_BODY inline KeyValueCache Blocks::make_cache(Context& ctx, index_t samples, index_t capacity) const {
  DPMP_CHECK(causal_, "expected causal blocks for a key and value cache, got blocks whose tokens see later ones");
  return KeyValueCache(ctx, cache_options(), samples, capacity);
}

DPMP_KEPT_BODY inline std::vector<LoraLinear*> Blocks::linears() {
  std::vector<LoraLinear*> all;
  for (Block& block : blocks_)
    for (LoraLinear* linear : block.linears()) all.push_back(linear);
  return all;
}

DPMP_KEPT_BODY inline void adapt(std::span<LoraLinear* const> layers, const LoraOptions& options, index_t first) {
  for (std::size_t k = 0; k < layers.size(); ++k) layers[k]->adapt(options, std::uint32_t(first + index_t(k)));
}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif
