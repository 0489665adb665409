// SPDX-License-Identifier: Apache-2.0
// The clipped weighted sum on tensor cores (bf16, f16). Each sample's gradient tile is formed in FP32 over its own tokens;
// c_i times it is exact in double and is added to the sum over samples there, one rounding a sample: what the sensitivity of
// the clipped sum is derived for (dp::rounding_share).
//
// A sample's tile (FP32) and the sum (double) live in registers, both as mma accumulators are laid out; the token chunks of
// one sample after another run through one cp.async pipeline that does not drain between samples. Global memory sees the sum
// once, after the last sample. Unevaluated sums of two floats would take as many registers, 8 operations an element and
// sample instead of a conversion and a multiply-add, and a pass over the sum in global memory every few samples; they would
// pay only on GPUs whose units of double precision are few.
#pragma once
#include "dpmp/kernels/weighted_sum_operands.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
/// One tile of Rows x Columns outputs, a warp owns WarpRows x 32 of them. 128 x 128 with WarpRows = 64: a k-step of 16
/// tokens reads 6 fragments for 16 mma; 64 x 64 with WarpRows = 32 is for small outputs.
template <class T, int Rows, int Columns, int WarpRows>
struct WeightedSumMatrix {
  static constexpr int tile_rows = Rows, tile_columns = Columns, warp_columns = 32;
  static constexpr int warps_across = Columns / warp_columns, threads = Rows / WarpRows * warps_across * 32;
  static constexpr int blocks_per_multiprocessor = Rows * Columns == 128 * 128 ? 1 : 3;
  static constexpr int chunk = 32, stages = 4;  // tokens of a pipeline stage
  static constexpr int b_bytes = chunk * Rows * 2, stage_bytes = b_bytes + chunk * Columns * 2;
  static constexpr std::size_t shared_bytes = std::size_t(stages) * stage_bytes;
  static constexpr int fragments_down = WarpRows / 16, fragments_across = warp_columns / 8;
  using Accumulators = float[fragments_down][fragments_across][4];
  using Sums = double[fragments_down][fragments_across][4];

  WeightedSumTask<T> task;

  __device__ void operator()(char* shared) const {
    const OwnedTile tile(task, Rows, Columns);
    TokenStream<WeightedSumMatrix, T> stream(task, tile, shared, tile.first_sample * task.in.tokens, tile.samples,
                                             task.in.tokens);
    for (int s = 0; s < stages - 1; ++s) stream.next();

    double* const output = task.output + index_t(blockIdx.y) * task.in.rows * task.in.columns;
    const FragmentRows rows;
    Accumulators sample = {};
    Sums sum = {};
    int stage = 0;
    for (int i = 0; i < int(tile.samples); ++i) {
      const float c = task.in.factors[tile.first_sample + i];
      for (int left = int(task.in.tokens); left > 0; left -= chunk) {
        copy_async_wait<stages - 2>();
        // After this barrier the copies of all threads are there, and all threads have left the stage that is filled next.
        __syncthreads();
        stream.next();
        multiply(shared + stage * stage_bytes, left, rows, sample);
        stage = stage + 1 == stages ? 0 : stage + 1;
      }
      fold(c, sample, sum);
    }
    copy_async_wait<0>();
    add_to_output(tile, output, task.split.splits > 1, sum);  // a slab starts as whatever the scratch held
  }

  /// Where 8 elements of a row of a stage are: xor with the row spreads 8 rows of one column over all banks, for ldmatrix.
  __device__ static int place(int width, int row, int vector) { return row * width * 2 + ((vector ^ (row & 7)) << 4); }

 private:
  __device__ static int lane() { return int(threadIdx.x) % 32; }
  __device__ static int warp_row() { return int(threadIdx.x) / 32 / warps_across * WarpRows; }
  __device__ static int warp_column() { return int(threadIdx.x) / 32 % warps_across * warp_columns; }

  /// Where in a stage this lane's rows of the first fragments are; those of fragment k at this xor k << 5: two vectors of 8
  /// on, in a warp's share of a row, which begins at a multiple of 4 vectors. Both operands are stored token by token, so
  /// both are read transposed.
  struct FragmentRows {
    int b, a;
    __device__ FragmentRows() {
      const int l = lane(), low = l % 8, middle = l / 8 % 2, high = l / 16;
      b = place(Rows, high * 8 + low, warp_row() / 8 + middle);
      a = b_bytes + place(Columns, middle * 8 + low, warp_column() / 8 + high);
    }
  };
  static_assert((WarpRows == 64 || WarpRows == 32) && warp_columns == 32);

  /// sample += the chunk's b^T a.
  __device__ static void multiply(const char* stage, int tokens, const FragmentRows& rows, Accumulators& sample) {
#pragma unroll
    for (int k = 0; k < chunk; k += 16) {
      if (k >= tokens) break;  // only zeros are left
      unsigned b[fragments_down][4], a[fragments_across / 2][4];
#pragma unroll
      for (int m = 0; m < fragments_down; ++m) load_matrix_x4_transposed(b[m], stage + (rows.b ^ (m << 5)) + k * Rows * 2);
#pragma unroll
      for (int n = 0; n < fragments_across / 2; ++n)
        load_matrix_x4_transposed(a[n], stage + (rows.a ^ (n << 5)) + k * Columns * 2);
#pragma unroll
      for (int m = 0; m < fragments_down; ++m)
#pragma unroll
        for (int n = 0; n < fragments_across; ++n)
          multiply_16_8_16<T>(sample[m][n], b[m], a[n / 2][n % 2 * 2], a[n / 2][n % 2 * 2 + 1]);
    }
  }

  /// sum += c sample where c > 0, by select: NaN and Inf of a dropped sample end here. sample = 0.
  __device__ static void fold(float c, Accumulators& sample, Sums& sum) {
    const bool counted = c > 0;
    const double factor = counted ? double(c) : 0.0;
#pragma unroll
    for (int m = 0; m < fragments_down; ++m)
#pragma unroll
      for (int n = 0; n < fragments_across; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          add_scaled(sum[m][n][e], factor, counted ? sample[m][n][e] : 0.0f);
          sample[m][n][e] = 0;
        }
  }

  /// output += sum, or output = sum where it is fresh.
  __device__ void add_to_output(const OwnedTile& tile, double* output, bool fresh, const Sums& sum) const {
    const index_t first_row = tile.first_row + warp_row() + lane() / 4;
    const index_t first_column = tile.first_column + warp_column() + lane() % 4 * 2;
#pragma unroll
    for (int m = 0; m < fragments_down; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h)
#pragma unroll
        for (int n = 0; n < fragments_across; ++n) {
          const OutputPair at(task, output, first_row + m * 16 + h * 8, first_column + n * 8);
          const double2 old = fresh ? double2{0, 0} : at.load();
          at.store({old.x + sum[m][n][h * 2], old.y + sum[m][n][h * 2 + 1]});
        }
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
