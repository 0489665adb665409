// SPDX-License-Identifier: Apache-2.0
// Differences, quotients and shifts of flat arrays, rounded once to the storage type.
#pragma once
#include "dpmp/core/low_precision.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// output = x - y.
template <class T>
struct Subtract {
  using Real = compute_t<T>;
  using Storage = T;
  const T* x;
  const T* y;
  T* output;
  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    at.store(output, at.load(x) - at.load(y));
  }
};

/// output = x / y.
template <class T>
struct Divide {
  using Real = compute_t<T>;
  using Storage = T;
  const T* x;
  const T* y;
  T* output;
  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    at.store(output, at.load(x) / at.load(y));
  }
};

/// What y's gradient is where x / y has the gradient g: -(g / y) (x / y). Not -g x / y^2: the square of a y that is stored
/// may overflow, or be 0.
template <class T>
struct DivisorGradient {
  using Real = compute_t<T>;
  using Storage = T;
  const T* x;
  const T* y;
  const T* output_gradient;
  T* divisor_gradient;
  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    const auto divisor = at.load(y);
    at.store(divisor_gradient, -(at.load(output_gradient) / divisor) * (at.load(x) / divisor));
  }
};

/// output = x + constant.
template <class T>
struct Shift {
  using Real = compute_t<T>;
  using Storage = T;
  const T* x;
  T* output;
  Real constant;
  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    at.store(output, at.load(x) + constant);
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
