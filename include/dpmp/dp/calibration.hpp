// SPDX-License-Identifier: Apache-2.0
// The inverse of the accountant: the smallest noise multiplier that keeps a promised epsilon.
#pragma once
#include "dpmp/dp/rdp_accountant.hpp"
#include "dpmp/dp/schedule.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// The smallest sigma (to about 1e-12 relative) with epsilon(sigma) <= target_epsilon for `steps` steps of probability q at
/// `delta`; step t has the noise multiplier sigma * schedule.at(t). Never returns a sigma whose epsilon is above the target:
/// the value returned has itself been accounted. Throws when the target cannot be reached by any noise (delta too small for
/// it at the given orders).
double calibrate_noise_multiplier(double target_epsilon, double delta, double q, index_t steps,
                                  const std::vector<double>& orders = default_orders(),
                                  const Schedule& schedule = Schedule::constant());
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline double calibrate_noise_multiplier(double target_epsilon, double delta, double q, index_t steps,
                                                        const std::vector<double>& orders, const Schedule& schedule) {
  DPMP_CHECK(target_epsilon > 0 && std::isfinite(target_epsilon), "expected a finite target epsilon > 0, got ",
             target_epsilon);
  DPMP_CHECK(delta > 0 && delta < 1, "expected a delta in (0, 1), got ", delta);
  DPMP_CHECK(q > 0 && q <= 1, "expected a sampling probability in (0, 1], got ", q);
  DPMP_CHECK(steps >= 1, "expected at least one step, got ", steps);
  const auto epsilon = [&](double sigma) {
    RdpAccountant accountant(orders);
    schedule.for_each_part(steps, [&](double value, index_t count) { accountant.add_steps(q, sigma * value, count); });
    return accountant.epsilon(delta);
  };
  // low misses the target (or is as small as a noise multiplier gets), high meets it.
  constexpr double smallest = 0x1p-20, largest = 0x1p40;
  double low = 1, high = 1;
  if (epsilon(1) <= target_epsilon) do {
      high = low;
      low /= 2;
    } while (low >= smallest && epsilon(low) <= target_epsilon);
  else
    do {
      low = high;
      high *= 2;
      DPMP_CHECK(high <= largest, "expected a target epsilon that some noise can meet at delta = ", delta, ", got ",
                 target_epsilon, ": with any noise epsilon stays at or above ", epsilon(largest));
    } while (epsilon(high) > target_epsilon);
  DPMP_CHECK(low >= smallest, "expected a target epsilon that needs noise, got ", target_epsilon, ": a noise multiplier of ",
             smallest, " is below it already");
  while (high - low > 1e-12 * high) {
    const double middle = low + (high - low) / 2;
    (epsilon(middle) <= target_epsilon ? high : low) = middle;
  }
  return high;
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
