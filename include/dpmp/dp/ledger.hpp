// SPDX-License-Identifier: Apache-2.0
// Steps are accounted before anything of them is drawn or released. A step that fails afterwards stays accounted; its retry
// is another step, with another draw and other noise (P27). Only the ledger makes the tickets that noise is asked for with.
// It counts upwards only, it cannot be copied, and a ticket gives its noise once: no noise is met twice (P36).
#pragma once
#include <optional>
#include <string_view>
#include <utility>

#include "dpmp/dp/noise.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// One accounted step: the right to draw one batch and to release one noised sum per parameter, and
/// one noised count where the plan has one. Moving it hands the right over.
class StepTicket {
 public:
  StepTicket(StepTicket&& from) noexcept;
  StepTicket& operator=(StepTicket&& from) noexcept;
  index_t step() const { return step_; }
  /// The noise of this step, for all its parameters. Throws when it was asked for already.
  NoiseStream noise() { return taken(noise_, "noise"); }
  /// The noise of this step's counts and other scalars: another key, so its counters meet no parameter's. Once, too.
  NoiseStream auxiliary_noise() { return taken(auxiliary_, "auxiliary noise"); }

 private:
  friend class StepLedger;
  StepTicket(const StreamKeys& keys, index_t step, std::uint64_t facts);
  NoiseStream taken(std::optional<SecretKey>& key, std::string_view what) const;
  index_t step_;
  std::optional<SecretKey> noise_, auxiliary_;  // until they are asked for
};

/// What happens when all planned steps are spent. refuse: an error. account: go on, beyond the planned epsilon; the plan's
/// epsilon_after(steps) tells the truth.
enum class BeyondPlan : std::uint8_t { refuse, account };

/// Counts the steps of a run and holds its keys. Save steps() in a checkpoint, start the resumed ledger from it.
class StepLedger {
 public:
  /// keys: a run of its own is made from them (StreamKeys::for_new_run).
  explicit StepLedger(index_t planned_steps, const StreamKeys& keys, index_t steps_taken = 0,
                      BeyondPlan beyond = BeyondPlan::refuse);
  /// The ledger moved from begins no further step.
  StepLedger(StepLedger&& from) noexcept;
  StepLedger& operator=(StepLedger&& from) noexcept;
  /// Accounts one more step. facts: a public hash of what this step does otherwise than the run as it was planned (which
  /// parameters are frozen), 0 for nothing; steps of other facts have other noise, so that two continuations of one run that
  /// sum different things never share it. Throws when the plan is spent (unless BeyondPlan::account); nothing is accounted
  /// then.
  StepTicket begin_step(std::uint64_t facts = 0);
  /// Steps accounted so far: everything that may have been released.
  index_t steps() const { return taken_; }
  index_t planned_steps() const { return planned_; }
  /// Of this run: what its sampler and its dropout are keyed by, too.
  const StreamKeys& keys() const { return keys_; }

 private:
  index_t planned_, taken_;
  BeyondPlan beyond_;
  StreamKeys keys_;
  bool here_ = true;
};
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
// Facts are one run nonce more: two of 2^64 meet no more often than those of two runs.
DPMP_KEPT_BODY inline StepTicket::StepTicket(const StreamKeys& keys, index_t step, std::uint64_t facts) : step_(step) {
  const StreamKeys here = StreamKeys::repeat(keys.root(), keys.run_nonce() ^ facts);
  noise_ = here.key(Stream::noise);
  auxiliary_ = here.key(Stream::auxiliary_noise);
}

DPMP_KEPT_BODY inline StepTicket::StepTicket(StepTicket&& from) noexcept
    : step_(from.step_),
      noise_(std::exchange(from.noise_, std::nullopt)),
      auxiliary_(std::exchange(from.auxiliary_, std::nullopt)) {}

DPMP_KEPT_BODY inline StepTicket& StepTicket::operator=(StepTicket&& from) noexcept {
  step_ = from.step_;
  noise_ = std::exchange(from.noise_, std::nullopt);
  auxiliary_ = std::exchange(from.auxiliary_, std::nullopt);
  return *this;
}

DPMP_KEPT_BODY inline NoiseStream StepTicket::taken(std::optional<SecretKey>& key, std::string_view what) const {
  DPMP_CHECK(key, "expected one request for the ", what, " of step ", step_,
             ", got another one: the same noise on two sums cancels in their difference");
  return {*std::exchange(key, std::nullopt), step_};
}

DPMP_KEPT_BODY inline StepLedger::StepLedger(index_t planned_steps, const StreamKeys& keys, index_t steps_taken,
                                             BeyondPlan beyond)
    : planned_(planned_steps), taken_(steps_taken), beyond_(beyond), keys_(keys.for_new_run()) {
  DPMP_CHECK(planned_steps >= 1 && planned_steps < max_steps, "expected planned steps in [1, 2^40), got ", planned_steps);
  DPMP_CHECK(steps_taken >= 0 && steps_taken < max_steps, "expected steps taken in [0, 2^40), got ", steps_taken);
}

DPMP_KEPT_BODY inline StepLedger::StepLedger(StepLedger&& from) noexcept
    : planned_(from.planned_), taken_(from.taken_), beyond_(from.beyond_), keys_(from.keys_), here_(from.here_) {
  from.here_ = false;
}

DPMP_KEPT_BODY inline StepLedger& StepLedger::operator=(StepLedger&& from) noexcept {
  planned_ = from.planned_;
  taken_ = from.taken_;
  beyond_ = from.beyond_;
  keys_ = from.keys_;
  here_ = std::exchange(from.here_, false);
  return *this;
}

DPMP_KEPT_BODY inline StepTicket StepLedger::begin_step(std::uint64_t facts) {
  DPMP_CHECK(here_, "expected the ledger of the run, got one that was moved elsewhere");
  DPMP_CHECK(taken_ < planned_ || beyond_ == BeyondPlan::account, "expected at most ", planned_,
             " steps, as planned, got a request for one more: it would exceed the planned epsilon");
  DPMP_CHECK(taken_ < max_steps - 1, "expected fewer than 2^40 steps, got ", taken_, " and one more");
  return StepTicket(keys_, taken_++, facts);
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
