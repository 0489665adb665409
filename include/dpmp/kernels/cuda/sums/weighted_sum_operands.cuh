// SPDX-License-Identifier: Apache-2.0
// What the kernels of the clipped weighted sum have in common: their operands, which tile a thread block owns, and how the
// sum over samples grows in double and gets to memory.
#pragma once
#include "dpmp/kernels/cuda/sums/sample_splits.cuh"
#include "dpmp/kernels/cuda/tiles/tile_loader.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
/// sum += sum_i c_i G_i with G_i = sum_t b_{i,t} a_{i,t}^T.
template <class T>
struct WeightedSumOperands {
  const T* a;            // [samples, tokens, columns]
  const T* b;            // [samples, tokens, rows]
  const float* factors;  // [samples], c_i; a sample counts where c_i > 0
  double* sum;           // [rows, columns]
  index_t samples, tokens, rows, columns;
};

/// What one launch works on, and where its thread blocks put their sums.
template <class T>
struct WeightedSumTask {
  RowMajor<T> a, b;  // of sample 0: [tokens, columns], [tokens, rows]
  const float* factors;
  index_t samples, samples_each;  // of a split
  double* output;                 // the sum, to be added to, or a slab [rows, columns] for each split, to be written
  bool slabs;
  bool pairs;  // two neighbouring outputs of even column are 16-byte aligned

  /// Output (row, column) and the next one of its row += x, or = x in a slab, where they exist.
  __device__ __forceinline__ void add(int row, int column, const double (&x)[2]) const {
    const bool first = row < b.columns && column < a.columns, second = row < b.columns && column + 1 < a.columns;
    double* const at = output + (index_t(blockIdx.y) * b.columns + row) * a.columns + column;
    if (pairs) {
      if (!first) return;
      double2& out = *reinterpret_cast<double2*>(at);
      const double2 old = slabs ? double2{0, 0} : out;
      out = {old.x + x[0], old.y + x[1]};
    } else {
      if (first) at[0] = slabs ? x[0] : at[0] + x[0];
      if (second) at[1] = slabs ? x[1] : at[1] + x[1];
    }
  }
};

/// The tile and the samples of a thread block. Tiles are numbered in bands of 8 tile rows, column by column, so that the
/// blocks that run together form a patch and share their operands in the L2 cache.
struct OwnedTile {
  int first_row, first_column, samples;
  index_t first_sample;

  template <class T>
  __device__ OwnedTile(const WeightedSumTask<T>& task, int tile_rows, int tile_columns) {
    constexpr int band = 8;
    const int across = (task.a.columns + tile_columns - 1) / tile_columns,
              down = (task.b.columns + tile_rows - 1) / tile_rows;
    const int top = int(blockIdx.x) / (band * across) * band, place = int(blockIdx.x) % (band * across);
    const int height = down - top < band ? down - top : band;
    first_row = (top + place % height) * tile_rows;
    first_column = place / height * tile_columns;
    first_sample = index_t(blockIdx.y) * task.samples_each;
    const index_t left = task.samples - first_sample;
    samples = int(left < task.samples_each ? left : task.samples_each);
  }
  /// An operand from this block's first sample on.
  template <class T>
  __device__ RowMajor<T> rows_of(RowMajor<T> x) const {
    x.data += first_sample * x.rows * x.row_stride;
    return x;
  }
};

/// sum += factor x, where factor is an FP32 number: the product is exact, one rounding in all. Kept in program order: the
/// conversions of a whole tile, made ahead of their use, would not fit into the registers.
__device__ __forceinline__ void add_scaled(double& sum, double factor, float x) {
  double wide;
  asm volatile("cvt.f64.f32 %0, %1;" : "=d"(wide) : "f"(x));
  asm volatile("fma.rn.f64 %0, %1, %2, %0;" : "+d"(sum) : "d"(factor), "d"(wide));
}

namespace detail {
/// Launches a kernel K{WeightedSumTask} over tiles and splits, then adds the slabs.
template <class K, class T>
void launch_weighted_sum(cudaStream_t stream, const WeightedSumOperands<T>& in, const SampleSplits& split, double* scratch,
                         index_t scratch_doubles) {
  const index_t elements = in.rows * in.columns;
  DPMP_CHECK(std::max({in.samples, in.tokens, in.rows, in.columns}) < index_t(1) << 30, "expected extents below 2^30, got ",
             in.samples, " samples of ", in.tokens, " tokens, ", in.rows, " rows, ", in.columns, " columns");
  DPMP_CHECK(split.splits >= 1 && split.splits <= 65535 && split.splits * split.samples_each >= in.samples &&
                 (split.splits - 1) * split.samples_each < in.samples,
             "expected splits that cover ", in.samples, " samples, got ", split.splits, " splits of ", split.samples_each,
             " samples");
  DPMP_CHECK(in.samples <= samples_per_chain, "expected a sum over at most ", samples_per_chain,
             " samples, the longest chain of additions in double, got ", in.samples, ": cut the batch");
  DPMP_CHECK(scratch_doubles >= split.scratch(elements), "expected scratch of ", split.scratch(elements), " doubles for ",
             split.splits, " splits of ", in.rows, " x ", in.columns, ", got ", scratch_doubles);
  const index_t tiles = ceil_div(in.rows, K::tile_rows) * ceil_div(in.columns, K::tile_columns);
  DPMP_CHECK(tiles < (index_t(1) << 31), "expected fewer than 2^31 output tiles, got ", tiles);
  double* const output = split.splits > 1 ? scratch : in.sum;
  const bool pairs = reinterpret_cast<std::uintptr_t>(output) % 16 == 0 && in.columns % 2 == 0;
  launch_blocks(stream, dim3(unsigned(tiles), unsigned(split.splits)), K::shared_bytes,
                K{{row_major(in.a, in.tokens, in.columns, in.columns), row_major(in.b, in.tokens, in.rows, in.rows),
                   in.factors, in.samples, split.samples_each, output, split.splits > 1, pairs}});
  if (split.splits > 1) add_slabs(stream, scratch, in.sum, split.splits, elements);
}
}  // namespace detail
}  // namespace dpmp::inline DPMP_ABI::kernels
