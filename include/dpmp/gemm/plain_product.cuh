// SPDX-License-Identifier: Apache-2.0
// A matrix product on a GPU in which every element is one chain of fused multiply-adds in the order of k, whatever its row,
// its matrix of the batch and its neighbours are. Slow, and nothing about it has to be found out.
#pragma once
#include "dpmp/gemm/spec.hpp"
#include "dpmp/runtime/launch_blocks.cuh"
#include "dpmp/runtime/team_cuda.cuh"

namespace dpmp::inline DPMP_ABI::detail {
/// out = alpha op(a) op(b) + bias + residual, or out += alpha op(a) op(b), rounded once; what else the spec asks for is left
/// undone.
template <class T, class Out>
struct PlainProduct {
  using Real = compute_t<T>;
  static constexpr int side = 16, threads = side * side, blocks_per_multiprocessor = 4;
  static constexpr std::size_t shared_bytes = 2 * side * (side + 1) * sizeof(Real);
  GemmSpec s;
  index_t across, down;  // tiles

  __device__ void operator()(char* shared) const {
    using Tile = Real[side][side + 1];
    Tile &x = reinterpret_cast<Tile*>(shared)[0], &y = reinterpret_cast<Tile*>(shared)[1];
    const index_t place = index_t(blockIdx.x), batch = place / (across * down);
    const int i = int(threadIdx.x) / side, j = int(threadIdx.x) % side;
    const index_t row = place / across % down * side + i, column = place % across * side + j;
    Real sum = 0;
    for (index_t first = 0; first < s.k; first += side) {
      x[i][j] = element(s.a, batch, row, first + j, s.m, s.k);
      y[i][j] = element(s.b, batch, first + i, column, s.k, s.n);
      __syncthreads();
      const int count = s.k - first < side ? int(s.k - first) : side;
      for (int k = 0; k < count; ++k) sum = fma(x[i][k], y[k][j], sum);
      __syncthreads();
    }
    if (row >= s.m || column >= s.n) return;
    Out* const out = static_cast<Out*>(s.out.data) + batch * s.out.batch_stride + row * s.out.row_stride + column;
    sum *= Real(s.alpha);
    if (s.bias) sum += widened(static_cast<const T*>(s.bias)[column]);
    if (s.accumulate) sum += Real(widened(*out));
    if (s.residual)
      sum += Real(widened(
          static_cast<const Out*>(s.residual)[batch * s.residual_batch_stride + row * s.residual_row_stride + column]));
    *out = narrowed<Out>(sum);
  }

 private:
  __device__ static Real element(const GemmOperand& x, index_t batch, index_t row, index_t column, index_t rows,
                                 index_t columns) {
    if (row >= rows || column >= columns) return 0;
    const index_t at = x.transposed ? column * x.row_stride + row : row * x.row_stride + column;
    return widened(static_cast<const T*>(x.data)[batch * x.batch_stride + at]);
  }
};

template <class T, class Out>
void launch_plain_product(cudaStream_t stream, const GemmSpec& s) {
  using Kernel = PlainProduct<T, Out>;
  const index_t across = (s.n + Kernel::side - 1) / Kernel::side, down = (s.m + Kernel::side - 1) / Kernel::side;
  DPMP_CHECK(across * down * s.batch < index_t(1) << 31, "expected fewer than 2^31 tiles of a product, got ", s.batch,
             " of ", s.m, " x ", s.n);
  launch_blocks(stream, dim3(unsigned(across * down * s.batch)), Kernel::shared_bytes, Kernel{s, across, down});
}

/// Nothing of s is empty, k may be 0.
inline void plain_product(cudaStream_t stream, const GemmSpec& s) {
  dispatch_stored(s.a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (s.out.dtype == s.a.dtype)
      launch_plain_product<T, T>(stream, s);
    else
      launch_plain_product<T, compute_t<T>>(stream, s);
  });
}
}  // namespace dpmp::inline DPMP_ABI::detail
