// SPDX-License-Identifier: Apache-2.0
// What a plan guarantees, in words that can stand in a report.
#pragma once
#include "dpmp/dp/plan.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// x rounded up to `digits` decimals: a printed epsilon is never below the true one.
inline std::string rounded_up(double x, int digits) {
  std::ostringstream out;
  const double unit = std::pow(10.0, digits);
  out << std::fixed << std::setprecision(digits) << std::ceil(x * unit) / unit;
  return out.str();
}

/// One paragraph: unit, relation, epsilon and delta, mechanism, sampling, accountant, assumptions, and what is not
/// accounted.
inline std::string privacy_statement(const Plan& plan, index_t steps_taken) {
  const PlanNumbers& n = plan.numbers();
  std::ostringstream out;
  out.precision(6);
  out << "After " << steps_taken << " of " << n.steps << " planned steps, the sequence of all released parameters is ("
      << rounded_up(plan.epsilon_after(steps_taken), 4) << ", " << n.delta << ")-differentially private. "
      << "The unit of privacy is one training record; two datasets are neighbours if "
      << (n.relation == NeighbouringRelation::zero_out ? "one record of them is replaced by an empty one (zero_out). "
                                                       : "one has one record more than the other (add_or_remove_one). ")
      << "Mechanism: in every step each record is drawn independently with probability " << n.sampling_rate
      << " (Poisson sampling), its gradient over all parameters is clipped to the norm " << n.clip_threshold
      << ", and Gaussian noise of standard deviation " << plan.noise_standard_deviation() << " (noise multiplier "
      << n.noise_multiplier << " times the sensitivity " << n.sensitivity
      << ", which includes the rounding of the sum) is added once to every coordinate of the sum; the result is divided by "
         "the "
         "public constant "
      << n.expected_batch
      << ". Accountant: Renyi differential privacy of the sampled Gaussian mechanism, composed over the steps; "
      << Plan::batch_share * 100 << " % of delta is set aside for batches of more than " << n.batch_bound << " records. "
      << "Assumptions: the random key is secret and its ChaCha20 stream is indistinguishable from random; the noise is a "
         "floating-point number (double precision), not a sample of an exact discrete distribution; which records were "
         "drawn, the "
         "size of the draws, the clipped sums before noise and the running time of a step are not released; the dataset "
         "size "
      << n.dataset_size << " and all settings of the run are public. "
      << "Not accounted: the choice of settings and hyper-parameters by looking at results on the private records, any "
         "earlier or "
         "other use of the same records, and held-out records, which are treated as public.";
  return out.str();
}
}  // namespace dpmp::inline DPMP_ABI::dp
