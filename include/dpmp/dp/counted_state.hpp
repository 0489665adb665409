// SPDX-License-Identifier: Apache-2.0
// What the noisy counts of a run's steps move: a clip threshold and a loss scale, where the plan has them. A function of
// what was released, so it is public; each step takes its part of it from the steps before.
#pragma once
#include "dpmp/dp/plan.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// What a run's next step goes on with.
struct RunState {
  RunState(double threshold = 0, const std::optional<OverflowState>& scale = {})
      : clip_threshold(threshold), overflow(scale) {}
  double clip_threshold;                  // of an adaptive plan; 0 for others
  std::optional<OverflowState> overflow;  // of a plan that counts overflows
};

/// The counts of a step, before noise: private.
struct StepCounts {
  double quantile = 0;    // quantile_count()s
  index_t overflows = 0;  // overflow_count()s
  StepCounts& operator+=(const StepCounts& more) {
    quantile += more.quantile;
    overflows += more.overflows;
    return *this;
  }
};

class CountedState {
 public:
  /// Before the first step.
  explicit CountedState(const Plan& plan);
  bool counts_norms() const { return threshold_.has_value(); }
  bool counts_overflows() const { return scale_.has_value(); }
  /// Of the step to come; 0 unless the plan is adaptive.
  double clip_threshold() const { return threshold_ ? threshold_->threshold() : 0; }
  /// Of the step to come; nothing unless the plan counts overflows.
  const std::optional<OverflowScale>& overflow_scale() const { return scale_; }
  /// At the end of a step. `stream`: StepTicket::auxiliary_noise, of which each count has a counter of its own.
  void update(const StepCounts& counts, const NoiseStream& stream);
  /// Throws, and changes nothing, unless the state has what the plan moves, in its range, and nothing else.
  void restore(const RunState& state);

 private:
  std::optional<AdaptiveThreshold> threshold_;
  std::optional<OverflowScale> scale_;
};
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline CountedState::CountedState(const Plan& plan) {
  if (plan.options().adaptive) threshold_ = plan.adaptive_threshold();
  if (plan.options().overflow) scale_ = plan.overflow_scale();
}

DPMP_KEPT_BODY inline void CountedState::update(const StepCounts& counts, const NoiseStream& stream) {
  if (threshold_) threshold_->update(counts.quantile, stream);
  if (scale_) scale_->update(counts.overflows, stream);
}

DPMP_KEPT_BODY inline void CountedState::restore(const RunState& state) {
  DPMP_CHECK(threshold_ || state.clip_threshold == 0, "expected no clip threshold for a plan that is not adaptive, got ",
             state.clip_threshold);
  DPMP_CHECK(scale_.has_value() == state.overflow.has_value(),
             "expected the state of a loss scale where the plan counts overflows, and nowhere else, got ",
             state.overflow ? "one" : "none");
  CountedState restored = *this;
  if (restored.threshold_) restored.threshold_->restore(state.clip_threshold);
  if (restored.scale_) restored.scale_->restore(*state.overflow);
  *this = restored;
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
