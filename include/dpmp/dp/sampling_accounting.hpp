// SPDX-License-Identifier: Apache-2.0
// What a way of sampling means for the numbers of a plan: the sampled Gaussian mechanisms that its steps are accounted as,
// the part of delta that they leave out, the sizes of batches. Proofs: docs/samplers.md.
#pragma once
#include <vector>

#include "dpmp/dp/noise_accounting.hpp"
#include "dpmp/dp/step_mechanism.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// Share of delta that pays for rare draws which the accounted mechanism does not cover.
inline constexpr double rare_share = 1e-3;

/// check_plan_options() and the numbers that the sampling makes: its rate, and the smallest batch size of truncated_poisson
/// whose truncation costs at most 10^-3 of delta where it is unset. Discrete noise has the accountant rdp, whatever was
/// asked for.
PlanOptions completed_options(const PlanOptions& given);

/// Public bound on the records of a logical batch that the sensitivity is computed for. By Poisson, cyclic or not, and by
/// balls in bins larger draws happen, rarely; they are not cut.
index_t batch_bound_of(const PlanOptions& o);
/// What the noised sum is divided by: the expected number of records where every user has enough of them.
double expected_batch_of(const PlanOptions& o);

/// The part of delta that pays for rare draws of `steps` steps, also beyond the planned ones; 0 where there are none.
/// poisson, cyclic_poisson, balls_in_bins: draws beyond the batch bound, a share of 10^-3 of delta for the planned steps
/// (and what RandomAllocation leaves out). truncated_poisson: a bound of steps * q *
/// P[Binomial(dataset_size, q) >= batch_size].
double delta_aside(const PlanOptions& o, index_t steps);
/// What delta_aside() leaves of delta for the accountant; 0 or less where nothing is left.
double accounted_delta(const PlanOptions& o, index_t steps);

/// Steps of one mechanism; of a random allocation, whole epochs.
struct AccountedSteps {
  StepMechanism mechanism;
  index_t steps = 0;
};
/// What the first `steps` steps compose to for the unit that is used most often, with a noise multiplier sigma where the
/// noise schedule is 1. cyclic_poisson: one step in `period`, rounded up in every part of the noise schedule. balls_in_bins:
/// whole epochs, all with the smallest noise of the schedule. Others: all steps. Of correlated noise whose columns a record
/// may use together, one Gaussian mechanism of all steps.
std::vector<AccountedSteps> accounted_steps(const PlanOptions& o, double sigma, index_t steps);
/// Whether accounted_steps() are Gaussian mechanisms on Poisson samples, of neighbours one of which contributes nothing, or
/// on all records: an RdpAccountant composes those, too, from their rates and noise multipliers.
bool has_renyi_accounting(const PlanOptions& o);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include "dpmp/dp/batch_bound.hpp"
#include "dpmp/dp/random_allocation.hpp"

namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
/// The probability of a unit in a step, whatever its group is.
inline double step_probability(const PlanOptions& o) {
  return o.sampling.kind == SamplingKind::cyclic_poisson ? o.sampling_rate / double(o.sampling.period) : o.sampling_rate;
}
/// Whether of the neighbours' contributions to a step (gradient and counts together) no more is known than that they differ
/// by at most the sensitivity: sets of a fixed size, an empty record that is counted like a full one, records of which one
/// has a gradient and the other one overflows.
inline bool only_difference_is_bounded(const PlanOptions& o) {
  return o.sampling.kind == SamplingKind::without_replacement ||
         (o.relation == NeighbouringRelation::zero_out && o.adaptive) ||
         (o.relation == NeighbouringRelation::replace_one && o.overflow);
}
/// At least P[Binomial(n, q) >= b]: Chernoff's bound, and for n q < b < n that of the mass at b, which is at most Chernoff's
/// bound / sqrt(2 pi b (1 - b / n)) (Ash, Information Theory, 1965, lemma 4.7.1), over 1 - r, because masses above b fall by
/// r = (n - b) q / ((b + 1) (1 - q)) or faster.
inline double binomial_tail_bound(index_t n, double q, index_t b) {
  const double chernoff = std::exp(log_binomial_tail(n, q, b)), size = double(n), from = double(b);
  if (q == 1 || b >= n || from <= size * q) return chernoff;
  const double r = (size - from) * q / ((from + 1) * (1 - q)), mass = chernoff / std::sqrt(6.28 * from * (1 - from / size));
  return std::min(chernoff, mass / (1 - r));
}
/// Whether what is set aside for them leaves enough of delta.
inline bool rare_draws_are_paid(const PlanOptions& o) { return delta_aside(o, o.steps) <= o.delta / 2; }
inline index_t rounds_up(index_t steps, index_t period) { return steps / period + (steps % period != 0); }
}  // namespace detail

DPMP_KEPT_BODY inline PlanOptions completed_options(const PlanOptions& given) {
  check_plan_options(given);
  PlanOptions o = given;
  o.sampling_rate = sampling_rate_of(o.sampling, o.sampling_rate, o.dataset_size);
  if (o.noise_source.is_discrete()) o.accountant = Accountant::rdp;
  if (o.sampling.kind == SamplingKind::truncated_poisson && o.sampling.batch_size == 0)
    o.sampling.batch_size = poisson_batch_bound(o.dataset_size + 1, o.sampling_rate,
                                                std::min(0.5, rare_share * o.delta / (double(o.steps) * o.sampling_rate)));
  DPMP_CHECK(!o.noise_source.is_discrete() || has_renyi_accounting(o), "expected add_or_remove_one or zero_out for ",
             o.sampling.kind, " sampling with ", o.noise_source.kind, " noise, got ", o.relation,
             ": it is accounted by Renyi divergences");
  DPMP_CHECK(o.accountant == Accountant::pld || has_renyi_accounting(o), "expected the accountant pld for ", o.sampling.kind,
             " and ", o.relation, ", got ", o.accountant,
             ": the RDP analysis is that of Poisson samples where one of the neighbours' records is not there",
             o.relation == NeighbouringRelation::zero_out && o.adaptive
                 ? ", and the count of an adaptive threshold has the empty record in it"
                 : "");
  DPMP_CHECK(detail::rare_draws_are_paid(o), "expected draws beyond the batch size ", o.sampling.batch_size,
             " to cost at most half of delta, ", o.delta, ", got ", delta_aside(o, o.steps),
             ": take a larger batch size or a smaller sampling rate");
  return o;
}

DPMP_KEPT_BODY inline index_t batch_bound_of(const PlanOptions& o) {
  const index_t k = o.sampling.records_per_unit();
  DPMP_CHECK(
      o.dataset_size < std::numeric_limits<index_t>::max() / k && o.sampling.batch_size <= o.dataset_size + 1,
      "expected fewer than 2^63 records of all users, and a batch size of at most one unit more than the dataset, got ",
      o.dataset_size, " units of ", k, " records and ", o.sampling.batch_size);
  switch (o.sampling.kind) {
    case SamplingKind::truncated_poisson:
    case SamplingKind::without_replacement: return o.sampling.batch_size * k;
    // One unit more than the plan knows of: the larger neighbour.
    case SamplingKind::full_batch: return (o.dataset_size + 1) * k;
    default:
      return poisson_batch_bound(o.dataset_size + 1, detail::step_probability(o), rare_share * o.delta / double(o.steps)) *
             k;
  }
}

DPMP_KEPT_BODY inline double expected_batch_of(const PlanOptions& o) {
  const double k = double(o.sampling.records_per_unit());
  if (o.sampling.kind == SamplingKind::balls_in_bins) return double(o.dataset_size) / double(o.sampling.period) * k;
  if (o.sampling.kind == SamplingKind::without_replacement) return double(o.sampling.batch_size) * k;
  return detail::step_probability(o) * double(o.dataset_size) * k;
}

DPMP_KEPT_BODY inline double delta_aside(const PlanOptions& o, index_t steps) {
  const double share = rare_share * std::max(1.0, double(steps) / double(o.steps)) * o.delta;
  switch (o.sampling.kind) {
    case SamplingKind::poisson:
    case SamplingKind::cyclic_poisson: return share;
    case SamplingKind::balls_in_bins:
      return share + double(detail::rounds_up(steps, o.sampling.period)) * RandomAllocation::lost;
    case SamplingKind::truncated_poisson: {
      // A millionth more, far above the rounding error of the bound.
      const double tail = detail::binomial_tail_bound(o.dataset_size, o.sampling_rate, o.sampling.batch_size);
      return double(steps) * o.sampling_rate * tail * (1 + 1e-6);
    }
    default: return 0;
  }
}

DPMP_KEPT_BODY inline double accounted_delta(const PlanOptions& o, index_t steps) {
  // As a share where it is one: stored plans were calibrated for these bits.
  if (o.sampling.kind == SamplingKind::poisson)
    return o.delta * (1 - rare_share * std::max(1.0, double(steps) / double(o.steps)));
  return o.delta - delta_aside(o, steps);
}

DPMP_KEPT_BODY inline bool has_renyi_accounting(const PlanOptions& o) {
  if (o.sampling_rate == 1 || is_one_mechanism(o)) return true;
  return o.sampling.kind != SamplingKind::balls_in_bins && o.relation != NeighbouringRelation::replace_one &&
         !detail::only_difference_is_bounded(o);
}

DPMP_KEPT_BODY inline std::vector<AccountedSteps> accounted_steps(const PlanOptions& o, double sigma, index_t steps) {
  using enum StepMechanism::Kind;
  const auto mechanism = [&](StepMechanism::Kind kind, double rate, double noise_multiplier, index_t epoch = 1) {
    return StepMechanism{kind, rate, noise_multiplier, o.relation, epoch};
  };
  if (is_one_mechanism(o)) return {{mechanism(poisson_gaussian, 1, sigma * noise_scale(o) / noise_scale(o, steps)), 1}};
  const index_t period = o.sampling.period;
  if (o.sampling.kind == SamplingKind::balls_in_bins)
    return {{mechanism(random_allocation_gaussian, o.sampling_rate, sigma * o.noise_schedule.smallest(), period),
             detail::rounds_up(steps, period)}};
  const bool cyclic = o.sampling.kind == SamplingKind::cyclic_poisson;
  const StepMechanism::Kind kind = detail::only_difference_is_bounded(o) ? poisson_gaussian_difference : poisson_gaussian;
  std::vector<AccountedSteps> parts;
  o.noise_schedule.for_each_part(steps, [&](double value, index_t count) {
    parts.push_back({mechanism(kind, o.sampling_rate, sigma * value), cyclic ? detail::rounds_up(count, period) : count});
  });
  return parts;
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
