// SPDX-License-Identifier: Apache-2.0
// Where chains of additions in double meet: a sum that carries its rounding errors along (Knuth's TwoSum; Ogita, Rump and
// Oishi, "Accurate Sum and Dot Product", 2005), so that any number of chains costs what one addition does.
#pragma once
#include "dpmp/core/low_precision.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// high + low += sum, without rounding but for low's: errors of errors. sum = 0.
struct FoldSums {
  using Real = double;
  static constexpr int elements_each = 1;
  double* sum;   // [n]
  double* high;  // [n]
  float* low;    // [n]

  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    for (int k = 0; k < at.size(); ++k) {
      const index_t j = at.offset + k;
      const double a = high[j], b = sum[j], s = a + b, of_b = s - a;
      low[j] += float((a - (s - of_b)) + (b - of_b));
      high[j] = s;
      sum[j] = 0;
    }
  }
};

/// sum += high + low, rounded about once. high = low = 0.
struct UnfoldSums {
  using Real = double;
  static constexpr int elements_each = 1;
  double* sum;
  double* high;
  float* low;

  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    for (int k = 0; k < at.size(); ++k) {
      const index_t j = at.offset + k;
      sum[j] = high[j] + (sum[j] + double(low[j]));
      high[j] = 0;
      low[j] = 0;
    }
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
