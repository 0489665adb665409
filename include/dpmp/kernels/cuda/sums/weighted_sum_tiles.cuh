// SPDX-License-Identifier: Apache-2.0
// The clipped weighted sum of samples of several tokens. Each sample's gradient tile is formed in FP32 over its own tokens,
// on tensor cores or, of float operands, by multiply-adds (tf32 would break the certificate); c_i times it is exact in
// double and is added to the sum over samples there, one rounding a sample: what the sensitivity of the clipped sum is
// derived for (dp::rounding_share).
//
// A sample's tile (FP32) and the sum (double) live in registers, element next to element. Global memory sees the sum once,
// after the last sample. Unevaluated sums of two floats would take as many registers, 8 operations an element and sample
// instead of a conversion and a multiply-add, and a pass over the sum in global memory every few samples; they would pay
// only on GPUs whose units of double precision are few.
#pragma once
#include "dpmp/kernels/cuda/sums/weighted_sum_operands.cuh"
#include "dpmp/kernels/cuda/tiles/gradient_tile.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
/// Ending of a gradient tile: sum += c_i times it where c_i > 0, by select: NaN and Inf of a dropped sample end here.
template <class Product>
struct FoldIntoSum {
  const float* factors;
  float factor = 0;
  double sums[Product::pairs][2] = {};

  __device__ __forceinline__ void begin(int sample) { factor = factors[sample]; }
  __device__ __forceinline__ void chunk(const char*) {}
  __device__ __forceinline__ void end(Product& product) {
    const bool counted = factor > 0;
    const double c = counted ? double(factor) : 0.0;
#pragma unroll
    for (int k = 0; k < Product::pairs; ++k)
#pragma unroll
      for (int j = 0; j < 2; ++j) add_scaled(sums[k][j], c, counted ? product.pair(k)[j] : 0.0f);
  }
};

/// A block's work: one tile of the sum, over one split's samples.
template <class T, int side>
struct WeightedSumTiles {
  using Tile = GradientTile<T, side, std::is_same_v<T, float> ? 2 : 4>;
  static constexpr int tile_rows = side, tile_columns = side, threads = Tile::threads;
  static constexpr int blocks_per_multiprocessor = side == 128 ? 1 : 3, shared_bytes = Tile::Stream::bytes;
  WeightedSumTask<T> task;

  __device__ void operator()(char* shared) const {
    const OwnedTile tile(task, side, side);
    typename Tile::Stream stream(shared, tile.rows_of(task.b), tile.rows_of(task.a), tile.first_row, tile.first_column,
                                 tile.samples);
    FoldIntoSum<typename Tile::Product> sum{task.factors + tile.first_sample};
    Tile::for_each_sample(stream, tile.samples, task.b.rows, sum);
    Tile::Product::for_each_pair(
        [&](int k, int row, int column) { task.add(tile.first_row + row, tile.first_column + column, sum.sums[k]); });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
