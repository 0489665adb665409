// SPDX-License-Identifier: Apache-2.0
// Sorting of what is sorted once a run: one copy of the algorithm for all element types.
#pragma once
#include <algorithm>
#include <numeric>
#include <vector>

#include "dpmp/core/function_ref.hpp"

namespace dpmp::inline DPMP_ABI::detail {
/// 0 .. n - 1 in the order of what stands there; less(a, b): whether place a comes before place b. Equal ones stay in order.
inline std::vector<index_t> sorted_places(std::size_t n, FunctionRef<bool(index_t, index_t)> less) {
  std::vector<index_t> places(n);
  std::iota(places.begin(), places.end(), index_t(0));
  std::stable_sort(places.begin(), places.end(), less);
  return places;
}
}  // namespace dpmp::inline DPMP_ABI::detail
