// SPDX-License-Identifier: Apache-2.0
// The clipped weighted sum by FP32 multiply-adds: float storage (the tensor cores' tf32 would break the certificate), and
// samples of one token in every dtype, whose gradient is an outer product that is used and forgotten.
#pragma once
#include "dpmp/kernels/weighted_sum_operands.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
/// A tile of 128 x 64 outputs, 8 x 4 a thread, whose sums over samples stay in registers in double until the end. OneToken:
/// [samples, 1, ..] is one stream of rows and a sample's tile is never formed: c b a, exact, is added with one rounding.
/// Otherwise a sample's tile is summed over its tokens in FP32, as on tensor cores.
template <class T, bool OneToken>
struct WeightedSumScalar {
  static constexpr int tile_rows = 128, tile_columns = 64, threads = 256, blocks_per_multiprocessor = OneToken ? 2 : 1;
  static constexpr int chunk = 16, stages = 4;
  static constexpr int b_bytes = chunk * tile_rows * int(sizeof(T));
  static constexpr int stage_bytes = b_bytes + chunk * tile_columns * int(sizeof(T));
  static constexpr std::size_t shared_bytes = std::size_t(stages) * stage_bytes;
  /// A thread's outputs: rows in two quads 16 apart, columns in two pairs 16 apart; 4 x 8 threads are a warp.
  template <class R>
  using Outputs = R[8][4];

  WeightedSumTask<T> task;

  __device__ void operator()(char* shared) const {
    const OwnedTile tile(task, tile_rows, tile_columns);
    double* const output = task.output + index_t(blockIdx.y) * task.in.rows * task.in.columns;
    const bool fresh = task.split.splits > 1;  // a slab starts as whatever the scratch held
    if constexpr (OneToken)
      sum_products(shared, tile, output, fresh);
    else
      sum_tiles(shared, tile, output, fresh);
  }
  __device__ static int place(int width, int row, int vector) { return row * width * int(sizeof(T)) + vector * 16; }

 private:
  __device__ void sum_tiles(char* shared, const OwnedTile& tile, double* output, bool fresh) const {
    TokenStream<WeightedSumScalar, T> stream(task, tile, shared, tile.first_sample * task.in.tokens, tile.samples,
                                             task.in.tokens);
    for (int s = 0; s < stages - 1; ++s) stream.next();
    Outputs<float> sample = {};
    Outputs<double> sum = {};
    int stage = 0;
    for (index_t i = 0; i < tile.samples; ++i) {
      const float c = task.in.factors[tile.first_sample + i];
      for (int left = int(task.in.tokens); left > 0; left -= chunk) {
        const char* const at = arrived(stream, shared, stage);
        const int tokens = left < chunk ? left : chunk;
#pragma unroll 1  // the operands of two tokens at once would spill on sm_90 and later
        for (int k = 0; k < tokens; ++k) {
          float b[8], a[4];
          widen<4>(row_operand(at, k), b);
          widen<4>(row_operand(at, k) + 16, b + 4);
          widen<2>(column_operand(at, k), a);
          widen<2>(column_operand(at, k) + 16, a + 2);
#pragma unroll
          for (int r = 0; r < 8; ++r)
#pragma unroll
            for (int n = 0; n < 4; ++n) sample[r][n] = fmaf(b[r], a[n], sample[r][n]);
        }
      }
      // By select: NaN and Inf of a dropped sample end here.
      const bool counted = c > 0;
      const double factor = counted ? double(c) : 0.0;
#pragma unroll
      for (int r = 0; r < 8; ++r)
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          add_scaled(sum[r][n], factor, counted ? sample[r][n] : 0.0f);
          sample[r][n] = 0;
        }
    }
    copy_async_wait<0>();
    add_to_output(tile, output, fresh, sum);
  }

  __device__ void sum_products(char* shared, const OwnedTile& tile, double* output, bool fresh) const {
    TokenStream<WeightedSumScalar, T> stream(task, tile, shared, tile.first_sample, 1, tile.samples);
    for (int s = 0; s < stages - 1; ++s) stream.next();
    Outputs<double> sum = {};
    int stage = 0;
    for (index_t first = 0; first < tile.samples; first += chunk) {
      const char* const at = arrived(stream, shared, stage);
      const float* const factors = task.in.factors + tile.first_sample + first;
      const index_t left = tile.samples - first;
      const int count = left < chunk ? int(left) : chunk;
#pragma unroll 1
      for (int k = 0; k < count; ++k) add_product(at, k, factors[k], sum);
    }
    copy_async_wait<0>();
    add_to_output(tile, output, fresh, sum);
  }

  /// sum += c b a for one sample. c b is exact in double, and so is the product that the fused addition takes.
  __device__ static void add_product(const char* stage, int k, float c, Outputs<double>& sum) {
    const bool counted = c > 0;
    const double factor = counted ? double(c) : 0.0;
    float b[8], a[4];
    widen<4>(row_operand(stage, k), b);
    widen<4>(row_operand(stage, k) + 16, b + 4);
    widen<2>(column_operand(stage, k), a);
    widen<2>(column_operand(stage, k) + 16, a + 2);
    // Both are selected before they meet: the products of a dropped sample are zeros.
    double wide[4];
#pragma unroll
    for (int n = 0; n < 4; ++n) wide[n] = double(counted ? a[n] : 0.0f);
#pragma unroll
    for (int r = 0; r < 8; ++r) {
      const double scaled = factor * double(counted ? b[r] : 0.0f);
#pragma unroll
      for (int n = 0; n < 4; ++n) sum[r][n] = fma(scaled, wide[n], sum[r][n]);
    }
  }

  /// Waits for the next stage, starts the copies of the one that all threads have left, and returns the new one.
  __device__ static const char* arrived(TokenStream<WeightedSumScalar, T>& stream, const char* shared, int& stage) {
    copy_async_wait<stages - 2>();
    __syncthreads();
    stream.next();
    const char* const at = shared + stage * stage_bytes;
    stage = stage + 1 == stages ? 0 : stage + 1;
    return at;
  }

  __device__ static int first_row() { return int(threadIdx.x) / 64 * 32 + int(threadIdx.x) % 32 / 8 * 4; }
  __device__ static int first_column() { return int(threadIdx.x) / 32 % 2 * 32 + int(threadIdx.x) % 8 * 2; }
  __device__ static int row_of(int r) { return first_row() + r / 4 * 16 + r % 4; }

  /// A thread's share of row k of a stage. A warp reads neighbouring bytes, at most 64 of each operand: no bank conflicts.
  __device__ static const T* row_operand(const char* stage, int k) {
    return reinterpret_cast<const T*>(stage) + k * tile_rows + first_row();
  }
  __device__ static const T* column_operand(const char* stage, int k) {
    return reinterpret_cast<const T*>(stage + b_bytes) + k * tile_columns + first_column();
  }
  template <int N>
  __device__ static void widen(const T* x, float* y) {
    struct alignas(N * sizeof(T)) Pack {
      T v[N];
    };
    const Pack pack = *reinterpret_cast<const Pack*>(x);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      if constexpr (std::is_same_v<T, f16>)
        asm("cvt.f32.f16 %0, %1;" : "=f"(y[k]) : "h"(pack.v[k].bits));
      else
        y[k] = to_float(pack.v[k]);
    }
  }

  /// output += x, or output = x where it is fresh.
  __device__ void add_to_output(const OwnedTile& tile, double* output, bool fresh, const Outputs<double>& x) const {
    const index_t column = tile.first_column + first_column();
#pragma unroll
    for (int r = 0; r < 8; ++r)
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const OutputPair at(task, output, tile.first_row + row_of(r), column + n * 16);
        const double2 old = fresh ? double2{0, 0} : at.load();
        at.store({old.x + x[r][n * 2], old.y + x[r][n * 2 + 1]});
      }
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
