// SPDX-License-Identifier: Apache-2.0
// What one step of a private run releases, as the accountants see it.
#pragma once
#include <compare>
#include <functional>

#include "dpmp/dp/privacy_unit.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// One step. Steps that compare equal are accounted together.
struct StepMechanism {
  /// poisson_gaussian: each record is drawn with probability sampling_rate, and Gaussian noise is added to the sum over the
  /// draw. Under add_or_remove_one and zero_out one of the neighbours contributes nothing, the other one at most the
  /// sensitivity; under replace_one each of them contributes at most half of it.
  /// poisson_gaussian_difference: the same where only the difference of the neighbours' contributions is bounded, by the
  /// sensitivity, and each of them alone, too. What it says holds for every relation.
  enum class Kind : std::uint8_t { poisson_gaussian, poisson_gaussian_difference };
  Kind kind = Kind::poisson_gaussian;
  double sampling_rate = 1;     // q in [0, 1]
  double noise_multiplier = 1;  // sigma: standard deviation of the noise over the sensitivity, finite, > 0
  NeighbouringRelation relation = NeighbouringRelation::add_or_remove_one;
  friend auto operator<=>(const StepMechanism&, const StepMechanism&) = default;
};

/// Throws on every value out of range.
void check_step_mechanism(const StepMechanism& step);

/// A number between two others: lower <= it <= upper.
struct DeltaBounds {
  double lower = 0, upper = 1;
};

/// The hockey-stick divergences of an ordered pair (P, Q) of distributions, which dominates a mechanism's outputs on
/// neighbours: sup_S P(S) - e^epsilon Q(S). They determine everything that composition needs to know of the mechanism.
/// A mechanism with nothing but an upper bound says 0 for `lower`.
struct PrivacyCurve {
  std::function<DeltaBounds(double)> forward;   // of (P, Q) at epsilon >= 0
  std::function<DeltaBounds(double)> backward;  // of (Q, P) at epsilon >= 0
  PrivacyCurve reversed() const { return {backward, forward}; }
};

/// The curve of one step in one direction; reversed() is the other one.
PrivacyCurve privacy_curve(const StepMechanism& step);
}  // namespace dpmp::inline DPMP_ABI::dp
