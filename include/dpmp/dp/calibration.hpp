// SPDX-License-Identifier: Apache-2.0
// The inverse of the accountant: the smallest noise multiplier that keeps a promised epsilon.
#pragma once
#include "dpmp/core/function_ref.hpp"
#include "dpmp/dp/rdp_accountant.hpp"
#include "dpmp/dp/schedule.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// Where a search for a noise multiplier begins, and where it may end.
struct NoiseSearch {
  double near = 1;        // the first one asked for
  double slope = 1;       // about -d log epsilon / d log sigma there
  double wanted = 1e-12;  // relative distance from the answer, or of its epsilon from the target, that is close enough
};
/// The smallest sigma (to about `wanted`) with epsilon(sigma) <= target_epsilon, for a function that falls. The value
/// returned has been a sigma of a call. Throws, naming delta, when the target cannot be reached by any noise.
double smallest_noise(double target_epsilon, double delta, FunctionRef<double(double)> epsilon,
                      const NoiseSearch& search = {});

/// The same for what an accountant of a noise multiplier has accounted: epsilon(delta) of accountant(sigma), which the value
/// returned meets.
double calibrate_noise_multiplier(double target_epsilon, double delta, FunctionRef<RdpAccountant(double)> accountant);

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
  DPMP_CHECK(q > 0 && q <= 1, "expected a sampling probability in (0, 1], got ", q);
  DPMP_CHECK(steps >= 1, "expected at least one step, got ", steps);
  return calibrate_noise_multiplier(target_epsilon, delta, [&](double sigma) {
    RdpAccountant r(orders);
    schedule.for_each_part(steps, [&](double value, index_t count) { r.add_steps(q, sigma * value, count); });
    return r;
  });
}

DPMP_KEPT_BODY inline double calibrate_noise_multiplier(double target_epsilon, double delta,
                                                        FunctionRef<RdpAccountant(double)> accountant) {
  double near_order = 8;  // of neighbouring sigmas the best orders are neighbours
  const auto epsilon = [&](double sigma) {
    const PrivacySpent spent = accountant(sigma).spent(delta, near_order);
    near_order = spent.order;
    return spent.epsilon;
  };
  double sigma = smallest_noise(target_epsilon, delta, epsilon);
  // Met as RdpAccountant::epsilon() tells it, whose search for the order begins elsewhere.
  while (accountant(sigma).epsilon(delta) > target_epsilon) sigma *= 1 + 1e-12;
  return sigma;
}

DPMP_KEPT_BODY inline double smallest_noise(double target_epsilon, double delta, FunctionRef<double(double)> epsilon,
                                            const NoiseSearch& search) {
  DPMP_CHECK(target_epsilon > 0 && std::isfinite(target_epsilon), "expected a finite target epsilon > 0, got ",
             target_epsilon);
  DPMP_CHECK(delta > 0 && delta < 1, "expected a delta in (0, 1), got ", delta);
  // low misses the target (or is as small as a noise multiplier gets), high meets it.
  constexpr double smallest = 0x1p-20, largest = 0x1p60;
  const double wanted = search.wanted;
  const auto close = [&](double at) { return at <= target_epsilon && at >= target_epsilon * (1 - wanted); };
  // A little below the target, so that what lands there is done.
  const auto miss = [&](double at) { return std::log(at / target_epsilon) + wanted / 2; };
  double low = search.near, high = search.near, at_low = epsilon(low), at_high = at_low;
  // Steps a little further than the slope says, each at least as long as the one before squared, and at most a factor of 2.
  double step = 1 + 4 * wanted;
  const auto longer = [&](double at) {
    const double there = std::exp(std::fabs(miss(at)) / search.slope * 1.02);
    step = there < 2 ? std::min(2.0, std::max(there, step * step)) : 2;
    return step;
  };
  if (close(at_high)) return high;
  if (at_low <= target_epsilon) do {
      high = low, at_high = at_low;
      low /= longer(at_low), at_low = epsilon(low);
      if (close(at_low)) return low;
    } while (low >= smallest && at_low <= target_epsilon);
  else
    do {
      low = high, at_low = at_high;
      high *= longer(at_high), at_high = epsilon(high);
      DPMP_CHECK(high <= largest, "expected a target epsilon that some noise can meet at delta = ", delta, ", got ",
                 target_epsilon, ": with any noise epsilon stays at or above ", at_low);
    } while (at_high > target_epsilon);
  DPMP_CHECK(low >= smallest, "expected a target epsilon that needs noise, got ", target_epsilon, ": a noise multiplier of ",
             smallest, " is below it already");
  // log epsilon is nearly a straight line in log sigma: the secant (in Dowell and Jarratt's Illinois variant, 1971, which
  // lets both ends follow) needs ten evaluations where bisection needs forty. Every fourth one bisects, whatever the curve.
  double low_miss = miss(at_low), high_miss = miss(at_high);
  int low_stays = 0, high_stays = 0;
  for (int k = 1; high - low > wanted * high && !close(at_high); ++k) {
    double middle = low + (high - low) / 2;
    if (k % 4 != 0 && low_miss > high_miss && std::isfinite(low_miss - high_miss)) {
      const double secant = low * std::pow(high / low, low_miss / (low_miss - high_miss)), inside = 0.4 * wanted * high;
      middle = std::clamp(secant, low + inside, high - inside);
    }
    const double at_middle = epsilon(middle);
    if (at_middle <= target_epsilon) {
      high = middle, at_high = at_middle, high_miss = miss(at_middle);
      high_stays = 0;
      if (++low_stays > 1) low_miss /= 2;
    } else {
      low = middle, low_miss = miss(at_middle);
      low_stays = 0;
      if (++high_stays > 1) high_miss /= 2;
    }
  }
  return high;
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
