// SPDX-License-Identifier: Apache-2.0
// The one place that joins the parts of a private run: sampler, clip rule, noise and accountant are all made from a Plan, so
// they cannot disagree. Everything in it is public; nothing in it may depend on the data.
#pragma once
#include <iomanip>

#include "dpmp/dp/batch_bound.hpp"
#include "dpmp/dp/calibration.hpp"
#include "dpmp/dp/clipping.hpp"
#include "dpmp/dp/ledger.hpp"
#include "dpmp/dp/plan_numbers.hpp"
#include "dpmp/dp/poisson_sampler.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// What a run is asked to be. Fields without a useful default must be set; every one is checked when the plan is made.
struct PlanOptions {
  double epsilon = 0;         // target for Plan::calibrate, > 0; unset (0) for Plan::with_noise_multiplier
  double delta = 0;           // in (0, 1)
  double sampling_rate = 0;   // q in (0, 1]: probability of each record in each step
  index_t steps = 0;          // >= 1
  double clip_threshold = 1;  // C, finite, > 0
  index_t dataset_size = 0;   // >= 1: a public constant, the number of records or a bound on it
  NeighbouringRelation relation = NeighbouringRelation::add_or_remove_one;
};

/// An immutable, checked plan. Copies are equal; numbers() is all of it.
///
/// The sensitivity Delta holds for logical batches of at most batch_bound records (the rounding of their sum grows with
/// them). Poisson batches exceed any such bound with some probability, which is paid out of delta: a share of 10^-3 of delta
/// covers the planned steps, the accountant gets the rest. Why adding it is enough, for D = D' + x and one draw b of D':
/// pair the mechanism on D' with one that, where |b| + 1 > batch_bound, releases the sum of b also when x is drawn. Its
/// Renyi divergences to and from the mechanism on D' are those of the accountant, and it differs from the true one on D only
/// where D draws more than batch_bound. The other direction changes the mechanism on D' likewise, where D' draws batch_bound
/// records or more. Both events have the probability that poisson_batch_bound bounds; steps add up by the union bound.
class Plan {
 public:
  /// Share of delta that pays for batches beyond batch_bound.
  static constexpr double batch_share = 1e-3;

  /// The plan with the least noise that keeps options.epsilon. Throws on every value out of range and when no noise is
  /// enough.
  static Plan calibrate(const PlanOptions& options) {
    check(options);
    DPMP_CHECK(options.epsilon > 0 && std::isfinite(options.epsilon), "expected a finite target epsilon > 0, got ",
               options.epsilon);
    const double sigma =
        calibrate_noise_multiplier(options.epsilon, options.delta * (1 - batch_share), options.sampling_rate, options.steps);
    return Plan(options, sigma);
  }
  /// The plan with a given noise multiplier sigma > 0 (noise standard deviation over sensitivity). options.epsilon must be
  /// unset: the plan says what epsilon() it is.
  static Plan with_noise_multiplier(const PlanOptions& options, double sigma) {
    check(options);
    DPMP_CHECK(options.epsilon == 0, "expected no target epsilon beside a noise multiplier, got ", options.epsilon);
    return Plan(options, sigma);
  }
  /// The plan of a checkpoint. Derived numbers are computed again; throws, naming the field, when one differs.
  static Plan from_numbers(const PlanNumbers& n) {
    const PlanOptions options{n.target_epsilon, n.delta,        n.sampling_rate, n.steps,
                              n.clip_threshold, n.dataset_size, n.relation};
    check(options);
    Plan plan(options, n.noise_multiplier);
    DPMP_CHECK(plan.numbers_ == n, "expected the numbers of a plan, got (computed, stored):\n",
               difference(plan.numbers_, n));
    DPMP_CHECK(n.target_epsilon == 0 || plan.epsilon() <= n.target_epsilon, "expected a noise multiplier for epsilon ",
               n.target_epsilon, ", got ", n.noise_multiplier, " with epsilon ", plan.epsilon());
    return plan;
  }

  const PlanNumbers& numbers() const { return numbers_; }
  NeighbouringRelation relation() const { return numbers_.relation; }
  double delta() const { return numbers_.delta; }
  double sampling_rate() const { return numbers_.sampling_rate; }
  index_t steps() const { return numbers_.steps; }
  index_t dataset_size() const { return numbers_.dataset_size; }
  /// Public bound on the records of a logical batch that the sensitivity is computed for. Larger draws are never cut.
  index_t batch_bound() const { return numbers_.batch_bound; }
  /// sigma, as the accountant sees it.
  double noise_multiplier() const { return numbers_.noise_multiplier; }
  /// sigma * Delta: the standard deviation of the noise on every coordinate of the clipped sum.
  double noise_standard_deviation() const { return numbers_.noise_multiplier * numbers_.sensitivity; }
  /// q * dataset_size: what the noised sum is divided by, whatever was drawn (P4).
  double expected_batch() const { return numbers_.expected_batch; }

  FlatClipping clipping() const { return FlatClipping(numbers_.clip_threshold); }
  Sensitivity sensitivity() const { return clipping().sensitivity(numbers_.relation, numbers_.batch_bound); }
  /// The sampler of this plan over the whole dataset_size.
  PoissonSampler sampler(const StreamKeys& keys) const { return sampler(keys, numbers_.dataset_size); }
  /// The same for a dataset of fewer records than the public bound dataset_size; throws when it has more.
  PoissonSampler sampler(const StreamKeys& keys, index_t records) const {
    DPMP_CHECK(records >= 1 && records <= numbers_.dataset_size, "expected 1 to ", numbers_.dataset_size,
               " records, the plan's dataset_size, got ", records);
    return PoissonSampler(keys.key(Stream::sampler), records, numbers_.sampling_rate);
  }
  /// Counts the steps of a run of this plan.
  StepLedger ledger(index_t steps_taken = 0, BeyondPlan beyond = BeyondPlan::refuse) const {
    return StepLedger(numbers_.steps, steps_taken, beyond);
  }

  /// Epsilon of the whole plan at delta().
  double epsilon() const { return epsilon_after(numbers_.steps); }
  /// Epsilon at delta() after `steps` steps, also beyond the planned ones (batch_share of delta is then spent at the same
  /// rate; infinity when all of delta is). Cheap: the Renyi curve was computed with the plan.
  double epsilon_after(index_t steps) const {
    DPMP_CHECK(steps >= 0, "expected a number of steps >= 0, got ", steps);
    if (steps == 0) return 0;
    const double share = batch_share * std::max(1.0, double(steps) / double(numbers_.steps));
    if (share >= 1) return detail::infinity;
    RdpAccountant accountant = accountant_;
    accountant.add_steps(numbers_.sampling_rate, numbers_.noise_multiplier, steps);
    return accountant.epsilon(numbers_.delta * (1 - share));
  }

  /// All numbers, one a line.
  std::string describe() const {
    std::ostringstream out;
    out.precision(10);
    const auto line = [&](const char* name, const auto& value, const char* remark) {
      out << std::left << std::setw(26) << name << std::setw(18) << value << remark << '\n';
    };
    line("relation", name_of(numbers_.relation), "neighbouring datasets; the unit is one record");
    line("epsilon", epsilon(), "after all planned steps, by the RDP accountant");
    if (numbers_.target_epsilon > 0) line("target epsilon", numbers_.target_epsilon, "what the noise was calibrated for");
    line("delta", numbers_.delta, "of which a share of 0.001 pays for batches beyond the batch bound");
    line("sampling rate", numbers_.sampling_rate, "Poisson, each record in each step");
    line("steps", numbers_.steps, "planned");
    line("dataset size", numbers_.dataset_size, "public");
    line("expected batch", numbers_.expected_batch, "public divisor of the noised sum");
    line("batch bound", numbers_.batch_bound, "public, for the rounding of sums; no record is dropped");
    line("clip threshold", numbers_.clip_threshold, "C");
    line("rho", numbers_.rho, "rounding share of the sensitivity, 16 * batch bound * 2^-24");
    line("sensitivity", numbers_.sensitivity, "Delta = C (1 + rho)");
    line("noise multiplier", numbers_.noise_multiplier, "sigma");
    line("noise standard deviation", noise_standard_deviation(), "sigma * Delta, on the sum");
    return out.str();
  }
  friend bool operator==(const Plan& x, const Plan& y) { return x.numbers_ == y.numbers_; }

 private:
  Plan(const PlanOptions& o, double sigma) {
    DPMP_CHECK(sigma > 0 && std::isfinite(sigma), "expected a finite noise multiplier > 0, got ", sigma);
    // One record more than the plan knows of: the larger neighbour.
    const index_t bound = poisson_batch_bound(o.dataset_size + 1, o.sampling_rate, batch_share * o.delta / double(o.steps));
    DPMP_CHECK(bound <= max_batch_bound, "expected logical batches of at most ", max_batch_bound, " records, got the bound ",
               bound);
    const Sensitivity s = FlatClipping(o.clip_threshold).sensitivity(o.relation, bound);
    numbers_ = {o.relation,       o.epsilon, o.delta, o.sampling_rate, o.steps, o.dataset_size,
                o.clip_threshold, sigma,     bound,   s.rho,           s.bound, o.sampling_rate * double(o.dataset_size)};
    accountant_.add_steps(o.sampling_rate, sigma, 0);
  }
  static void check(const PlanOptions& o) {
    DPMP_CHECK(o.delta > 0 && o.delta < 1, "expected a delta in (0, 1), got ", o.delta);
    DPMP_CHECK(o.sampling_rate > 0 && o.sampling_rate <= 1, "expected a sampling rate in (0, 1], got ", o.sampling_rate);
    DPMP_CHECK(o.steps >= 1 && o.steps < max_steps, "expected a number of steps in [1, 2^40), got ", o.steps);
    DPMP_CHECK(o.dataset_size >= 1 && o.dataset_size < (index_t(1) << 53),
               "expected a public dataset size in [1, 2^53), got ", o.dataset_size);
    DPMP_CHECK(o.clip_threshold > 0 && std::isfinite(o.clip_threshold), "expected a finite clip threshold > 0, got ",
               o.clip_threshold);
    DPMP_CHECK(o.relation == NeighbouringRelation::add_or_remove_one || o.relation == NeighbouringRelation::zero_out,
               "expected add_or_remove_one or zero_out, got ", o.relation,
               ": the RDP analysis of the Poisson-sampled Gaussian does not hold when a record is replaced by another");
  }
  PlanNumbers numbers_;
  RdpAccountant accountant_;  // holds the curve of (q, sigma), no steps
};
}  // namespace dpmp::inline DPMP_ABI::dp
