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

/// output = x + y.
template <class T>
struct Add {
  using Real = compute_t<T>;
  using Storage = T;
  const T* x;
  const T* y;
  T* output;
  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    at.store(output, at.load(x) + at.load(y));
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

/// output = x * y.
template <class T>
struct Multiply {
  using Real = compute_t<T>;
  using Storage = T;
  const T* x;
  const T* y;
  T* output;
  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    at.store(output, at.load(x) * at.load(y));
  }
};

/// output = factor * x.
template <class T>
struct Scale {
  using Real = compute_t<T>;
  using Storage = T;
  const T* x;
  T* output;
  Real factor;
  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    at.store(output, at.load(x) * factor);
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
