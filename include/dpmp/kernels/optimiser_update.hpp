// SPDX-License-Identifier: Apache-2.0
// The optimisers' element-wise updates of master values; the gradient is a double sum times a public factor.
#pragma once
#include "dpmp/core/low_precision.hpp"
#include "dpmp/runtime/math.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// velocity = momentum velocity + g + weight_decay w; w -= learning_rate velocity.
template <class Real_>
struct SgdUpdate {
  using Real = Real_;
  using Storage = double;  // the widest array
  const double* sum;
  Real* weight;
  Real* velocity;
  Real gradient_factor, learning_rate, momentum, weight_decay;
  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    const auto w = at.load(weight);
    const auto v = at.load(velocity) * momentum + at.load(sum) * gradient_factor + w * weight_decay;
    at.store(velocity, v);
    at.store(weight, w - v * learning_rate);
  }
};

/// m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; w -= step m / (sqrt(v) correction + epsilon) + decay w.
template <class Real_>
struct AdamWUpdate {
  using Real = Real_;
  using Storage = double;  // the widest array
  const double* sum;
  Real* weight;
  Real* first;
  Real* second;
  // share1, share2: 1 - beta1, 1 - beta2, taken in double: in FP32 the subtraction would lose five digits of 1 - 0.999.
  Real gradient_factor, beta1, share1, beta2, share2, step, second_correction, epsilon, decay;
  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    const auto g = at.load(sum) * gradient_factor, w = at.load(weight);
    const auto m = at.load(first) * beta1 + g * share1;
    const auto v = at.load(second) * beta2 + g * g * share2;
    at.store(first, m);
    at.store(second, v);
    at.store(weight, w - w * decay - m * step / (sqrt(v) * second_correction + epsilon));
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
