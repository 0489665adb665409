// SPDX-License-Identifier: Apache-2.0
// What composition has to know of a mechanism: how well its outputs on two neighbours can be told apart.
#pragma once
#include <algorithm>
#include <cmath>
#include <functional>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// A number between two others: lower <= it <= upper.
struct DeltaBounds {
  double lower = 0, upper = 1;
};

/// The hockey-stick divergences sup_S P(S) - e^epsilon Q(S) of an ordered pair (P, Q) that dominates a mechanism's outputs
/// on neighbours; they fall with epsilon. A mechanism with nothing but an upper bound says 0 for `lower`.
/// Below 0 they follow: that of (P, Q) at -epsilon is 1 - e^-epsilon + e^-epsilon times that of (Q, P) at epsilon.
struct PrivacyCurve {
  std::function<DeltaBounds(double)> forward;   // of (P, Q) at epsilon >= 0
  std::function<DeltaBounds(double)> backward;  // of (Q, P) at epsilon >= 0
  PrivacyCurve reversed() const { return {backward, forward}; }
};

/// The largest true at this false positive rate, in [0, 1], of a test of two neighbours that an (epsilon, delta) guarantee
/// leaves possible: true <= delta + e^epsilon false, and the same of the two errors.
inline double true_positive_bound(double epsilon, double delta, double false_positive_rate) {
  return std::min(
      {1.0, delta + std::exp(epsilon) * false_positive_rate, 1 - std::exp(-epsilon) * (1 - delta - false_positive_rate)});
}
}  // namespace dpmp::inline DPMP_ABI::dp
