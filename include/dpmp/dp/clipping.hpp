// SPDX-License-Identifier: Apache-2.0
// Flat clipping: one threshold for the whole gradient, whatever the rule for the factors. What makes the factors also states
// the sensitivity of the sum they make; noise is calibrated from that statement, never from C again.
#pragma once
#include <cmath>
#include <cstring>
#include <span>

#include "dpmp/core/low_precision.hpp"
#include "dpmp/dp/clip_rule.hpp"
#include "dpmp/dp/privacy_unit.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::dp {
/// What one record can change the released sum by, in the Euclidean norm over all parameters.
struct Sensitivity {
  double clip_threshold = 0;  // C
  NeighbouringRelation relation = NeighbouringRelation::add_or_remove_one;
  double rho = 0;    // rounding of the sum over samples, as a share of C
  double bound = 0;  // Delta = C (1 + rho), twice that for replace_one
  friend bool operator==(const Sensitivity&, const Sensitivity&) = default;
};

/// Samples that one FP32 accumulator may sum before the sum moves on to double: what rho below is derived for.
inline constexpr index_t samples_per_float_block = 8;
/// Largest logical batch that rho is derived for.
inline constexpr index_t max_batch_bound = index_t(1) << 28;

/// rho = 16 B u with u = 2^-24, for logical batches of at most B records. Throws unless 1 <= B <= 2^28.
///
/// Let x_1..x_b, b <= B, be the contributions as released (|x_i| <= C). Per coordinate a block of m <= 8 of them is summed
/// in FP32: 7 roundings, so its error is at most gamma_7 sum |x_i|, gamma_7 = 7u / (1 - 7u). (The rounding of c_i times the
/// first tile is paid by the 2^-20 of the clip factor, with a fused multiply-add or without.) The blocks are added in
/// double: at most B roundings of 2^-53, together B 2^-53 <= 2^-25 = u / 2. By the triangle inequality over samples the
/// error vector of the whole sum has a norm of at most (7 + 1/2 + O(u)) u B C <= 8 u B C. Both neighbours err, so their
/// computed sums differ by at most C + 16 u B C. Source: Higham, Accuracy and Stability of Numerical Algorithms,
/// section 4.2.
inline double rounding_share(index_t batch_bound) {
  DPMP_CHECK(batch_bound >= 1 && batch_bound <= max_batch_bound, "expected a bound on the logical batch in [1, 2^28], got ",
             batch_bound);
  return 16.0 * double(batch_bound) * 0x1p-24;
}

/// Smallest threshold: below it the rounding of c times a gradient's smaller elements would no longer be a relative one.
inline constexpr double smallest_threshold = 0x1p-100;
/// Largest threshold of a rule that amplifies: contributions of that norm, and FP32 sums of samples_per_float_block of them,
/// are finite. (A factor of at most 1 leaves a finite gradient finite whatever C is.)
inline constexpr double max_amplified_threshold = 0x1p120;

/// min(rule(n), bound / n) for n = norm_upper, rounded down to FP32, and 0 where the sample does not count, where the norm
/// is not a finite number >= 0, and where the rule gives NaN or a negative number. By select: no branch here depends on a
/// sample.
///
/// At n = 0 and near it some rules ask for infinity, and so does the bound beside it: factors end at the largest finite FP32
/// number. That is as safe as any factor at most C / n, and where n = 0 the released gradient is exactly 0 (n bounds its
/// norm), so it stays 0; an infinite factor would make it NaN.
DPMP_ANY_TEAM
template <class Rule>
DPMP_HD float clip_factor(double norm_upper, bool counts, double bound, const Rule& rule) {
  constexpr double largest = 0x1.fffffep127;
  // Exponent below all ones and sign clear: finite and not negative. Other norms are shown to the rule as 0.
  std::uint64_t bits;
  memcpy(&bits, &norm_upper, sizeof bits);
  const std::uint64_t finite = bits < 0x7ff0000000000000u;
  bits &= 0 - finite;
  double n;
  memcpy(&n, &bits, sizeof n);
  const double wanted = rule(n), cap = bound / n;
  double c = wanted > 0 ? wanted : 0;  // NaN, too, is not > 0
  c = cap < c ? cap : c;
  c = c < largest ? c : largest;
  const float nearest = float(c);
  const std::uint32_t down = dpmp::detail::bits_of(nearest) - std::uint32_t(double(nearest) > c);
  const std::uint32_t counted = std::uint32_t(finite) & std::uint32_t(counts);
  return dpmp::detail::float_of(down & (0u - counted));
}

/// A threshold and a rule.
class FlatClipping {
 public:
  /// clip_threshold: C >= 2^-100. For the rule abadi infinity is legal where no noise is added (factors are then 1); it has
  /// no sensitivity. Every other rule may amplify and takes thresholds of at most 2^120.
  explicit FlatClipping(double clip_threshold, ClipRule rule = ClipRule::abadi())
      : clip_threshold_(clip_threshold), rule_(std::move(rule)) {
    DPMP_CHECK(clip_threshold >= smallest_threshold, "expected a clip threshold >= 2^-100, got ", clip_threshold);
    DPMP_CHECK(rule_.shrinks_only() || clip_threshold <= max_amplified_threshold,
               "expected a clip threshold of at most 2^120 for a rule that may amplify, got ", clip_threshold, " for ",
               rule_);
  }
  double clip_threshold() const { return clip_threshold_; }
  const ClipRule& rule() const { return rule_; }

  /// What no factor times the norm's upper bound exceeds: C (1 - 2^-20). The 2^-20 pays for the roundings of the norm's last
  /// operations and of c_i times the tile (so for norms and factors that are normal numbers; a denormal factor is rounded
  /// down as well).
  double bound() const { return clip_threshold_ * (1 - 0x1p-20); }

  /// factors[i] = clip_factor of norm_upper[i]; an exception of a custom rule counts as 0.
  /// norm_upper [B]: upper bounds of the per-sample norms over all parameters. ok [B]: 0 for masked and non-finite samples.
  void factors(std::span<const double> norm_upper, std::span<const std::uint8_t> ok, std::span<float> factors) const {
    DPMP_CHECK(ok.size() == norm_upper.size() && factors.size() == norm_upper.size(), "expected ", norm_upper.size(),
               " ok flags and factors, one a norm, got ", ok.size(), " and ", factors.size());
    rule_.with_function(clip_threshold_, [&](auto&& rule) {
      for (std::size_t i = 0; i < norm_upper.size(); ++i) factors[i] = clip_factor(norm_upper[i], ok[i] != 0, bound(), rule);
    });
  }

  /// The sensitivity of sum_i c_i g_i, summed in FP32 blocks of at most samples_per_float_block samples and double beyond.
  /// batch_bound: public bound on the records of a logical batch. Throws when the threshold is infinite.
  Sensitivity sensitivity(NeighbouringRelation relation, index_t batch_bound) const {
    DPMP_CHECK(std::isfinite(clip_threshold_), "expected a finite clip threshold, got ", clip_threshold_,
               ": an unclipped sum has no finite sensitivity");
    const double rho = rounding_share(batch_bound);
    return {clip_threshold_, relation, rho, contributions_changed(relation) * clip_threshold_ * (1 + rho)};
  }

 private:
  double clip_threshold_;
  ClipRule rule_;
};
}  // namespace dpmp::inline DPMP_ABI::dp
DPMP_KERNELS_END
