// SPDX-License-Identifier: Apache-2.0
// gelu, gelu_tanh, silu, relu, tanh, sigmoid: one rule for all of kernels/activations.hpp. The input is saved.
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// x Phi(x) with the exact normal distribution function.
Variable gelu(const Variable& x);
/// GELU's tanh approximation.
Variable gelu_tanh(const Variable& x);
/// x sigmoid(x).
Variable silu(const Variable& x);
/// max(x, 0).
Variable relu(const Variable& x);
Variable tanh(const Variable& x);
/// 1 / (1 + exp(-x)).
Variable sigmoid(const Variable& x);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/activations.hpp"
#include "dpmp/tensor/map.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
template <class A>
struct Activation {
  static constexpr std::string_view name = A::name;
  template <class T>
  using Forward = kernels::ActivationForward<A, T>;
  template <class T>
  using Backward = kernels::ActivationBackward<A, T>;
  Variable x;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    pass.accumulate(x.slot(), dpmp::detail::map<Backward>(pass.ctx, x.value(), gradient));
  }
};

template <class A>
Variable activation(const Variable& x) {
  Tape& tape = x.tape();
  return tape.record(dpmp::detail::map<Activation<A>::template Forward>(tape.ctx(), x.value()), tape.needs_gradient(x),
                     Activation<A>{x});
}
}  // namespace rules

DPMP_KEPT_BODY inline Variable gelu(const Variable& x) { return rules::activation<kernels::GeluErf>(x); }
DPMP_KEPT_BODY inline Variable gelu_tanh(const Variable& x) { return rules::activation<kernels::GeluTanh>(x); }
DPMP_KEPT_BODY inline Variable silu(const Variable& x) { return rules::activation<kernels::Silu>(x); }
DPMP_KEPT_BODY inline Variable relu(const Variable& x) { return rules::activation<kernels::Relu>(x); }
DPMP_KEPT_BODY inline Variable tanh(const Variable& x) { return rules::activation<kernels::Tanh>(x); }
DPMP_KEPT_BODY inline Variable sigmoid(const Variable& x) { return rules::activation<kernels::Sigmoid>(x); }
}  // namespace dpmp::inline DPMP_ABI
#endif
