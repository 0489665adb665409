// SPDX-License-Identifier: Apache-2.0
// The one place that joins the parts of a private run: sampler, clip rule, noise and accountant are all made from a Plan, so
// they cannot disagree. Everything in it is public; nothing in it may depend on the data.
#pragma once
#include <iomanip>

#include "dpmp/dp/batch_bound.hpp"
#include "dpmp/dp/calibration.hpp"
#include "dpmp/dp/ledger.hpp"
#include "dpmp/dp/plan_numbers.hpp"
#include "dpmp/dp/plan_options.hpp"
#include "dpmp/dp/poisson_sampler.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// What one step clips and adds.
struct StepNumbers {
  std::vector<FlatClipping> groups;     // one for flat clipping
  double noise_multiplier = 0;          // of the gradient sum: over its sensitivity (sigma_z for adaptive plans)
  double noise_standard_deviation = 0;  // on every coordinate of the clipped sum, all groups alike
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
///
/// Schedules are public, so step t is one sampled Gaussian mechanism of noise multiplier sigma * noise_schedule.at(t),
/// whatever its thresholds are, and steps compose by adding their Renyi divergences. So do those of adaptive plans: the
/// threshold of a step is a function of what earlier steps released, and the gradient sum with sigma_z and the count with
/// its own noise are one Gaussian mechanism of noise multiplier sigma (gradient_noise_multiplier).
class Plan {
 public:
  /// Share of delta that pays for batches beyond batch_bound.
  static constexpr double batch_share = 1e-3;

  /// The plan with the least noise that keeps options.epsilon. Throws on every value out of range and when no noise is
  /// enough.
  static Plan calibrate(const PlanOptions& options);
  /// The plan with a given noise multiplier sigma > 0 (noise standard deviation over sensitivity). options.epsilon must be
  /// unset: the plan says what epsilon() it is.
  static Plan with_noise_multiplier(const PlanOptions& options, double sigma);
  /// The plan of a checkpoint. Derived numbers are computed again; throws, naming the field, when one differs. A plan with a
  /// custom clip rule needs the overload below: a function cannot be stored.
  static Plan from_numbers(const PlanNumbers& n);
  /// The same; throws when `rule` is another one than the stored one (custom rules are compared by name).
  static Plan from_numbers(const PlanNumbers& n, const ClipRule& rule);

  const PlanNumbers& numbers() const { return numbers_; }
  NeighbouringRelation relation() const { return numbers_.relation; }
  double delta() const { return numbers_.delta; }
  double sampling_rate() const { return numbers_.sampling_rate; }
  index_t steps() const { return numbers_.steps; }
  index_t dataset_size() const { return numbers_.dataset_size; }
  /// Public bound on the records of a logical batch that the sensitivity is computed for. Larger draws are never cut.
  index_t batch_bound() const { return numbers_.batch_bound; }
  /// sigma, as the accountant sees it where the noise schedule says 1.
  double noise_multiplier() const { return numbers_.noise_multiplier; }
  /// q * dataset_size: what the noised sum is divided by, whatever was drawn (P4).
  double expected_batch() const { return numbers_.expected_batch; }

  const ClipRule& clip_rule() const { return clipping_.rule(); }
  /// 1 for flat clipping.
  index_t groups() const { return clipping_.groups(); }
  const std::optional<AdaptiveOptions>& adaptive() const { return numbers_.adaptive; }
  const Schedule& clip_schedule() const { return clip_schedule_; }
  const Schedule& noise_schedule() const { return noise_schedule_; }

  /// What step `step` >= 0 clips and adds, also beyond the planned ones. adaptive_threshold: for adaptive plans the public
  /// AdaptiveThreshold::threshold() of this step, in [C_min, C_max]; else left out. Throws otherwise.
  StepNumbers at(index_t step, double adaptive_threshold = 0) const;
  /// at() of the first step.
  StepNumbers first_step() const { return at(0, numbers_.adaptive ? numbers_.adaptive->initial_threshold : 0); }
  /// Whether all steps clip and add the same.
  bool is_constant() const { return !numbers_.adaptive && clip_schedule_.is_constant() && noise_schedule_.is_constant(); }
  /// The threshold of an adaptive plan before its first step; throws for other plans.
  AdaptiveThreshold adaptive_threshold() const;

  /// The clipper of every step. Throws where it depends on the step or there is more than one: see at().
  FlatClipping clipping() const;
  /// Of every step, all groups together. Throws where it depends on the step.
  Sensitivity sensitivity() const;
  /// sigma * Delta: the standard deviation of the noise on every coordinate of the clipped sum, in every step. Throws where
  /// it depends on the step.
  double noise_standard_deviation() const;

  /// The sampler of this plan over the whole dataset_size. keys: StepLedger::keys() of the run, whose steps it draws.
  PoissonSampler sampler(const StreamKeys& keys) const { return sampler(keys, numbers_.dataset_size); }
  /// The same for a dataset of fewer records than the public bound dataset_size; throws when it has more.
  PoissonSampler sampler(const StreamKeys& keys, index_t records) const;
  /// Counts the steps of a run of this plan, a run of its own with keys of its own (StepLedger).
  StepLedger ledger(const StreamKeys& keys, index_t steps_taken = 0, BeyondPlan beyond = BeyondPlan::refuse) const;

  /// Epsilon of the whole plan at delta().
  double epsilon() const { return epsilon_after(numbers_.steps); }
  /// Epsilon at delta() after `steps` steps, also beyond the planned ones (batch_share of delta is then spent at the same
  /// rate; infinity when all of delta is). Cheap: the Renyi curves were computed with the plan.
  double epsilon_after(index_t steps) const;

  /// All numbers, one a line.
  std::string describe() const;
  friend bool operator==(const Plan& x, const Plan& y) { return x.numbers_ == y.numbers_; }

 private:
  Plan(const PlanOptions& o, double sigma);
  static GroupClipping base_clipping(const PlanOptions& o);
  static GroupClipping scaled(const GroupClipping& clipping, double value);
  void check_constant(bool noise_too) const;
  template <class Line>
  void describe_adaptive(Line&& line) const;
  PlanNumbers numbers_;
  GroupClipping clipping_;  // where the clip schedule says 1
  Schedule clip_schedule_, noise_schedule_;
  RdpAccountant accountant_;  // holds the curves of all (q, sigma), no steps
};
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline Plan Plan::calibrate(const PlanOptions& options) {
  check_plan_options(options);
  DPMP_CHECK(options.epsilon > 0 && std::isfinite(options.epsilon), "expected a finite target epsilon > 0, got ",
             options.epsilon);
  const double sigma = calibrate_noise_multiplier(options.epsilon, options.delta * (1 - batch_share), options.sampling_rate,
                                                  options.steps, default_orders(), options.noise_schedule);
  return Plan(options, sigma);
}

DPMP_KEPT_BODY inline Plan Plan::with_noise_multiplier(const PlanOptions& options, double sigma) {
  check_plan_options(options);
  DPMP_CHECK(options.epsilon == 0, "expected no target epsilon beside a noise multiplier, got ", options.epsilon);
  return Plan(options, sigma);
}

DPMP_KEPT_BODY inline Plan Plan::from_numbers(const PlanNumbers& n) {
  switch (n.clip_rule) {
    case ClipRule::Kind::abadi: return from_numbers(n, ClipRule::abadi());
    case ClipRule::Kind::automatic: return from_numbers(n, ClipRule::automatic(n.clip_rule_parameter));
    case ClipRule::Kind::normalise: return from_numbers(n, ClipRule::normalise());
    case ClipRule::Kind::global: return from_numbers(n, ClipRule::global(n.clip_rule_parameter));
    case ClipRule::Kind::custom: break;
  }
  throw Error(dpmp::detail::concat("expected the custom clip rule '", n.clip_rule_name,
                                   "' beside the numbers of its plan, got the numbers alone"));
}

DPMP_KEPT_BODY inline Plan Plan::from_numbers(const PlanNumbers& n, const ClipRule& rule) {
  DPMP_CHECK(
      rule.kind() == n.clip_rule && rule.parameter() == n.clip_rule_parameter && rule.custom_name() == n.clip_rule_name,
      "expected the clip rule of the stored plan (kind ", int(n.clip_rule), ", parameter ", n.clip_rule_parameter,
      ", name '", n.clip_rule_name, "'), got ", rule);
  const bool flat = n.group_thresholds.empty() && !n.adaptive;
  const PlanOptions options{.epsilon = n.target_epsilon,
                            .delta = n.delta,
                            .sampling_rate = n.sampling_rate,
                            .steps = n.steps,
                            .clip_threshold = flat ? n.clip_threshold : PlanOptions{}.clip_threshold,
                            .dataset_size = n.dataset_size,
                            .relation = n.relation,
                            .clip_rule = rule,
                            .group_thresholds = n.group_thresholds,
                            .adaptive = n.adaptive,
                            .clip_schedule = Schedule::piecewise(n.clip_schedule),
                            .noise_schedule = Schedule::piecewise(n.noise_schedule)};
  check_plan_options(options);
  Plan plan(options, n.noise_multiplier);
  DPMP_CHECK(plan.numbers_ == n, "expected the numbers of a plan, got (computed, stored):\n", difference(plan.numbers_, n));
  DPMP_CHECK(n.target_epsilon == 0 || plan.epsilon() <= n.target_epsilon, "expected a noise multiplier for epsilon ",
             n.target_epsilon, ", got ", n.noise_multiplier, " with epsilon ", plan.epsilon());
  return plan;
}

DPMP_KEPT_BODY inline StepNumbers Plan::at(index_t step, double adaptive_threshold) const {
  DPMP_CHECK(step >= 0 && step < max_steps, "expected a step in [0, 2^40), got ", step);
  const auto& a = numbers_.adaptive;
  DPMP_CHECK(a || adaptive_threshold == 0, "expected no adaptive clip threshold for a plan without one, got ",
             adaptive_threshold);
  DPMP_CHECK(!a || (adaptive_threshold >= a->lowest && adaptive_threshold <= a->highest),
             "expected the adaptive clip threshold of the step in [", a->lowest, ", ", a->highest, "], got ",
             adaptive_threshold);
  const GroupClipping clipping =
      a ? GroupClipping({adaptive_threshold}, clipping_.rule()) : scaled(clipping_, clip_schedule_.at(step));
  const double sigma = numbers_.noise_multiplier * noise_schedule_.at(step);
  StepNumbers r;
  for (index_t g = 0; g < clipping.groups(); ++g) r.groups.push_back(clipping.group(g));
  r.noise_multiplier = a ? gradient_noise_multiplier(sigma, a->count_noise, numbers_.relation) : sigma;
  r.noise_standard_deviation = r.noise_multiplier * clipping.sensitivity(numbers_.relation, numbers_.batch_bound).bound;
  return r;
}

DPMP_KEPT_BODY inline AdaptiveThreshold Plan::adaptive_threshold() const {
  DPMP_CHECK(numbers_.adaptive.has_value(), "expected a plan with an adaptive clip threshold, got one without");
  return AdaptiveThreshold(*numbers_.adaptive, numbers_.expected_batch);
}

DPMP_KEPT_BODY inline FlatClipping Plan::clipping() const {
  check_constant(false);
  DPMP_CHECK(groups() == 1, "expected a plan of flat clipping, got ", groups(), " groups: ask for at(step)");
  return at(0).groups[0];
}

DPMP_KEPT_BODY inline Sensitivity Plan::sensitivity() const {
  check_constant(false);
  return scaled(clipping_, clip_schedule_.at(0)).sensitivity(numbers_.relation, numbers_.batch_bound);
}

DPMP_KEPT_BODY inline double Plan::noise_standard_deviation() const {
  check_constant(true);
  return at(0).noise_standard_deviation;
}

DPMP_KEPT_BODY inline PoissonSampler Plan::sampler(const StreamKeys& keys, index_t records) const {
  DPMP_CHECK(records >= 1 && records <= numbers_.dataset_size, "expected 1 to ", numbers_.dataset_size,
             " records, the plan's dataset_size, got ", records);
  return PoissonSampler(keys.key(Stream::sampler), records, numbers_.sampling_rate);
}

DPMP_KEPT_BODY inline StepLedger Plan::ledger(const StreamKeys& keys, index_t steps_taken, BeyondPlan beyond) const {
  return StepLedger(numbers_.steps, keys, steps_taken, beyond);
}

DPMP_KEPT_BODY inline double Plan::epsilon_after(index_t steps) const {
  DPMP_CHECK(steps >= 0, "expected a number of steps >= 0, got ", steps);
  if (steps == 0) return 0;
  const double share = batch_share * std::max(1.0, double(steps) / double(numbers_.steps));
  if (share >= 1) return detail::infinity;
  RdpAccountant accountant = accountant_;
  noise_schedule_.for_each_part(steps, [&](double value, index_t count) {
    accountant.add_steps(numbers_.sampling_rate, numbers_.noise_multiplier * value, count);
  });
  return accountant.epsilon(numbers_.delta * (1 - share));
}

DPMP_KEPT_BODY inline std::string Plan::describe() const {
  TextStream out;
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
  line("clip rule", clip_rule(), "");
  if (numbers_.adaptive) describe_adaptive(line);
  if (!numbers_.group_thresholds.empty()) {
    line("groups", groups(), "each clipped alone");
    for (index_t g = 0; g < groups(); ++g)
      line(("group " + std::to_string(g) + " threshold").c_str(), clipping_.thresholds()[std::size_t(g)], "");
    line("clip threshold", numbers_.clip_threshold, "C, joint: sqrt(sum of squares of the groups')");
  } else {
    line("clip threshold", numbers_.clip_threshold, numbers_.adaptive ? "C of the first step" : "C");
  }
  line("rho", numbers_.rho, "rounding share of the sensitivity, 16 * batch bound * 2^-24");
  line("sensitivity", numbers_.sensitivity, "Delta = C (1 + rho)");
  line("noise multiplier", numbers_.noise_multiplier, "sigma");
  if (!(clip_schedule_ == Schedule::constant())) line("clip schedule", dpmp::detail::concat(clip_schedule_), " (times C)");
  if (!(noise_schedule_ == Schedule::constant()))
    line("noise schedule", dpmp::detail::concat(noise_schedule_), " (times sigma)");
  const StepNumbers first = first_step();
  line("noise standard deviation", first.noise_standard_deviation,
       is_constant() ? "sigma * Delta, on the sum" : "on the sum, in the first step");
  return out.str();
}

DPMP_KEPT_BODY inline Plan::Plan(const PlanOptions& o, double sigma)
    : clipping_(base_clipping(o)), clip_schedule_(o.clip_schedule), noise_schedule_(o.noise_schedule) {
  DPMP_CHECK(sigma > 0 && std::isfinite(sigma), "expected a finite noise multiplier > 0, got ", sigma);
  // One record more than the plan knows of: the larger neighbour.
  const index_t bound = poisson_batch_bound(o.dataset_size + 1, o.sampling_rate, batch_share * o.delta / double(o.steps));
  DPMP_CHECK(bound <= max_batch_bound, "expected logical batches of at most ", max_batch_bound, " records, got the bound ",
             bound);
  // Every step's numbers exist: the extremes of the thresholds and of the noise do.
  for (double value : {clip_schedule_.smallest(), clip_schedule_.largest()})
    scaled(clipping_, value).sensitivity(o.relation, bound);
  if (o.adaptive) {
    for (double C : {o.adaptive->lowest, o.adaptive->highest}) FlatClipping(C, o.clip_rule).sensitivity(o.relation, bound);
    gradient_noise_multiplier(sigma * noise_schedule_.largest(), o.adaptive->count_noise, o.relation);
  }
  const Sensitivity s = clipping_.sensitivity(o.relation, bound);
  numbers_ = {o.relation,
              o.epsilon,
              o.delta,
              o.sampling_rate,
              o.steps,
              o.dataset_size,
              s.clip_threshold,
              sigma,
              bound,
              s.rho,
              s.bound,
              o.sampling_rate * double(o.dataset_size),
              o.clip_rule.kind(),
              o.clip_rule.parameter(),
              o.clip_rule.custom_name(),
              o.group_thresholds,
              o.adaptive,
              clip_schedule_.pieces(),
              noise_schedule_.pieces()};
  for (const Schedule::Piece& p : noise_schedule_.pieces()) accountant_.add_steps(o.sampling_rate, sigma * p.value, 0);
}

DPMP_KEPT_BODY inline GroupClipping Plan::base_clipping(const PlanOptions& o) {
  if (!o.group_thresholds.empty()) return GroupClipping(o.group_thresholds, o.clip_rule);
  return GroupClipping({o.adaptive ? o.adaptive->initial_threshold : o.clip_threshold}, o.clip_rule);
}

DPMP_KEPT_BODY inline GroupClipping Plan::scaled(const GroupClipping& clipping, double value) {
  std::vector<double> thresholds = clipping.thresholds();
  for (double& C : thresholds) C *= value;
  return GroupClipping(std::move(thresholds), clipping.rule());
}

DPMP_KEPT_BODY inline void Plan::check_constant(bool noise_too) const {
  DPMP_CHECK(!numbers_.adaptive,
             "expected a plan with a constant clip threshold, got an adaptive one: ask for at(step, "
             "threshold)");
  DPMP_CHECK(clip_schedule_.is_constant(), "expected a plan with a constant clip threshold, got the schedule ",
             clip_schedule_, ": ask for at(step)");
  DPMP_CHECK(!noise_too || noise_schedule_.is_constant(),
             "expected a plan with a constant noise multiplier, got the schedule ", noise_schedule_, ": ask for at(step)");
}

template <class Line>
inline void Plan::describe_adaptive(Line&& line) const {
  const AdaptiveOptions& a = *numbers_.adaptive;
  line("adaptive quantile", a.quantile, "share of gradients that the threshold should leave alone");
  line("adaptive learning rate", a.learning_rate, "eta");
  line("adaptive count noise", a.count_noise, "standard deviation on the count, s_b");
  line("adaptive range", dpmp::detail::concat(a.lowest, " .. ", a.highest), " of the threshold");
  line("gradient noise multiplier", first_step().noise_multiplier,
       "sigma_z of the first step, above sigma: the count uses the rest");
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
