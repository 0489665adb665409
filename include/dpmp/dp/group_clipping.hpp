// SPDX-License-Identifier: Apache-2.0
// Group-wise clipping: the parameters are split into groups (layers, say), each with its own norm, factor and threshold
// (McMahan et al. 2018, arXiv 1710.06963, section 2). One noise standard deviation for all of it, from the joint
// sensitivity.
#pragma once
#include <algorithm>
#include <vector>

#include "dpmp/dp/clipping.hpp"
#include "dpmp/dp/streams.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// Thresholds C_g of all groups, one rule. Which parameter is in which group is public and the caller's to keep: every
/// parameter in exactly one.
class GroupClipping {
 public:
  /// Throws unless there are 1 to 2^24 thresholds, each fit for FlatClipping with this rule.
  explicit GroupClipping(std::vector<double> thresholds, ClipRule rule = ClipRule::abadi());
  /// `groups` equal thresholds C / sqrt(groups): the joint sensitivity is that of flat clipping at C (but for rounding).
  static GroupClipping uniform(double clip_threshold, index_t groups, ClipRule rule = ClipRule::abadi());
  static std::vector<double> uniform_thresholds(double clip_threshold, index_t groups);

  index_t groups() const { return index_t(thresholds_.size()); }
  const std::vector<double>& thresholds() const { return thresholds_; }
  const ClipRule& rule() const { return rule_; }
  /// The clipper of group g: of norms over its parameters alone.
  FlatClipping group(index_t g) const;

  /// The sensitivity of all groups' sums together; clip_threshold is sqrt(sum_g C_g^2). Throws where it is not finite.
  ///
  /// rho is the share of flat clipping: groups hold disjoint coordinates, so rounding_share() holds for each of them alone,
  /// and the computed sums of neighbours differ in group g by a vector of norm <= C_g (1 + rho). The whole difference has
  /// norm <= sqrt(sum_g C_g^2 (1 + rho)^2) = (1 + rho) sqrt(sum_g C_g^2). The square root of several groups is rounded up:
  /// a square has three roundings of 2^-53 (one of them counts twice), their sum G - 1, the root halves all of these, and
  /// three more follow, which is less than the G + 4 of 2^-52 that are added.
  Sensitivity sensitivity(NeighbouringRelation relation, index_t batch_bound) const;

 private:
  std::vector<double> thresholds_;
  ClipRule rule_;
};
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline GroupClipping::GroupClipping(std::vector<double> thresholds, ClipRule rule)
    : thresholds_(std::move(thresholds)), rule_(std::move(rule)) {
  DPMP_CHECK(!thresholds_.empty() && index_t(thresholds_.size()) <= max_parameters,
             "expected thresholds of 1 to 2^24 groups, got ", thresholds_.size());
  for (double C : thresholds_) FlatClipping(C, rule_);
}

DPMP_KEPT_BODY inline GroupClipping GroupClipping::uniform(double clip_threshold, index_t groups, ClipRule rule) {
  return GroupClipping(uniform_thresholds(clip_threshold, groups), std::move(rule));
}

DPMP_KEPT_BODY inline std::vector<double> GroupClipping::uniform_thresholds(double clip_threshold, index_t groups) {
  DPMP_CHECK(groups >= 1 && groups <= max_parameters, "expected 1 to 2^24 groups, got ", groups);
  return std::vector<double>(std::size_t(groups), clip_threshold / std::sqrt(double(groups)));
}

DPMP_KEPT_BODY inline FlatClipping GroupClipping::group(index_t g) const {
  DPMP_CHECK(g >= 0 && g < groups(), "expected a group in [0, ", groups(), "), got ", g);
  return FlatClipping(thresholds_[std::size_t(g)], rule_);
}

DPMP_KEPT_BODY inline Sensitivity GroupClipping::sensitivity(NeighbouringRelation relation, index_t batch_bound) const {
  const double largest = *std::max_element(thresholds_.begin(), thresholds_.end());
  DPMP_CHECK(std::isfinite(largest), "expected finite clip thresholds, got ", largest,
             ": an unclipped sum has no finite sensitivity");
  double squares = 0;  // in units of the largest: nothing overflows, and one group keeps its bits
  // Fused in words, so that all builds get the same bits.
  for (double C : thresholds_) squares = std::fma(C / largest, C / largest, squares);
  const double up = groups() > 1 ? 1 + 0x1p-52 * (double(groups()) + 4) : 1;
  return FlatClipping(largest * std::sqrt(squares) * up).sensitivity(relation, batch_bound);
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
