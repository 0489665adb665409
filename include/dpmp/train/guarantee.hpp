// SPDX-License-Identifier: Apache-2.0
// What a private run has that a plain one has not: its plan, and what moves along it step by step.
#pragma once
#include <variant>

#include "dpmp/dp/counted_state.hpp"
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
  dp::CountedState counted;
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
  return Guarantee{*plan, plan->ledger(keys), SourcedNoise(ctx, *plan), dp::CountedState(*plan), notes};
}

DPMP_KEPT_BODY inline Guarantee Guarantee::restarted(const Context& ctx, const dp::StreamKeys& keys, index_t steps,
                                                     const dp::RunState& state, const dp::StatementNotes& before) const {
  DPMP_CHECK(ledger.steps() == 0, "expected a trainer that has taken no step, got one at step ", ledger.steps(),
             ": its ledger would go back, and noise be drawn again");
  Guarantee g{plan, plan.ledger(keys, steps), SourcedNoise(ctx, plan), counted, before};
  g.counted.restore(state);
  g.notes.counts_left_out = before.counts_left_out || notes.counts_left_out;
  return g;
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
