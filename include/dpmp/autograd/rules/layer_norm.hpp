// SPDX-License-Identifier: Apache-2.0
// layer_norm over the last axis; gain and bias are per-sample vectors.
#pragma once
#include "dpmp/autograd/rules/sliced_vectors.hpp"
#include "dpmp/autograd/tape.hpp"
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
    const SlicedVectors gains(pass.ctx, samples, tokens, width, mean.dtype(), trained),
        biases(pass.ctx, samples, tokens, width, mean.dtype(), trained);
    dispatch_real(x.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      using R = compute_t<T>;
      launch_rows(pass.ctx, gains.rows(), gains.slices().length * width,
                  kernels::LayerNormBackward<T>{x.value().data<T>(), gain->value().data<T>(), gradient.data<T>(),
                                                mean.data<R>(), rstd.data<R>(), other.defined() ? other.data<T>() : nullptr,
                                                g.defined() ? g.data<T>() : nullptr, gains.data<R>(), biases.data<R>(),
                                                tokens, width, gains.slices()});
    });
    if (trained) {
      pass.emit(ParameterSite::vector(*gain, gains.joined(pass.ctx)));
      pass.emit(ParameterSite::vector(*bias, biases.joined(pass.ctx)));
    }
    if (g.defined()) pass.accumulate(x.slot(), g);
  }
};
}  // namespace rules

/// Normalises the last axis of x [B, .., width]; gain and bias [width] in x's dtype. epsilon > 0 keeps a constant row
/// finite.
inline Variable layer_norm(const Variable& x, Parameter& gain, Parameter& bias, double epsilon = 1e-5) {
  Tape& tape = x.tape();
  DPMP_CHECK(x.shape().rank() >= 2, "layer_norm: expected x [B, .., width], got ", x.shape());
  const index_t width = x.shape().back(), rows = x.shape().numel(0, x.shape().rank() - 1);
  for (const Parameter* p : {&gain, &bias})
    DPMP_CHECK(p->shape() == Shape{width} && p->dtype() == x.dtype(), "layer_norm: expected ", p->name(), " [", width,
               "] in ", x.dtype(), ", got ", p->shape(), " ", p->dtype());
  DPMP_CHECK(epsilon > 0, "layer_norm: expected epsilon > 0, got ", epsilon);
  const Tensor y = Tensor::empty(tape.ctx(), x.shape(), x.dtype());
  const Tensor mean = Tensor::empty(tape.ctx(), {rows}, accumulate_dtype(x.dtype())),
               rstd = Tensor::empty(tape.ctx(), {rows}, mean.dtype());
  dispatch_real(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    using R = compute_t<T>;
    launch_rows(tape.ctx(), rows, width,
                kernels::LayerNormForward<T>{x.value().data<T>(), gain.value().data<T>(), bias.value().data<T>(),
                                             y.data<T>(), mean.data<R>(), rstd.data<R>(), width, R(epsilon)});
  });
  return tape.record(y, tape.needs_gradient(x) || gain.trainable() || bias.trainable(),
                     rules::LayerNorm{x, &gain, &bias, mean, rstd});
}
}  // namespace dpmp::inline DPMP_ABI
