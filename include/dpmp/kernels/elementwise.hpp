// SPDX-License-Identifier: Apache-2.0
// Element-wise arithmetic on flat arrays, rounded once to the storage type.
#pragma once
#include "dpmp/core/low_precision.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// output = round(input).
template <class From, class To>
struct Cast {
  using Real = compute_t<To>;
  const From* input;
  To* output;
  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    at.store(output, at.load(input));
  }
};

/// sum = x + y + z in compute precision, not rounded to the storage type.
template <class T>
struct SumOfThree {
  using Real = compute_t<T>;
  const T* x;
  const T* y;
  const T* z;
  Real* sum;
  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    at.store(sum, at.load(x) + at.load(y) + at.load(z));
  }
};

/// sum += x in compute precision.
template <class T>
struct AddTo {
  using Real = compute_t<T>;
  const T* x;
  Real* sum;
  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    at.store(sum, at.load(sum) + at.load(x));
  }
};

enum class Operator : std::uint8_t { plus, minus, times, over };
DPMP_ANY_TEAM
template <Operator op, class P, class Q>
DPMP_HD P apply(P x, Q y) {
  if constexpr (op == Operator::plus) return x + y;
  if constexpr (op == Operator::minus) return x - y;
  if constexpr (op == Operator::times) return x * y;
  if constexpr (op == Operator::over) return x / y;
}

/// output = x op y.
template <Operator op, class T>
struct Pairwise {
  using Real = compute_t<T>;
  using Storage = T;
  const T* x;
  const T* y;
  T* output;
  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    at.store(output, apply<op>(at.load(x), at.load(y)));
  }
};
template <class T>
using Add = Pairwise<Operator::plus, T>;
template <class T>
using Subtract = Pairwise<Operator::minus, T>;
template <class T>
using Multiply = Pairwise<Operator::times, T>;
template <class T>
using Divide = Pairwise<Operator::over, T>;

/// output = x op constant.
template <Operator op, class T>
struct WithConstant {
  using Real = compute_t<T>;
  using Storage = T;
  const T* x;
  T* output;
  Real constant;
  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    at.store(output, apply<op>(at.load(x), constant));
  }
};
template <class T>
using Scale = WithConstant<Operator::times, T>;
template <class T>
using Shift = WithConstant<Operator::plus, T>;

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
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
