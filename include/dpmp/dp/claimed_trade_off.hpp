// SPDX-License-Identifier: Apache-2.0
// What a plan claims, as the trade-off function that an audit compares with.
#pragma once
#include "dpmp/dp/gaussian_curve.hpp"
#include "dpmp/dp/one_run_audit.hpp"
#include "dpmp/dp/plan.hpp"
#include "dpmp/dp/pld_accountant.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// The (epsilon, delta) that the plan's accountant states after `steps` >= 1 steps. For independent Gaussian noise and
/// Poisson sampling of records, or all of them in every step: for deltas from 0.9 down to 10^-12, each of which includes
/// what the plan sets aside for batches beyond its batch bound; at the sampling rate 1 the smaller epsilon of one Gaussian
/// mechanism of mu^2 = sum of 1 / sigma^2 counts, which is exact. For other plans: at the plan's delta alone.
PointsTradeOff claimed_trade_off(const Plan& plan, index_t steps);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include "dpmp/dp/gaussian_curve.hpp"

namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline PointsTradeOff claimed_trade_off(const Plan& plan, index_t steps) {
  DPMP_CHECK(steps >= 1, "expected at least one step, got ", steps);
  const PlanOptions& o = plan.options();
  const bool sampled = o.sampling.kind == SamplingKind::poisson || o.sampling.kind == SamplingKind::full_batch;
  if (!sampled || o.sampling.records_per_user > 0 || o.noise_source.kind != NoiseSourceKind::independent)
    return {{{plan.epsilon_after(steps), o.delta}}};
  RdpAccountant accountant;
  double mu_squared = 0;
  bool always = true;
  PldAccountant by_losses;
  for (const auto& [step, count] : accounted_steps(o, plan.noise_multiplier(), steps)) {
    by_losses.add_steps(step, count);
    accountant.add_steps(step.sampling_rate, step.noise_multiplier, count);
    mu_squared += double(count) / (step.noise_multiplier * step.noise_multiplier);
    always = always && step.sampling_rate == 1;
  }
  const double beyond = delta_aside(o, steps);
  PointsTradeOff f;
  double near_order = 8;
  for (double delta = 0.9; delta > 1e-12; delta *= 0.8) {
    if (delta <= beyond) break;
    if (!has_renyi_accounting(o)) {
      f.points.push_back({by_losses.epsilon(delta - beyond), delta});
      continue;
    }
    const PrivacySpent spent = accountant.spent(delta - beyond, near_order);
    if (spent.order > 0) near_order = spent.order;
    double epsilon = spent.epsilon;
    if (always) epsilon = std::min(epsilon, gaussian_epsilon(std::sqrt(mu_squared), delta - beyond));
    f.points.push_back({epsilon, delta});
  }
  return f;
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
