// SPDX-License-Identifier: Apache-2.0
// linear_cross_entropy: an output layer and its loss, of which the logits are never stored as a whole. [B, T, classes] is
// the largest tensor of a small language model; here logits of some rows at a time are formed, used, and formed again.
#pragma once
#include "dpmp/autograd/rules/cross_entropy.hpp"

namespace dpmp::inline DPMP_ABI {
/// Bytes of FP32 logits (f64 for an f64 model) that linear_cross_entropy forms at a time, by default.
inline constexpr index_t default_logit_bytes = index_t(32) << 20;

/// cross_entropy(wide_linear(x, weight, bias), targets, options): the same losses and gradients, bit for bit, and the same
/// norms and contributions of records. x [B, .., d], weight [p, d] and bias [p] (or null) of one dtype, targets i32 [B, ..]
/// -> losses [B] in f32 (f64). Kept for the backward pass: x, targets, and three numbers a row.
///
/// logit_bytes >= 1: how much is formed at a time. As many samples as fit, of a number that divides B so that all are dealt
/// with alike; where one does not fit, tokens of one. What a private pass adds of the weight is formed for whole samples,
/// T p of x's dtype at the least; where all logits fit, their gradient is stored. The backward pass repeats the forward
/// product once; norms and clipped sums repeat it for themselves. With one token a sample the clipped sum is of products
/// over the samples of a chunk: it differs from that of all samples by roundings in double.
Variable linear_cross_entropy(const Variable& x, Parameter& weight, Parameter* bias, const Tensor& targets,
                              CrossEntropyOptions options = {}, index_t logit_bytes = default_logit_bytes);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include <numeric>

#include "dpmp/autograd/rules/linear.hpp"
#include "dpmp/core/accumulation.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
/// The rows of an output layer, sample i's token t at i T + t, and which of them are formed at a time.
struct LogitRows {
  Affine affine;
  CrossEntropyOptions options;
  index_t samples, tokens, samples_at_once = 1, tokens_at_once = 1;
  Tensor x, targets;           // [B T, d]; i32 [B T]
  Tensor top, scale, missing;  // [B T], of kernels::CrossEntropyRows

  index_t classes() const { return affine.weight->shape()[0]; }
  DType real() const { return accumulate_dtype(x.dtype()); }
  void share_out(index_t bytes) {
    const index_t row = std::max<index_t>(1, classes() * size_of(real())), one = std::max<index_t>(1, tokens) * row;
    tokens_at_once = one > bytes ? std::max<index_t>(1, bytes / row) : std::max<index_t>(1, tokens);
    // Of equal chunks every sample's products are the same ones, and chains of additions end with a chunk.
    const index_t all = std::max<index_t>(1, samples <= samples_per_chain ? samples : std::gcd(samples, samples_per_chain));
    samples_at_once = std::max<index_t>(1, std::min(all, bytes / one));
    while (all % samples_at_once != 0) --samples_at_once;
  }
  bool one_chunk() const { return samples_at_once >= samples && tokens_at_once >= tokens; }
  /// f(first, last) for the rows of samples [first_sample, last_sample), chunk by chunk.
  template <class F>
  void for_chunks(index_t first_sample, index_t last_sample, const F& f) const {
    for (index_t i = first_sample; i < last_sample; i += samples_at_once)
      for (index_t t = 0; t < tokens; t += tokens_at_once)
        f(i * tokens + t, (i + samples_at_once - 1) * tokens + std::min(tokens, t + tokens_at_once));
  }
  /// Whole samples, or tokens of one: how many samples, and how many tokens of each.
  Shape shape_of(index_t first, index_t last) const {
    const index_t each = samples_at_once > 1 ? tokens : last - first;
    return {(last - first) / each, each};
  }

  void form(Context& ctx, index_t first, index_t last, const Tensor& logits) const {
    gemm(ctx, affine.forward(x.rows(first, last), logits));
  }
  /// b [last - first, p] in x's dtype: the gradient of the logits, rounded once.
  void gradient(Context& ctx, const Tensor& seed, index_t first, index_t last, const Tensor& b) const {
    const bool rounds = b.dtype() != real();
    const Tensor logits = rounds ? Tensor::empty(ctx, b.shape(), real()) : b;
    form(ctx, first, last, logits);
    dispatch_real(real(), [&](auto tag) {
      using R = typename decltype(tag)::type;
      if constexpr (std::is_same_v<R, compute_t<R>>)
        launch_library_rows(
            ctx, last - first, classes(),
            kernels::CrossEntropyBackward<R>{logits.data<R>(),
                                             targets.data<std::int32_t>() + first,
                                             {top.data<R>() + first, scale.data<R>() + first, missing.data<R>() + first},
                                             seed.data<R>() + first / tokens,
                                             logits.data<R>(),
                                             shape_of(first, last)[1],
                                             classes(),
                                             options.ignore_index,
                                             R(1 / options.divisor)});
    });
    if (rounds) cast_to(ctx, logits, b);
  }
};

/// The gradients of the logits for one backward pass.
class LogitGradients final : public RowSource {
 public:
  LogitGradients(const LogitRows& rows, const Tensor& seed) : rows_(rows), seed_(seed) {}
  Tensor rows(Context& ctx, index_t first, index_t last) const override {
    const Tensor b = Tensor::empty(ctx, {(last - first) * rows_.tokens, rows_.classes()}, rows_.x.dtype());
    const index_t begin = first * rows_.tokens;
    rows_.for_chunks(first, last, [&](index_t from, index_t to) {
      rows_.gradient(ctx, seed_, from, to, b.rows(from - begin, to - begin));
    });
    return b.reshaped({last - first, rows_.tokens, rows_.classes()});
  }
  index_t samples_at_once() const override { return rows_.samples_at_once; }

 private:
  LogitRows rows_;
  Tensor seed_;
};

struct LinearCrossEntropy {
  static constexpr std::string_view name = "linear_cross_entropy";
  GradientSlot input;
  LogitRows rows;

  std::vector<Parameter*> parameters() const { return {rows.affine.weight, rows.affine.bias}; }
  void backward(BackwardPass& pass, const Tensor& seed) const {
    const Tensor gradient = pass.needs(input) ? Tensor::empty(pass.ctx, rows.x.shape(), input.dtype) : Tensor();
    if (!rows.affine.trains() || pass.rows_wanted() == RowsWanted::parts)
      in_parts(pass, seed, gradient, true);
    else if (pass.rows_wanted() == RowsWanted::again && !rows.one_chunk())
      by_source(pass, seed, gradient);
    else
      at_once(pass, seed, gradient);
    if (gradient.defined()) pass.accumulate(input, gradient.reshaped(input.shape));
  }
  Tensor largest_gradients(Context& ctx, const Tensor& gradient) const {
    return dpmp::rules::largest_gradients(ctx, {rows.targets, rows.missing, rows.options}, gradient);
  }

 private:
  Tensor as_matrix(const Tensor& b) const { return b.reshaped({b.shape()[0] * rows.tokens, classes()}); }
  index_t classes() const { return rows.classes(); }
  Tensor samples_of_x() const { return rows.x.reshaped({rows.samples, rows.tokens, rows.x.shape()[1]}); }
  /// Rows [first, last) of the input's gradient from their b.
  void multiply(Context& ctx, index_t first, index_t last, const Tensor& b, const Tensor& gradient) const {
    if (gradient.defined()) gemm(ctx, rows.affine.input_gradient(b, gradient.rows(first, last)));
  }
  void in_parts(BackwardPass& pass, const Tensor& seed, const Tensor& gradient, bool emit) const {
    rows.for_chunks(0, rows.samples, [&](index_t first, index_t last) {
      const Tensor b = Tensor::empty(pass.ctx, {last - first, classes()}, input.dtype);
      rows.gradient(pass.ctx, seed, first, last, b);
      const Shape some = rows.shape_of(first, last);
      if (emit)
        rows.affine.emit(pass, rows.x.rows(first, last).reshaped({some[0], some[1], rows.x.shape()[1]}),
                         b.reshaped({some[0], some[1], classes()}));
      multiply(pass.ctx, first, last, b, gradient);
    });
  }
  void at_once(BackwardPass& pass, const Tensor& seed, const Tensor& gradient) const {
    const Tensor b = LogitGradients(rows, seed).rows(pass.ctx, 0, rows.samples), matrix = as_matrix(b);
    rows.affine.emit(pass, samples_of_x(), b);
    rows.for_chunks(0, rows.samples, [&](index_t first, index_t last) {
      multiply(pass.ctx, first, last, matrix.rows(first, last), gradient);
    });
  }
  void by_source(BackwardPass& pass, const Tensor& seed, const Tensor& gradient) const {
    const auto source = std::make_shared<const LogitGradients>(rows, seed);
    Parameter *const weight = rows.affine.weight, *const bias = rows.affine.bias;
    if (weight->trainable()) pass.emit(ParameterSite::outer_product(*weight, samples_of_x(), source));
    if (bias && bias->trainable()) return by_samples(pass, *source, gradient);
    if (gradient.defined()) in_parts(pass, seed, gradient, false);
  }
  /// The bias' sums over tokens need all rows of a sample.
  void by_samples(BackwardPass& pass, const LogitGradients& source, const Tensor& gradient) const {
    const Tensor sums = Tensor::empty(pass.ctx, {rows.samples, classes()}, rows.real()),
                 squares = Tensor::empty(pass.ctx, {rows.samples}, DType::f64);
    for (index_t i = 0; i < rows.samples; i += rows.samples_at_once) {
      const index_t end = i + rows.samples_at_once, begin = i * rows.tokens;
      const Tensor b = source.rows(pass.ctx, i, end), matrix = as_matrix(b);
      const ParameterSite some = bias_site(pass.ctx, *rows.affine.bias, b);
      sums.rows(i, end).copy_from(some.b);
      squares.rows(i, end).copy_from(some.squares);
      rows.for_chunks(i, end, [&](index_t first, index_t last) {
        multiply(pass.ctx, first, last, matrix.rows(first - begin, last - begin), gradient);
      });
    }
    pass.emit(ParameterSite::vector(*rows.affine.bias, sums, squares));
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable linear_cross_entropy(const Variable& x, Parameter& weight, Parameter* bias,
                                                    const Tensor& targets, CrossEntropyOptions options,
                                                    index_t logit_bytes) {
  constexpr const char* op = "linear_cross_entropy";
  Tape& tape = x.tape();
  const rules::Affine affine{&weight, bias};
  affine.check(op, tape.ctx(), x.shape(), x.dtype());
  rules::check_targets(op, tape, x.shape().with(-1, weight.shape()[0]), targets, options);
  DPMP_CHECK(logit_bytes >= 1, op, ": expected at least a byte of logits at a time, got ", logit_bytes);
  const index_t samples = x.shape().front(), n = targets.numel();
  const DType real = accumulate_dtype(x.dtype());
  const auto of_rows = [&] { return Tensor::empty(tape.ctx(), {n}, real); };
  rules::LogitRows rows{.affine = affine,
                        .options = options,
                        .samples = samples,
                        .tokens = targets.shape().numel(1, targets.shape().rank()),
                        .x = x.value().reshaped({n, x.shape().back()}),
                        .targets = targets.reshaped({n}),
                        .top = of_rows(),
                        .scale = of_rows(),
                        .missing = of_rows()};
  rows.share_out(logit_bytes);
  const Tensor loss = of_rows(), losses = Tensor::empty(tape.ctx(), {samples}, real);
  dispatch_real(real, [&](auto tag) {
    using R = typename decltype(tag)::type;
    if constexpr (std::is_same_v<R, compute_t<R>>) {
      rows.for_chunks(0, samples, [&](index_t first, index_t last) {
        const Tensor logits = Tensor::empty(tape.ctx(), {last - first, rows.classes()}, real);
        rows.form(tape.ctx(), first, last, logits);
        launch_library_rows(tape.ctx(), last - first, rows.classes(),
                            kernels::CrossEntropyForward<R>{
                                logits.data<R>(),
                                targets.data<std::int32_t>() + first,
                                loss.data<R>() + first,
                                {rows.top.data<R>() + first, rows.scale.data<R>() + first, rows.missing.data<R>() + first},
                                rows.classes(),
                                options.ignore_index});
      });
      launch_library_rows(tape.ctx(), samples, rows.tokens,
                          kernels::SampleSum<R>{loss.data<R>(), losses.data<R>(), rows.tokens, 1 / options.divisor});
    }
  });
  return tape.record(losses, tape.needs_gradient(x) || affine.trains(), rules::LinearCrossEntropy{x.slot(), rows});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
