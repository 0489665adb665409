// SPDX-License-Identifier: Apache-2.0
// What a per-sample norm reads: the token rows of each sample.
#pragma once
#include "dpmp/core/error.hpp"
#include "dpmp/core/low_precision.hpp"

namespace dpmp::inline DPMP_ABI::kernels {
/// x[sample, t, 0 .. width): rows row_stride elements apart, samples tokens * row_stride.
template <class T>
struct SampleRows {
  const T* data;
  index_t width, row_stride;
};

namespace detail {
template <class T>
void check_sample_rows(index_t samples, index_t tokens, const SampleRows<T>& x) {
  DPMP_CHECK(samples >= 0 && tokens >= 0, "expected extents of at least 0, got ", samples, " samples of ", tokens,
             " tokens");
  DPMP_CHECK(tokens < 1 << 30 && x.width < 1 << 30, "expected extents below 2^30, got ", tokens, " tokens of width ",
             x.width);
  DPMP_CHECK(x.width >= 0 && x.row_stride >= x.width, "expected rows no wider than their stride, got width ", x.width,
             " and stride ", x.row_stride);
}
/// Tiles that cover the extent.
inline index_t tiles_of(index_t extent, index_t side) { return (extent + side - 1) / side; }
}  // namespace detail
}  // namespace dpmp::inline DPMP_ABI::kernels
