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
#include "dpmp/tensor/map.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
template <class T>
using OfGelu = kernels::ActivationForward<kernels::GeluErf, T>;
template <class T>
using OfGeluTanh = kernels::ActivationForward<kernels::GeluTanh, T>;

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

/// The activation's input, where the backward pass will need it, and its output.
struct GeluOfProduct {
  Tensor before, hidden;
};
inline GeluOfProduct gelu_of_product(Tape& tape, const Affine& up, const Tensor& x, const Shape& shape, GemmActivation form,
                                     bool saves_input) {
  Context& ctx = tape.ctx();
  // On a CPU the activation is of the rounded input (GemmSpec::activation_input), so that it can be taken again. A GPU's
  // kernels for that are others than the product's: there its output is remembered, too.
  Tensor before = saves_input ? tape.recall() : Tensor();
  if (before.defined()) {
    if (ctx.on_cuda()) return {before, tape.recall()};
    return {before, form == GemmActivation::gelu_tanh ? dpmp::detail::map<OfGeluTanh>(ctx, before)
                                                      : dpmp::detail::map<OfGelu>(ctx, before)};
  }
  if (saves_input) before = Tensor::empty(ctx, shape, x.dtype());
  const Tensor hidden = Tensor::empty(ctx, shape, x.dtype());
  GemmSpec product = up.forward(x, hidden);
  product.activation = form;
  product.activation_input = saves_input ? before.raw() : nullptr;
  gemm(ctx, product);
  if (saves_input) tape.remember(before);
  if (saves_input && ctx.on_cuda()) tape.remember(hidden);
  return {before, hidden};
}
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
  const bool saves = input_gradient && tape.mode() == TapeMode::training;
  const rules::GeluOfProduct inner_values = rules::gelu_of_product(tape, first, x.value(), inner, form, saves);
  const Tensor &before = inner_values.before, &hidden = inner_values.hidden;
  const Tensor y = tape.product(x.shape().with(-1, down.shape()[0]), x.dtype(),
                                [&](const Tensor& result) { gemm(tape.ctx(), second.forward(hidden, result)); });
  return tape.record(y, input_gradient || second.trains(),
                     rules::GeluFeedForward{x.slot(), up.trainable() ? x.value() : Tensor(), before,
                                            down.trainable() ? hidden : Tensor(), first, second, form});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
