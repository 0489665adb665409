// SPDX-License-Identifier: Apache-2.0
// What a noise source means for the numbers of a plan. Proofs: docs/numerics.md, "Correlated noise" and "Whole numbers".
#pragma once
#include "dpmp/dp/integer_grid.hpp"
#include "dpmp/dp/plan_options.hpp"
#include "dpmp/dp/rdp_accountant.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// Whether all steps together are one Gaussian mechanism: correlated noise where a record's steps share rows of the matrix.
/// Otherwise each of a record's steps is a sampled Gaussian mechanism of its own.
bool is_one_mechanism(const PlanOptions& o);
/// What the standard deviation of z is multiplied by, next to sigma and the sensitivity of a step: the sensitivity of the
/// matrix for `steps` steps and the sampling, or the length of its columns where they are apart; 1 of independent noise.
double noise_scale(const PlanOptions& o, index_t steps);
inline double noise_scale(const PlanOptions& o) { return noise_scale(o, o.steps); }

/// The grid of a plan with discrete noise.
IntegerGrid integer_grid_of(const PlanOptions& o);

/// An accountant of no steps, whose Renyi orders hold for the noise: of discrete noise whole ones only.
RdpAccountant rdp_accountant_of(const PlanOptions& o);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline bool is_one_mechanism(const PlanOptions& o) {
  return o.noise_source.is_correlated() && !NoiseMatrix(o.noise_source).columns_are_apart(o.sampling.least_separation());
}

DPMP_KEPT_BODY inline double noise_scale(const PlanOptions& o, index_t steps) {
  if (!o.noise_source.is_correlated()) return 1;
  DPMP_CHECK(steps >= 1 && steps <= max_correlated_steps, "expected 1 to 2^20 steps with correlated noise, got ", steps);
  const NoiseMatrix matrix(o.noise_source);
  const index_t separation = o.sampling.least_separation();
  return matrix.columns_are_apart(separation) ? matrix.column_norm(steps) : matrix.sensitivity(steps, separation);
}

DPMP_KEPT_BODY inline IntegerGrid integer_grid_of(const PlanOptions& o) {
  return IntegerGrid(o.clip_threshold, o.noise_source.grid_bits, o.noise_source.dimensions);
}

DPMP_KEPT_BODY inline RdpAccountant rdp_accountant_of(const PlanOptions& o) {
  if (!o.noise_source.is_discrete()) return RdpAccountant();
  std::vector<double> orders = default_orders();
  std::erase_if(orders, [](double a) { return a != std::floor(a) || a < 2; });
  return RdpAccountant(orders);
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
