// SPDX-License-Identifier: Apache-2.0
// A public bound on the size of Poisson batches that holds in all steps but with a chosen small probability.
#pragma once
#include <cmath>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// Chernoff's upper bound of log P[Binomial(n, q) >= b]: -n KL(b / n || q) for b > n q, else 0; -infinity for b > n.
double log_binomial_tail(index_t n, double q, index_t b);

/// The smallest B >= 1, at most n, with P[Binomial(n, q) >= B] <= probability by Chernoff's bound, or n.
/// Of two neighbouring datasets of n and n - 1 records, the larger draws more than B, or the smaller B or more, with at most
/// that probability a step; at B = n never.
index_t poisson_batch_bound(index_t n, double q, double probability);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline double log_binomial_tail(index_t n, double q, index_t b) {
  const double size = double(n), count = double(b);
  if (b > n) return -HUGE_VAL;
  if (q == 1 || count <= size * q) return 0;
  const double missing = size - count;
  return -count * std::log(count / (size * q)) - (missing > 0 ? missing * std::log(missing / (size * (1 - q))) : 0);
}

DPMP_KEPT_BODY inline index_t poisson_batch_bound(index_t n, double q, double probability) {
  DPMP_CHECK(n >= 1, "expected at least one record, got ", n);
  DPMP_CHECK(q > 0 && q <= 1, "expected a sampling probability in (0, 1], got ", q);
  DPMP_CHECK(probability > 0 && probability < 1, "expected a failure probability in (0, 1), got ", probability);
  // A millionth more than asked for, far above the rounding error of the bound.
  const double wanted = std::log(probability) - 1e-6;
  index_t low = 0, high = n;  // low fails, high holds
  while (high - low > 1) {
    const index_t middle = low + (high - low) / 2;
    (log_binomial_tail(n, q, middle) <= wanted ? high : low) = middle;
  }
  return high;
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
