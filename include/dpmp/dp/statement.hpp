// SPDX-License-Identifier: Apache-2.0
// What a plan guarantees, in words that can stand in a report.
#pragma once
#include "dpmp/dp/plan.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// x rounded up to `digits` decimals: a printed epsilon is never below the true one.
std::string rounded_up(double x, int digits);

namespace detail {
/// What is clipped to what: "its gradient over all parameters is clipped to the norm 1 (rule abadi: ...)".
inline std::string clipping_in_words(const Plan& plan) {
  const PlanNumbers& n = plan.numbers();
  TextStream out;
  out.precision(6);
  if (plan.groups() > 1) {
    out << "the parts of its gradient in " << plan.groups()
        << " groups of parameters are clipped each to a norm of its own (";
    for (std::size_t g = 0; g < n.group_thresholds.size(); ++g) out << (g ? ", " : "") << n.group_thresholds[g];
    out << "; together to the norm " << n.clip_threshold << ")";
  } else if (n.adaptive) {
    out << "its gradient over all parameters is clipped to a norm between " << n.adaptive->lowest << " and "
        << n.adaptive->highest << " that starts at " << n.adaptive->initial_threshold << " and follows the "
        << n.adaptive->quantile << " quantile of the gradient norms by noisy counts";
  } else {
    out << "its gradient over all parameters is clipped to the norm " << n.clip_threshold;
  }
  if (!(plan.clip_schedule() == Schedule::constant()))
    out << ", times a public schedule over the steps (" << plan.clip_schedule() << ")";
  if (plan.clip_rule().kind() != ClipRule::Kind::abadi)
    out << ", by the rule " << plan.clip_rule() << " for a gradient of norm n and the threshold C, never beyond C";
  return out.str();
}
/// How much noise: "of standard deviation 1.2 (noise multiplier 0.8 times the sensitivity 1.5, ...)".
inline std::string noise_in_words(const Plan& plan) {
  const PlanNumbers& n = plan.numbers();
  const StepNumbers first = plan.first_step();
  TextStream out;
  out.precision(6);
  out << "Gaussian noise of standard deviation " << first.noise_standard_deviation
      << (plan.is_constant() ? "" : " in the first step") << " (noise multiplier " << first.noise_multiplier
      << " times the sensitivity " << first.noise_standard_deviation / first.noise_multiplier
      << ", which includes the rounding of the sum";
  if (!plan.is_constant()) out << ", and in every step proportional to the sensitivity of that step";
  out << ")";
  if (!(plan.noise_schedule() == Schedule::constant()))
    out << ", whose multiplier is accounted as " << n.noise_multiplier << " times a public schedule over the steps ("
        << plan.noise_schedule() << "),";
  out << " is added once to every coordinate of the sum";
  if (n.adaptive)
    out << ", and Gaussian noise of standard deviation " << n.adaptive->count_noise
        << " to the count of gradients below the threshold (together they are accounted as the noise multiplier "
        << n.noise_multiplier << (plan.noise_schedule().is_constant() ? ")" : " of that schedule)");
  return out.str();
}
}  // namespace detail

/// What a run did in addition to its plan and has to say, also after it is resumed.
struct StatementNotes {
  std::optional<index_t> other_noise_since = {};  // resumed from a checkpoint of this step, with draws and noise of its own
  bool counts_left_out = false;                   // train::TrainerOptions::unsafe_debug
};

/// One paragraph: unit, relation, epsilon and delta, mechanism, sampling, accountant, assumptions, and what is not
/// accounted.
std::string privacy_statement(const Plan& plan, index_t steps_taken, const StatementNotes& notes = {});
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline std::string rounded_up(double x, int digits) {
  TextStream out;
  const double unit = std::pow(10.0, digits);
  out << std::fixed << std::setprecision(digits) << std::ceil(x * unit) / unit;
  return out.str();
}

DPMP_KEPT_BODY inline std::string privacy_statement(const Plan& plan, index_t steps_taken, const StatementNotes& notes) {
  const PlanNumbers& n = plan.numbers();
  TextStream out;
  out.precision(6);
  out << "After " << steps_taken << " of " << n.steps << " planned steps, the sequence of all released parameters "
      << (n.adaptive ? "and clip thresholds is (" : "is (") << rounded_up(plan.epsilon_after(steps_taken), 4) << ", "
      << n.delta << ")-differentially private. "
      << "The unit of privacy is one training record; two datasets are neighbours if "
      << (n.relation == NeighbouringRelation::zero_out ? "one record of them is replaced by an empty one (zero_out). "
                                                       : "one has one record more than the other (add_or_remove_one). ")
      << "Mechanism: in every step each record is drawn independently with probability " << n.sampling_rate
      << " (Poisson sampling), " << detail::clipping_in_words(plan) << ", and " << detail::noise_in_words(plan)
      << "; the result is divided by the public constant " << n.expected_batch
      << ". Accountant: Renyi differential privacy of the sampled Gaussian mechanism, composed over the steps; "
      << Plan::batch_share * 100 << " % of delta is set aside for batches of more than " << n.batch_bound << " records. "
      << "Assumptions: the random key is secret and its ChaCha20 stream is indistinguishable from random; the noise is a "
         "floating-point number (double precision), released on a public grid of at most 2^-20 of its standard deviation, "
         "not "
         "a sample of an exact discrete distribution; which records were "
         "drawn, the "
         "size of the draws, the clipped sums before noise and the running time of a step are not released; the dataset "
         "size "
      << n.dataset_size
      << ", all settings of the run and everything that prepares a record (vocabulary, lengths, normalisation, augmentation "
         "inside the record) are public"
      << (n.clip_rule == ClipRule::Kind::custom ? "; the clip rule is a function of one gradient's norm and nothing else. "
                                                : ". ")
      << "Not accounted: the choice of settings and hyper-parameters by looking at results on the private records, any "
         "earlier or "
         "other use of the same records, and held-out records, which are treated as public.";
  if (notes.other_noise_since)
    out << " The run continues a checkpoint of step " << *notes.other_noise_since
        << " with draws and noise of its own: what was released of its records behind that step by anybody who went on from "
           "the same checkpoint is not counted here and adds up.";
  if (notes.counts_left_out)
    out << " Unsafe: the numbers of records that were left out of a step could be read without noise (unsafe_debug); for "
           "whoever saw them this statement does not hold.";
  return out.str();
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
