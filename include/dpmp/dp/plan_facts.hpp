// SPDX-License-Identifier: Apache-2.0
// What follows from the options of a plan, and when facts that another build computed are believed: a compiler that fuses
// products into sums, other flags and another C library round the last bits otherwise.
#pragma once
#include "dpmp/dp/batch_bound.hpp"
#include "dpmp/dp/plan_text.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// What follows from the options of a plan.
struct PlanFacts {
  /// Public bound on the records of a logical batch that the sensitivity is computed for. Larger draws are never cut.
  index_t batch_bound = 0;
  double expected_batch = 0;  // q * dataset_size
  double clip_threshold = 0;  // where the clip schedule is 1: sqrt(sum_g C_g^2) of groups, the first one of adaptive plans
  double rho = 0;             // the share that rounding adds to the sensitivity
  double sensitivity = 0;     // Delta, where the clip schedule is 1
  friend bool operator==(const PlanFacts&, const PlanFacts&) = default;
};

/// By how much a calibrated epsilon stays below its target: far more than builds differ by when they compute it again, so
/// that a plan which keeps its target in one build keeps it in all.
inline constexpr double calibration_margin = 0x1p-40;

/// poisson_batch_bound of the larger of two neighbouring datasets, one record more than the plan knows of, for a share of
/// delta that is spread over the planned steps.
index_t planned_batch_bound(const PlanOptions& o, double batch_share);

/// The facts for this batch bound. clipping: where the clip schedule is 1.
PlanFacts facts_of(const PlanOptions& o, const GroupClipping& clipping, index_t batch_bound);

/// Throws, naming what differs, unless `stored` are facts that a build may have computed for these options, on the safe
/// side. With G clipping groups, against what is computed here:
///
/// - batch_bound: at most one record away, and still one that Poisson batches exceed with at most the probability that is
///   paid for. poisson_batch_bound leaves a millionth of the logarithm for rounding; half of it must be left here.
/// - the others: for the stored batch_bound, within (G + 9) 2^-53 of the value. GroupClipping::sensitivity() errs by at most
///   (G + 9) 2^-54 before it is rounded up, however products and sums are fused, and flat clipping by less. What is accepted
///   may be below the true sensitivity by less than 2^-49 of it (for G > 15 it is not: the rounding up is by (G + 4) 2^-52),
///   which rounding_share() covers: of the 2^-46 B C that it adds to each neighbour's error its derivation uses 0.65, and
///   what is left of both is above 2^-47 C.
void check_stored_facts(const PlanFacts& stored, const PlanOptions& o, const GroupClipping& clipping, double batch_share);
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
}
inline double batch_excess(const PlanOptions& o, double batch_share) { return batch_share * o.delta / double(o.steps); }
}  // namespace detail

DPMP_KEPT_BODY inline index_t planned_batch_bound(const PlanOptions& o, double batch_share) {
  return poisson_batch_bound(o.dataset_size + 1, o.sampling_rate, detail::batch_excess(o, batch_share));
}

DPMP_KEPT_BODY inline PlanFacts facts_of(const PlanOptions& o, const GroupClipping& clipping, index_t batch_bound) {
  const Sensitivity s = clipping.sensitivity(o.relation, batch_bound);
  return {.batch_bound = batch_bound,
          .expected_batch = o.sampling_rate * double(o.dataset_size),
          .clip_threshold = s.clip_threshold,
          .rho = s.rho,
          .sensitivity = s.bound};
}

DPMP_KEPT_BODY inline void check_stored_facts(const PlanFacts& stored, const PlanOptions& o, const GroupClipping& clipping,
                                              double batch_share) {
  const index_t bound = planned_batch_bound(o, batch_share), records = o.dataset_size + 1;
  const bool near = stored.batch_bound >= bound - 1 && stored.batch_bound <= bound + 1;
  const bool rare = stored.batch_bound == records || log_binomial_tail(records, o.sampling_rate, stored.batch_bound) <=
                                                         std::log(detail::batch_excess(o, batch_share)) - 0.5e-6;
  const bool bound_holds = stored.batch_bound == bound || (near && stored.batch_bound >= 1 && rare);
  const PlanFacts here = facts_of(o, clipping, bound_holds ? stored.batch_bound : bound);
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
  DPMP_CHECK(computed == said, "expected the facts of a plan, got (computed, stored):\n", difference(computed, said));
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
