// SPDX-License-Identifier: Apache-2.0
// Scalar non-linearities, each with its derivative and its operation's name, and the two kernels that apply any of them.
// GELU: Hendrycks, Gimpel 2016: x Phi(x), Phi the normal distribution function; "tanh" is the approximation of the same
// paper. SiLU: Elfwing, Uchibe, Doya 2018 (arXiv 1702.03118).
#pragma once
#include <string_view>

#include "dpmp/core/low_precision.hpp"
#include "dpmp/runtime/math.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// x between -1000 and 1000, NaN as it is. Beyond, the functions below are 0, x, or a constant, in double too; an infinite x
/// would give them Inf * 0.
DPMP_ANY_TEAM
template <class P>
DPMP_HD P within_1000(P x) {
  const P most = P{} + 1000;
  return select_less(most, x, most, select_less(x, -most, -most, x));
}
/// max(x, -1000), NaN as it is.
DPMP_ANY_TEAM
template <class P>
DPMP_HD P above_minus_1000(P x) {
  const P least = P{} - 1000;
  return select_less(x, least, least, x);
}

struct Relu {
  static constexpr std::string_view name = "relu";
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P value(P x) {
    // max(x, 0), but NaN stays NaN: a broken sample must be seen, not hidden.
    return select_less(x, P{}, P{}, x);
  }
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P derivative(P x) {
    return select_less(P{}, x, P{} + 1, select_less(x, P{}, P{}, x));
  }
};
struct Tanh {
  static constexpr std::string_view name = "tanh";
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P value(P x) {
    return tanh(x);
  }
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P derivative(P x) {
    const P y = tanh(x);
    return 1 - y * y;
  }
};
struct Sigmoid {
  static constexpr std::string_view name = "sigmoid";
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P value(P x) {
    return 1 / (exp(-x) + 1);
  }
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P derivative(P x) {
    const P y = value(x);
    return y * (1 - y);
  }
};
/// x sigmoid(x), also called swish.
struct Silu {
  static constexpr std::string_view name = "silu";
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P value(P x) {
    x = above_minus_1000(x);
    return x / (exp(-x) + 1);
  }
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P derivative(P x) {
    x = within_1000(x);
    const P y = Sigmoid::value(x);
    return y * (x * (1 - y) + 1);
  }
};
struct GeluErf {
  static constexpr std::string_view name = "gelu";
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P value(P x) {
    using R = typename P::Scalar;
    x = above_minus_1000(x);
    return x * R(0.5) * (erf(x * R(0.70710678118654752)) + 1);
  }
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P derivative(P x) {
    using R = typename P::Scalar;
    x = within_1000(x);
    const P density = exp(x * x * R(-0.5)) * R(0.39894228040143268);
    return (erf(x * R(0.70710678118654752)) + 1) * R(0.5) + x * density;
  }
};
struct GeluTanh {
  static constexpr std::string_view name = "gelu_tanh";
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P value(P x) {
    using R = typename P::Scalar;
    x = above_minus_1000(x);
    return x * R(0.5) * (tanh(inner(x)) + 1);
  }
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P derivative(P x) {
    using R = typename P::Scalar;
    // Beyond 10 tanh is +-1 and the derivative does not change, but x^2 might overflow.
    const P ten = P{} + 10;
    x = select_less(ten, x, ten, select_less(x, -ten, -ten, x));
    const P y = tanh(inner(x));
    return (y + 1) * R(0.5) + x * R(0.5) * (1 - y * y) * ((x * x * R(3 * 0.044715) + 1) * R(0.79788456080286536));
  }

 private:
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P inner(P x) {
    using R = typename P::Scalar;
    return (x * x * x * R(0.044715) + x) * R(0.79788456080286536);
  }
};

/// output = A(input).
template <class A, class T>
struct ActivationForward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;
  T* output;
  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    at.store(output, A::value(at.load(input)));
  }
};

/// input_gradient = output_gradient * A'(input).
template <class A, class T>
struct ActivationBackward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;
  const T* output_gradient;
  T* input_gradient;
  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    at.store(input_gradient, at.load(output_gradient) * A::derivative(at.load(input)));
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
