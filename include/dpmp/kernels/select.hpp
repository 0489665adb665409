// SPDX-License-Identifier: Apache-2.0
// Choosing between two arrays by a mask, and rows by number. Work and memory traffic do not depend on masks or ids.
#pragma once
#include <limits>

#include "dpmp/core/low_precision.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// output = mask != 0 ? x : y; x or y null: zeros. inner: elements that share an element of the mask. With inner 1 a row is
/// any `width` elements, otherwise it is what shares one.
template <class T>
struct Select {
  using Real = compute_t<T>;
  using Storage = T;
  const std::int32_t* mask;  // [rows * width / inner]
  const T* x;                // [rows, width]
  const T* y;                // [rows, width]
  T* output;                 // [rows, width]
  index_t width, inner;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    using Pack = typename Team::Pack;
    const index_t first = row * width;
    const std::int32_t* chosen = mask + (inner > 1 ? row : first);
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      Pack on;
      for (int k = 0; k < int(sizeof(on) / sizeof(Real)); ++k) {
        const index_t i = at.offset + k;  // lanes past the end read the last element again; they are not stored
        on.v[k] = chosen[inner > 1 ? 0 : i < width ? i : width - 1] != 0 ? Real(1) : Real(0);
      }
      const Pack a = x ? at.load(x + first) : Pack{}, b = y ? at.load(y + first) : Pack{};
      at.store(output + first, select_less(Pack{}, on, a, b));
    });
  }
};

/// output[b, k, :] = input[b, ids[b, k], :], NaN where that is no row. kept[b, k]: the id, -1 for none. One (b, k) a row.
template <class T>
struct GatherRows {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;           // [B, rows, width]
  const std::int32_t* ids;  // [B, picked]
  T* output;                // [B, picked, width]
  std::int32_t* kept;       // [B, picked]
  index_t rows, picked, width;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    // Every id reads some row and multiplies it, so that the work does not depend on the data.
    const std::int32_t id = ids[row];
    const bool inside = id >= 0 && id < rows;
    const T* x = input + (row / picked * rows + index_t(inside ? id : 0)) * width;
    const Real keep = inside ? Real(1) : std::numeric_limits<Real>::quiet_NaN();
    team.for_each(width, [&](auto at) DPMP_LAMBDA { at.store(output + row * width, at.load(x) * keep); });
    kept[row] = inside ? id : -1;
  }
};

/// sums[b, r, :] += the gradients [b, k, :] of every k with kept[b, k] = r, in the order of k; one sample a row, each column
/// by itself.
template <class T>
struct ScatterRows {
  using Real = compute_t<T>;
  using Storage = Real;      // the widest array
  const T* gradient;         // [B, picked, width]
  const std::int32_t* kept;  // [B, picked]
  Real* sums;                // [B, rows, width]
  index_t rows, picked, width;
  static constexpr bool columns_apart = true;
  DPMP_HD index_t columns() const { return width; }

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t sample) const {
    using Pack = typename Team::Pack;
    Real* to = sums + sample * rows * width;
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      for (index_t k = sample * picked; k < (sample + 1) * picked; ++k) {
        // An id that was no row adds zeros to row 0.
        const std::int32_t id = kept[k];
        Real* y = to + index_t(id < 0 ? 0 : id) * width;
        const Pack kind = Pack::splat(id < 0 ? Real(0) : Real(1));
        at.store(y, at.load(y) + select_less(Pack{}, kind, at.load(gradient + k * width), Pack{}));
      }
    });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
