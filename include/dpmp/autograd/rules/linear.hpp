// SPDX-License-Identifier: Apache-2.0
// linear: y = x W^T + bias over the last axis, the weight's use an outer-product site, the bias' a per-sample vector.
#pragma once
#include "dpmp/autograd/bias_site.hpp"
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// x [B, .., d] -> [B, .., p] with weight [p, d] and optional bias [p], all of x's dtype.
Variable linear(const Variable& x, Parameter& weight, Parameter* bias = nullptr);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/gemm/matmul.hpp"

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
    GemmSpec spec = product_of({x}, {weight->value(), true}, y);
    spec.bias = bias ? bias->value().raw() : nullptr;
    return spec;
  }
  /// The gradient of x from that of y.
  GemmSpec input_gradient(const Tensor& y_gradient, const Tensor& x_gradient) const {
    return product_of({y_gradient}, {weight->value()}, x_gradient);
  }
  /// x: not looked at where the weight is frozen.
  void emit(BackwardPass& pass, const Tensor& x, const Tensor& y_gradient) const {
    if (weight->trainable())
      pass.emit(ParameterSite::outer_product(*weight, x, y_gradient, bias));
    else if (bias && bias->trainable())
      pass.emit(bias_site(pass.ctx, *bias, y_gradient));
  }
  /// The last step of a backward pass: the parameters' sites, and the gradient of x where it is wanted.
  void backward(BackwardPass& pass, const GradientSlot& x, const Tensor& input, const Tensor& y_gradient) const {
    emit(pass, input, y_gradient);
    if (!pass.needs(x)) return;
    const Tensor g = Tensor::empty(pass.ctx, x.shape, x.dtype);
    gemm(pass.ctx, input_gradient(y_gradient, g));
    pass.accumulate(x, g);
  }
};

struct Linear {
  static constexpr std::string_view name = "linear";
  GradientSlot x;
  Tensor input;  // kept only when the weight is trained: a frozen weight needs no activations
  Affine affine;

  std::vector<Parameter*> parameters() const { return {affine.weight, affine.bias}; }
  void backward(BackwardPass& pass, const Tensor& gradient) const { affine.backward(pass, x, input, gradient); }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable linear(const Variable& x, Parameter& weight, Parameter* bias) {
  Tape& tape = x.tape();
  const rules::Affine affine{&weight, bias};
  affine.check("linear", tape.ctx(), x.shape(), x.dtype());
  const Tensor y = tape.product(x.shape().with(-1, weight.shape()[0]), x.dtype(),
                                [&](const Tensor& result) { gemm(tape.ctx(), affine.forward(x.value(), result)); });
  return tape.record(y, tape.needs_gradient(x) || affine.trains(),
                     rules::Linear{x.slot(), weight.trainable() ? x.value() : Tensor(), affine});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
