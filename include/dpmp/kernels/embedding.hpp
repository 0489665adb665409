// SPDX-License-Identifier: Apache-2.0
// Table look-up by id, and adding one array to every sample.
#pragma once
#include <limits>

#include "dpmp/core/low_precision.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// output[r, :] = table[ids[r], :], zeros where ids[r] is the padding id, NaN where it is no row of the table: the sample is
/// then not finite, and nothing else is. kept[r]: the id, -1 for a row that was not read.
template <class T>
struct EmbeddingForward {
  using Real = compute_t<T>;
  using Storage = T;
  const std::int32_t* ids;  // [rows]
  const T* table;           // [vocabulary, width]
  T* output;                // [rows, width]
  std::int32_t* kept;       // [rows]
  index_t vocabulary, width;
  bool has_padding;
  std::int32_t padding;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    // Every id reads some row and multiplies it, so that the work does not depend on the data.
    const std::int32_t id = ids[row];
    const bool pad = has_padding && id == padding, inside = !pad && id >= 0 && id < vocabulary;
    const T* x = table + index_t(inside ? id : 0) * width;
    const Real keep = inside ? Real(1) : pad ? Real(0) : std::numeric_limits<Real>::quiet_NaN();
    team.for_each(width, [&](auto at) DPMP_LAMBDA { at.store(output + row * width, at.load(x) * keep); });
    kept[row] = inside ? id : -1;
  }
};

/// output[i, :] = x[i, :] + y[:].
template <class T>
struct AddBroadcast {
  using Real = compute_t<T>;
  using Storage = T;
  const T* x;  // [B, width]
  const T* y;  // [width]
  T* output;   // [B, width]
  index_t width;
  static constexpr bool columns_apart = true;
  DPMP_HD index_t columns() const { return width; }

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    team.for_each(width,
                  [&](auto at) DPMP_LAMBDA { at.store(output + row * width, at.load(x + row * width) + at.load(y)); });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
