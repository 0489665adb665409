// SPDX-License-Identifier: Apache-2.0
// The accountant by privacy-loss distributions: the default of a plan.
#pragma once
#include <span>
#include <utility>
#include <vector>

#include "dpmp/dp/connect_dots.hpp"
#include "dpmp/dp/step_mechanism.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// Where a number of a PldAccountant comes from: nothing was released, the closed form of Gaussian mechanisms, privacy-loss
/// distributions, or Renyi divergences where their bound is the smaller one.
enum class AccountingMethod : std::uint8_t { nothing, exact_gaussian, privacy_loss, renyi };

struct PldSpent {
  double epsilon = 0;
  AccountingMethod method = AccountingMethod::nothing;
};

/// Composes steps of any kinds. Every number holds for both orders of the neighbours.
///
/// Steps of q = 1 are one Gaussian mechanism together. The others are privacy-loss distributions, on a grid that is chosen
/// for the question: tilted so that the epsilon in question is the mean loss, and so fine that connecting the dots adds
/// about 1e-5 of its variance to the loss (up to 1e-4 for 100,000 steps, in proportion to the steps beyond 2 million).
/// Of many different noise multipliers some stand for those in between (noise_chords.hpp; in lower bounds and Renyi
/// divergences, with more than 128 of them, close ones count as the smallest, or largest, of them). Every bound is compared
/// with that by Renyi divergences and with that of q = 1, and the least one is reported: no input is too large.
class PldAccountant {
 public:
  /// Accounts `steps` >= 0 more steps.
  void add_steps(const StepMechanism& step, index_t steps);
  /// The accounted steps.
  index_t steps() const { return total_; }

  /// An upper bound of epsilon at `delta` in (0, 1), and where it comes from.
  PldSpent spent(double delta) const;
  double epsilon(double delta) const { return spent(delta).epsilon; }
  /// epsilon() at each of these deltas, for a curve: in a time that hardly depends on their number.
  std::vector<double> epsilons(std::span<const double> deltas) const;
  /// A lower bound of it: the truth is in between.
  double least_epsilon(double delta) const;
  /// About epsilon(), within a few percent as a rule, in a small part of its time: no bound, but where to look for one.
  double rough_epsilon(double delta) const;
  /// An upper bound of delta at epsilon >= 0, and a lower one.
  double delta(double epsilon) const;
  double least_delta(double epsilon) const;
  /// An upper bound of the true positive rate of any test of one neighbour against the other at a false positive rate in
  /// [0, 1]. 1 minus it is the trade-off curve of Dong, Roth, Su (2022).
  double true_positive_rate(double false_positive_rate) const;

 private:
  std::vector<std::pair<StepMechanism, index_t>> steps_;  // that use records
  index_t total_ = 0;
};
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "dpmp/core/sorted_places.hpp"
#include "dpmp/dp/gaussian_curve.hpp"
#include "dpmp/dp/noise_chords.hpp"
#include "dpmp/dp/privacy_loss.hpp"
#include "dpmp/dp/rdp_accountant.hpp"

namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
/// mu of the Gaussian mechanism that all steps are together where each uses every record: a bound for any sampling.
inline double gaussian_mu_of(const CountedSteps& steps, bool pessimistic) {
  double sum = 0;
  for (const auto& [step, count] : steps) sum += double(count) / (step.noise_multiplier * step.noise_multiplier);
  return std::sqrt(sum) * (1 + (pessimistic ? 1 : -1) * 0x1p-51 * double(steps.size() + 4));
}
inline bool all_gaussian(const CountedSteps& steps) {
  return std::all_of(steps.begin(), steps.end(), [](const auto& s) { return s.first.sampling_rate == 1; });
}
/// Too little for a grid.
inline bool with_little_noise(const CountedSteps& steps) {
  return std::any_of(steps.begin(), steps.end(), [](const auto& s) { return s.first.noise_multiplier < 1e-4; });
}
inline bool one_step(const CountedSteps& steps) { return steps.size() == 1 && steps[0].second == 1; }
/// The divergences of subsampled_gaussian_rdp() are those of one neighbour that contributes nothing.
inline bool rdp_holds(const CountedSteps& steps) {
  return std::all_of(steps.begin(), steps.end(), [](const auto& s) {
    return s.first.sampling_rate == 1 ||
           (s.first.kind == StepMechanism::Kind::poisson_gaussian && s.first.relation != NeighbouringRelation::replace_one);
  });
}

/// Equal steps together, ascending.
inline CountedSteps merged(const CountedSteps& steps) {
  const auto before = [&](index_t a, index_t b) {
    const StepMechanism &x = steps[std::size_t(a)].first, &y = steps[std::size_t(b)].first;
    if (x.kind != y.kind) return x.kind < y.kind;
    if (x.sampling_rate != y.sampling_rate) return x.sampling_rate < y.sampling_rate;
    if (x.relation != y.relation) return x.relation < y.relation;
    if (x.period != y.period) return x.period < y.period;
    return x.noise_multiplier < y.noise_multiplier;
  };
  CountedSteps r;
  for (const index_t place : dpmp::detail::sorted_places(steps.size(), before)) {
    const auto& s = steps[std::size_t(place)];
    if (!r.empty() && r.back().first == s.first)
      r.back().second += s.second;
    else
      r.push_back(s);
  }
  return r;
}

/// Steps of q = 1 as one.
inline CountedSteps with_one_gaussian(const CountedSteps& steps, bool pessimistic) {
  CountedSteps gaussian, r;
  for (const auto& s : steps) (s.first.sampling_rate == 1 ? gaussian : r).push_back(s);
  if (!gaussian.empty()) r.push_back({{.noise_multiplier = 1 / gaussian_mu_of(gaussian, pessimistic)}, 1});
  return r;
}
/// The same or more (pessimistic; else the same or less) in at most 128 parts for each sampling: close noise multipliers as
/// one.
inline CountedSteps pooled(CountedSteps r, bool pessimistic) {
  constexpr std::size_t most = 128;
  for (double width = 1e-6; r.size() > most && width < 1; width *= 2) {
    CountedSteps closer;
    double first = 0;  // ascending noise multipliers within equal kinds and rates
    for (const auto& [step, count] : r) {
      StepMechanism same = step;
      if (!closer.empty()) same.noise_multiplier = closer.back().first.noise_multiplier;
      if (!closer.empty() && closer.back().first == same && step.noise_multiplier <= first * (1 + width)) {
        closer.back().second += count;
        if (!pessimistic) closer.back().first.noise_multiplier = step.noise_multiplier;
      } else {
        closer.push_back({step, count});
        first = step.noise_multiplier;
      }
    }
    r = std::move(closer);
  }
  return r;
}
/// Their Renyi divergences, or of many different steps those of a little less noise.
inline RdpAccountant renyi_accountant_of(const CountedSteps& steps) {
  RdpAccountant rdp;
  for (const auto& [step, count] : pooled(with_one_gaussian(steps, true), true))
    rdp.add_steps(step.sampling_rate, step.noise_multiplier, count);
  return rdp;
}
inline std::vector<CountedCurve> counted_curves(const CountedSteps& steps) {
  std::vector<CountedCurve> curves;
  for (const auto& [step, count] : steps) curves.push_back({privacy_curve(step), count, {}});
  return curves;
}

/// The largest answer of the composition over both orders of the pair, where `answer` is asked of a distribution that is
/// tilted for the question; none where the grid would be too coarse or too large.
template <class Answer>
std::optional<double> largest_answer(const CountedSteps& all, BoundSide side, TiltQuestion question, Answer&& answer) {
  if (with_little_noise(all)) return std::nullopt;
  const CountedSteps steps = with_one_gaussian(all, side == BoundSide::pessimistic);
  std::vector<CountedCurve> curves = side == BoundSide::pessimistic ? noise_chords(steps) : counted_curves(steps);
  if (curves.size() > 192) curves = counted_curves(pooled(steps, side == BoundSide::pessimistic));
  const bool symmetric = std::all_of(steps.begin(), steps.end(), [](const auto& s) {
    return s.first.sampling_rate == 1 || s.first.kind == StepMechanism::Kind::poisson_gaussian_difference ||
           s.first.relation == NeighbouringRelation::replace_one;
  });
  double largest = 0;
  for (int order = 0; order < (symmetric ? 1 : 2); ++order) {
    if (order == 1)
      for (CountedCurve& c : curves) c.curve = c.curve.reversed();
    if (side == BoundSide::pessimistic && order == 1) question.known = largest;
    TiltedLosses tilted = tilted_losses(curves, side, question);
    if (tilted.below_known) continue;
    if (!tilted.losses) return std::nullopt;
    largest = std::max(largest, answer(PrivacyLossDistribution(std::move(*tilted.losses))));
  }
  return largest;
}

/// One step needs no composition: the epsilon >= 0 at which its curve is `delta`.
inline double epsilon_of_one(const PrivacyCurve& curve, double delta, bool pessimistic) {
  const auto at = [&](double epsilon) {
    const DeltaBounds x = curve.forward(epsilon), y = curve.backward(epsilon);
    return pessimistic ? std::max(x.upper, y.upper) : std::max(x.lower, y.lower);
  };
  double low = 0, high = 0x1p-40;
  if (at(0) <= delta) return 0;
  while (at(high) > delta) {
    low = high, high *= 2;
    if (high > 0x1p60) return std::numeric_limits<double>::infinity();
  }
  while (high - low > 1e-14 * high) {
    const double middle = low + (high - low) / 2;
    (at(middle) <= delta ? high : low) = middle;
  }
  return pessimistic ? high : low;
}
}  // namespace detail

DPMP_KEPT_BODY inline void PldAccountant::add_steps(const StepMechanism& step, index_t steps) {
  DPMP_CHECK(steps >= 0, "expected a number of steps >= 0, got ", steps);
  check_step_mechanism(step);
  DPMP_CHECK(steps < (index_t(1) << 60) - total_, "expected fewer than 2^60 steps, got ", steps, " more");
  total_ += steps;
  if (steps == 0 || step.sampling_rate == 0) return;  // nothing depends on the data
  if (!steps_.empty() && steps_.back().first == step)
    steps_.back().second += steps;
  else
    steps_.push_back({step, steps});
}

DPMP_KEPT_BODY inline PldSpent PldAccountant::spent(double delta) const {
  DPMP_CHECK(delta > 0 && delta < 1, "expected a delta in (0, 1), got ", delta);
  const CountedSteps steps = detail::merged(steps_);
  if (steps.empty()) return {};
  PldSpent best{gaussian_epsilon(detail::gaussian_mu_of(steps, true), delta), AccountingMethod::exact_gaussian};
  if (detail::all_gaussian(steps)) return best;
  const auto or_less = [&](double epsilon, AccountingMethod method) {
    if (epsilon < best.epsilon) best = {epsilon, method};
  };
  if (detail::rdp_holds(steps)) or_less(detail::renyi_accountant_of(steps).epsilon(delta), AccountingMethod::renyi);
  if (detail::one_step(steps)) {
    or_less(detail::epsilon_of_one(privacy_curve(steps[0].first), delta, true), AccountingMethod::privacy_loss);
    return best;
  }
  const auto epsilon = detail::largest_answer(steps, BoundSide::pessimistic, {TiltQuestion::Given::delta, delta},
                                              [&](const PrivacyLossDistribution& d) { return d.epsilon(delta); });
  if (epsilon) or_less(*epsilon, AccountingMethod::privacy_loss);
  return best;
}

DPMP_KEPT_BODY inline std::vector<double> PldAccountant::epsilons(std::span<const double> deltas) const {
  const CountedSteps steps = detail::merged(steps_);
  std::vector<double> best;
  for (const double delta : deltas) {
    DPMP_CHECK(delta > 0 && delta < 1, "expected a delta in (0, 1), got ", delta);
    best.push_back(steps.empty() ? 0 : gaussian_epsilon(detail::gaussian_mu_of(steps, true), delta));
  }
  if (steps.empty() || detail::all_gaussian(steps)) return best;
  if (detail::rdp_holds(steps)) {
    const RdpAccountant rdp = detail::renyi_accountant_of(steps);
    for (std::size_t k = 0; k < best.size(); ++k) best[k] = std::min(best[k], rdp.epsilon(deltas[k]));
  }
  if (detail::one_step(steps)) {
    const PrivacyCurve curve = privacy_curve(steps[0].first);
    for (std::size_t k = 0; k < best.size(); ++k)
      best[k] = std::min(best[k], detail::epsilon_of_one(curve, deltas[k], true));
    return best;
  }
  // A tilt serves some orders of magnitude; away from its own delta it is less close, and as true.
  std::vector<int> decades;
  for (const double delta : deltas) decades.push_back(std::max(0, int(-std::log10(delta) / 2.5)));
  for (int decade = 0; decade <= 130; ++decade) {
    if (std::find(decades.begin(), decades.end(), decade) == decades.end()) continue;
    std::vector<double> largest(best.size(), 0);
    const double tilted_for = std::max(std::pow(10.0, -2.5 * (decade + 0.5)), 1e-290);
    const auto found = detail::largest_answer(steps, BoundSide::pessimistic, {TiltQuestion::Given::delta, tilted_for},
                                              [&](const PrivacyLossDistribution& d) {
                                                for (std::size_t k = 0; k < best.size(); ++k)
                                                  if (decades[k] == decade)
                                                    largest[k] = std::max(largest[k], d.epsilon(deltas[k]));
                                                return 0.0;
                                              });
    for (std::size_t k = 0; k < best.size(); ++k)
      if (found && decades[k] == decade) best[k] = std::min(best[k], largest[k]);
  }
  return best;
}

DPMP_KEPT_BODY inline double PldAccountant::least_epsilon(double delta) const {
  DPMP_CHECK(delta > 0 && delta < 1, "expected a delta in (0, 1), got ", delta);
  const CountedSteps steps = detail::merged(steps_);
  if (steps.empty()) return 0;
  if (detail::all_gaussian(steps)) return gaussian_epsilon(detail::gaussian_mu_of(steps, false), delta) * (1 - 1e-9);
  if (detail::one_step(steps)) return detail::epsilon_of_one(privacy_curve(steps[0].first), delta, false);
  return detail::largest_answer(steps, BoundSide::optimistic, {TiltQuestion::Given::delta, delta},
                                [&](const PrivacyLossDistribution& d) { return d.epsilon(delta); })
      .value_or(0);
}

DPMP_KEPT_BODY inline double PldAccountant::rough_epsilon(double delta) const {
  DPMP_CHECK(delta > 0 && delta < 1, "expected a delta in (0, 1), got ", delta);
  const CountedSteps steps = detail::merged(steps_);
  if (steps.empty()) return 0;
  const double all_records = gaussian_epsilon(detail::gaussian_mu_of(steps, true), delta);
  if (detail::all_gaussian(steps) || detail::with_little_noise(steps)) return all_records;
  if (detail::one_step(steps)) return detail::epsilon_of_one(privacy_curve(steps[0].first), delta, true);
  return std::min(all_records, detail::rough_epsilon(noise_chords(detail::with_one_gaussian(steps, true)), delta));
}

DPMP_KEPT_BODY inline double PldAccountant::delta(double epsilon) const {
  DPMP_CHECK(epsilon >= 0 && std::isfinite(epsilon), "expected a finite epsilon >= 0, got ", epsilon);
  const CountedSteps steps = detail::merged(steps_);
  if (steps.empty()) return 0;
  double best = gaussian_delta(detail::gaussian_mu_of(steps, true), epsilon).upper;
  if (detail::all_gaussian(steps)) return best;
  if (detail::rdp_holds(steps)) best = std::min(best, detail::renyi_accountant_of(steps).delta(epsilon));
  if (detail::one_step(steps)) {
    const PrivacyCurve curve = privacy_curve(steps[0].first);
    return std::min(best, std::max(curve.forward(epsilon).upper, curve.backward(epsilon).upper));
  }
  const auto found = detail::largest_answer(steps, BoundSide::pessimistic, {TiltQuestion::Given::epsilon, epsilon},
                                            [&](const PrivacyLossDistribution& d) { return d.delta(epsilon); });
  return std::min(best, found.value_or(1));
}

DPMP_KEPT_BODY inline double PldAccountant::least_delta(double epsilon) const {
  DPMP_CHECK(epsilon >= 0 && std::isfinite(epsilon), "expected a finite epsilon >= 0, got ", epsilon);
  const CountedSteps steps = detail::merged(steps_);
  if (steps.empty()) return 0;
  if (detail::all_gaussian(steps)) return gaussian_delta(detail::gaussian_mu_of(steps, false), epsilon).lower;
  if (detail::one_step(steps)) {
    const PrivacyCurve curve = privacy_curve(steps[0].first);
    return std::max(curve.forward(epsilon).lower, curve.backward(epsilon).lower);
  }
  return detail::largest_answer(steps, BoundSide::optimistic, {TiltQuestion::Given::epsilon, epsilon},
                                [&](const PrivacyLossDistribution& d) { return d.delta(epsilon); })
      .value_or(0);
}

DPMP_KEPT_BODY inline double PldAccountant::true_positive_rate(double rate) const {
  DPMP_CHECK(rate >= 0 && rate <= 1, "expected a false positive rate in [0, 1], got ", rate);
  const CountedSteps steps = detail::merged(steps_);
  if (steps.empty() || rate == 1) return rate;
  if (rate == 0) return 1;
  double best = gaussian_true_positive_rate(detail::gaussian_mu_of(steps, true), rate);
  if (detail::all_gaussian(steps)) return best;
  if (detail::one_step(steps)) {
    // Every epsilon bounds it.
    const PrivacyCurve curve = privacy_curve(steps[0].first);
    for (double epsilon = 0x1p-40; epsilon < 700; epsilon *= 1.01)
      best = std::min(
          best, true_positive_bound(epsilon, std::max(curve.forward(epsilon).upper, curve.backward(epsilon).upper), rate));
    return best;
  }
  const auto found = detail::largest_answer(steps, BoundSide::pessimistic, {TiltQuestion::Given::false_positive_rate, rate},
                                            [&](const PrivacyLossDistribution& d) { return d.true_positive_rate(rate); });
  return std::min(best, found.value_or(1));
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
