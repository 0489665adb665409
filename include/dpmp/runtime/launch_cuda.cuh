// SPDX-License-Identifier: Apache-2.0
// Who runs a kernel functor on a GPU: the other half of runtime/launch.hpp.
#pragma once
#include <algorithm>

#include "dpmp/runtime/cuda_device.cuh"
#include "dpmp/runtime/cuda_error.cuh"
#include "dpmp/runtime/launch.hpp"
#include "dpmp/runtime/launch_many.hpp"
#include "dpmp/runtime/team_cuda.cuh"

namespace dpmp::inline DPMP_ABI::detail {
inline constexpr int cuda_block = 256;

/// The functor's widest array, which decides how many elements 16 bytes are; Real unless it says otherwise.
template <class F>
struct StorageOf {
  using type = typename F::Real;
};
template <class F>
requires requires { typename F::Storage; }
struct StorageOf<F> {
  using type = typename F::Storage;
};
template <class F>
inline constexpr int pack_width = 16 / int(sizeof(typename StorageOf<F>::type));
/// A functor that works element by element, not in packs, says `elements_each = 1`: then neighbours go to neighbouring
/// lanes.
template <class F>
requires requires { F::elements_each; }
inline constexpr int pack_width<F> = F::elements_each;

template <class F>
concept ColumnsApart = requires {
  requires F::columns_apart;
};

template <int Threads, class F>
__global__ void __launch_bounds__(cuda_block) rows_kernel(const F f, index_t rows) {
  const index_t row = index_t(blockIdx.x) * (cuda_block / Threads) + threadIdx.x / Threads;
  if (row < rows) f(CudaTeam<typename F::Real, pack_width<F>, Threads>{}, row);
}
template <class F>
__global__ void __launch_bounds__(cuda_block) columns_kernel(const F f) {
  constexpr int W = pack_width<F>;
  f(CudaColumns<typename F::Real, W>{(index_t(blockIdx.y) * cuda_block + threadIdx.x) * W}, blockIdx.x);
}
template <class F>
__global__ void __launch_bounds__(cuda_block) elements_kernel(const F f, index_t n) {
  constexpr int W = pack_width<F>;
  const index_t first = (index_t(blockIdx.x) * cuda_block + threadIdx.x) * W;
  if (first < n) f(CudaSpan<typename F::Real, W>{first, n - first < W ? int(n - first) : W});
}

/// Blocks of `each` for `n` items; throws when there are more than a grid has.
inline unsigned blocks_for(index_t n, index_t each, index_t limit = index_t(0x7fffffff)) {
  const index_t blocks = (n + each - 1) / each;
  DPMP_CHECK(blocks <= limit, "expected at most ", limit, " blocks of ", each, " for a CUDA launch, got ", n, " items");
  return unsigned(blocks);
}
inline void check_launch(index_t n) {
  check_cuda(cudaGetLastError(), concat("launch a kernel for ", n, " rows or elements"));
}

/// A warp for each row; a block where a row is long enough to keep one busy; where columns are independent (a functor with
/// `columns_apart`) a thread for each 16 bytes, because there are few rows: one a sample or one a parameter row.
template <class F>
void launch_rows_on_cuda(Context& ctx, index_t rows, index_t row_work, const F& f) {
  static_assert(sizeof(F) + sizeof rows <= kernel_argument_bytes);
  if (rows == 0) return;
  const auto stream = stream_of(ctx);
  if constexpr (ColumnsApart<F>) {
    const unsigned slices = blocks_for(std::max<index_t>(f.columns(), 1), cuda_block * pack_width<F>, 65535);
    columns_kernel<F><<<dim3(blocks_for(rows, 1), slices), cuda_block, 0, stream>>>(f);
  } else if (row_work < index_t(16 * 32) * pack_width<F>) {
    rows_kernel<32, F><<<blocks_for(rows, cuda_block / 32), cuda_block, 0, stream>>>(f, rows);
  } else {
    rows_kernel<cuda_block, F><<<blocks_for(rows, 1), cuda_block, 0, stream>>>(f, rows);
  }
  check_launch(rows);
}

template <class F>
void launch_elements_on_cuda(Context& ctx, index_t n, const F& f) {
  static_assert(sizeof(F) + sizeof n <= kernel_argument_bytes);
  if (n == 0) return;
  const auto stream = stream_of(ctx);
  elements_kernel<F><<<blocks_for(n, cuda_block * pack_width<F>), cuda_block, 0, stream>>>(f, n);
  check_launch(n);
}
}  // namespace dpmp::inline DPMP_ABI::detail
