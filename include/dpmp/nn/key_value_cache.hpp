// SPDX-License-Identifier: Apache-2.0
// Keys and values of the tokens that causal attention has seen: a token that follows costs one pass over them, instead of a
// forward pass over the whole sequence.
#pragma once
#include <optional>
#include <span>
#include <vector>

#include "dpmp/autograd/rules/attention.hpp"
#include "dpmp/autograd/rules/rope.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// Of all attentions of a model and of a batch of sequences, which may have different lengths. `Blocks` and `Transformer`
/// make one that fits (make_cache) and fill it; inference only.
class KeyValueCache {
 public:
  struct Options {
    /// Attentions, which are numbered in the order of the forward pass.
    index_t layers = 0;
    index_t key_heads = 1;
    index_t head_width = 1;
    /// Queries and keys are turned by their position (RoPE) with this base; not set: they are not.
    std::optional<double> rope_base = std::nullopt;
    RopeScaling rope_scaling = {};
    DType dtype = DType::f32;
  };
  /// Room for `capacity` tokens of each of `samples` sequences: 2 * layers * samples * key_heads * capacity * head_width
  /// values, allocated here. Throws on sizes below 1 (layers: below 0) and on an odd head_width with a rope_base.
  KeyValueCache(Context& ctx, const Options& options, index_t samples, index_t capacity);

  index_t samples() const { return samples_; }
  index_t capacity() const { return capacity_; }
  DType dtype() const { return options_.dtype; }
  /// Tokens of each sequence.
  std::span<const index_t> lengths() const { return lengths_; }
  /// i32 [B, tokens]: the positions of the next tokens, at most capacity - 1.
  Tensor positions(index_t tokens) const;
  /// Forgets all tokens; the memory stays.
  void clear();

  /// Opens a step of `tokens` >= 1 new tokens a sequence. counts: of sequence b the first counts[b] are its own and the
  /// others padding, whose results mean nothing; none given: all. Throws where a sequence has no room for its tokens.
  /// A step that was left open by an error is forgotten.
  void begin(index_t tokens, std::span<const index_t> counts = {});
  /// Attention `layer` of the step: qkv [B, T, packed heads * head_width] of the new tokens, as dpmp::attention takes it but
  /// not turned yet -> [B, T, heads * head_width]. Their keys and values are kept. Throws on a tape in training mode,
  /// without an open step, and for options that are not causal or have padding.
  Variable attend(index_t layer, const Variable& qkv, const AttentionOptions& options);
  /// Closes the step: the tokens count from now on.
  void end();

 private:
  struct Layer {
    Tensor keys, values;  // [B, key heads, capacity, head width]
  };
  Context& ctx_;
  Options options_;
  index_t samples_, capacity_;
  std::vector<Layer> layers_;
  Tensor cosine_, sine_;  // [capacity, head width / 2], where tokens are turned
  std::vector<index_t> lengths_;
  // Of the open step.
  std::vector<index_t> counts_;
  index_t tokens_ = 0;  // 0: none is open
  index_t keys_ = 0;    // that its products look at
  Tensor before_;       // i32 [B], the lengths
};
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
#include "dpmp/autograd/rules/shape_ops.hpp"
#include "dpmp/gemm/gemm.hpp"
#include "dpmp/kernels/cached_attention.hpp"

namespace dpmp::inline DPMP_ABI::nn {
DPMP_KEPT_BODY inline KeyValueCache::KeyValueCache(Context& ctx, const Options& options, index_t samples, index_t capacity)
    : ctx_(ctx),
      options_(options),
      samples_(samples),
      capacity_(capacity),
      lengths_(std::size_t(std::max<index_t>(0, samples))) {
  DPMP_CHECK(samples >= 1 && capacity >= 1, "expected a cache of at least one sequence and one token, got ", samples,
             " and ", capacity);
  DPMP_CHECK(options.layers >= 0 && options.key_heads >= 1 && options.head_width >= 1,
             "expected a cache of layers >= 0, key heads >= 1 and a width of a head >= 1, got ", options.layers, ", ",
             options.key_heads, " and ", options.head_width);
  DPMP_CHECK(!options.rope_base || options.head_width % 2 == 0,
             "expected an even width of a head for rotary positions, got ", options.head_width);
  // Zeros: a product reads the places of tokens to come, and what it reads is multiplied by 0.
  const Shape shape{samples, options.key_heads, capacity, options.head_width};
  for (index_t k = 0; k < options.layers; ++k)
    layers_.push_back({Tensor::zeros(ctx, shape, options.dtype), Tensor::zeros(ctx, shape, options.dtype)});
  if (!options.rope_base) return;
  const rules::RotaryTable table(ctx, capacity, options.head_width, *options.rope_base, options.rope_scaling, options.dtype);
  cosine_ = table.cosine;
  sine_ = table.sine;
}

DPMP_KEPT_BODY inline void KeyValueCache::clear() {
  std::fill(lengths_.begin(), lengths_.end(), index_t(0));
  tokens_ = 0;
}

DPMP_KEPT_BODY inline void KeyValueCache::begin(index_t tokens, std::span<const index_t> counts) {
  tokens_ = 0;
  DPMP_CHECK(tokens >= 1, "expected at least one new token, got ", tokens);
  DPMP_CHECK(counts.empty() || index_t(counts.size()) == samples_, "expected a count for each of ", samples_,
             " sequences, got ", counts.size());
  std::vector<std::int32_t> before;
  index_t longest = 0;
  counts_.clear();
  for (index_t b = 0; b < samples_; ++b) {
    const index_t count = counts.empty() ? tokens : counts[std::size_t(b)], length = lengths_[std::size_t(b)];
    DPMP_CHECK(count >= 0 && count <= tokens, "expected counts in [0, ", tokens, "] of new tokens, got ", count,
               " for sequence ", b);
    DPMP_CHECK(length + count <= capacity_, "expected room for ", count, " more tokens of sequence ", b,
               " in the key and value cache, got ", length, " of ", capacity_, " places taken");
    counts_.push_back(count);
    before.push_back(std::int32_t(length));
    longest = std::max(longest, length);
  }
  before_ = Tensor::from(ctx_, {samples_}, before);
  tokens_ = tokens;
  // In steps, so that there are few shapes of products: a library chooses how to compute each.
  constexpr index_t step = 64;
  keys_ = std::min(capacity_, (longest + tokens + step - 1) / step * step);
}

DPMP_KEPT_BODY inline Tensor KeyValueCache::positions(index_t tokens) const {
  std::vector<std::int32_t> positions;
  for (const index_t length : lengths_)
    for (index_t t = 0; t < tokens; ++t) positions.push_back(std::int32_t(std::min(length + t, capacity_ - 1)));
  return Tensor::from(ctx_, {samples_, tokens}, positions);
}

DPMP_KEPT_BODY inline Variable KeyValueCache::attend(index_t layer, const Variable& qkv, const AttentionOptions& options) {
  Tape& tape = qkv.tape();
  const index_t width = options_.head_width, heads = options.heads, key_heads = options_.key_heads;
  DPMP_CHECK(tape.mode() == TapeMode::inference,
             "expected a tape for inference with a key and value cache, got one for "
             "training");
  DPMP_CHECK(options.causal && !options.keep.defined(),
             "expected causal attention without a padding mask with a key and value cache, got ",
             options.causal ? "a mask" : "attention to later tokens, too");
  DPMP_CHECK(tokens_ > 0, "expected a cache with an open step, got none: call begin");
  DPMP_CHECK(layer >= 0 && layer < options_.layers, "expected a layer in [0, ", options_.layers, ") of the cache, got ",
             layer);
  DPMP_CHECK(heads >= 1 && options.key_heads() == key_heads && heads % key_heads == 0, "expected ", key_heads,
             " key and value heads like the cache's, got ", options.key_heads(), " for ", heads, " heads");
  check_shape("the projections of new tokens", qkv.value(), {samples_, tokens_, options.packed_heads() * width});
  check_dtype("the projections of new tokens", qkv.value(), options_.dtype);
  const Layer& kept = layers_[std::size_t(layer)];
  const DType real = accumulate_dtype(options_.dtype);
  const Tensor queries = Tensor::empty(ctx_, {samples_, heads, tokens_, width}, options_.dtype),
               scores = Tensor::empty(ctx_, {samples_, heads, tokens_, keys_}, real),
               probabilities = Tensor::empty(ctx_, scores.shape(), options_.dtype),
               y = Tensor::empty(ctx_, queries.shape(), options_.dtype);
  // The query heads of a key head are next to each other: one product has them all. What is generated is public or
  // released, so bits may depend on a sequence's place.
  const index_t rows = heads / key_heads * tokens_;
  const GemmSpec product{
      .m = rows, .n = 0, .k = 0, .batch = samples_ * key_heads, .a = {}, .b = {}, .out = {}, .position_free = false};
  dispatch_real(options_.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using R = compute_t<T>;
    const bool turned = cosine_.defined();
    launch_library_rows(
        ctx_, samples_ * tokens_, options.packed_heads() * width,
        kernels::CacheTokens<T>{qkv.value().data<T>(), queries.data<T>(), kept.keys.data<T>(), kept.values.data<T>(),
                                before_.data<std::int32_t>(), turned ? cosine_.data<R>() : nullptr,
                                turned ? sine_.data<R>() : nullptr, tokens_, heads, key_heads, width, capacity_});
    GemmSpec score = product;
    score.n = keys_, score.k = width;
    score.a = {.data = queries.raw(), .dtype = options_.dtype, .row_stride = width, .batch_stride = rows * width};
    score.b = {.data = kept.keys.raw(),
               .dtype = options_.dtype,
               .row_stride = width,
               .batch_stride = capacity_ * width,
               .transposed = true};
    score.out = {.data = scores.raw(), .dtype = real, .row_stride = keys_, .batch_stride = rows * keys_};
    gemm(ctx_, score);
    launch_library_rows(ctx_, samples_ * heads * tokens_, keys_,
                        kernels::CachedSoftmax<T>{scores.data<R>(), probabilities.data<T>(), before_.data<std::int32_t>(),
                                                  heads, tokens_, keys_, R(1 / std::sqrt(double(width)))});
    GemmSpec mix = product;
    mix.n = width, mix.k = keys_;
    mix.a = {.data = probabilities.raw(), .dtype = options_.dtype, .row_stride = keys_, .batch_stride = rows * keys_};
    mix.b = {.data = kept.values.raw(), .dtype = options_.dtype, .row_stride = width, .batch_stride = capacity_ * width};
    mix.out = {.data = y.raw(), .dtype = options_.dtype, .row_stride = width, .batch_stride = rows * width};
    gemm(ctx_, mix);
  });
  const Shape joined{samples_, tokens_, heads * width};
  if (tokens_ == 1) return tape.input(y.reshaped(joined));
  return reshape(transpose(tape.input(y), 1, 2), joined);
}

DPMP_KEPT_BODY inline void KeyValueCache::end() {
  DPMP_CHECK(tokens_ > 0, "expected a cache with an open step, got none: call begin");
  for (index_t b = 0; b < samples_; ++b) lengths_[std::size_t(b)] += counts_[std::size_t(b)];
  tokens_ = 0;
}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif
