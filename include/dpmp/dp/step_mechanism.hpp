// SPDX-License-Identifier: Apache-2.0
// What one step of a private run releases, as the accountants see it.
#pragma once

#include "dpmp/dp/privacy_unit.hpp"

namespace dpmp::inline DPMP_ABI::dp {
struct PrivacyCurve;

/// One step. Steps that compare equal are accounted together.
struct StepMechanism {
  /// poisson_gaussian: each record is drawn with probability sampling_rate, and Gaussian noise is added to the sum over the
  /// draw. Under add_or_remove_one and zero_out one of the neighbours contributes nothing, the other one at most the
  /// sensitivity; under replace_one each of them contributes at most half of it.
  /// poisson_gaussian_difference: the same where only the difference of the neighbours' contributions is bounded, by the
  /// sensitivity, and each of them alone, too. What it says holds for every relation. It is also what a set of fixed size is
  /// that is drawn without replacement, with the share sampling_rate of the records (docs/samplers.md).
  /// random_allocation_gaussian: an epoch of `period` steps, in a uniformly random one of which a record is used.
  /// sampling_rate is 1 / period. add_or_remove_one and zero_out.
  enum class Kind : std::uint8_t { poisson_gaussian, poisson_gaussian_difference, random_allocation_gaussian };
  Kind kind = Kind::poisson_gaussian;
  double sampling_rate = 1;     // q in [0, 1]
  double noise_multiplier = 1;  // sigma: standard deviation of the noise over the sensitivity, finite, > 0
  NeighbouringRelation relation = NeighbouringRelation::add_or_remove_one;
  index_t period = 1;  // steps of a random allocation
  friend bool operator==(const StepMechanism&, const StepMechanism&) = default;
};

/// The longest epoch that is accounted.
inline constexpr index_t max_allocation = index_t(1) << 20;

/// Throws on every value out of range.
void check_step_mechanism(const StepMechanism& step);

/// The curve of one step in one direction; reversed() is the other one.
PrivacyCurve privacy_curve(const StepMechanism& step);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include <cmath>
#include <memory>

#include "dpmp/dp/gaussian_curve.hpp"
#include "dpmp/dp/random_allocation.hpp"

namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline void check_step_mechanism(const StepMechanism& step) {
  using enum StepMechanism::Kind;
  const bool allocation = step.kind == random_allocation_gaussian;
  DPMP_CHECK(step.kind == poisson_gaussian || step.kind == poisson_gaussian_difference || allocation,
             "expected a kind of step mechanism, got the value ", int(step.kind));
  name_of(step.relation);  // throws on a value outside of the enumeration
  DPMP_CHECK(step.sampling_rate >= 0 && step.sampling_rate <= 1, "expected a sampling probability in [0, 1], got ",
             step.sampling_rate);
  DPMP_CHECK(step.noise_multiplier > 0 && std::isfinite(step.noise_multiplier),
             "expected a finite noise multiplier > 0, got ", step.noise_multiplier);
  DPMP_CHECK(allocation ? step.period >= 1 && step.period <= max_allocation : step.period == 1, "expected a period of ",
             allocation ? "1 to 2^20 steps of a random allocation" : "1", ", got ", step.period);
  DPMP_CHECK(!allocation || step.relation != NeighbouringRelation::replace_one,
             "expected add_or_remove_one or zero_out for a random allocation, got ", step.relation);
}

DPMP_KEPT_BODY inline PrivacyCurve privacy_curve(const StepMechanism& step) {
  check_step_mechanism(step);
  // With next to no noise it does not help that nobody knows the step: the record is used in a known one.
  const double q = step.kind == StepMechanism::Kind::random_allocation_gaussian ? 1 : step.sampling_rate;
  const double mu = 1 / step.noise_multiplier * (1 + 0x1p-51);
  if (q == 0) {
    const auto none = [](double) { return DeltaBounds{0, 0}; };
    return {none, none};
  }
  if (step.kind == StepMechanism::Kind::random_allocation_gaussian && step.period > 1 && mu < 16) {
    const auto epoch = std::make_shared<RandomAllocation>(1 / mu, step.period);
    return {[=](double epsilon) {
              return DeltaBounds{0, epoch->forward(epsilon)};
            },
            [=](double epsilon) {
              return DeltaBounds{0, epoch->backward(epsilon)};
            }};
  }
  if (q == 1) {
    const auto both = [=](double epsilon) { return gaussian_delta(mu, epsilon); };
    return {both, both};
  }
  const auto forward = [=](double epsilon) { return detail::sampled_gaussian_forward(q, mu, epsilon); };
  if (step.kind == StepMechanism::Kind::poisson_gaussian_difference) {
    // A pair of contributions u and v (one of them may be 0) has the curve
    // q D(N(u) | (1 - b) N(0) + b N(v)) at 1 + (e^epsilon - 1) / q, b in [0, 1] (Balle, Barthe, Gaboardi, "Privacy
    // Amplification by Subsampling", 2018, theorem 2), at most what it is for |u - 0| and |u - v| at their largest. No
    // pair has to reach it.
    const auto bound = [=](double epsilon) { return DeltaBounds{0, forward(epsilon).upper}; };
    return {bound, bound};
  }
  if (step.relation == NeighbouringRelation::replace_one) {
    const auto both = [=](double epsilon) { return detail::sampled_gaussian_replaced(q, mu, epsilon); };
    return {both, both};
  }
  return {forward, [=](double epsilon) { return detail::sampled_gaussian_backward(q, mu, epsilon); }};
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
