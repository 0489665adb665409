// SPDX-License-Identifier: Apache-2.0
// Rows on their way into a product and out of it: widening of operands, bias, residual, activation, one rounding.
#pragma once
#include "dpmp/core/low_precision.hpp"
#include "dpmp/kernels/activations.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// output = float(input), exactly.
template <class T>
struct WidenRows {
  using Real = float;
  const T* input;  // [rows, width], input_stride apart
  float* output;   // [rows, width], output_stride apart
  index_t width, input_stride, output_stride;
  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    team.for_each(width,
                  [&](auto at) DPMP_LAMBDA { at.store(output + row * output_stride, at.load(input + row * input_stride)); });
  }
};

enum class EpilogueActivation : std::uint8_t { none, gelu_erf, gelu_tanh };

/// The activation is chosen once a launch: every span takes the same branch.
DPMP_ANY_TEAM
template <class P>
DPMP_HD P activate(EpilogueActivation activation, P x) {
  if (activation == EpilogueActivation::gelu_erf) return GeluErf::value(x);
  if (activation == EpilogueActivation::gelu_tanh) return GeluTanh::value(x);
  return x;
}

/// The activation's derivative.
DPMP_ANY_TEAM
template <class P>
DPMP_HD P activation_slope(EpilogueActivation activation, P x) {
  if (activation == EpilogueActivation::gelu_erf) return GeluErf::derivative(x);
  if (activation == EpilogueActivation::gelu_tanh) return GeluTanh::derivative(x);
  return P{} + 1;
}

/// x = round(sum + bias), or sum + bias unrounded where there is no activation; output = round(A(x) + residual); x is kept
/// in `saved`. sum and residual may be the output itself. bias, residual and saved may be null.
template <class In, class Out>
struct GemmEpilogue {
  using Real = compute_t<Out>;
  const Real* sum;      // [width]
  const In* bias;       // [width]
  const Out* residual;  // [width]
  Out* saved;           // [width]
  Out* output;          // [width]
  index_t width;
  EpilogueActivation activation;
  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t) const {
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      auto x = at.load(sum);
      if (bias) x = x + at.load(bias);
      if (activation != EpilogueActivation::none) {
        x = x.template rounded<Out>();
        if (saved) at.store(saved, x);
        x = activate(activation, x);
      }
      if (residual) x = x + at.load(residual);
      at.store(output, x);
    });
  }
};

/// output = round(A(input) + residual); input and residual may be the output itself. residual may be null.
template <class T>
struct ActivateAndAddResidual {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;     // [width]
  const T* residual;  // [width]
  T* output;          // [width]
  index_t width;
  EpilogueActivation activation;
  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t) const {
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      auto x = activate(activation, at.load(input));
      if (residual) x = x + at.load(residual);
      at.store(output, x);
    });
  }
};

/// output = round(x * A'(at)); x may be the output itself.
template <class X, class T>
struct ScaleBySlope {
  using Real = compute_t<T>;
  using Storage = T;
  const X* x;       // [width]
  const T* at_row;  // [width]
  T* output;        // [width]
  index_t width;
  EpilogueActivation activation;
  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t) const {
    team.for_each(
        width, [&](auto at) DPMP_LAMBDA { at.store(output, at.load(x) * activation_slope(activation, at.load(at_row))); });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
