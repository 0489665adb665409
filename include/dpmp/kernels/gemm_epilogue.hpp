// SPDX-License-Identifier: Apache-2.0
// Rows on their way into a product and out of it: widening of operands, bias, residual, activation, one rounding.
#pragma once
#include <type_traits>

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

/// With x = sum + bias: output = round(x * A'(slope_at)) where there is a slope; output = round(A(round(x)) + residual), and
/// round(x) kept in `saved`, where there is an activation; else output = round(x + residual). Everything but output may be
/// null, sum where it has no terms; sum and residual may be the output itself, sum what is saved.
template <class X, class In, class Out>
struct GemmEpilogue {
  using Real = compute_t<Out>;
  using Storage = std::conditional_t<(sizeof(X) > sizeof(Out)), X, Out>;
  const X* sum;         // [width]
  const In* bias;       // [width]
  const Out* slope_at;  // [width]
  const Out* residual;  // [width]
  Out* saved;           // [width]
  Out* output;          // [width]
  index_t width;
  EpilogueActivation activation;
  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t) const {
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      typename Team::Pack x{};
      if (sum) x = at.load(sum);
      if (bias) x = x + at.load(bias);
      if (slope_at) {
        x = x * activation_slope(activation, at.load(slope_at));
      } else if (activation != EpilogueActivation::none) {
        x = x.template rounded<Out>();
        if (saved && (bias || static_cast<const void*>(saved) != sum)) at.store(saved, x);
        x = activate(activation, x);
      }
      if (residual) x = x + at.load(residual);
      at.store(output, x);
    });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
