// SPDX-License-Identifier: Apache-2.0
// Table look-up by id, and adding one array to every sample.
#pragma once
#include "dpmp/core/low_precision.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// output[r, :] = table[ids[r], :], or zeros for an id < 0.
template <class T>
struct EmbeddingForward {
  using Real = compute_t<T>;
  const std::int32_t* ids;  // [rows]
  const T* table;           // [vocabulary, width]
  T* output;                // [rows, width]
  index_t width;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    // A padding id reads row 0 and multiplies it by 0, so that the work does not depend on the data.
    const std::int32_t id = ids[row];
    const T* x = table + index_t(id < 0 ? 0 : id) * width;
    const Real keep = id < 0 ? Real(0) : Real(1);
    team.for_each(width, [&](auto at) DPMP_LAMBDA { at.store(output + row * width, at.load(x) * keep); });
  }
};

/// output[i, :] = x[i, :] + y[:].
template <class T>
struct AddBroadcast {
  using Real = compute_t<T>;
  const T* x;  // [B, width]
  const T* y;  // [width]
  T* output;   // [B, width]
  index_t width;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    team.for_each(width,
                  [&](auto at) DPMP_LAMBDA { at.store(output + row * width, at.load(x + row * width) + at.load(y)); });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
