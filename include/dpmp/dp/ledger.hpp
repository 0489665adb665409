// SPDX-License-Identifier: Apache-2.0
// Steps are accounted before anything of them is drawn or released. A step that fails afterwards stays accounted; its retry
// is another step, with another draw and other noise (P27). Only the ledger makes the tickets that noise is asked for with.
#pragma once
#include "dpmp/dp/noise.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// One accounted step: the right to draw one batch and to release one noised sum per parameter, and
/// one noised count where the plan has one.
class StepTicket {
 public:
  StepTicket(StepTicket&&) = default;
  StepTicket& operator=(StepTicket&&) = default;
  index_t step() const { return step_; }
  /// The noise of this step.
  NoiseStream noise(const StreamKeys& keys) const { return {keys.key(Stream::noise), step_}; }
  /// The noise of this step's counts and other scalars: another key, so its counters meet no parameter's.
  NoiseStream auxiliary_noise(const StreamKeys& keys) const { return {keys.key(Stream::auxiliary_noise), step_}; }

 private:
  friend class StepLedger;
  explicit StepTicket(index_t step) : step_(step) {}
  index_t step_;
};

/// What happens when all planned steps are spent. refuse: an error. account: go on, beyond the planned epsilon; the plan's
/// epsilon_after(steps) tells the truth.
enum class BeyondPlan : std::uint8_t { refuse, account };

/// Counts the steps of a run. Save steps() in a checkpoint, start the resumed ledger from it.
class StepLedger {
 public:
  explicit StepLedger(index_t planned_steps, index_t steps_taken = 0, BeyondPlan beyond = BeyondPlan::refuse)
      : planned_(planned_steps), taken_(steps_taken), beyond_(beyond) {
    DPMP_CHECK(planned_steps >= 1 && planned_steps < max_steps, "expected planned steps in [1, 2^40), got ", planned_steps);
    DPMP_CHECK(steps_taken >= 0 && steps_taken < max_steps, "expected steps taken in [0, 2^40), got ", steps_taken);
  }
  /// Accounts one more step. Throws when the plan is spent (unless BeyondPlan::account); nothing is accounted then.
  StepTicket begin_step() {
    DPMP_CHECK(taken_ < planned_ || beyond_ == BeyondPlan::account, "expected at most ", planned_,
               " steps, as planned, got a request for one more: it would exceed the planned epsilon");
    DPMP_CHECK(taken_ < max_steps - 1, "expected fewer than 2^40 steps, got ", taken_, " and one more");
    return StepTicket(taken_++);
  }
  /// Steps accounted so far: everything that may have been released.
  index_t steps() const { return taken_; }
  index_t planned_steps() const { return planned_; }

 private:
  index_t planned_, taken_;
  BeyondPlan beyond_;
};
}  // namespace dpmp::inline DPMP_ABI::dp
