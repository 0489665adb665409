// SPDX-License-Identifier: Apache-2.0
// A way of sampling in words: what a privacy statement and the table of a plan say of it.
#pragma once
#include <string>

#include "dpmp/dp/sampling_accounting.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// "The unit of privacy is one training record; two datasets are neighbours if one has one record more than the other
/// (add_or_remove_one)."
std::string unit_in_words(const PlanOptions& o);
/// What a step draws, up to where a statement goes on with ", its gradient".
std::string sampling_in_words(const PlanOptions& o);
/// What the accountant composes other than the steps as they are drawn, and what of delta is set aside for the planned
/// steps, or for `steps` if they are more; "" for neither. batch_bound: PlanFacts::batch_bound. Begins with "; ".
std::string sampling_account_in_words(const PlanOptions& o, index_t batch_bound, index_t steps);
/// Remarks of a plan's table: on delta, and on the sampling rate.
std::string delta_remark(const PlanOptions& o);
std::string rate_remark(const PlanOptions& o);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include "dpmp/dp/rounded_text.hpp"

namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
inline const char* unit_name(const PlanOptions& o) { return o.sampling.records_per_user > 0 ? "user" : "record"; }
}  // namespace detail

DPMP_KEPT_BODY inline std::string unit_in_words(const PlanOptions& o) {
  const std::string unit = detail::unit_name(o);
  std::string words = o.sampling.records_per_user > 0 ? "The unit of privacy is one user with all of their records"
                                                      : "The unit of privacy is one training record";
  words += "; two datasets are neighbours if ";
  switch (o.relation) {
    case NeighbouringRelation::zero_out: return words + "one " + unit + " of them is replaced by an empty one (zero_out).";
    case NeighbouringRelation::replace_one:
      return words + "one " + unit + " of them is replaced by any other (replace_one).";
    case NeighbouringRelation::add_or_remove_one:
      return words + "one has one " + unit + " more than the other (add_or_remove_one).";
  }
  throw Error("expected a NeighbouringRelation");
}

DPMP_KEPT_BODY inline std::string sampling_in_words(const PlanOptions& o) {
  const std::string unit = detail::unit_name(o), q = digits_up(o.sampling_rate, 6);
  const std::string each = "in every step each " + unit + " is drawn independently with probability " + q;
  TextStream out;
  switch (o.sampling.kind) {
    case SamplingKind::poisson: out << each << " (Poisson sampling)"; break;
    case SamplingKind::truncated_poisson:
      out << each << ", and of a larger draw a uniformly random part of " << o.sampling.batch_size
          << " is kept (truncated Poisson sampling)";
      break;
    case SamplingKind::without_replacement:
      out << "in every step a uniformly random set of " << o.sampling.batch_size << " of the " << o.dataset_size << ' '
          << unit << "s is drawn (sampling without replacement)";
      break;
    case SamplingKind::balls_in_bins:
      out << "each " << unit << " is drawn once in every epoch of " << o.sampling.period
          << " steps, in a uniformly random one of them (balls in bins)";
      break;
    case SamplingKind::cyclic_poisson:
      out << "the " << unit << "s are split once at random into " << o.sampling.period << " groups, and in every step each "
          << unit << " of the group whose turn it is is drawn independently with probability " << q
          << " (cyclic Poisson sampling)";
      break;
    case SamplingKind::full_batch: out << "in every step all " << unit << "s are used (full batches)"; break;
  }
  if (o.sampling.records_per_user > 0)
    out << ", of each drawn user at most " << o.sampling.records_per_user
        << " records, chosen at random, are used; of each of these records";
  else if (o.sampling.kind != SamplingKind::poisson)
    out << "; of each record that is used";
  return out.str();
}

DPMP_KEPT_BODY inline std::string sampling_account_in_words(const PlanOptions& o, index_t batch_bound, index_t steps) {
  const std::string unit = detail::unit_name(o);
  const index_t spent = std::max(steps, o.steps);
  TextStream out;
  switch (o.sampling.kind) {
    case SamplingKind::truncated_poisson:
      out << "; of delta " << digits_up(delta_aside(o, spent), 3) << " is set aside for draws of more than "
          << o.sampling.batch_size << ' ' << unit << "s";
      return out.str();
    case SamplingKind::balls_in_bins:
      out << "; whole epochs are composed, each of them as one random allocation of a " << unit;
      break;
    case SamplingKind::cyclic_poisson:
      if (is_one_mechanism(o)) break;
      out << "; a " << unit << " can be drawn in one of every " << o.sampling.period
          << " steps, and so many steps are composed";
      break;
    case SamplingKind::without_replacement:
    case SamplingKind::full_batch: return "";
    case SamplingKind::poisson: break;
  }
  out << "; " << (spent == o.steps ? "0.1" : digits_up(rare_share * 100 * double(spent) / double(o.steps), 3))
      << " % of delta is set aside for batches of more than " << batch_bound << " records";
  return out.str();
}

DPMP_KEPT_BODY inline std::string delta_remark(const PlanOptions& o) {
  switch (o.sampling.kind) {
    case SamplingKind::truncated_poisson:
      return "of which " + digits_up(delta_aside(o, o.steps), 10) + " pays for draws beyond the batch size";
    case SamplingKind::without_replacement:
    case SamplingKind::full_batch: return "";
    default: return "of which a share of 0.001 pays for batches beyond the batch bound";
  }
}

DPMP_KEPT_BODY inline std::string rate_remark(const PlanOptions& o) {
  const std::string unit = detail::unit_name(o);
  switch (o.sampling.kind) {
    case SamplingKind::poisson: return "Poisson, each " + unit + " in each step";
    case SamplingKind::truncated_poisson: return "truncated Poisson, each " + unit + " in each step";
    case SamplingKind::without_replacement: return "without replacement, batch size over dataset size";
    case SamplingKind::balls_in_bins: return "balls in bins, each " + unit + " once an epoch";
    case SamplingKind::cyclic_poisson: return "cyclic Poisson, each " + unit + " in each step of its group";
    case SamplingKind::full_batch: return "every " + unit + " in each step";
  }
  throw Error("expected a SamplingKind");
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
