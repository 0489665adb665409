// SPDX-License-Identifier: Apache-2.0
// Privacy-loss distributions: made from a curve by connecting its dots, composed by FFT, and asked for delta and epsilon.
#pragma once
#include <span>
#include <vector>

#include "dpmp/dp/connect_dots.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// The distribution of the privacy loss log(P / Q) under P for an ordered pair, on a grid, or a composition of such.
/// Pessimistic ones bound every delta and epsilon of the pair from above, optimistic ones from below, rounding included.
///
/// A composition is found by FFT, whose error is of the size of the largest mass, however small the masses in question are.
/// So masses are tilted: with a lambda that makes the epsilon in question the mean of the tilted losses, they are as large
/// as any, and delta keeps its relative accuracy, however small it is. What a finite window leaves out is bounded by
/// Chernoff, what the transform rounds by RealFourier::rounding(); both go to delta.
class PrivacyLossDistribution {
 public:
  struct Part;

  /// Throws where a grid has no meaning, or more than 2^24 points.
  PrivacyLossDistribution(const PrivacyCurve& curve, BoundSide side, const LossGrid& grid = {})
      : losses_(connect_the_dots(curve, side, grid)) {}
  explicit PrivacyLossDistribution(LossMasses losses) : losses_(std::move(losses)) {}
  /// All of `parts` together; they have the same side, interval and tilt. Throws where it takes more than 2^24 points.
  static PrivacyLossDistribution composition(std::span<const Part> parts);
  /// count >= 1 of it in a row.
  PrivacyLossDistribution composed(index_t count) const;
  /// This one and the other.
  PrivacyLossDistribution composed(const PrivacyLossDistribution& other) const;

  /// sup_S P(S) - e^epsilon Q(S), for every finite epsilon. The tilt decides where it is close.
  double delta(double epsilon) const;
  /// The smallest epsilon >= 0 whose delta is at most `delta` in (0, 1); infinity where there is none.
  double epsilon(double delta) const;
  /// The largest P(S) where Q(S) is at most `false_positive_rate` in [0, 1]. Of pessimistic ones only.
  double true_positive_rate(double false_positive_rate) const;

  const LossMasses& losses() const { return losses_; }

 private:
  template <class F>
  void from_the_top(F&& f) const;
  LossMasses losses_;
};

struct PrivacyLossDistribution::Part {
  const PrivacyLossDistribution* distribution = nullptr;
  index_t count = 1;
};
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include <algorithm>
#include <cmath>
#include <limits>

#include "dpmp/dp/loss_composition.hpp"

namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline PrivacyLossDistribution PrivacyLossDistribution::composition(std::span<const Part> parts) {
  std::vector<CountedLosses> losses;
  for (const Part& p : parts) losses.push_back({&p.distribution->losses_, p.count});
  return PrivacyLossDistribution(compose_losses(losses));
}
DPMP_KEPT_BODY inline PrivacyLossDistribution PrivacyLossDistribution::composed(index_t count) const {
  const Part part{this, count};
  return composition({&part, 1});
}
DPMP_KEPT_BODY inline PrivacyLossDistribution PrivacyLossDistribution::composed(const PrivacyLossDistribution& other) const {
  const Part parts[] = {{this, 1}, {&other, 1}};
  return composition(parts);
}

/// Calls f(loss, mass, delta, below) for every atom from the largest loss down, until f says false, with the delta at that
/// loss and `below`, by which delta grows times 1 - e^(-distance) on the way to the next one. All terms are positive:
/// D(l - d) = D(l) + (1 - e^-d) B(l) for B(l) = sum of p_j e^(l - loss_j) over loss_j >= l.
template <class F>
void PrivacyLossDistribution::from_the_top(F&& f) const {
  const double side = losses_.side == BoundSide::pessimistic ? 1 : -1;
  double delta = 0, below = 0, last = 0, distance = -1, shrink = 1, grow = 0;
  for (std::size_t k = losses_.atoms.size(); k-- > 0;) {
    const double loss = double(losses_.atoms[k].index) * losses_.interval;
    if (k + 1 < losses_.atoms.size()) {
      if (last - loss != distance) {
        distance = last - loss;
        shrink = std::exp(-distance);
        grow = -std::expm1(-distance);
      }
      delta += grow * below;
      below *= shrink;
    }
    const double tilted = losses_.tilt * loss;
    const double error = (std::fabs(tilted) + std::fabs(losses_.log_scale) + 4) * 0x1p-51;
    // A sum of n terms, and products of n factors.
    const double rounding = 1 + side * (error + 0x1p-50 * double(losses_.atoms.size() - k));
    const double mass = losses_.atoms[k].mass * std::exp(losses_.log_scale - tilted);
    below += mass;
    last = loss;
    if (!f(loss, mass * rounding, delta * rounding, below * rounding)) return;
  }
}

DPMP_KEPT_BODY inline double PrivacyLossDistribution::delta(double epsilon) const {
  DPMP_CHECK(std::isfinite(epsilon), "expected a finite epsilon, got ", epsilon);
  double last = epsilon, above = 0, below = 0;
  from_the_top([&](double loss, double, double delta, double next) {
    if (loss <= epsilon) return false;
    last = loss, above = delta, below = next;
    return true;
  });
  above += -std::expm1(epsilon - last) * below;
  // Of losses above epsilon, without the tilt.
  const double excess = losses_.excess * std::exp(losses_.log_scale - losses_.tilt * epsilon);
  if (losses_.side == BoundSide::pessimistic) return std::min(1.0, above + losses_.infinite + excess);
  return std::max(0.0, above - excess);
}

DPMP_KEPT_BODY inline double PrivacyLossDistribution::epsilon(double delta) const {
  DPMP_CHECK(delta > 0 && delta < 1, "expected a delta in (0, 1), got ", delta);
  if (losses_.infinite >= delta) return std::numeric_limits<double>::infinity();
  const double side = losses_.side == BoundSide::pessimistic ? 1 : -1;
  // What is asked of the atoms; more where they may have too much, less where they may have too little.
  const auto wanted = [&](double loss) {
    return delta - losses_.infinite - side * losses_.excess * std::exp(losses_.log_scale - losses_.tilt * loss);
  };
  double last = 0, above = 0, below = 0, target = wanted(0);
  bool ends = true;
  from_the_top([&](double loss, double, double at_loss, double next) {
    target = wanted(std::max(loss, 0.0));
    if (at_loss > target || loss <= 0) return ends = false;
    last = loss, above = at_loss, below = next;
    return true;
  });
  // Comparisons and std::max drop what is no number: nothing is known then.
  if (std::isnan(target + above + below))
    return losses_.side == BoundSide::pessimistic ? std::numeric_limits<double>::infinity() : 0;
  // above <= target: the distance from `last` down to the place where it is reached.
  const double share = below > 0 ? (target - above) / below : 1;
  double found = share >= 1 ? 0 : std::max(0.0, (last + std::log1p(-std::max(share, 0.0))) * (1 + side * 0x1p-48));
  if (ends && side > 0) found = last;  // what is below the lowest loss is not known
  // What the excess leaves may be less than nothing where the atoms begin: then the smallest epsilon is further up.
  if (side < 0 || this->delta(found) <= delta * (1 + 1e-9)) return found;
  double low = found, high = found + 1;
  while (this->delta(high) > delta) {
    low = high, high += high;
    if (!(high < 1e6)) return std::numeric_limits<double>::infinity();
  }
  while (high - low > 1e-6 * high) {
    const double middle = low + (high - low) / 2;
    (this->delta(middle) <= delta ? high : low) = middle;
  }
  return high;
}

DPMP_KEPT_BODY inline double PrivacyLossDistribution::true_positive_rate(double false_positive_rate) const {
  DPMP_CHECK(false_positive_rate >= 0 && false_positive_rate <= 1, "expected a false positive rate in [0, 1], got ",
             false_positive_rate);
  DPMP_CHECK(losses_.side == BoundSide::pessimistic, "expected a pessimistic distribution, got an optimistic one");
  // For every epsilon P(S) <= delta(epsilon) + e^epsilon Q(S). Here at the loss where Q of all above reaches the rate.
  double p = 0, q = 0, found = 0;
  bool ends = true;
  from_the_top([&](double loss, double mass, double, double) {
    const double under_q = mass * std::exp(-loss);
    const bool more = q + under_q < false_positive_rate;
    p += more ? mass : (false_positive_rate - q) * std::exp(loss);
    q += under_q, found = loss, ends = more;
    return more;
  });
  if (ends) return 1;  // what is below the lowest loss is not known
  const double excess = losses_.excess * std::exp(losses_.log_scale - losses_.tilt * found);
  return std::min(1.0, p * (1 + 0x1p-50 * double(losses_.atoms.size() + 8)) + losses_.infinite + excess);
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
