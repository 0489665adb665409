// SPDX-License-Identifier: Apache-2.0
// The numbers that a plan's accountant tells, and the inverses: which noise, how many steps, which sampling rate keep an
// epsilon.
#pragma once
#include <memory>
#include <span>

#include "dpmp/dp/pld_accountant.hpp"
#include "dpmp/dp/sampling_accounting.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// By how much a calibrated epsilon stays below its target: far more than builds differ by when they compute it again, so
/// that a plan which keeps its target in one build keeps it in all.
inline constexpr double calibration_margin = 0x1p-40;

/// What the accountant of these completed_options() says of noise multiplier sigma. Copies share what has been computed;
/// const members may be called by several threads. Every delta includes what delta_aside() takes of it.
class PlanAccount {
 public:
  PlanAccount(const PlanOptions& options, double sigma);
  /// Epsilon at the options' delta after `steps` >= 0 steps, also beyond the planned ones; infinity where nothing of delta
  /// is left for the accountant.
  PldSpent spent(index_t steps) const;
  /// The same at each of these deltas in (0, 1), for a curve: in a time that hardly depends on their number.
  std::vector<double> epsilons(index_t steps, std::span<const double> deltas) const;
  /// Delta at epsilon >= 0.
  double delta(index_t steps, double epsilon) const;
  /// The least false negative rate of any test of one neighbour against the other at a false positive rate in [0, 1].
  double trade_off(index_t steps, double false_positive_rate) const;

 private:
  struct Memo;
  std::shared_ptr<Memo> memo_;
};

/// What a plan is calibrated for: a little below options.epsilon, by more than builds differ when they compute it again.
/// Throws unless it is finite and > 0.
double calibration_target(const PlanOptions& options);
/// The least noise multiplier, to about 1e-7 (1e-12 by Renyi divergences), whose plan keeps options.epsilon; the options are
/// completed_options().
double least_noise_multiplier(const PlanOptions& options);
/// The largest number of steps of a plan of this noise multiplier that keeps options.epsilon; options.steps is ignored. At
/// most 2^40 - 1, or 2^20 with correlated noise. Throws where the fewest steps of such a plan are above it already: one, or
/// as many as the noise has bands. Of truncated_poisson a batch size that is given stays, and one that is not follows the
/// steps.
index_t most_steps(const PlanOptions& options, double sigma);
/// The largest sampling rate, to about 1e-7, of a plan of this noise multiplier that keeps options.epsilon, at most 1;
/// options.sampling_rate is ignored. Throws where the sampling has a rate of its own, where noise is correlated between the
/// steps of one record, which is accounted as if each used it, and where none is small enough.
double largest_sampling_rate(const PlanOptions& options, double sigma);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "dpmp/dp/calibration.hpp"

namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
inline RdpAccountant with_steps(RdpAccountant r, const PlanOptions& o, double sigma, index_t steps) {
  for (const AccountedSteps& s : accounted_steps(o, sigma, steps))
    r.add_steps(s.mechanism.sampling_rate, s.mechanism.noise_multiplier, s.steps);
  return r;
}
}  // namespace detail

struct PlanAccount::Memo {
  Memo(const PlanOptions& o, double noise_multiplier) : options(o), sigma(noise_multiplier), rdp(rdp_accountant_of(o)) {
    const double rate = is_one_mechanism(o) ? 1 : o.sampling_rate;
    for (const Schedule::Piece& p : o.noise_schedule.pieces()) rdp.add_steps(rate, sigma * p.value, 0);
  }
  const PlanOptions options;
  const double sigma;
  RdpAccountant rdp;  // knows the (q, sigma) of the plan, counts no steps
  std::mutex mutex;
  std::map<index_t, PldSpent> spent;

  RdpAccountant rdp_after(index_t steps) const { return detail::with_steps(rdp, options, sigma, steps); }
  PldAccountant pld_after(index_t steps) const {
    PldAccountant r;
    for (const AccountedSteps& s : accounted_steps(options, sigma, steps)) r.add_steps(s.mechanism, s.steps);
    return r;
  }
  /// The loss of discrete noise is not that of continuous noise; its divergences of whole orders are.
  bool is_pld() const { return options.accountant == Accountant::pld && !options.noise_source.is_discrete(); }
};

DPMP_KEPT_BODY inline PlanAccount::PlanAccount(const PlanOptions& options, double sigma)
    : memo_(std::make_shared<Memo>(options, sigma)) {}

DPMP_KEPT_BODY inline PldSpent PlanAccount::spent(index_t steps) const {
  DPMP_CHECK(steps >= 0, "expected a number of steps >= 0, got ", steps);
  if (steps == 0) return {};
  const double delta = accounted_delta(memo_->options, steps);
  if (delta <= 0) return {detail::infinity, AccountingMethod::nothing};
  if (!memo_->is_pld()) return {memo_->rdp_after(steps).epsilon(delta), AccountingMethod::renyi};
  const std::lock_guard lock(memo_->mutex);
  const auto known = memo_->spent.find(steps);
  if (known != memo_->spent.end()) return known->second;
  return memo_->spent[steps] = memo_->pld_after(steps).spent(delta);
}

DPMP_KEPT_BODY inline std::vector<double> PlanAccount::epsilons(index_t steps, std::span<const double> deltas) const {
  DPMP_CHECK(steps >= 0, "expected a number of steps >= 0, got ", steps);
  std::vector<double> accounted, result;
  const double aside = steps == 0 ? 0 : delta_aside(memo_->options, steps);
  for (const double delta : deltas) {
    DPMP_CHECK(delta > 0 && delta < 1, "expected a delta in (0, 1), got ", delta);
    if (delta > aside) accounted.push_back(delta - aside);
  }
  if (memo_->is_pld()) {
    accounted = memo_->pld_after(steps).epsilons(accounted);
  } else {
    const RdpAccountant rdp = memo_->rdp_after(steps);
    for (double& x : accounted) x = rdp.epsilon(x);
  }
  std::size_t next = 0;
  for (const double delta : deltas) result.push_back(delta > aside ? accounted[next++] : detail::infinity);
  return result;
}

DPMP_KEPT_BODY inline double PlanAccount::delta(index_t steps, double epsilon) const {
  DPMP_CHECK(steps >= 0, "expected a number of steps >= 0, got ", steps);
  DPMP_CHECK(epsilon >= 0 && std::isfinite(epsilon), "expected a finite epsilon >= 0, got ", epsilon);
  if (steps == 0) return 0;
  const double accounted = memo_->is_pld() ? memo_->pld_after(steps).delta(epsilon) : memo_->rdp_after(steps).delta(epsilon);
  return std::min(1.0, accounted + delta_aside(memo_->options, steps));
}

DPMP_KEPT_BODY inline double PlanAccount::trade_off(index_t steps, double rate) const {
  DPMP_CHECK(steps >= 0, "expected a number of steps >= 0, got ", steps);
  DPMP_CHECK(rate >= 0 && rate <= 1, "expected a false positive rate in [0, 1], got ", rate);
  if (steps == 0) return 1 - rate;
  double found = 1;
  if (memo_->is_pld()) {
    found = memo_->pld_after(steps).true_positive_rate(rate);
  } else {
    // Every epsilon bounds it.
    const RdpAccountant rdp = memo_->rdp_after(steps);
    for (double epsilon = 0x1p-10; epsilon < 700; epsilon *= 1.05)
      found = std::min(found, true_positive_bound(epsilon, rdp.delta(epsilon), rate));
  }
  return std::max(0.0, 1 - found - delta_aside(memo_->options, steps));
}

namespace detail {
/// Epsilon of the planned steps, by the options' accountant.
inline double planned_epsilon(const PlanOptions& o, double sigma) { return PlanAccount(o, sigma).spent(o.steps).epsilon; }
/// planned_epsilon() with other steps or another rate, as a plan completes them. Infinite where draws beyond a given batch
/// size cost too much of delta for a plan.
inline double epsilon_with(PlanOptions o, index_t steps, double rate, double sigma) {
  o.steps = steps, o.sampling_rate = rate;
  check_plan_options(o);
  if (o.sampling.batch_size > 0 && !rare_draws_are_paid(o)) return infinity;
  return planned_epsilon(completed_options(o), sigma);
}
}  // namespace detail

DPMP_KEPT_BODY inline double calibration_target(const PlanOptions& o) {
  DPMP_CHECK(o.epsilon > 0 && std::isfinite(o.epsilon), "expected a finite target epsilon > 0, got ", o.epsilon);
  return o.epsilon * (1 - (o.accountant == Accountant::rdp ? calibration_margin : 1e-8));
}

DPMP_KEPT_BODY inline double least_noise_multiplier(const PlanOptions& o) {
  const double target = calibration_target(o), delta = accounted_delta(o, o.steps);
  const auto rdp = [&](double sigma) { return detail::with_steps(rdp_accountant_of(o), o, sigma, o.steps); };
  if (o.accountant == Accountant::rdp || o.noise_source.is_discrete()) return calibrate_noise_multiplier(target, delta, rdp);
  const auto rough = [&](double sigma) {
    PldAccountant r;
    for (AccountedSteps& s : accounted_steps(o, sigma, o.steps)) {
      // An allocation is much like Poisson sampling of its rate, whose curve takes no time.
      if (s.mechanism.kind == StepMechanism::Kind::random_allocation_gaussian) {
        s.mechanism.kind = StepMechanism::Kind::poisson_gaussian;
        s.steps *= std::exchange(s.mechanism.period, 1);
      }
      r.add_steps(s.mechanism, s.steps);
    }
    return std::max(r.rough_epsilon(delta), 1e-300);
  };
  NoiseSearch search{.near = smallest_noise(target, delta, rough, {.wanted = 1e-3}), .wanted = 1e-7};
  search.slope = std::clamp(std::log(rough(search.near) / rough(search.near * 1.02)) / std::log(1.02), 0.5, 50.0);
  return smallest_noise(
      target, delta, [&](double sigma) { return detail::planned_epsilon(o, sigma); }, search);
}

DPMP_KEPT_BODY inline index_t most_steps(const PlanOptions& given, double sigma) {
  const double target = calibration_target(given);
  const auto epsilon = [&](index_t steps) { return detail::epsilon_with(given, steps, given.sampling_rate, sigma); };
  // low keeps the target, high does not.
  const index_t fewest = std::max<index_t>(1, given.noise_source.bands);
  const index_t most = given.noise_source.is_correlated() ? max_correlated_steps : max_steps - 1;
  index_t low = fewest, high = fewest;
  double at_low = epsilon(low), at_high = at_low;
  DPMP_CHECK(at_low <= target, "expected a target epsilon that ",
             fewest == 1 ? "one step keeps" : dpmp::detail::concat(fewest, " steps keep, as many as the noise has bands"),
             ", got ", given.epsilon, " where it is ", at_low);
  while (at_high <= target) {
    low = high, at_low = at_high;
    if (low == most) return low;
    high = std::min(low < 2 ? 2 : 4 * low, most);
    at_high = epsilon(high);
  }
  // log epsilon is nearly a straight line in the logarithm of the steps.
  for (int k = 1; high - low > 1; ++k) {
    index_t middle = low + (high - low) / 2;
    if (k % 3 != 0 && at_low > 0 && std::isfinite(at_high)) {
      const double share = std::log(target / at_low) / std::log(at_high / at_low);
      const double secant = double(low) * std::pow(double(high) / double(low), share);
      // A little aside, so that the end that would stay is moved, too.
      const index_t aside = index_t(double(high - low) * 0x1p-6);
      middle = std::clamp(index_t(secant) + (k % 2 ? aside : -aside), low + 1, high - 1);
    }
    const double at = epsilon(middle);
    if (at <= target)
      low = middle, at_low = at;
    else
      high = middle, at_high = at;
  }
  return low;
}

DPMP_KEPT_BODY inline double largest_sampling_rate(const PlanOptions& given, double sigma) {
  const double target = calibration_target(given);
  using enum SamplingKind;
  const SamplingKind kind = given.sampling.kind;
  DPMP_CHECK(kind == poisson || kind == truncated_poisson || kind == cyclic_poisson,
             "expected a kind of Poisson sampling, got ", kind, ", which has a rate of its own");
  DPMP_CHECK(!is_one_mechanism(given), "expected noise that is independent between the steps of one record, got ",
             given.noise_source.kind, " for a record's steps ", given.sampling.least_separation(),
             " apart: all steps are accounted as one Gaussian mechanism, whatever the sampling rate is");
  const auto epsilon = [&](double rate) { return detail::epsilon_with(given, given.steps, rate, sigma); };
  if (epsilon(1) <= target) return 1;
  // By the inverse of the rate, which epsilon falls with.
  double near = 1;
  const auto at_inverse = [&](double inverse) { return epsilon(std::min(1.0, 1 / inverse)); };
  while (at_inverse(near) > target) {
    near *= 16;
    DPMP_CHECK(near < 0x1p52, "expected a target epsilon that some sampling rate keeps, got ", given.epsilon, ": at ",
               1 / near, " it is ", at_inverse(near));
  }
  const double found = smallest_noise(target, given.delta, at_inverse, {.near = near, .wanted = 1e-7});
  return std::min(1.0, 1 / found);
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
