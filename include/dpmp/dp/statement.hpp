// SPDX-License-Identifier: Apache-2.0
// What a plan guarantees, in words for a report. Numbers are rounded to the side that claims less: epsilon, delta, the
// sampling probability, thresholds and sensitivities up, noise down.
#pragma once
#include "dpmp/dp/audit_note.hpp"
#include "dpmp/dp/plan.hpp"
#include "dpmp/dp/rounded_text.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// What a run did in addition to its plan and has to say, also after it is resumed.
struct StatementNotes {
  std::optional<index_t> other_noise_since = {};  // resumed from a checkpoint of this step, with draws and noise of its own
  bool counts_left_out = false;                   // train::TrainerOptions::unsafe_debug
  bool times_told = false;                        // train::ReportOptions::times_of_private_steps; not part of a checkpoint
  std::optional<AuditNote> audit = {};  // of the same program (train/gradient_canaries.hpp); not part of a checkpoint
};

/// One paragraph: unit, relation, epsilon and delta, mechanism, sampling, accountant, assumptions, and what is not
/// accounted.
std::string privacy_statement(const Plan& plan, index_t steps_taken, const StatementNotes& notes = {});
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include "dpmp/dp/noise_source_words.hpp"
#include "dpmp/dp/sampling_words.hpp"

namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
/// "1 from step 0, 0.5 from step 100", values as `printed` has them.
inline std::string schedule_in_words(const Schedule& schedule, std::string (*printed)(double, int)) {
  std::string words;
  for (const Schedule::Piece& piece : schedule.pieces())
    words += dpmp::detail::concat(words.empty() ? "" : ", ", printed(piece.value, 6), " from step ", piece.first_step);
  return words;
}
/// What is clipped to what: "its gradient over all parameters is clipped to the norm 1 (rule abadi: ...)".
inline std::string clipping_in_words(const Plan& plan) {
  const PlanOptions& o = plan.options();
  TextStream out;
  if (plan.groups() > 1) {
    out << "the parts of its gradient in " << plan.groups()
        << " groups of parameters are clipped each to a norm of its own (";
    for (std::size_t g = 0; g < o.group_thresholds.size(); ++g)
      out << (g ? ", " : "") << digits_up(o.group_thresholds[g], 6);
    out << "; together to the norm " << digits_up(plan.facts().clip_threshold, 6) << ")";
  } else if (o.adaptive) {
    out << "its gradient over all parameters is clipped to a norm between " << digits_down(o.adaptive->lowest, 6) << " and "
        << digits_up(o.adaptive->highest, 6) << " that starts at " << digits_up(o.adaptive->initial_threshold, 6)
        << " and follows the " << o.adaptive->quantile << " quantile of the gradient norms by noisy counts";
  } else {
    out << "its gradient over all parameters is clipped to the norm " << digits_up(plan.facts().clip_threshold, 6);
  }
  if (!(o.clip_schedule == Schedule::constant()))
    out << ", times a public schedule over the steps (" << schedule_in_words(o.clip_schedule, digits_up) << ")";
  if (o.clip_rule.kind() != ClipRule::Kind::abadi)
    out << ", by the rule " << o.clip_rule << " for a gradient of norm n and the threshold C, never beyond C";
  return out.str();
}
/// What is released: "parameters", "parameters, clip thresholds and counts of overflows".
inline std::string released_in_words(const PlanOptions& o) {
  if (!o.overflow) return o.adaptive ? "parameters and clip thresholds" : "parameters";
  return o.adaptive ? "parameters, clip thresholds and noisy counts of overflows"
                    : "parameters and noisy counts of overflows";
}
/// How much noise: "of standard deviation 1.2 (noise multiplier 0.8 times the sensitivity 1.5 (1 + 8e-11), ...)".
inline std::string noise_in_words(const Plan& plan) {
  const PlanOptions& o = plan.options();
  const StepPlan first = plan.first_step();
  TextStream out;
  out << dp::noise_in_words(o) << " of standard deviation " << digits_down(first.noise_standard_deviation, 6)
      << (plan.is_constant() ? "" : " in the first step") << " (noise multiplier " << digits_down(first.noise_multiplier, 6)
      << " times the sensitivity "
      << digits_up(contributions_changed(o.relation) * double(o.sampling.records_per_unit()) * plan.facts().clip_threshold *
                       o.clip_schedule.at(0),
                   6)
      << " (1 + " << digits_up(plan.facts().rho, 3) << ")"
      << (o.noise_source.is_discrete() ? ", which includes the rounding of contributions to the grid"
                                       : ", which includes the rounding of the sum");
  if (o.noise_source.is_correlated()) out << ", times " << digits_up(plan.facts().noise_scale, 6) << " for the matrix";
  if (!plan.is_constant()) out << ", and in every step proportional to the sensitivity of that step";
  out << ")";
  const std::string sigma = digits_down(plan.noise_multiplier(), 6);
  if (!(o.noise_schedule == Schedule::constant()))
    out << ", whose multiplier is accounted as " << sigma << " times a public schedule over the steps ("
        << schedule_in_words(o.noise_schedule, digits_down) << "),";
  out << " is added once to every coordinate of the sum" << correlation_in_words(o);
  if (o.adaptive)
    out << ", and Gaussian noise of standard deviation " << digits_down(o.adaptive->count_noise, 6)
        << " to the count of gradients below the threshold";
  if (o.overflow)
    out << ", and Gaussian noise of standard deviation " << digits_down(o.overflow->count_noise, 6)
        << " to the number of records of which something was not finite (it is left out), by which a loss scale and the "
           "precision of layers may be moved";
  if (o.adaptive || o.overflow)
    out << " (together they are accounted as the noise multiplier " << sigma
        << (o.noise_schedule.is_constant() ? ")" : " of that schedule)");
  return out.str();
}
/// What the epsilon of these steps comes from.
inline const char* accountant_in_words(const Plan& plan, index_t steps) {
  switch (plan.account().spent(steps).method) {
    case AccountingMethod::privacy_loss: return "privacy-loss distributions";
    case AccountingMethod::exact_gaussian: return "the closed form of the Gaussian mechanism";
    case AccountingMethod::renyi:
      return is_one_mechanism(plan.options()) ? "Renyi differential privacy of the Gaussian mechanism"
                                              : "Renyi differential privacy of the sampled Gaussian mechanism";
    case AccountingMethod::nothing: break;
  }
  return plan.options().accountant == Accountant::pld ? "privacy-loss distributions" : "Renyi differential privacy";
}
}  // namespace detail

DPMP_KEPT_BODY inline std::string privacy_statement(const Plan& plan, index_t steps_taken, const StatementNotes& notes) {
  const PlanOptions& o = plan.options();
  TextStream out;
  out << "After " << steps_taken << " of " << o.steps << " planned steps, the sequence of all released "
      << detail::released_in_words(o) << " is (" << rounded_up(plan.epsilon_after(steps_taken), 4) << ", "
      << digits_up(o.delta, 6) << ")-differentially private, and so is whatever is computed from it without the records. "
      << unit_in_words(o) << " Mechanism: " << sampling_in_words(o) << ", " << detail::clipping_in_words(plan) << ", and "
      << detail::noise_in_words(plan) << "; the result is divided by the public constant " << plan.expected_batch()
      << ". Accountant: " << detail::accountant_in_words(plan, steps_taken) << composition_in_words(o)
      << sampling_account_in_words(o, plan.facts().batch_bound, steps_taken) << ". "
      << "Assumptions: the random key is secret and its ChaCha20 stream is indistinguishable from random; "
      << noise_assumption_in_words(o) << "; "
      << "which records were "
         "drawn, the "
         "size of the draws, the clipped sums before noise and the running time of a step are not released; the dataset "
         "size "
      << o.dataset_size << (o.sampling.records_per_user > 0 ? " users" : "")
      << ", the initial weights, all settings of the run and everything that prepares a record (vocabulary, lengths, "
         "normalisation, augmentation "
         "inside the record) are public"
      << (o.clip_rule.kind() == ClipRule::Kind::custom
              ? "; the clip rule is a function of one gradient's norm and nothing else. "
              : ". ")
      << "Not accounted: the choice of settings and hyper-parameters by looking at results on the private records, any "
         "earlier or "
         "other use of the same records, and held-out records, which are treated as public.";
  if (notes.other_noise_since)
    out << " The run continues a checkpoint of step " << *notes.other_noise_since
        << " with draws and noise of its own: what was released of its records after that step by anybody who went on from "
           "the same checkpoint is not counted here and adds up.";
  if (notes.counts_left_out)
    out << " Unsafe: how many records a step drew, clipped and left out, and how large their gradients were, could be read "
           "without noise (unsafe_debug); for whoever saw it this statement does not hold.";
  if (notes.times_told)
    out << " Unsafe: the time that steps took is told, which depends on the size of their draws; for whoever learns it the "
           "assumption that it is not released does not hold.";
  if (notes.audit) out << " " << audit_in_words(*notes.audit);
  return out.str();
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
