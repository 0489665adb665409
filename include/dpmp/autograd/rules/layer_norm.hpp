// SPDX-License-Identifier: Apache-2.0
// layer_norm over the last axis; gain and bias are per-sample vectors.
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// Normalises the last axis of x [B, .., width]; gain and bias [width] in x's dtype. epsilon > 0 keeps a constant row
/// finite.
Variable layer_norm(const Variable& x, Parameter& gain, Parameter& bias, double epsilon = 1e-5);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/layer_norm.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
struct LayerNorm {
  static constexpr std::string_view name = "layer_norm";
  Variable x;
  Parameter* gain;
  Parameter* bias;
  Tensor mean, rstd;  // [rows]

  std::vector<Parameter*> parameters() const { return {gain, bias}; }
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const index_t samples = x.shape().front(), width = x.shape().back();
    const index_t tokens = x.shape().numel(1, x.shape().rank() - 1);
    const bool trained = gain->trainable() || bias->trainable();
    // What x got as a residual is added here, in place where nobody else holds it: no pass of its own, one rounding less.
    const Tensor other = pass.take(x.slot());
    const bool in_place = other.defined() && !other.shared();
    const Tensor g = !pass.needs(x.slot()) ? Tensor() : in_place ? other : Tensor::empty(pass.ctx, x.shape(), x.dtype());
    TokenSums vectors(
        pass.ctx,
        {.samples = samples, .tokens = tokens, .width = width, .arrays = 2, .dtype = mean.dtype(), .wanted = trained});
    dispatch_real(x.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      using R = compute_t<T>;
      launch_library_rows(
          pass.ctx, vectors.rows(), vectors.slices().length * width,
          kernels::LayerNormBackward<T>{x.value().data<T>(), gain->value().data<T>(), gradient.data<T>(), mean.data<R>(),
                                        rstd.data<R>(), other.defined() ? other.data<T>() : nullptr,
                                        g.defined() ? g.data<T>() : nullptr, vectors.sums<R>(0), vectors.sums<R>(1),
                                        vectors.squares(0), vectors.squares(1), tokens, width, vectors.slices()});
    });
    if (trained) {
      vectors.join(pass.ctx);
      pass.emit(ParameterSite::vector(*gain, vectors, 0));
      pass.emit(ParameterSite::vector(*bias, vectors, 1));
    }
    if (g.defined()) pass.accumulate(x.slot(), g);
  }
};

/// What a forward pass of layer norm reads in addition to its input, checked, and what it writes.
class LayerNormPass {
 public:
  /// name: the operation's, for errors. x [B, .., width]: what is normalised, or has its shape and dtype.
  LayerNormPass(std::string_view name, const Variable& x, Parameter& gain, Parameter& bias, double epsilon)
      : gain_(&gain), bias_(&bias), epsilon_(epsilon) {
    DPMP_CHECK(x.shape().rank() >= 2, name, ": expected x [B, .., width], got ", x.shape());
    const index_t width = x.shape().back(), rows = x.shape().numel(0, x.shape().rank() - 1);
    for (const Parameter* p : {&gain, &bias})
      DPMP_CHECK(p->shape() == Shape{width} && p->dtype() == x.dtype(), name, ": expected ", p->name(), " [", width, "] in ",
                 x.dtype(), ", got ", p->shape(), " ", p->dtype());
    DPMP_CHECK(epsilon > 0, name, ": expected epsilon > 0, got ", epsilon);
    Context& ctx = x.tape().ctx();
    y_ = Tensor::empty(ctx, x.shape(), x.dtype());
    mean_ = Tensor::empty(ctx, {rows}, accumulate_dtype(x.dtype()));
    rstd_ = Tensor::empty(ctx, {rows}, mean_.dtype());
  }
  template <class T>
  kernels::LayerNormForward<T> kernel(const Tensor& input) const {
    using R = compute_t<T>;
    return {input.data<T>(), gain_->value().data<T>(), bias_->value().data<T>(), y_.data<T>(),
            mean_.data<R>(), rstd_.data<R>(),          y_.shape().back(),        R(epsilon_)};
  }
  /// The result on x's tape; x holds what the kernel normalised.
  Variable recorded(const Variable& x) const {
    return x.tape().record(y_, x.tape().needs_gradient(x) || gain_->trainable() || bias_->trainable(),
                           LayerNorm{x, gain_, bias_, mean_, rstd_});
  }

 private:
  Parameter *gain_, *bias_;
  double epsilon_;
  Tensor y_, mean_, rstd_;
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable layer_norm(const Variable& x, Parameter& gain, Parameter& bias, double epsilon) {
  const rules::LayerNormPass norm("layer_norm", x, gain, bias, epsilon);
  dispatch_real(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_library_rows(x.tape().ctx(), x.shape().numel(0, x.shape().rank() - 1), x.shape().back(),
                        norm.kernel<T>(x.value()));
  });
  return norm.recorded(x);
}
}  // namespace dpmp::inline DPMP_ABI
#endif
