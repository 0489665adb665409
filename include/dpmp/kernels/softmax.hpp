// SPDX-License-Identifier: Apache-2.0
// Softmax of rows, max-subtracted, in compute precision. The backward needs only the output: dx = y (g - sum_k g_k y_k).
#pragma once
#include <limits>

#include "dpmp/core/low_precision.hpp"
#include "dpmp/runtime/math.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// output[r, :] = exp(x - max x) / sum exp(x - max x), the sum in double. A row of which every element is -Inf, which
/// nothing is visible in, becomes 0, and so does its gradient; a row with NaN or +Inf becomes NaN.
template <class T>
struct SoftmaxForward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;  // [rows, width]
  T* output;       // [rows, width]
  index_t width;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const T* x = input + row * width;
    T* y = output + row * width;
    // Starts at the lowest number: no Inf - Inf in a row of -Inf.
    const Real peak = team.max(width, std::numeric_limits<Real>::lowest(), [&](auto at) DPMP_LAMBDA { return at.load(x); });
    // The exponentials are taken twice: kept in between, they would be rounded to the storage type before they are summed.
    const Real total = Real(team.wide_sum(width, [&](auto at) DPMP_LAMBDA { return exp(at.load(x) - peak); }));
    const Real factor = total == Real(0) ? Real(0) : Real(1) / total;
    team.for_each(width, [&](auto at) DPMP_LAMBDA { at.store(y, exp(at.load(x) - peak) * factor); });
  }
};

template <class T>
struct SoftmaxBackward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* output;           // [rows, width]
  const T* output_gradient;  // [rows, width]
  T* input_gradient;         // [rows, width]
  index_t width;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const T* y = output + row * width;
    const T* g = output_gradient + row * width;
    const Real inner = Real(team.wide_sum(width, [&](auto at) DPMP_LAMBDA { return at.load(g) * at.load(y); }));
    team.for_each(width,
                  [&](auto at) DPMP_LAMBDA { at.store(input_gradient + row * width, at.load(y) * (at.load(g) - inner)); });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
