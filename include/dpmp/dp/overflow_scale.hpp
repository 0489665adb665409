// SPDX-License-Identifier: Apache-2.0
// A loss scale that follows overflows, for private training in f16: halved while too many records overflow, doubled after
// many steps in which few did, as plain training does it (Micikevicius et al. 2018, arXiv 1710.03740), but by a noisy count
// that is accounted for. A record that overflows contributes 0, and no step is skipped. The scale of the next step is a
// function of noisy counts alone, so it is as public as they are.
#pragma once
#include <span>

#include "dpmp/dp/noise.hpp"
#include "dpmp/dp/privacy_unit.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// Exponents that a loss scale may have.
inline constexpr int smallest_loss_exponent = -24, largest_loss_exponent = 40;

/// What is counted with how much noise, and what follows from it. All of it is public.
struct OverflowOptions {
  /// s_o > 0, must be set: noise standard deviation of the count. With three noise multipliers it costs the gradient's noise
  /// 6 %, with ten 0.5 %; up to a third of share * expected batch the noise seldom halves the scale.
  double count_noise = 0;
  double share = 0.05;            // in (0, 1): a noisy share of overflows above it is too large
  index_t growth_interval = 100;  // steps in a row without one that the scale is doubled after, >= 1
  double lowest = 0x1p-24;        // a power of two in [2^-24, highest]
  double highest = 0x1p40;        // a power of two up to 2^40
  double initial_scale = 1024;    // of the first step, a power of two in [lowest, highest]
  index_t alarm_after = 8;        // steps in a row with too large a share that are an alarm, >= 1
  friend bool operator==(const OverflowOptions&, const OverflowOptions&) = default;
};

/// Throws on every value out of range.
void check_overflow(const OverflowOptions& o);

/// h: what one record changes the number of overflowed records by. A record that overflows counts 1, and one that does not,
/// is not there or is empty counts 0: 1 for every relation.
double overflow_sensitivity(NeighbouringRelation relation);

/// The records of a physical batch of which something was not finite, so that their contribution is 0 (in clipping by
/// groups: that to a group). present, finite: one flag a slot. Private: add it to the step's other physical batches and give
/// it to OverflowScale::update, nowhere else.
index_t overflow_count(std::span<const std::uint8_t> present, std::span<const std::uint8_t> finite);

/// The state of an OverflowScale: four public numbers.
struct OverflowState {
  int exponent = 0;        // of the scale 2^exponent of the step to come
  index_t good_steps = 0;  // in a row, since the scale was last changed
  index_t bad_steps = 0;   // in a row, since the last alarm
  index_t alarms = 0;      // so far
  friend bool operator==(const OverflowState&, const OverflowState&) = default;
};

/// The scale of a run, step by step.
class OverflowScale {
 public:
  /// Of the auxiliary noise of a step, the one that is added to the count: 0 is the quantile's.
  static constexpr index_t noise_index = 1;

  /// expected_batch: the public constant B of the plan, > 0. Throws on options out of range, and where the noise alone would
  /// halve the scale more often than it is doubled: with p = P(N(0, s_o^2) > share * B), growth_interval steps in a row
  /// without that must be more likely than not, (1 - p)^growth_interval > 1/2.
  OverflowScale(const OverflowOptions& options, double expected_batch);
  /// Of the step to come: a power of two in [lowest, highest].
  double scale() const;
  /// Times that too many records overflowed in alarm_after steps in a row, although the scale was halved in each of them.
  index_t alarms() const { return state_.alarms; }
  OverflowState state() const { return state_; }
  /// Throws unless update() can reach this state.
  void restore(const OverflowState& state);

  /// The released number (count + N(0, s_o^2)) / B, the noisy share of overflows. Noise is drawn whatever the count is, also
  /// for an empty batch, and the noisy count is on a public grid. `stream`: StepTicket::auxiliary_noise of the step.
  double noisy_share(index_t count, const NoiseStream& stream) const;
  /// Above the share: the scale is halved. Else, at the growth_interval'th time in a row: it is doubled. Within [lowest,
  /// highest]. A function of the noisy share and nothing else.
  void update(double noisy_share);
  /// Both: once at the end of every step, with the sum of the step's overflow_count()s.
  void update(index_t count, const NoiseStream& stream) { update(noisy_share(count, stream)); }

 private:
  OverflowOptions options_;
  double expected_batch_;
  int lowest_, highest_;
  OverflowState state_;
};
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include <algorithm>
#include <cmath>

namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline void check_overflow(const OverflowOptions& o) {
  DPMP_CHECK(o.count_noise > 0 && std::isfinite(o.count_noise),
             "expected a finite standard deviation > 0 of the noise on the number of overflows, got ", o.count_noise);
  DPMP_CHECK(o.share > 0 && o.share < 1, "expected a share of overflows in (0, 1), got ", o.share);
  DPMP_CHECK(o.growth_interval >= 1 && o.alarm_after >= 1,
             "expected a growth interval and an alarm after at least one step, got ", o.growth_interval, " and ",
             o.alarm_after);
  int unused = 0;
  for (const double scale : {o.lowest, o.initial_scale, o.highest})
    DPMP_CHECK(std::isfinite(scale) && std::frexp(scale, &unused) == 0.5,
               "expected loss scales that are powers of two, got ", scale);
  DPMP_CHECK(o.lowest >= std::ldexp(1.0, smallest_loss_exponent) && o.lowest <= o.initial_scale &&
                 o.initial_scale <= o.highest && o.highest <= std::ldexp(1.0, largest_loss_exponent),
             "expected 2^", smallest_loss_exponent, " <= lowest <= initial <= highest <= 2^", largest_loss_exponent,
             " of a loss scale, got ", o.lowest, ", ", o.initial_scale, " and ", o.highest);
}

DPMP_KEPT_BODY inline double overflow_sensitivity(NeighbouringRelation relation) {
  name_of(relation);  // throws on a value outside of the enumeration
  return 1;
}

DPMP_KEPT_BODY inline index_t overflow_count(std::span<const std::uint8_t> present, std::span<const std::uint8_t> finite) {
  DPMP_CHECK(present.size() == finite.size(), "expected ", present.size(), " flags, one a slot, got ", finite.size());
  index_t count = 0;
  for (std::size_t i = 0; i < present.size(); ++i) count += index_t(present[i] != 0) & index_t(finite[i] == 0);
  return count;
}

DPMP_KEPT_BODY inline OverflowScale::OverflowScale(const OverflowOptions& options, double expected_batch)
    : options_(options), expected_batch_(expected_batch) {
  check_overflow(options);
  DPMP_CHECK(expected_batch > 0 && std::isfinite(expected_batch), "expected a finite expected batch > 0, got ",
             expected_batch);
  const double beyond = options.share * expected_batch / options.count_noise, p = std::erfc(beyond / std::sqrt(2.0)) / 2;
  DPMP_CHECK(std::pow(1 - p, double(options.growth_interval)) > 0.5, "expected less noise on the number of overflows than ",
             options.count_noise, " (or a larger share than ", options.share, ", or fewer than ", options.growth_interval,
             " steps until the scale is doubled), got noise that is above the share of an expected batch of ",
             expected_batch, " in a part ", p, " of the steps: by noise alone the scale would fall");
  lowest_ = std::ilogb(options.lowest);
  highest_ = std::ilogb(options.highest);
  state_.exponent = std::ilogb(options.initial_scale);
}

DPMP_KEPT_BODY inline double OverflowScale::scale() const { return std::ldexp(1.0, state_.exponent); }

DPMP_KEPT_BODY inline void OverflowScale::restore(const OverflowState& s) {
  DPMP_CHECK(s.exponent >= lowest_ && s.exponent <= highest_, "expected a loss scale 2^k with k in [", lowest_, ", ",
             highest_, "], got k = ", s.exponent);
  DPMP_CHECK(s.good_steps >= 0 && s.good_steps < options_.growth_interval && s.bad_steps >= 0 &&
                 s.bad_steps < options_.alarm_after && (s.good_steps == 0 || s.bad_steps == 0) && s.alarms >= 0,
             "expected fewer than ", options_.growth_interval, " good steps or fewer than ", options_.alarm_after,
             " bad ones, and a number of alarms, got ", s.good_steps, ", ", s.bad_steps, " and ", s.alarms);
  state_ = s;
}

DPMP_KEPT_BODY inline double OverflowScale::noisy_share(index_t count, const NoiseStream& stream) const {
  return noised(double(count), options_.count_noise, stream, noise_index) / expected_batch_;
}

DPMP_KEPT_BODY inline void OverflowScale::update(double noisy_share) {
  if (noisy_share > options_.share) {
    state_.exponent = std::max(lowest_, state_.exponent - 1);
    state_.good_steps = 0;
    if (++state_.bad_steps < options_.alarm_after) return;
    ++state_.alarms;
    state_.bad_steps = 0;
    return;
  }
  state_.bad_steps = 0;
  if (++state_.good_steps < options_.growth_interval) return;
  state_.exponent = std::min(highest_, state_.exponent + 1);
  state_.good_steps = 0;
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
