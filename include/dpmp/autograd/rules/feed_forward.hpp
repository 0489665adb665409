// SPDX-License-Identifier: Apache-2.0
// gelu_feed_forward: two linear layers around GELU as one operation, so that the activation and its derivative are epilogues
// of matrix products: the hidden values are written by the first product, and their gradient by the backward product of the
// second, instead of being read and written once more each.
#pragma once
#include "dpmp/autograd/rules/linear.hpp"
#include "dpmp/gemm/spec.hpp"

namespace dpmp::inline DPMP_ABI {
/// down(GELU(up(x))): x [B, .., d] -> [B, .., p] with weights up [h, d], down [p, h] and optional biases [h], [p], all of
/// x's dtype. form: gelu_erf or gelu_tanh; the latter is what cuBLASLt has an epilogue for.
Variable gelu_feed_forward(const Variable& x, Parameter& up, Parameter* up_bias, Parameter& down, Parameter* down_bias,
                           GemmActivation form);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI {
namespace rules {
struct GeluFeedForward {
  static constexpr std::string_view name = "gelu_feed_forward";
  GradientSlot x;
  // x's value where up's weight is trained, the activation's input, and its output where down's weight is trained.
  Tensor input, before, hidden;
  Affine up, down;
  GemmActivation form;

  std::vector<Parameter*> parameters() const { return {up.weight, up.bias, down.weight, down.bias}; }
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    down.emit(pass, hidden, gradient);
    if (!up.trains() && !pass.needs(x)) return;
    const Tensor inner = Tensor::empty(pass.ctx, before.shape(), before.dtype());
    GemmSpec product = down.input_gradient(gradient, inner);
    product.activation = form;
    product.slope_at = before.raw();
    gemm(pass.ctx, product);
    up.backward(pass, x, input, inner);
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable gelu_feed_forward(const Variable& x, Parameter& up, Parameter* up_bias, Parameter& down,
                                                 Parameter* down_bias, GemmActivation form) {
  Tape& tape = x.tape();
  const rules::Affine first{&up, up_bias}, second{&down, down_bias};
  DPMP_CHECK(form != GemmActivation::none, "gelu_feed_forward: expected a form of GELU, got none");
  first.check("gelu_feed_forward (up)", tape.ctx(), x.shape(), x.dtype());
  const Shape inner = x.shape().with(-1, up.shape()[0]);
  second.check("gelu_feed_forward (down)", tape.ctx(), inner, x.dtype());
  const bool input_gradient = tape.needs_gradient(x) || first.trains();
  const Tensor before = input_gradient && tape.mode() == TapeMode::training ? Tensor::empty(tape.ctx(), inner, x.dtype())
                                                                            : Tensor(),
               hidden = Tensor::empty(tape.ctx(), inner, x.dtype()),
               y = Tensor::empty(tape.ctx(), x.shape().with(-1, down.shape()[0]), x.dtype());
  GemmSpec product = first.forward(x.value(), hidden);
  product.activation = form;
  product.activation_input = before.defined() ? before.raw() : nullptr;
  gemm(tape.ctx(), product);
  gemm(tape.ctx(), second.forward(hidden, y));
  return tape.record(y, input_gradient || second.trains(),
                     rules::GeluFeedForward{x.slot(), up.trainable() ? x.value() : Tensor(), before,
                                            down.trainable() ? hidden : Tensor(), first, second, form});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
