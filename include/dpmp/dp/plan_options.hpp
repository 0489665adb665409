// SPDX-License-Identifier: Apache-2.0
// The options of a private run, and which of them are refused.
#pragma once
#include <optional>
#include <vector>

#include "dpmp/dp/accountant.hpp"
#include "dpmp/dp/adaptive_clip.hpp"
#include "dpmp/dp/group_clipping.hpp"
#include "dpmp/dp/noise_source.hpp"
#include "dpmp/dp/overflow_scale.hpp"
#include "dpmp/dp/sampling.hpp"
#include "dpmp/dp/schedule.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// Fields without a useful default must be set; every one is checked when the plan is made.
struct PlanOptions {
  double epsilon = 0;         // target for Plan::calibrate, > 0; unset (0) for Plan::with_noise_multiplier
  double delta = 0;           // in (0, 1)
  double sampling_rate = 0;   // q in (0, 1]: probability of each record in each step; unset where the sampling makes it
  index_t steps = 0;          // >= 1
  double clip_threshold = 1;  // C, finite, > 0; unset where groups or an adaptive threshold have their own
  index_t dataset_size = 0;   // >= 1: a public constant, the number of records (or users) or a bound on it
  NeighbouringRelation relation = NeighbouringRelation::add_or_remove_one;
  ClipRule clip_rule = ClipRule::abadi();
  std::vector<double> group_thresholds = {};       // C_g of group-wise clipping; empty: flat
  std::optional<AdaptiveOptions> adaptive = {};    // a threshold that follows a quantile of the norms; flat only
  Schedule clip_schedule = Schedule::constant();   // of every threshold, as a multiple of it
  Schedule noise_schedule = Schedule::constant();  // of the noise multiplier, as a multiple of it
  SamplingOptions sampling = {};                   // how the records of a step are drawn, and of what the unit is
  NoiseSourceOptions noise_source = {};            // independent noise in each step, or another source
  std::optional<OverflowOptions> overflow = {};    // a loss scale that follows a noisy count of overflows
  Accountant accountant = Accountant::pld;         // what epsilon is computed by
  /// Custom clip rules are compared by name.
  friend bool operator==(const PlanOptions&, const PlanOptions&) = default;
};

/// Throws on every value out of range and on combinations that have no meaning. The noise multiplier is checked with it by
/// the plan.
void check_plan_options(const PlanOptions& o);

/// Throws where a noise source is combined with what its analysis does not cover (docs/numerics.md).
void check_noise_source_of(const PlanOptions& o);

/// The counts that every step releases in addition to its gradient sum.
std::vector<NoisyCount> noisy_counts(const PlanOptions& o);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline void check_plan_options(const PlanOptions& o) {
  DPMP_CHECK(o.delta > 0 && o.delta < 1, "expected a delta in (0, 1), got ", o.delta);
  DPMP_CHECK(o.steps >= 1 && o.steps < max_steps, "expected a number of steps in [1, 2^40), got ", o.steps);
  DPMP_CHECK(o.dataset_size >= 1 && o.dataset_size < (index_t(1) << 53), "expected a public dataset size in [1, 2^53), got ",
             o.dataset_size);
  check_sampling(o.sampling, o.dataset_size);
  const double rate = sampling_rate_of(o.sampling, o.sampling_rate, o.dataset_size);
  DPMP_CHECK(rate > 0 && rate <= 1, "expected a sampling rate in (0, 1], got ", rate);
  DPMP_CHECK(o.clip_threshold > 0 && std::isfinite(o.clip_threshold), "expected a finite clip threshold > 0, got ",
             o.clip_threshold);
  check_relation(o.sampling.kind, o.relation);
  name_of(o.accountant);  // throws on a value outside of the enumeration
  check_noise_source_of(o);
  const bool thresholds_elsewhere = !o.group_thresholds.empty() || o.adaptive;
  DPMP_CHECK(!thresholds_elsewhere || o.clip_threshold == PlanOptions{}.clip_threshold,
             "expected no clip threshold in addition to ", o.adaptive ? "an adaptive one" : "those of groups", ", got ",
             o.clip_threshold);
  DPMP_CHECK(o.sampling.records_per_unit() == 1 || !(o.adaptive || o.overflow),
             "expected one record of a user in a step with an adaptive threshold or a count of overflows, got ",
             o.sampling.records_per_unit(), ": a count's sensitivity is that of one record");
  if (!o.adaptive) return;
  DPMP_CHECK(o.sampling.kind != SamplingKind::balls_in_bins || o.relation != NeighbouringRelation::zero_out,
             "expected add_or_remove_one for ", o.sampling.kind, " with an adaptive threshold, got ", o.relation,
             ": an empty record is counted like a full one, and its analysis has one neighbour whose record is not there");
  check_adaptive(*o.adaptive);
  DPMP_CHECK(o.group_thresholds.empty(), "expected flat clipping with an adaptive threshold, got ",
             o.group_thresholds.size(), " groups: one count of norms steers one threshold");
  DPMP_CHECK(o.clip_schedule == Schedule::constant(), "expected no clip schedule with an adaptive threshold, got ",
             o.clip_schedule);
}

DPMP_KEPT_BODY inline std::vector<NoisyCount> noisy_counts(const PlanOptions& o) {
  std::vector<NoisyCount> counts;
  if (o.adaptive) counts.push_back({o.adaptive->count_noise, count_sensitivity(o.relation)});
  if (o.overflow) counts.push_back({o.overflow->count_noise, overflow_sensitivity(o.relation)});
  return counts;
}

DPMP_KEPT_BODY inline void check_noise_source_of(const PlanOptions& o) {
  const NoiseSourceOptions& source = o.noise_source;
  check_noise_source(source, o.steps);
  if (source.kind == NoiseSourceKind::independent) return;
  const SamplingKind sampling = o.sampling.kind;
  const bool cyclic = sampling == SamplingKind::cyclic_poisson, full = sampling == SamplingKind::full_batch;
  DPMP_CHECK(cyclic || full || (source.is_discrete() && sampling == SamplingKind::poisson), "expected ",
             source.is_discrete() ? "poisson, cyclic_poisson or full_batch" : "cyclic_poisson or full_batch",
             " sampling with ", source.kind, " noise, got ", sampling,
             source.is_discrete() ? "" : ": it has to be known which steps may use the same record");
  DPMP_CHECK(!o.adaptive && !o.overflow, "expected no adaptive threshold and no count of overflows with ", source.kind,
             " noise, got ", o.adaptive ? "a threshold" : "a count", ": their noise is Gaussian and of each step alone");
  DPMP_CHECK(o.clip_schedule == Schedule::constant(), "expected no clip schedule with ", source.kind, " noise, got ",
             o.clip_schedule);
  DPMP_CHECK(source.is_discrete() || o.noise_schedule == Schedule::constant(), "expected no noise schedule with ",
             source.kind, " noise, got ", o.noise_schedule);
  DPMP_CHECK(!source.is_discrete() || o.group_thresholds.empty(), "expected flat clipping with ", source.kind,
             " noise, got ", o.group_thresholds.size(), " groups");
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
