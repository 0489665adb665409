// SPDX-License-Identifier: Apache-2.0
// The one place that joins the parts of a private run: sampler, clip rule, noise and accountant are all made from a Plan, so
// they cannot disagree. Everything in it is public; nothing in it may depend on the data.
#pragma once
#include "dpmp/dp/calibration.hpp"
#include "dpmp/dp/ledger.hpp"
#include "dpmp/dp/plan_account.hpp"
#include "dpmp/dp/plan_facts.hpp"
#include "dpmp/dp/sampler.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// What one step clips and adds. Of correlated noise (PlanOptions::noise_source) the standard deviation is that of z.
struct StepPlan {
  std::vector<FlatClipping> groups;      // one for flat clipping
  double noise_multiplier = 0;           // of the gradient sum: over its sensitivity (sigma_z for plans with counts)
  double noise_standard_deviation = 0;   // on every coordinate of the clipped sum, all groups alike
  std::optional<IntegerGrid> grid = {};  // of discrete noise, whose sigma is `units` times the spacing
  index_t units = 0;
};

/// An immutable, checked plan. Copies are equal. It is its options, a noise multiplier and what follows from
/// them; text() is all of it.
///
/// The sensitivity Delta holds for logical batches of at most batch_bound records (the rounding of their sum grows with
/// them). Poisson batches exceed any such bound with some probability, which is paid out of delta: a share of 10^-3 of delta
/// covers the planned steps, the accountant gets the rest. Why adding it is enough, for D = D' + x and one draw b of D':
/// pair the mechanism on D' with one that, where |b| + 1 > batch_bound, releases the sum of b also when x is drawn. Its
/// divergences to and from the mechanism on D' are those of the accountant, and it differs from the true one on D only
/// where D draws more than batch_bound. The other direction changes the mechanism on D' likewise, where D' draws batch_bound
/// records or more. Both events have the probability that poisson_batch_bound bounds; steps add up by the union bound.
///
/// Schedules are public, so step t is one sampled Gaussian mechanism of noise multiplier sigma * noise_schedule.at(t),
/// whatever its thresholds are, and steps compose. So do those of adaptive plans: the
/// threshold of a step is a function of what earlier steps released, and the gradient sum with sigma_z and the count with
/// its own noise are one Gaussian mechanism of noise multiplier sigma (gradient_noise_multiplier). So do those of plans with
/// a loss scale that follows overflows: the scale is a function of earlier counts, which are composed in the same way.
class Plan {
 public:
  /// Share of delta that pays for batches beyond batch_bound.
  static constexpr double batch_share = rare_share;

  /// The plan with the least noise that keeps options.epsilon. Throws on every value out of range and when no noise is
  /// enough.
  static Plan calibrate(const PlanOptions& options);
  /// The plan with a given noise multiplier sigma > 0 (noise standard deviation over sensitivity). options.epsilon must be
  /// unset: the plan says what epsilon() it is.
  static Plan with_noise_multiplier(const PlanOptions& options, double sigma);
  /// The plan of a text(), of a checkpoint for instance, also of another build: it goes on with the facts that are stored.
  /// They are computed again; throws, naming the entries, when one of them differs by more than rounding
  /// (check_stored_facts), when epsilon() is above its target, and when entries are missing, unknown or out of range.
  /// custom: the custom clip rule of a plan that has one, which the text knows by its name only; left out for other plans.
  static Plan from_text(const PlanText& text, const std::optional<ClipRule>& custom = {});

  const PlanOptions& options() const { return options_; }
  /// sigma: what the accountant sees where the noise schedule is 1.
  double noise_multiplier() const { return noise_multiplier_; }
  const PlanFacts& facts() const { return facts_; }
  /// Options, noise multiplier and facts by name.
  PlanText text() const;

  /// The planned steps: options().steps.
  index_t steps() const { return options_.steps; }
  /// q * dataset_size: what the noised sum is divided by, whatever was drawn (P4).
  double expected_batch() const { return facts_.expected_batch; }
  /// Clipping groups: 1 for flat clipping.
  index_t groups() const { return clipping_.groups(); }

  /// What step `step` >= 0 clips and adds, also beyond the planned ones. adaptive_threshold: for adaptive plans the public
  /// AdaptiveThreshold::threshold() of this step, in [C_min, C_max]; else left out. Throws otherwise.
  StepPlan at(index_t step, double adaptive_threshold = 0) const;
  /// at() of the first step.
  StepPlan first_step() const { return at(0, options_.adaptive ? options_.adaptive->initial_threshold : 0); }
  /// Whether all steps clip and add the same.
  bool is_constant() const {
    return !options_.adaptive && options_.clip_schedule.is_constant() && options_.noise_schedule.is_constant();
  }
  /// The threshold of an adaptive plan before its first step; throws for other plans.
  AdaptiveThreshold adaptive_threshold() const;
  /// The loss scale of a plan that counts overflows before its first step; throws for other plans.
  OverflowScale overflow_scale() const;

  /// The clipper of every step. Throws where it depends on the step or there is more than one: see at().
  FlatClipping clipping() const;
  /// Of every step, all groups together. Throws where it depends on the step.
  Sensitivity sensitivity() const;
  /// sigma * Delta: the standard deviation of the noise on every coordinate of the clipped sum, in every step. Throws where
  /// it depends on the step.
  double noise_standard_deviation() const;

  /// The sampler of this plan over the whole dataset_size. keys: StepLedger::keys() of the run, whose steps it draws.
  Sampler sampler(const StreamKeys& keys) const { return sampler(keys, options_.dataset_size); }
  /// The same for a dataset of fewer records than the public bound dataset_size; throws when it has more, and for
  /// without_replacement when it has fewer, whose probability would be larger.
  Sampler sampler(const StreamKeys& keys, index_t records) const;
  /// The sampler of a plan whose unit is a user (SamplingOptions::records_per_user); throws for other plans, and like the
  /// above by the number of users.
  Sampler sampler(const StreamKeys& keys, const UserRecords& users) const;
  /// Counts the steps of a run of this plan, a run of its own with keys of its own (StepLedger).
  StepLedger ledger(const StreamKeys& keys, index_t steps_taken = 0, BeyondPlan beyond = BeyondPlan::refuse) const;

  /// Epsilon of the whole plan at options().delta.
  double epsilon() const { return epsilon_after(options_.steps); }
  /// Epsilon at options().delta after `steps` steps, also beyond the planned ones (batch_share of delta is then spent at the
  /// same rate; infinity when all of delta is), by options().accountant. Some 0.1 s for steps that were not asked for
  /// before.
  double epsilon_after(index_t steps) const { return account_.spent(steps).epsilon; }
  /// The whole account: curves, where an epsilon comes from.
  const PlanAccount& account() const { return account_; }
  /// Delta of the planned steps, or of `steps`, at epsilon >= 0.
  double delta_at(double epsilon) const { return account_.delta(options_.steps, epsilon); }
  double delta_at(double epsilon, index_t steps) const { return account_.delta(steps, epsilon); }
  /// The trade-off function (Dong, Roth, Su 2022) of the planned steps, or of `steps`: the least false negative rate of any
  /// test of one neighbour against the other at a false positive rate alpha in [0, 1].
  double trade_off(double alpha) const { return account_.trade_off(options_.steps, alpha); }
  double trade_off(double alpha, index_t steps) const { return account_.trade_off(steps, alpha); }
  /// mu of the Gaussian mechanism with this epsilon() at this delta: information, no guarantee.
  double gdp_mu() const;

  /// All numbers, one a line, rounded like those of a privacy_statement().
  std::string describe() const;
  friend bool operator==(const Plan& x, const Plan& y) {
    return x.options_ == y.options_ && x.noise_multiplier_ == y.noise_multiplier_;
  }

 private:
  Plan(const PlanOptions& o, double sigma);
  void check_units(index_t units, std::string_view name) const;
  static GroupClipping base_clipping(const PlanOptions& o);
  static GroupClipping scaled(const GroupClipping& clipping, double value);
  Sensitivity sensitivity_at(double clip_schedule_value) const;
  void check_constant(bool noise_too) const;
  PlanOptions options_;
  double noise_multiplier_;
  GroupClipping clipping_;  // where the clip schedule is 1
  PlanFacts facts_;
  PlanAccount account_;
};
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include <iomanip>

#include "dpmp/dp/gaussian_curve.hpp"
#include "dpmp/dp/noise_source_words.hpp"
#include "dpmp/dp/noisy_count_words.hpp"
#include "dpmp/dp/rounded_text.hpp"
#include "dpmp/dp/sampling_words.hpp"

namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline Plan Plan::calibrate(const PlanOptions& given) {
  const PlanOptions options = completed_options(given);
  return Plan(options, least_noise_multiplier(options));
}

DPMP_KEPT_BODY inline Plan Plan::with_noise_multiplier(const PlanOptions& given, double sigma) {
  const PlanOptions options = completed_options(given);
  DPMP_CHECK(options.epsilon == 0, "expected no target epsilon with a noise multiplier, got ", options.epsilon);
  return Plan(options, sigma);
}

DPMP_KEPT_BODY inline PlanText Plan::text() const {
  PlanText text;
  const detail::PlanWriter write{text};
  detail::for_each_option(options_, write);
  write("noise multiplier", noise_multiplier_);
  detail::for_each_fact(facts_, write);
  return text;
}

DPMP_KEPT_BODY inline Plan Plan::from_text(const PlanText& text, const std::optional<ClipRule>& custom) {
  PlanOptions options;
  double sigma = 0;
  const detail::PlanReader read{text, custom};
  detail::for_each_option(options, read);
  read("noise multiplier", sigma);
  options = completed_options(options);
  Plan plan(options, sigma);
  PlanFacts stored;
  detail::for_each_fact(stored, read);
  if (options.noise_source.is_correlated()) read("noise scale", stored.noise_scale);
  check_stored_facts(stored, options, plan.clipping_);
  plan.facts_ = stored;
  const PlanText again = plan.text();
  DPMP_CHECK(again == text, "expected the entries of a plan, got (computed, stored):\n", difference(again, text));
  DPMP_CHECK(options.epsilon == 0 || plan.epsilon() <= options.epsilon, "expected a noise multiplier for epsilon ",
             options.epsilon, ", got ", sigma, " with epsilon ", plan.epsilon());
  return plan;
}

DPMP_KEPT_BODY inline StepPlan Plan::at(index_t step, double adaptive_threshold) const {
  DPMP_CHECK(step >= 0 && step < max_steps, "expected a step in [0, 2^40), got ", step);
  const auto& a = options_.adaptive;
  DPMP_CHECK(a || adaptive_threshold == 0, "expected no adaptive clip threshold for a plan without one, got ",
             adaptive_threshold);
  DPMP_CHECK(!a || (adaptive_threshold >= a->lowest && adaptive_threshold <= a->highest),
             "expected the adaptive clip threshold of the step in [", a->lowest, ", ", a->highest, "], got ",
             adaptive_threshold);
  const double scale = a ? 1 : options_.clip_schedule.at(step);
  const GroupClipping clipping = a ? GroupClipping({adaptive_threshold}, clipping_.rule()) : scaled(clipping_, scale);
  const double sigma = noise_multiplier_ * options_.noise_schedule.at(step);
  StepPlan r;
  for (index_t g = 0; g < clipping.groups(); ++g) r.groups.push_back(clipping.group(g));
  const std::vector<NoisyCount> counts = noisy_counts(options_);
  r.noise_multiplier = counts.empty() ? sigma : gradient_noise_multiplier(sigma, counts);
  const Sensitivity delta = a ? sensitivity_of(options_, clipping, facts_.batch_bound) : sensitivity_at(scale);
  r.noise_standard_deviation = r.noise_multiplier * delta.bound * facts_.noise_scale;
  if (options_.noise_source.is_discrete()) {
    r.grid = integer_grid_of(options_);
    r.units = r.grid->sigma(sigma, options_.relation, options_.sampling.records_per_unit());
    r.noise_standard_deviation = double(r.units) * r.grid->spacing;
  }
  return r;
}

DPMP_KEPT_BODY inline AdaptiveThreshold Plan::adaptive_threshold() const {
  DPMP_CHECK(options_.adaptive.has_value(), "expected a plan with an adaptive clip threshold, got one without");
  return AdaptiveThreshold(*options_.adaptive, facts_.expected_batch);
}

DPMP_KEPT_BODY inline OverflowScale Plan::overflow_scale() const {
  DPMP_CHECK(options_.overflow.has_value(), "expected a plan that counts overflows, got one without");
  return OverflowScale(*options_.overflow, facts_.expected_batch);
}

DPMP_KEPT_BODY inline FlatClipping Plan::clipping() const {
  check_constant(false);
  DPMP_CHECK(groups() == 1, "expected a plan of flat clipping, got ", groups(), " groups: ask for at(step)");
  return at(0).groups[0];
}

DPMP_KEPT_BODY inline Sensitivity Plan::sensitivity() const {
  check_constant(false);
  return sensitivity_at(options_.clip_schedule.at(0));
}

DPMP_KEPT_BODY inline double Plan::noise_standard_deviation() const {
  check_constant(true);
  return at(0).noise_standard_deviation;
}

DPMP_KEPT_BODY inline Sampler Plan::sampler(const StreamKeys& keys, index_t records) const {
  check_units(records, "records");
  return Sampler(keys, options_.sampling, options_.sampling_rate, records);
}

DPMP_KEPT_BODY inline Sampler Plan::sampler(const StreamKeys& keys, const UserRecords& users) const {
  check_units(users.users(), "users");
  return Sampler(keys, options_.sampling, options_.sampling_rate, users);
}

DPMP_KEPT_BODY inline void Plan::check_units(index_t units, std::string_view name) const {
  const bool exact = options_.sampling.kind == SamplingKind::without_replacement;
  DPMP_CHECK(units >= (exact ? options_.dataset_size : 1) && units <= options_.dataset_size, "expected ",
             exact ? "exactly " : "1 to ", options_.dataset_size, ' ', name, ", the plan's dataset_size, got ", units);
}

DPMP_KEPT_BODY inline StepLedger Plan::ledger(const StreamKeys& keys, index_t steps_taken, BeyondPlan beyond) const {
  return StepLedger(options_.steps, keys, steps_taken, beyond);
}

DPMP_KEPT_BODY inline double Plan::gdp_mu() const {
  const double spent = epsilon();
  return spent > 0 && std::isfinite(spent) ? gaussian_mu(spent, options_.delta) : spent;
}

DPMP_KEPT_BODY inline std::string Plan::describe() const {
  TextStream out;
  out.precision(10);
  const auto line = [&](const char* name, const auto& value, const auto& remark) {
    out << std::left << std::setw(26) << name << std::setw(18) << value << remark << '\n';
  };
  const auto up = [](double x) { return digits_up(x, 10); };
  const auto down = [](double x) { return digits_down(x, 10); };
  const SamplingOptions& sampling = options_.sampling;
  line("relation", name_of(options_.relation),
       dpmp::detail::concat("neighbouring datasets; the unit is one ", detail::unit_name(options_)));
  line("epsilon", up(epsilon()), dpmp::detail::concat("after all planned steps, by the accountant ", options_.accountant));
  if (options_.epsilon > 0) line("target epsilon", up(options_.epsilon), "what the noise was calibrated for");
  line("delta", up(options_.delta), delta_remark(options_));
  line("sampling rate", up(options_.sampling_rate), rate_remark(options_));
  if (sampling.batch_size > 0)
    line("batch size", sampling.batch_size, dpmp::detail::concat(detail::unit_name(options_), "s"));
  if (sampling.period > 0) line("period", sampling.period, "steps in which each comes up once");
  if (sampling.records_per_user > 0) line("records per user", sampling.records_per_user, "in a step, at most");
  line("steps", options_.steps, "planned");
  line("dataset size", options_.dataset_size, "public");
  line("expected batch", facts_.expected_batch, "public divisor of the noised sum");
  line("batch bound", facts_.batch_bound,
       sampling.has_fixed_size() ? "public, of every step" : "public, for the rounding of sums; no record is dropped");
  line("clip rule", options_.clip_rule, "");
  describe_counts(options_, options_.adaptive || options_.overflow ? first_step().noise_multiplier : 0, line);
  if (!options_.group_thresholds.empty()) {
    line("groups", groups(), "each clipped alone");
    for (index_t g = 0; g < groups(); ++g)
      line(("group " + std::to_string(g) + " threshold").c_str(), up(clipping_.thresholds()[std::size_t(g)]), "");
    line("clip threshold", up(facts_.clip_threshold), "C, joint: sqrt(sum of squares of the groups')");
  } else {
    line("clip threshold", up(facts_.clip_threshold), options_.adaptive ? "C of the first step" : "C");
  }
  line("rho", up(facts_.rho),
       options_.noise_source.is_discrete() ? "share of the sensitivity that rounding to the grid adds"
                                           : "rounding share of the sensitivity, 1.125 * 2^-42 * batch bound");
  const double changed = contributions_changed(options_.relation) * double(sampling.records_per_unit());
  line("sensitivity", up(facts_.sensitivity),
       changed == 1 ? std::string("Delta = C (1 + rho)") : dpmp::detail::concat("Delta = ", changed, " C (1 + rho)"));
  line("noise multiplier", down(noise_multiplier_), "sigma");
  if (!(options_.clip_schedule == Schedule::constant()))
    line("clip schedule", dpmp::detail::concat(options_.clip_schedule), " (times C)");
  if (!(options_.noise_schedule == Schedule::constant()))
    line("noise schedule", dpmp::detail::concat(options_.noise_schedule), " (times sigma)");
  const StepPlan first = first_step();
  describe_noise_source(options_, facts_.noise_scale, line);
  line("noise standard deviation", down(first.noise_standard_deviation),
       options_.noise_source.is_correlated() ? "sigma * Delta * noise scale, of z"
       : !is_constant()                      ? "on the sum, in the first step"
       : options_.overflow                   ? "sigma_z * Delta, on the sum"
                                             : "sigma * Delta, on the sum");
  return out.str();
}

DPMP_KEPT_BODY inline Plan::Plan(const PlanOptions& o, double sigma)
    : options_(o), noise_multiplier_(sigma), clipping_(base_clipping(o)), account_(o, sigma) {
  DPMP_CHECK(sigma > 0 && std::isfinite(sigma), "expected a finite noise multiplier > 0, got ", sigma);
  const index_t bound = batch_bound_of(o);
  DPMP_CHECK(bound <= max_batch_bound, "expected logical batches of at most ", max_batch_bound, " records, got the bound ",
             bound);
  // Every step's numbers exist: the extremes of the thresholds and of the noise do.
  for (double value : {o.clip_schedule.smallest(), o.clip_schedule.largest()})
    sensitivity_of(o, scaled(clipping_, value), bound);
  if (o.adaptive)
    for (double C : {o.adaptive->lowest, o.adaptive->highest}) sensitivity_of(o, GroupClipping({C}, o.clip_rule), bound);
  if (o.overflow) OverflowScale(*o.overflow, expected_batch_of(o));
  if (const auto counts = noisy_counts(o); !counts.empty())
    gradient_noise_multiplier(sigma * o.noise_schedule.largest(), counts);
  facts_ = facts_of(o, clipping_, bound);
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

/// Where the clip schedule is 1 the facts tell it, which a plan of another build has from there.
DPMP_KEPT_BODY inline Sensitivity Plan::sensitivity_at(double clip_schedule_value) const {
  if (clip_schedule_value == 1) return {facts_.clip_threshold, options_.relation, facts_.rho, facts_.sensitivity};
  return sensitivity_of(options_, scaled(clipping_, clip_schedule_value), facts_.batch_bound);
}

DPMP_KEPT_BODY inline void Plan::check_constant(bool noise_too) const {
  DPMP_CHECK(!options_.adaptive,
             "expected a plan with a constant clip threshold, got an adaptive one: ask for at(step, "
             "threshold)");
  DPMP_CHECK(options_.clip_schedule.is_constant(), "expected a plan with a constant clip threshold, got the schedule ",
             options_.clip_schedule, ": ask for at(step)");
  DPMP_CHECK(!noise_too || options_.noise_schedule.is_constant(),
             "expected a plan with a constant noise multiplier, got the schedule ", options_.noise_schedule,
             ": ask for at(step)");
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
