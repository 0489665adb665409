// SPDX-License-Identifier: Apache-2.0
// What a private run has that a plain one has not: its plan, and what moves along it step by step.
#pragma once
#include <variant>

#include "dpmp/dp/statement.hpp"
#include "dpmp/train/sourced_noise.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// The stated absence of a plan: the yardstick of private training. Each record is in a batch with probability
/// sampling_rate, and the sum of a batch is divided by sampling_rate * records.
struct NoPrivacy {
  double sampling_rate = 0;
};
/// What a run promises.
using Privacy = std::variant<dp::Plan, NoPrivacy>;

struct Guarantee {
  dp::Plan plan;
  dp::StepLedger ledger;
  SourcedNoise source;
  std::optional<dp::AdaptiveThreshold> threshold;
  std::optional<dp::OverflowScale> overflow;
  dp::StatementNotes notes;

  /// Of a new run; nothing without a plan. Throws what SourcedNoise does.
  static std::optional<Guarantee> of(const Context& ctx, const Privacy& privacy, const dp::StreamKeys& keys,
                                     const dp::StatementNotes& notes);
  /// The same run at this step, with a ledger of these keys. Throws where steps were taken already and where the state is
  /// not one of this plan.
  Guarantee restarted(const Context& ctx, const dp::StreamKeys& keys, index_t steps, const dp::RunState& state,
                      const dp::StatementNotes& before) const;
};
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline std::optional<Guarantee> Guarantee::of(const Context& ctx, const Privacy& privacy,
                                                             const dp::StreamKeys& keys, const dp::StatementNotes& notes) {
  const auto* plan = std::get_if<dp::Plan>(&privacy);
  if (!plan) return std::nullopt;
  Guarantee g{*plan, plan->ledger(keys), SourcedNoise(ctx, *plan), {}, {}, notes};
  if (plan->options().adaptive) g.threshold = plan->adaptive_threshold();
  if (plan->options().overflow) g.overflow = plan->overflow_scale();
  return g;
}

DPMP_KEPT_BODY inline Guarantee Guarantee::restarted(const Context& ctx, const dp::StreamKeys& keys, index_t steps,
                                                     const dp::RunState& state, const dp::StatementNotes& before) const {
  DPMP_CHECK(ledger.steps() == 0, "expected a trainer that has taken no step, got one at step ", ledger.steps(),
             ": its ledger would go back, and noise be drawn again");
  DPMP_CHECK(threshold || state.clip_threshold == 0, "expected no clip threshold for a plan that is not adaptive, got ",
             state.clip_threshold);
  DPMP_CHECK(overflow.has_value() == state.overflow.has_value(),
             "expected the state of a loss scale where the plan counts overflows, and nowhere else, got ",
             state.overflow ? "one" : "none");
  Guarantee g{plan, plan.ledger(keys, steps), SourcedNoise(ctx, plan), threshold, overflow, before};
  if (g.threshold) g.threshold->restore(state.clip_threshold);
  if (g.overflow) g.overflow->restore(*state.overflow);
  g.notes.counts_left_out = before.counts_left_out || notes.counts_left_out;
  return g;
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
