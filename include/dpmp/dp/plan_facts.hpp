// SPDX-License-Identifier: Apache-2.0
// What follows from the options of a plan, and when facts that another build computed are believed: a compiler that fuses
// products into sums, other flags and another C library round the last bits otherwise.
#pragma once
#include "dpmp/dp/noise_accounting.hpp"
#include "dpmp/dp/plan_text.hpp"
#include "dpmp/dp/sampling_accounting.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// What follows from the options of a plan.
struct PlanFacts {
  /// Public bound on the records of a logical batch that the sensitivity is computed for. Only truncated_poisson cuts larger
  /// draws.
  index_t batch_bound = 0;
  double expected_batch = 0;  // expected_batch_of() the options
  double clip_threshold = 0;  // where the clip schedule is 1: sqrt(sum_g C_g^2) of groups, the first one of adaptive plans
  double rho = 0;             // the share that rounding adds to the sensitivity
  double sensitivity = 0;     // Delta, where the clip schedule is 1
  double noise_scale = 1;     // of correlated noise: noise_scale() of the options, what its matrix adds
  friend bool operator==(const PlanFacts&, const PlanFacts&) = default;
};

/// What one unit changes the clipped sum by: its records, each clipped alone.
Sensitivity sensitivity_of(const PlanOptions& o, const GroupClipping& clipping, index_t batch_bound);

/// The facts for this batch bound. clipping: where the clip schedule is 1.
PlanFacts facts_of(const PlanOptions& o, const GroupClipping& clipping, index_t batch_bound);

/// Throws, naming what differs, unless `stored` are facts that a build may have computed for these options, on the safe
/// side. With G clipping groups, against what is computed here:
///
/// - batch_bound: the same where batches have a fixed size; else at most one unit away, and still one that batches exceed
///   with at most the probability that is paid for. poisson_batch_bound leaves a millionth of the logarithm for rounding;
///   half of it must be left here.
/// - the others: for the stored batch_bound, within (G + 9) 2^-53 of the value. GroupClipping::sensitivity() errs by at most
///   (G + 9) 2^-54 before it is rounded up, however products and sums are fused, and flat clipping by less. What is accepted
///   may be below the true sensitivity by less than 2^-49 of it (for G > 15 it is not: the rounding up is by (G + 4) 2^-52),
///   which rounding_share() covers: of the 2^-46 B C that it adds to each neighbour's error its derivation uses 0.65, and
///   what is left of both is above 2^-47 C.
/// - noise_scale: within 2^-31, of the 2^-30 that NoiseMatrix adds to sums of squares that err by less than 2^-33.
void check_stored_facts(const PlanFacts& stored, const PlanOptions& o, const GroupClipping& clipping);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
/// Calls f(name, field) for every field of PlanFacts: the one list of their names.
template <class Facts, class F>
void for_each_fact(Facts& facts, F&& f) {
  f("batch bound", facts.batch_bound);
  f("expected batch", facts.expected_batch);
  f("joint clip threshold", facts.clip_threshold);
  f("rho", facts.rho);
  f("sensitivity", facts.sensitivity);
  if (facts.noise_scale != 1) f("noise scale", facts.noise_scale);  // of correlated noise; read by Plan::from_text
}
}  // namespace detail

DPMP_KEPT_BODY inline Sensitivity sensitivity_of(const PlanOptions& o, const GroupClipping& clipping, index_t batch_bound) {
  Sensitivity s = clipping.sensitivity(o.relation, batch_bound);
  if (o.noise_source.is_discrete()) {
    const double bound = integer_grid_of(o).bound();
    s.rho = bound / s.clip_threshold - 1;
    s.bound = contributions_changed(o.relation) * bound;
  }
  s.bound *= double(o.sampling.records_per_unit());
  return s;
}

DPMP_KEPT_BODY inline PlanFacts facts_of(const PlanOptions& o, const GroupClipping& clipping, index_t batch_bound) {
  const Sensitivity s = sensitivity_of(o, clipping, batch_bound);
  return {.batch_bound = batch_bound,
          .expected_batch = expected_batch_of(o),
          .clip_threshold = s.clip_threshold,
          .rho = s.rho,
          .sensitivity = s.bound,
          .noise_scale = noise_scale(o)};
}

DPMP_KEPT_BODY inline void check_stored_facts(const PlanFacts& stored, const PlanOptions& o, const GroupClipping& clipping) {
  const index_t bound = batch_bound_of(o), units = o.dataset_size + 1, each = o.sampling.records_per_unit();
  const index_t drawn = stored.batch_bound / each;
  const bool near = !o.sampling.has_fixed_size() && drawn >= 1 && drawn * each == stored.batch_bound &&
                    stored.batch_bound >= bound - each && stored.batch_bound <= bound + each;
  const auto rare = [&] {
    return drawn == units || log_binomial_tail(units, detail::step_probability(o), drawn) <=
                                 std::log(rare_share * o.delta / double(o.steps)) - 0.5e-6;
  };
  const PlanFacts here = facts_of(o, clipping, stored.batch_bound == bound || (near && rare()) ? stored.batch_bound : bound);
  PlanText computed, said;
  detail::for_each_fact(here, detail::PlanWriter{computed});
  detail::for_each_fact(stored, detail::PlanWriter{said});
  const double tolerance = 0x1p-53 * (double(clipping.groups()) + 9);
  const auto agree = [&](const char* name, double x, double y) {
    if (std::abs(x - y) <= tolerance * std::abs(x)) computed[name] = said[name];
  };
  agree("expected batch", here.expected_batch, stored.expected_batch);
  agree("joint clip threshold", here.clip_threshold, stored.clip_threshold);
  agree("rho", here.rho, stored.rho);
  agree("sensitivity", here.sensitivity, stored.sensitivity);
  if (std::abs(here.noise_scale - stored.noise_scale) <= 0x1p-31 * here.noise_scale)
    computed["noise scale"] = said["noise scale"];
  DPMP_CHECK(computed == said, "expected the facts of a plan, got (computed, stored):\n", difference(computed, said));
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
