// SPDX-License-Identifier: Apache-2.0
// gelu, gelu_tanh, silu, relu, tanh, sigmoid: one rule for all of kernels/activations.hpp. The input is saved.
#pragma once
#include "dpmp/autograd/tape.hpp"
#include "dpmp/kernels/activations.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
template <class A>
struct Activation {
  static constexpr std::string_view name = "activation";
  Variable x;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const Tensor g = Tensor::empty(pass.ctx, x.shape(), x.dtype());
    dispatch_real(x.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      launch_elements(pass.ctx, g.numel(),
                      kernels::ActivationBackward<A, T>{x.value().data<T>(), gradient.data<T>(), g.data<T>()});
    });
    pass.accumulate(x.slot(), g);
  }
};

template <class A>
Variable activation(const Variable& x) {
  Tape& tape = x.tape();
  const Tensor y = Tensor::empty(tape.ctx(), x.shape(), x.dtype());
  dispatch_real(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_elements(tape.ctx(), y.numel(), kernels::ActivationForward<A, T>{x.value().data<T>(), y.data<T>()});
  });
  return tape.record(y, tape.needs_gradient(x), Activation<A>{x});
}
}  // namespace rules

/// x Phi(x) with the exact normal distribution function.
inline Variable gelu(const Variable& x) { return rules::activation<kernels::GeluErf>(x); }
/// GELU's tanh approximation.
inline Variable gelu_tanh(const Variable& x) { return rules::activation<kernels::GeluTanh>(x); }
/// x sigmoid(x).
inline Variable silu(const Variable& x) { return rules::activation<kernels::Silu>(x); }
/// max(x, 0).
inline Variable relu(const Variable& x) { return rules::activation<kernels::Relu>(x); }
inline Variable tanh(const Variable& x) { return rules::activation<kernels::Tanh>(x); }
/// 1 / (1 + exp(-x)).
inline Variable sigmoid(const Variable& x) { return rules::activation<kernels::Sigmoid>(x); }
}  // namespace dpmp::inline DPMP_ABI
