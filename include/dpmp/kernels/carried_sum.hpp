// SPDX-License-Identifier: Apache-2.0
// Sums of packs, column by column, over many rows: as if added in twice the precision.
#pragma once
#include <limits>

#include "dpmp/core/config.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// Adds packs one by one and carries what each addition rounds away (Knuth, The Art of Computer Programming 2, 4.2.2,
/// theorem B). The total's error is a unit in the last place and n^2 u^2 sum |x|, u the unit roundoff of compute precision.
template <class Pack>
struct CarriedSum {
  Pack sum{}, carried{};

  DPMP_ANY_TEAM
  DPMP_HD void add(const Pack& x) {
    const Pack next = sum + x, added = next - sum;
    carried = carried + ((sum - (next - added)) + (x - added));
    sum = next;
  }
  /// Of an infinite sum what was carried is NaN, and the sum is meant.
  DPMP_ANY_TEAM
  DPMP_HD Pack total() const {
    const Pack most = Pack::splat(std::numeric_limits<typename Pack::Scalar>::max()), both = sum + carried;
    return select_less(most, sum, sum, select_less(sum, -most, sum, both));
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
