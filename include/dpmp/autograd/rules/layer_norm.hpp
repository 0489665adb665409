// SPDX-License-Identifier: Apache-2.0
// layer_norm and rms_norm over the last axis; gain and bias are per-sample vectors.
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// Normalises the last axis of x [B, .., width]; gain and bias [width] in x's dtype. epsilon > 0 keeps a constant row
/// finite.
Variable layer_norm(const Variable& x, Parameter& gain, Parameter& bias, double epsilon = 1e-5);
/// Divides the last axis of x [B, .., width] by its root mean square and multiplies by gain [width], in x's dtype (Zhang,
/// Sennrich 2019). epsilon > 0 keeps a row of zeros finite.
Variable rms_norm(const Variable& x, Parameter& gain, double epsilon = 1e-5);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/layer_norm.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
/// Centred: layer norm; otherwise RMS norm, without bias and mean.
template <bool centred>
struct LayerNorm {
  static constexpr std::string_view name = centred ? "layer_norm" : "rms_norm";
  Variable x;
  Parameter* gain;
  Parameter* bias;
  Tensor mean, rstd;  // [rows]

  std::vector<Parameter*> parameters() const {
    if constexpr (centred)
      return {gain, bias};
    else
      return {gain};
  }
  bool trained() const { return gain->trainable() || (centred && bias->trainable()); }
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const index_t samples = x.shape().front(), width = x.shape().back();
    const index_t tokens = x.shape().numel(1, x.shape().rank() - 1);
    // What x got as a residual is added here, in place where nobody else holds it: no pass of its own, one rounding less.
    const Tensor other = pass.take(x.slot());
    const bool in_place = other.defined() && !other.shared();
    const Tensor g = !pass.needs(x.slot()) ? Tensor() : in_place ? other : Tensor::empty(pass.ctx, x.shape(), x.dtype());
    TokenSums vectors(pass.ctx, {.samples = samples,
                                 .tokens = tokens,
                                 .width = width,
                                 .arrays = centred ? 2 : 1,
                                 .dtype = rstd.dtype(),
                                 .wanted = trained()});
    dispatch_real(x.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      using R = compute_t<T>;
      const kernels::LayerNormBackward<T, centred> kernel{.input = x.value().data<T>(),
                                                          .gain = gain->value().data<T>(),
                                                          .output_gradient = gradient.data<T>(),
                                                          .mean = centred ? mean.data<R>() : nullptr,
                                                          .rstd = rstd.data<R>(),
                                                          .other_gradient = other.defined() ? other.data<T>() : nullptr,
                                                          .input_gradient = g.defined() ? g.data<T>() : nullptr,
                                                          .gain_gradient = vectors.sums<R>(0),
                                                          .bias_gradient = centred ? vectors.sums<R>(1) : nullptr,
                                                          .gain_squares = vectors.squares(0),
                                                          .bias_squares = centred ? vectors.squares(1) : nullptr,
                                                          .tokens = tokens,
                                                          .width = width,
                                                          .slices = vectors.slices()};
      launch_library_rows(pass.ctx, vectors.rows(), vectors.slices().length * width, kernel);
    });
    if (trained()) {
      vectors.join(pass.ctx);
      pass.emit(ParameterSite::vector(*gain, vectors, 0));
      if constexpr (centred) pass.emit(ParameterSite::vector(*bias, vectors, 1));
    }
    if (g.defined()) pass.accumulate(x.slot(), g);
  }
};

/// What a forward pass reads in addition to its input, checked, and what it writes.
template <bool centred>
class LayerNormPass {
 public:
  /// name: the operation's, for errors. x [B, .., width]: what is normalised, or has its shape and dtype. bias: null unless
  /// centred.
  LayerNormPass(std::string_view name, const Variable& x, Parameter& gain, Parameter* bias, double epsilon)
      : rule_{{}, &gain, bias, {}, {}}, epsilon_(epsilon) {
    DPMP_CHECK(x.shape().rank() >= 2, name, ": expected x [B, .., width], got ", x.shape());
    const index_t width = x.shape().back(), rows = x.shape().numel(0, x.shape().rank() - 1);
    for (const Parameter* p : rule_.parameters())
      DPMP_CHECK(p->shape() == Shape{width} && p->dtype() == x.dtype(), name, ": expected ", p->name(), " [", width, "] in ",
                 x.dtype(), ", got ", p->shape(), " ", p->dtype());
    DPMP_CHECK(epsilon > 0, name, ": expected epsilon > 0, got ", epsilon);
    Context& ctx = x.tape().ctx();
    y_ = Tensor::empty(ctx, x.shape(), x.dtype());
    if (centred) rule_.mean = Tensor::empty(ctx, {rows}, accumulate_dtype(x.dtype()));
    rule_.rstd = Tensor::empty(ctx, {rows}, accumulate_dtype(x.dtype()));
  }
  template <class T>
  kernels::LayerNormForward<T, centred> kernel(const Tensor& input) const {
    using R = compute_t<T>;
    return {.input = input.data<T>(),
            .gain = rule_.gain->value().template data<T>(),
            .bias = centred ? rule_.bias->value().template data<T>() : nullptr,
            .output = y_.data<T>(),
            .mean = centred ? rule_.mean.template data<R>() : nullptr,
            .rstd = rule_.rstd.template data<R>(),
            .width = y_.shape().back(),
            .epsilon = R(epsilon_)};
  }
  /// The result on x's tape; x holds what the kernel normalised.
  Variable recorded(const Variable& x) const {
    LayerNorm<centred> rule = rule_;
    rule.x = x;
    return x.tape().record(y_, x.tape().needs_gradient(x) || rule.trained(), std::move(rule));
  }

 private:
  LayerNorm<centred> rule_;
  double epsilon_;
  Tensor y_;
};

template <bool centred>
Variable layer_norm(const Variable& x, Parameter& gain, Parameter* bias, double epsilon) {
  const LayerNormPass<centred> norm(LayerNorm<centred>::name, x, gain, bias, epsilon);
  dispatch_real(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_library_rows(x.tape().ctx(), x.shape().numel(0, x.shape().rank() - 1), x.shape().back(),
                        norm.template kernel<T>(x.value()));
  });
  return norm.recorded(x);
}
}  // namespace rules

DPMP_KEPT_BODY inline Variable layer_norm(const Variable& x, Parameter& gain, Parameter& bias, double epsilon) {
  return rules::layer_norm<true>(x, gain, &bias, epsilon);
}
DPMP_KEPT_BODY inline Variable rms_norm(const Variable& x, Parameter& gain, double epsilon) {
  return rules::layer_norm<false>(x, gain, nullptr, epsilon);
}
}  // namespace dpmp::inline DPMP_ABI
#endif
