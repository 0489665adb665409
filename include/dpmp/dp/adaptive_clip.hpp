// SPDX-License-Identifier: Apache-2.0
// A clip threshold that follows a quantile of the gradient norms: Andrew, Thakkar, McMahan, Ramaswamy, "Differentially
// Private Learning with Adaptive Clipping" (2021, arXiv 1905.03871), with the count's noise accounted for. The threshold of
// the next step is a function of noisy counts alone, so it is as public as they are.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <span>

#include "dpmp/dp/joint_noise.hpp"
#include "dpmp/dp/noise.hpp"
#include "dpmp/dp/privacy_unit.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// What the threshold follows, and how fast. All of it is public.
struct AdaptiveOptions {
  double quantile = 0.5;         // q in (0, 1): the share of gradients that should be below the threshold
  double learning_rate = 0.2;    // eta > 0: C changes by at most about a factor e^eta a step, and by what noise adds
  double count_noise = 0;        // s_b > 0, must be set: noise standard deviation of the count; expected batch / 20 is usual
  double lowest = 0x1p-20;       // C_min > 0
  double highest = 0x1p20;       // C_max, finite
  double initial_threshold = 1;  // C of the first step, in [C_min, C_max]
  friend bool operator==(const AdaptiveOptions&, const AdaptiveOptions&) = default;
};

/// Throws on every value out of range.
void check_adaptive(const AdaptiveOptions& o);

/// h: what one record changes sum_i (1[n_i <= C] - 1/2) by. A record that is not there, or is masked, adds 0, so one more or
/// less changes the count by 1/2. An empty record (zero_out) is there: its norm is 0, it counts +1/2, and the full one in
/// its place may count -1/2, as of two records that replace each other.
double count_sensitivity(NeighbouringRelation relation);

/// sigma_z = (sigma^-2 - (h / s_b)^2)^(-1/2): the noise multiplier of the gradient sum next to this count alone
/// (dp/joint_noise.hpp has it for several). Throws unless sigma < s_b / h.
double gradient_noise_multiplier(double sigma, double count_noise, NeighbouringRelation relation);

/// sum_i ok_i (1[norm_i <= C] - 1/2) over a physical batch, by select; masked (ok 0) and non-finite samples add 0. Exact.
/// Private: add it to the step's other physical batches and give it to AdaptiveThreshold::update, nowhere else.
double quantile_count(std::span<const double> norms, std::span<const std::uint8_t> ok, double clip_threshold);

/// The threshold of a run, step by step. Its whole state is one public number: store threshold(), restore() it.
class AdaptiveThreshold {
 public:
  /// expected_batch: the public constant B of the plan, > 0.
  AdaptiveThreshold(const AdaptiveOptions& options, double expected_batch);
  /// C of the step to come.
  double threshold() const { return threshold_; }
  /// Throws unless `threshold` is in [C_min, C_max].
  void restore(double threshold);

  /// The released number b = (count + N(0, s_b^2)) / B + 1/2, the noisy share of gradients below the threshold. Noise is
  /// drawn whatever the count is, also for an empty batch, and the noisy count is on a public grid. `stream`:
  /// StepTicket::auxiliary_noise, once a step: its key is not that of the parameters' noise, so no counter is shared.
  double noisy_fraction(double count, const NoiseStream& stream) const;
  /// C <- C exp(-eta (b - q)), kept in [C_min, C_max]: a function of the noisy fraction and nothing else.
  void update(double noisy_fraction);
  /// Both: once at the end of every step, with the sum of the step's quantile_count()s.
  void update(double count, const NoiseStream& stream) { update(noisy_fraction(count, stream)); }

 private:
  AdaptiveOptions options_;
  double expected_batch_, threshold_;
};
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline AdaptiveThreshold::AdaptiveThreshold(const AdaptiveOptions& options, double expected_batch)
    : options_(options), expected_batch_(expected_batch), threshold_(options.initial_threshold) {
  check_adaptive(options);
  DPMP_CHECK(expected_batch > 0 && std::isfinite(expected_batch), "expected a finite expected batch > 0, got ",
             expected_batch);
}

DPMP_KEPT_BODY inline void AdaptiveThreshold::restore(double threshold) {
  DPMP_CHECK(threshold >= options_.lowest && threshold <= options_.highest, "expected a clip threshold in [",
             options_.lowest, ", ", options_.highest, "], got ", threshold);
  threshold_ = threshold;
}

DPMP_KEPT_BODY inline double AdaptiveThreshold::noisy_fraction(double count, const NoiseStream& stream) const {
  return noised(count, options_.count_noise, stream, 0) / expected_batch_ + 0.5;
}

DPMP_KEPT_BODY inline void AdaptiveThreshold::update(double noisy_fraction) {
  const double next = threshold_ * std::exp(-options_.learning_rate * (noisy_fraction - options_.quantile));
  threshold_ = std::clamp(next, options_.lowest, options_.highest);
}

DPMP_KEPT_BODY inline void check_adaptive(const AdaptiveOptions& o) {
  DPMP_CHECK(o.quantile > 0 && o.quantile < 1, "expected a quantile in (0, 1), got ", o.quantile);
  DPMP_CHECK(o.learning_rate > 0 && std::isfinite(o.learning_rate),
             "expected a finite learning rate > 0 of the clip threshold, got ", o.learning_rate);
  DPMP_CHECK(o.count_noise > 0 && std::isfinite(o.count_noise),
             "expected a finite standard deviation > 0 of the count's noise, got ", o.count_noise);
  DPMP_CHECK(o.lowest > 0 && o.lowest <= o.initial_threshold && o.initial_threshold <= o.highest && std::isfinite(o.highest),
             "expected 0 < lowest <= initial threshold <= highest, all finite, got ", o.lowest, ", ", o.initial_threshold,
             " and ", o.highest);
}

DPMP_KEPT_BODY inline double count_sensitivity(NeighbouringRelation relation) {
  name_of(relation);  // throws on a value outside of the enumeration
  return relation == NeighbouringRelation::add_or_remove_one ? 0.5 : 1;
}

DPMP_KEPT_BODY inline double gradient_noise_multiplier(double sigma, double count_noise, NeighbouringRelation relation) {
  const NoisyCount count{count_noise, count_sensitivity(relation)};
  return gradient_noise_multiplier(sigma, {&count, 1});
}

DPMP_KEPT_BODY inline double quantile_count(std::span<const double> norms, std::span<const std::uint8_t> ok,
                                            double clip_threshold) {
  DPMP_CHECK(ok.size() == norms.size(), "expected ", norms.size(), " ok flags, one a norm, got ", ok.size());
  index_t twice = 0;
  for (std::size_t i = 0; i < norms.size(); ++i) {
    const index_t finite = std::bit_cast<std::uint64_t>(norms[i]) < 0x7ff0000000000000u, counted = ok[i] != 0;
    twice += (finite & counted) * (2 * index_t(norms[i] <= clip_threshold) - 1);
  }
  return 0.5 * double(twice);
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
