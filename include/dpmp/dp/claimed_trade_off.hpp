// SPDX-License-Identifier: Apache-2.0
// What a plan claims, as the trade-off function that an audit compares with.
#pragma once
#include "dpmp/dp/one_run_audit.hpp"
#include "dpmp/dp/plan.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// The (epsilon, delta) that the plan's accountant states after `steps` >= 1 steps, for deltas from 0.9 down to 10^-12. Each
/// delta includes what the plan sets aside for rare draws.
PointsTradeOff claimed_trade_off(const Plan& plan, index_t steps);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES

namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline PointsTradeOff claimed_trade_off(const Plan& plan, index_t steps) {
  DPMP_CHECK(steps >= 1, "expected at least one step, got ", steps);
  std::vector<double> deltas;
  const double beyond = delta_aside(plan.options(), steps);
  for (double delta = 0.9; delta > 1e-12 && delta > beyond; delta *= 0.8) deltas.push_back(delta);
  const std::vector<double> epsilons = plan.account().epsilons(steps, deltas);
  PointsTradeOff f;
  for (std::size_t k = 0; k < deltas.size(); ++k) f.points.push_back({epsilons[k], deltas[k]});
  return f;
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
