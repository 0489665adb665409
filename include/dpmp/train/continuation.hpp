// SPDX-License-Identifier: Apache-2.0
// What a run was in its steps so far besides its plan, as a hash that the noise of the next one depends on; and which runs
// go on with draws and noise of their own.
#pragma once
#include <span>

#include "dpmp/autograd/parameter.hpp"
#include "dpmp/dp/plan_options.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// A hash of what was frozen in which private step so far and of which steps threw after they were accounted; 0 while there
/// was neither. Of correlated noise, whose steps share one key: of what is frozen, and which strategy was chosen, in all.
class FrozenHistory {
 public:
  std::uint64_t value() const { return value_; }
  void restore(std::uint64_t value) { value_ = value; }
  /// Before `step` is accounted. way: ChosenWay::facts(0). Throws, for correlated noise, where something else is frozen, or
  /// another strategy chosen, than in the first step, and after a step that failed: the noise of a step is made of that of
  /// all steps before it.
  void begin_step(index_t step, std::span<Parameter* const> parameters, bool correlated, std::uint64_t way);
  /// The weights are not those of a run in which this step went well: what comes next sums other gradients.
  void step_failed(index_t step);

 private:
  std::uint64_t value_ = 0;
};

/// Throws where a run of this plan cannot go on at this step with draws and noise of its own: within an epoch of
/// balls_in_bins, and with correlated noise.
void check_own_noise_from(const dp::PlanOptions& plan, index_t step);
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
#include <vector>

#include "dpmp/core/siphash.hpp"

namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline void FrozenHistory::begin_step(index_t step, std::span<Parameter* const> parameters, bool correlated,
                                                     std::uint64_t way) {
  std::vector<std::byte> frozen;
  for (const Parameter* p : parameters) frozen.push_back(std::byte(!p->trainable()));
  const bool any = std::any_of(frozen.begin(), frozen.end(), [](std::byte f) { return f != std::byte(0); });
  if (correlated) {
    const std::uint64_t now = any || way != 0 ? siphash24(way, 0, frozen) : 0;
    DPMP_CHECK(
        step == 0 || value_ == now,
        "expected the trained parameters and the strategy of the first step, and no step that failed, with correlated "
        "noise, got others: "
        "the noise of a step is made of that of all steps before it");
    value_ = now;
  } else if (any || way != 0 || value_ != 0) {
    value_ = siphash24(way == 0 ? value_ : siphash24(value_, way, {}), std::uint64_t(step), frozen);
  }
}

DPMP_KEPT_BODY inline void FrozenHistory::step_failed(index_t step) {
  static constexpr std::byte failed[] = {std::byte('f'), std::byte('a'), std::byte('i'), std::byte('l')};
  value_ = siphash24(value_, std::uint64_t(step), failed);
}

DPMP_KEPT_BODY inline void check_own_noise_from(const dp::PlanOptions& plan, index_t step) {
  const dp::SamplingOptions& sampling = plan.sampling;
  DPMP_CHECK(sampling.kind != dp::SamplingKind::balls_in_bins || step % sampling.period == 0,
             "expected a run with draws of its own to begin with an epoch of ", sampling.period, " steps, got step ", step,
             ": some records would be drawn twice in this epoch");
  DPMP_CHECK(step == 0 || !plan.noise_source.is_correlated(),
             "expected a run with correlated noise to go on as the same run (TrainerOptions::data_fingerprint), got step ",
             step, " with noise of its own: the noise of a step is made of that of all steps before it");
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
