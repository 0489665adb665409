// SPDX-License-Identifier: Apache-2.0
// The clipped weighted sum of samples of one token, whose gradient is an outer product that is used and forgotten: by
// multiply-adds in double, for every dtype.
#pragma once
#include "dpmp/kernels/cuda/sums/weighted_sum_operands.cuh"
#include "dpmp/kernels/cuda/tiles/gradient_tile.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
/// A tile of 128 x 64 outputs, 8 x 4 a thread, whose sums over samples stay in registers in double until the end. The rows
/// of a split's samples are one stream, and a sample's tile is never formed: c b a, exact, is added with one rounding.
template <class T>
struct WeightedSumRankOne {
  static constexpr int tile_rows = 128, tile_columns = 64, threads = 256, blocks_per_multiprocessor = 2;
  static constexpr int chunk = 64 / int(sizeof(T));  // samples of a stage
  using Stream = TokenStream<T, chunk, tile_rows, tile_columns, 4, threads>;
  static constexpr int shared_bytes = Stream::bytes;
  WeightedSumTask<T> task;

  __device__ void operator()(char* shared) const {
    const OwnedTile tile(task, tile_rows, tile_columns);
    RowMajor<T> b = tile.rows_of(task.b), a = tile.rows_of(task.a);
    b.rows = a.rows = tile.samples;
    Stream stream(shared, b, a, tile.first_row, tile.first_column, 1);
    Sums sum = {};
    for (int first = 0; first < tile.samples; first += chunk) {
      const char* const at = stream.next();
      const float* const factors = task.factors + tile.first_sample + first;
      const int count = tile.samples - first < chunk ? tile.samples - first : chunk;
#pragma unroll 1
      for (int k = 0; k < count; ++k) add_product(at, k, factors[k], sum);
    }
#pragma unroll
    for (int r = 0; r < 8; ++r)
#pragma unroll
      for (int n = 0; n < 2; ++n)
        task.add(tile.first_row + first_row() + r / 4 * 16 + r % 4, tile.first_column + first_column() + n * 16, sum[r][n]);
  }

 private:
  /// A thread's outputs: rows in two quads 16 apart, columns in two pairs 16 apart; 4 x 8 threads are a warp.
  using Sums = double[8][2][2];
  __device__ static int first_row() { return int(threadIdx.x) / 64 * 32 + int(threadIdx.x) % 32 / 8 * 4; }
  __device__ static int first_column() { return int(threadIdx.x) / 32 % 2 * 32 + int(threadIdx.x) % 8 * 2; }

  /// sum += c b a for one sample. c b is exact in double, and so is the product that the fused addition takes.
  __device__ static void add_product(const char* stage, int k, float c, Sums& sum) {
    const bool counted = c > 0;
    const double factor = counted ? double(c) : 0.0;
    float b[8], a[4];
    for (int half = 0; half < 2; ++half) {
      widen<4, typename Stream::B>(stage, k, first_row() + half * 16, b + half * 4);
      widen<2, typename Stream::A>(stage + Stream::B::bytes, k, first_column() + half * 16, a + half * 2);
    }
    // Both are selected before they meet: the products of a dropped sample are zeros.
    double wide[4];
#pragma unroll
    for (int n = 0; n < 4; ++n) wide[n] = double(counted ? a[n] : 0.0f);
#pragma unroll
    for (int r = 0; r < 8; ++r) {
      const double scaled = factor * double(counted ? b[r] : 0.0f);
#pragma unroll
      for (int n = 0; n < 4; ++n) sum[r][n / 2][n % 2] = fma(scaled, wide[n], sum[r][n / 2][n % 2]);
    }
  }

  /// N numbers of row k of a tile. A warp reads neighbouring bytes, at most 64 of each operand: no bank conflicts.
  template <int N, class Tile>
  __device__ static void widen(const char* tile, int k, int column, float* y) {
    struct alignas(N * sizeof(T)) Pack {
      T v[N];
    };
    const Pack pack = *reinterpret_cast<const Pack*>(Tile::at(tile, k, column / Tile::per_piece) +
                                                     column % Tile::per_piece * int(sizeof(T)));
#pragma unroll
    for (int j = 0; j < N; ++j) {
      if constexpr (std::is_same_v<T, f16>)
        asm("cvt.f32.f16 %0, %1;" : "=f"(y[j]) : "h"(pack.v[j].bits));
      else
        y[j] = to_float(pack.v[j]);
    }
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
