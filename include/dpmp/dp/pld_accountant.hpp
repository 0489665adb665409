// SPDX-License-Identifier: Apache-2.0
// The accountant by privacy-loss distributions: the default of a plan.
#pragma once
#include <map>

#include "dpmp/dp/privacy_loss.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// How a number of a PldAccountant came about.
enum class AccountingMethod : std::uint8_t { nothing, exact_gaussian, privacy_loss, renyi };

struct PldSpent {
  double epsilon = 0;
  AccountingMethod method = AccountingMethod::nothing;
};

/// Composes steps of any kinds. Every number holds for both directions of the neighbours.
class PldAccountant {
 public:
  /// Accounts `steps` >= 0 more steps.
  void add_steps(const StepMechanism& step, index_t steps);
  index_t steps() const;

  /// An upper bound of epsilon at `delta` in (0, 1) (a lower one: BoundSide::optimistic), and where it comes from.
  PldSpent spent(double delta, BoundSide side = BoundSide::pessimistic) const;
  double epsilon(double delta) const { return spent(delta).epsilon; }
  /// An upper bound of delta at epsilon >= 0 (a lower one: BoundSide::optimistic).
  double delta(double epsilon, BoundSide side = BoundSide::pessimistic) const;
  /// The largest true positive rate of any test of one neighbour against the other at a false positive rate in [0, 1]: the
  /// trade-off curve is 1 minus it. An upper bound.
  double trade_off(double false_positive_rate) const;
  /// mu of the Gaussian mechanism that has the same epsilon at `delta`: information, no guarantee.
  double gdp_mu(double delta) const;

 private:
  std::map<StepMechanism, index_t> steps_;
};
}  // namespace dpmp::inline DPMP_ABI::dp
