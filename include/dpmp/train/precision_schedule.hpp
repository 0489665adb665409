// SPDX-License-Identifier: Apache-2.0
// Layers that change to a wider dtype while a model is trained: cheap 16-bit steps first, exact ones when updates become
// small, or when too much overflows. A public function of the step, of noisy counts that the plan accounts for, and of
// names.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "dpmp/nn/parameters.hpp"

namespace dpmp::inline DPMP_ABI::train {
class PrecisionSchedule {
 public:
  /// The same, and as of this step (the first is step 0) the layers in the scopes that match are in `dtype`, unless they are
  /// in a wider one; of f16, bf16 and f32 each is wider than those before it. pattern: as for nn::Precision::override, "*"
  /// for the whole model. Throws for a step < 0 and for other dtypes than bf16 and f32. The residual stream of nn::Blocks
  /// keeps the dtype that the model was made with: raise layers around one with Precision::fp32_residual().
  PrecisionSchedule raised(index_t step, std::string_view pattern, DType dtype) const;
  /// The same, as of the step after the alarm'th alarm of the plan's count of overflows (the first is alarm 1): its noisy
  /// share was above the public one of dp::OverflowOptions in alarm_after steps in a row. For a plan that has such a count,
  /// and no other. Throws for an alarm < 1 and for other dtypes than bf16 and f32.
  PrecisionSchedule raised_on_overflow(std::string_view pattern, DType dtype, index_t alarm = 1) const;
  bool empty() const { return changes_.empty(); }
  /// Whether it has changes that wait for alarms.
  bool follows_overflows() const;
  /// What a parameter in `dtype` is stored in as of that step and so many alarms.
  DType at(const Parameter& parameter, DType dtype, index_t step, index_t alarms = 0) const;
  /// Stores the parameters in what they are at(). Whether one of them changed.
  bool apply(Context& ctx, std::span<Parameter* const> parameters, index_t step, index_t alarms = 0) const;
  /// Throws where a pattern matches no scope with parameters.
  void check(std::span<Parameter* const> parameters) const;
  /// For people: "as of step 100 *: bf16, after overflow alarm 1 head: f32"; "none" without a change.
  std::string text() const;

 private:
  struct Change {
    index_t step, alarm;  // as of which step, after which alarm; the other is 0
    std::string pattern;
    DType dtype;
    bool matches(const Parameter& parameter) const;
  };
  PrecisionSchedule with(const Change& change) const;
  std::vector<Change> changes_;
};
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
#include <algorithm>

namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline PrecisionSchedule PrecisionSchedule::raised(index_t step, std::string_view pattern,
                                                                  DType dtype) const {
  DPMP_CHECK(step >= 0 && !pattern.empty() && (dtype == DType::bf16 || dtype == DType::f32),
             "expected a step >= 0, a pattern of scopes and bf16 or f32 to raise them to, got step ", step, ", '", pattern,
             "' and ", dtype);
  return with({step, 0, std::string(pattern), dtype});
}

DPMP_KEPT_BODY inline PrecisionSchedule PrecisionSchedule::raised_on_overflow(std::string_view pattern, DType dtype,
                                                                              index_t alarm) const {
  DPMP_CHECK(alarm >= 1 && !pattern.empty() && (dtype == DType::bf16 || dtype == DType::f32),
             "expected an alarm >= 1, a pattern of scopes and bf16 or f32 to raise them to, got alarm ", alarm, ", '",
             pattern, "' and ", dtype);
  return with({0, alarm, std::string(pattern), dtype});
}

DPMP_KEPT_BODY inline PrecisionSchedule PrecisionSchedule::with(const Change& change) const {
  PrecisionSchedule other = *this;
  other.changes_.push_back(change);
  return other;
}

DPMP_KEPT_BODY inline bool PrecisionSchedule::follows_overflows() const {
  return std::any_of(changes_.begin(), changes_.end(), [](const Change& change) { return change.alarm > 0; });
}

DPMP_KEPT_BODY inline bool PrecisionSchedule::Change::matches(const Parameter& parameter) const {
  // A policy with this pattern alone, which changes the dtype of what it matches.
  return nn::Precision(DType::f32).override(pattern, DType::bf16).at(nn::scope_of(parameter)).dtype() == DType::bf16;
}

DPMP_KEPT_BODY inline DType PrecisionSchedule::at(const Parameter& parameter, DType dtype, index_t step,
                                                  index_t alarms) const {
  const auto rank = [](DType d) { return d == DType::f16 ? 0 : d == DType::bf16 ? 1 : d == DType::f32 ? 2 : 3; };
  DType widest = dtype;
  for (const Change& change : changes_)
    if (change.step <= step && change.alarm <= alarms && rank(change.dtype) > rank(widest) && change.matches(parameter))
      widest = change.dtype;
  return widest;
}

DPMP_KEPT_BODY inline bool PrecisionSchedule::apply(Context& ctx, std::span<Parameter* const> parameters, index_t step,
                                                    index_t alarms) const {
  bool any = false;
  for (Parameter* p : parameters) {
    const DType dtype = at(*p, p->dtype(), step, alarms);
    if (dtype == p->dtype()) continue;
    p->store_in(ctx, dtype);
    any = true;
  }
  return any;
}

DPMP_KEPT_BODY inline void PrecisionSchedule::check(std::span<Parameter* const> parameters) const {
  for (const Change& change : changes_)
    DPMP_CHECK(std::any_of(parameters.begin(), parameters.end(), [&](const Parameter* p) { return change.matches(*p); }),
               "expected a scope with parameters for each pattern of a precision schedule, got none for '", change.pattern,
               "'");
}

DPMP_KEPT_BODY inline std::string PrecisionSchedule::text() const {
  std::string text;
  for (const Change& change : changes_)
    text += dpmp::detail::concat(text.empty() ? "" : ", ", change.alarm > 0 ? "after overflow alarm " : "as of step ",
                                 change.alarm > 0 ? change.alarm : change.step, " ", change.pattern, ": ", change.dtype);
  return text.empty() ? "none" : text;
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
