// SPDX-License-Identifier: Apache-2.0
// Repeating an array along some of its axes, and the reverse: sums over these axes, in twice the compute precision.
#pragma once
#include "dpmp/core/low_precision.hpp"
#include "dpmp/kernels/carried_sum.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// A full array [outer, first, middle, second, inner] and a small one [outer, middle, inner]: of up to four axes after the
/// sample axis at most two runs are repeated, because something is kept between two runs.
struct AxisRuns {
  index_t outer = 1, first = 1, middle = 1, second = 1, inner = 1;

  DPMP_HD index_t full(index_t o, index_t i, index_t m) const { return ((o * first + i) * middle + m) * second * inner; }
};

/// full[o, i, m, j, k] = factor * small[o, m, k]; one (o, i, m) a row.
template <class T>
struct Expand {
  using Real = compute_t<T>;
  using Storage = T;
  const T* small;
  T* full;
  AxisRuns runs;
  Real factor;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    using Pack = typename Team::Pack;
    const index_t m = row % runs.middle, o = row / runs.middle / runs.first;
    const T* x = small + (o * runs.middle + m) * runs.inner;
    T* y = full + row * runs.second * runs.inner;
    if (runs.inner > 1) {
      for (index_t j = 0; j < runs.second; ++j)
        team.for_each(runs.inner, [&](auto at) DPMP_LAMBDA { at.store(y + j * runs.inner, at.load(x) * factor); });
    } else {
      const Real value = to_float(*x);
      team.for_each(runs.second, [&](auto at) DPMP_LAMBDA { at.store(y, Pack::splat(value) * factor); });
    }
  }
};

/// small[o, m, k] = factor * sum over i and j of full[o, i, m, j, k], rounded once; one (o, m) a row. The order of a sum
/// depends on the extents alone.
template <class T>
struct SumRuns {
  using Real = compute_t<T>;
  using Storage = T;
  const T* full;
  T* small;
  AxisRuns runs;
  Real factor;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    using Pack = typename Team::Pack;
    const index_t m = row % runs.middle, o = row / runs.middle;
    T* y = small + row * runs.inner;
    if (runs.inner > 1) {
      team.for_each(runs.inner, [&](auto at) DPMP_LAMBDA {
        CarriedSum<Pack> sum;
        for (index_t i = 0; i < runs.first; ++i)
          for (index_t j = 0; j < runs.second; ++j) sum.add(at.load(full + runs.full(o, i, m) + j * runs.inner));
        at.store(y, sum.total() * factor);
      });
    } else {
      double sum = 0;
      for (index_t i = 0; i < runs.first; ++i)
        sum += team.wide_sum(runs.second, [&](auto at) DPMP_LAMBDA { return at.load(full + runs.full(o, i, m)); });
      team.for_each(1, [&](auto at) DPMP_LAMBDA { at.store(y, Pack::splat(Real(sum)) * factor); });
    }
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
