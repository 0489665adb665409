// SPDX-License-Identifier: Apache-2.0
// linear: y = x W^T + bias over the last axis, the weight's use an outer-product site, the bias' a per-sample vector.
#pragma once
#include "dpmp/autograd/tape.hpp"
#include "dpmp/gemm/gemm.hpp"
#include "dpmp/kernels/token_sum.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
/// The parameters of y = x W^T + bias, and the products that forward and backward pass are made of.
struct Affine {
  Parameter* weight;  // [p, d]
  Parameter* bias;    // [p]; null: none

  bool trains() const { return weight->trainable() || (bias && bias->trainable()); }
  void check(const char* op, const Context& ctx, const Shape& x, DType dtype) const {
    DPMP_CHECK(x.rank() >= 2 && weight->shape().rank() == 2 && x.back() == weight->shape()[1], op,
               ": expected x [B, .., d] and a weight [p, d], got ", x, " and ", weight->name(), " ", weight->shape());
    DPMP_CHECK(weight->dtype() == dtype, op, ": expected the weight ", weight->name(), " in ", dtype, " like x, got ",
               weight->dtype());
    DPMP_CHECK(!bias || (bias->shape() == Shape{weight->shape()[0]} && bias->dtype() == dtype), op, ": expected a bias [",
               weight->shape()[0], "] in ", dtype, ", got ", bias->shape(), " ", bias->dtype());
    check_device(dpmp::detail::concat(op, ": the weight"), weight->value(), ctx);
    if (bias) check_device(dpmp::detail::concat(op, ": the bias"), bias->value(), ctx);
  }
  /// y = x W^T + bias, to which an epilogue may be added.
  GemmSpec forward(const Tensor& x, const Tensor& y) const {
    const index_t p = weight->shape()[0], d = weight->shape()[1];
    return {.m = x.shape().numel(0, x.shape().rank() - 1),
            .n = p,
            .k = d,
            .a = {.data = x.raw(), .dtype = x.dtype(), .row_stride = d},
            .b = {.data = weight->value().raw(), .dtype = x.dtype(), .row_stride = d, .transposed = true},
            .out = {.data = y.raw(), .dtype = x.dtype(), .row_stride = p},
            .bias = bias ? bias->value().raw() : nullptr};
  }
  /// The gradient of x from that of y.
  GemmSpec backward(const Tensor& y_gradient, const Tensor& x_gradient) const {
    const index_t p = weight->shape()[0], d = weight->shape()[1];
    return {.m = y_gradient.shape().numel(0, y_gradient.shape().rank() - 1),
            .n = d,
            .k = p,
            .a = {.data = y_gradient.raw(), .dtype = y_gradient.dtype(), .row_stride = p},
            .b = {.data = weight->value().raw(), .dtype = y_gradient.dtype(), .row_stride = d},
            .out = {.data = x_gradient.raw(), .dtype = x_gradient.dtype(), .row_stride = d}};
  }
  /// x: not looked at where the weight is frozen.
  void emit(BackwardPass& pass, const Tensor& x, const Tensor& y_gradient) const {
    if (weight->trainable()) pass.emit(ParameterSite::outer_product(*weight, x, y_gradient));
    if (bias && bias->trainable()) pass.emit(ParameterSite::vector(*bias, token_sums(pass.ctx, y_gradient)));
  }
  /// [B, .., p] -> [B, p] in the accumulate dtype.
  static Tensor token_sums(Context& ctx, const Tensor& gradient) {
    const index_t samples = gradient.shape().front(), p = gradient.shape().back();
    const index_t tokens = gradient.shape().numel(1, gradient.shape().rank() - 1);
    const Tensor sums = Tensor::empty(ctx, {samples, p}, accumulate_dtype(gradient.dtype()));
    dispatch_real(gradient.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      launch_rows(ctx, samples, tokens * p, kernels::TokenSum<T>{gradient.data<T>(), sums.data<compute_t<T>>(), tokens, p});
    });
    return sums;
  }
};

struct Linear {
  static constexpr std::string_view name = "linear";
  GradientSlot x;
  Tensor input;  // kept only when the weight is trained: a frozen weight needs no activations
  Affine affine;

  std::vector<Parameter*> parameters() const { return {affine.weight, affine.bias}; }
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    affine.emit(pass, input, gradient);
    if (!pass.needs(x)) return;
    const Tensor g = Tensor::empty(pass.ctx, x.shape, x.dtype);
    gemm(pass.ctx, affine.backward(gradient, g));
    pass.accumulate(x, g);
  }
};
}  // namespace rules

/// x [B, .., d] -> [B, .., p] with weight [p, d] and optional bias [p], all of x's dtype.
inline Variable linear(const Variable& x, Parameter& weight, Parameter* bias = nullptr) {
  Tape& tape = x.tape();
  const rules::Affine affine{&weight, bias};
  affine.check("linear", tape.ctx(), x.shape(), x.dtype());
  const Tensor y = Tensor::empty(tape.ctx(), x.shape().with(-1, weight.shape()[0]), x.dtype());
  gemm(tape.ctx(), affine.forward(x.value(), y));
  return tape.record(y, tape.needs_gradient(x) || affine.trains(),
                     rules::Linear{x.slot(), weight.trainable() ? x.value() : Tensor(), affine});
}
}  // namespace dpmp::inline DPMP_ABI
