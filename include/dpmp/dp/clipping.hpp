// SPDX-License-Identifier: Apache-2.0
// Flat clipping: one threshold for the whole gradient, whatever the rule for the factors. What makes the factors also states
// the sensitivity of the sum they make; noise is calibrated from that statement, never from C again.
#pragma once
#include <cmath>
#include <cstring>
#include <span>

#include "dpmp/core/accumulation.hpp"
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

/// Largest logical batch that rho is derived for.
inline constexpr index_t max_batch_bound = index_t(1) << 28;

/// rho = 1.125 2^-42 B for logical batches of at most B records. Throws unless 1 <= B <= 2^28.
///
/// Let x_1..x_b, b <= B, be the contributions as released (|x_i| <= C), which do not depend on each other (P34) and are
/// exact in double. Per coordinate they are added in chains of at most samples_per_chain = 512 samples in double: 512
/// roundings of 2^-53, so an error of at most 2^-44 sum |x_i|. A tied table's contribution reaches the sum on a GPU as two
/// parts whose norms add up to at most 2 C (per_sample/tied_norm.cuh): 2^-43 B C then. The chains meet in a double and a
/// float that holds what the double lost (kernels::FoldSums): at most B roundings of 2^-77, and two of 2^-53 at the end. All
/// second-order terms and the additions of blocks of a chain to its sum are below 2^-47. By the triangle inequality over
/// samples the error vector of the whole sum has a norm of at most (2^-43 + 2^-46) B C. Both neighbours err, so their
/// computed sums differ by at most C + 1.125 2^-42 B C. Source: Higham, Accuracy and Stability of Numerical Algorithms,
/// sections 3.1 and 4.2.
inline double rounding_share(index_t batch_bound) {
  static_assert(double(samples_per_chain) * 0x1p-53 <= 0x1p-44);
  DPMP_CHECK(batch_bound >= 1 && batch_bound <= max_batch_bound, "expected a bound on the logical batch in [1, 2^28], got ",
             batch_bound);
  return 0x1.2p-42 * double(batch_bound);
}

/// Smallest threshold: below it the rounding of c times a gradient's smaller elements would no longer be a relative one.
inline constexpr double smallest_threshold = 0x1p-100;
/// Largest threshold: contributions of that norm are finite, and so are sums of them. A sum that overflows is
/// no bounded function of one record any more.
inline constexpr double largest_threshold = 0x1p120;

/// min(rule(n), bound / n) for n = norm_upper, rounded down to FP32, and 0 where the sample does not count, where the norm
/// is not a finite number >= 0, and where the rule gives NaN or a negative number. By select: no branch here depends on a
/// sample.
///
/// At n = 0 and near it some rules ask for infinity, and so does the bound next to it: factors end at the largest finite
/// FP32 number. That is as safe as any factor at most C / n, and where n = 0 the released gradient is exactly 0 (n bounds
/// its norm), so it stays 0; an infinite factor would make it NaN.
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
  /// clip_threshold: C in [2^-100, 2^120]. For the rule abadi infinity is legal, too, where no noise is added (factors are
  /// then 1); it has no sensitivity.
  explicit FlatClipping(double clip_threshold, ClipRule rule = ClipRule::abadi());
  double clip_threshold() const { return clip_threshold_; }
  const ClipRule& rule() const { return rule_; }

  /// What no factor times the norm's upper bound exceeds: C (1 - 2^-20). The 2^-20 pays for the roundings of the norm's last
  /// operations and of c_i times the tile (so for norms and factors that are normal numbers; a denormal factor is rounded
  /// down as well).
  double bound() const { return clip_threshold_ * (1 - 0x1p-20); }

  /// factors[i] = clip_factor of norm_upper[i]; an exception of a custom rule counts as 0.
  /// norm_upper [B]: upper bounds of the per-sample norms over all parameters. ok [B]: 0 for masked and non-finite samples.
  void factors(std::span<const double> norm_upper, std::span<const std::uint8_t> ok, std::span<float> factors) const;

  /// The sensitivity of sum_i c_i g_i, summed as core/accumulation.hpp says.
  /// batch_bound: public bound on the records of a logical batch. Throws when the threshold is infinite.
  Sensitivity sensitivity(NeighbouringRelation relation, index_t batch_bound) const;

 private:
  double clip_threshold_;
  ClipRule rule_;
};
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline FlatClipping::FlatClipping(double clip_threshold, ClipRule rule)
    : clip_threshold_(clip_threshold), rule_(std::move(rule)) {
  DPMP_CHECK(clip_threshold >= smallest_threshold, "expected a clip threshold >= 2^-100, got ", clip_threshold);
  DPMP_CHECK(clip_threshold <= largest_threshold || (rule_.shrinks_only() && std::isinf(clip_threshold)),
             "expected a clip threshold of at most 2^120 (or infinity without noise, for the rule abadi), got ",
             clip_threshold, " for ", rule_);
}

DPMP_KEPT_BODY inline void FlatClipping::factors(std::span<const double> norm_upper, std::span<const std::uint8_t> ok,
                                                 std::span<float> factors) const {
  DPMP_CHECK(ok.size() == norm_upper.size() && factors.size() == norm_upper.size(), "expected ", norm_upper.size(),
             " ok flags and factors, one a norm, got ", ok.size(), " and ", factors.size());
  rule_.with_function(clip_threshold_, [&](auto&& rule) {
    for (std::size_t i = 0; i < norm_upper.size(); ++i) factors[i] = clip_factor(norm_upper[i], ok[i] != 0, bound(), rule);
  });
}

DPMP_KEPT_BODY inline Sensitivity FlatClipping::sensitivity(NeighbouringRelation relation, index_t batch_bound) const {
  DPMP_CHECK(std::isfinite(clip_threshold_), "expected a finite clip threshold, got ", clip_threshold_,
             ": an unclipped sum has no finite sensitivity");
  const double rho = rounding_share(batch_bound);
  return {clip_threshold_, relation, rho, contributions_changed(relation) * clip_threshold_ * (1 + rho)};
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
