// SPDX-License-Identifier: Apache-2.0
// Sums of whole numbers: each record's clipped contribution is rounded to a public grid, and what is summed and noised are
// the integers. Sums of integers are exact in any order, so the sensitivity has no share for rounding, and it does not rest
// on the certificate of a norm: a contribution whose integers are longer than stated counts as 0 (docs/numerics.md, "Whole
// numbers").
#pragma once
#include <cmath>

#include "dpmp/dp/clipping.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// A grid for contributions of norm at most C with at most `dimensions` coordinates. Rounding moves a coordinate by at most
/// half a unit, a contribution by sqrt(dimensions) / 2 units: C / spacing + sqrt(dimensions) / 2 is what its integers are as
/// long as, at most.
struct IntegerGrid {
  double spacing = 0;               // a power of two: 2^-bits of the power of two below C
  std::int64_t largest_square = 0;  // of the integers' norm

  IntegerGrid() = default;
  /// Throws unless bits is in [8, 24] and dimensions in [1, 2^40].
  IntegerGrid(double clip_threshold, index_t bits, index_t dimensions);
  /// What one record changes the sum by, in the units of gradients; rounded up.
  double bound() const { return spacing * norm(); }
  /// The same in units of the grid.
  double norm() const { return std::sqrt(double(largest_square)) * (1 + 0x1p-50); }
  /// The least whole sigma, in units of the grid, that is at least `multiplier` times the sensitivity of a relation and of
  /// `records` records of a unit.
  index_t sigma(double multiplier, NeighbouringRelation relation, index_t records) const;
};
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include "dpmp/dp/discrete_gaussian.hpp"

namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline IntegerGrid::IntegerGrid(double clip_threshold, index_t bits, index_t dimensions) {
  DPMP_CHECK(clip_threshold >= smallest_threshold && clip_threshold <= largest_threshold,
             "expected a clip threshold in [2^-100, 2^120], got ", clip_threshold);
  DPMP_CHECK(bits >= 8 && bits <= 24, "expected a grid of 2^-8 to 2^-24 of the clip threshold, got 2^-", bits);
  DPMP_CHECK(dimensions >= 1 && dimensions <= index_t(1) << 40,
             "expected the number of trained values, in [1, 2^40], for a grid, got ", dimensions);
  spacing = std::ldexp(1.0, std::ilogb(clip_threshold) - int(bits));
  // C / spacing is exact and below 2^25; the root is rounded once, and so are sum and square.
  const double norm = (clip_threshold / spacing + 0.5 * std::sqrt(double(dimensions))) * (1 + 0x1p-50);
  largest_square = std::int64_t(std::ceil(norm * norm));
}

DPMP_KEPT_BODY inline index_t IntegerGrid::sigma(double multiplier, NeighbouringRelation relation, index_t records) const {
  const double least = multiplier * norm() * contributions_changed(relation) * double(records) * (1 + 0x1p-50);
  DPMP_CHECK(least >= 1 && least <= double(max_discrete_sigma), "expected noise of 1 to 2^40 units of the grid, got ", least,
             ": take another grid");
  return index_t(std::ceil(least));
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
