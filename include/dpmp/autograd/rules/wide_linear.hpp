// SPDX-License-Identifier: Apache-2.0
// wide_linear: a linear layer whose results keep the precision that its sums have anyway, for logits.
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// linear(x, weight, bias) in f32 where x is bf16 or f16: the sums of the product as they are, not rounded to x's dtype. The
/// gradient is rounded once to x's dtype before the products of the backward pass. For f32 and f64 the same as linear().
Variable wide_linear(const Variable& x, Parameter& weight, Parameter* bias = nullptr);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/autograd/rules/linear.hpp"
#include "dpmp/tensor/elementwise.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
struct WideLinear {
  static constexpr std::string_view name = "wide_linear";
  GradientSlot x;
  Tensor input;  // kept only when the weight is trained
  Affine affine;

  std::vector<Parameter*> parameters() const { return {affine.weight, affine.bias}; }
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    affine.backward(pass, x, input, cast(pass.ctx, gradient, x.dtype));
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable wide_linear(const Variable& x, Parameter& weight, Parameter* bias) {
  if (x.dtype() == accumulate_dtype(x.dtype())) return linear(x, weight, bias);
  Tape& tape = x.tape();
  const rules::Affine affine{&weight, bias};
  affine.check("wide_linear", tape.ctx(), x.shape(), x.dtype());
  const DType wide = accumulate_dtype(x.dtype());
  const Tensor y = tape.product(x.shape().with(-1, weight.shape()[0]), wide, [&](const Tensor& result) {
    GemmSpec product = affine.forward(x.value(), result);
    product.out.dtype = wide;
    gemm(tape.ctx(), product);
  });
  return tape.record(y, tape.needs_gradient(x) || affine.trains(),
                     rules::WideLinear{x.slot(), weight.trainable() ? x.value() : Tensor(), affine});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
