// SPDX-License-Identifier: Apache-2.0
// Elementary functions of one value, each with its derivative and its operation's name, for the kernels of activations.hpp.
// Outside of a function's domain the result is what IEEE 754 says (NaN or infinite): a broken sample must be seen, not
// hidden.
#pragma once
#include <limits>
#include <string_view>

#include "dpmp/core/low_precision.hpp"
#include "dpmp/runtime/math.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
struct Exponential {
  static constexpr std::string_view name = "exp";
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P value(P x) {
    return exp(x);
  }
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P derivative(P x) {
    return exp(x);
  }
};
struct Reciprocal {
  static constexpr std::string_view name = "reciprocal";
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P value(P x) {
    return 1 / x;
  }
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P derivative(P x) {
    const P y = 1 / x;
    return -y * y;
  }
};
struct Logarithm {
  static constexpr std::string_view name = "log";
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P value(P x) {
    return log(x);
  }
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P derivative(P x) {
    return 1 / x;
  }
};
struct Square {
  static constexpr std::string_view name = "square";
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P value(P x) {
    return x * x;
  }
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P derivative(P x) {
    return x + x;
  }
};
struct SquareRoot {
  static constexpr std::string_view name = "sqrt";
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P value(P x) {
    // The pack's own root is one of finite x >= 0.
    using Limits = std::numeric_limits<typename P::Scalar>;
    const P root = select_less(x, P{}, P::splat(Limits::quiet_NaN()), sqrt(x));
    return select_less(P::splat(Limits::max()), x, x, root);
  }
  DPMP_ANY_TEAM
  template <class P>
  static DPMP_HD P derivative(P x) {
    return typename P::Scalar(0.5) / value(x);
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
