// SPDX-License-Identifier: Apache-2.0
// A block's product of two tiles in shared memory: side x side FP32 sums in the registers of its threads.
#pragma once
#include "dpmp/kernels/cuda/tiles/tile_loader.cuh"
#include "dpmp/kernels/gram_constants.hpp"

namespace dpmp::inline DPMP_ABI::kernels {
/// Sums on tensor cores, of bf16 or f16 numbers; their products are exact. side: 128 (8 warps of 64 x 32 sums) or 64 (4
/// warps of 32 x 32).
template <class T, int side_>
struct MmaProduct {
  static constexpr int side = side_, threads = 2 * side, row_fragments = side / 32, column_fragments = 4;
  float sums[row_fragments][column_fragments][4];

  __device__ __forceinline__ void clear() {
    for_each([](int, int, float& sum) { sum = 0; });
  }

  /// sums[r, c] += sum_k x[r, k] y[c, k]; x, y: SharedTile<T, side, depth>.
  template <int depth>
  __device__ __forceinline__ void add_rows(const char* x, const char* y) {
    using Tile = SharedTile<T, side, depth>;
    const int lane = int(threadIdx.x) % 32;
#pragma unroll
    for (int k = 0; k < depth / 16; ++k) {
      unsigned a[row_fragments][4], b[column_fragments / 2][4];
#pragma unroll
      for (int m = 0; m < row_fragments; ++m)
        load_matrix_x4(a[m], Tile::at(x, warp_row() + 16 * m + lane % 16, 2 * k + lane / 16));
#pragma unroll
      for (int n = 0; n < column_fragments / 2; ++n)
        load_matrix_x4(b[n], Tile::at(y, warp_column() + 16 * n + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
      multiply(a, b);
    }
  }

  /// sums[r, c] += sum_k x[k, r] y[k, c] over k < count, zeros after that; x, y: SharedTile<T, depth, side>.
  template <int depth>
  __device__ __forceinline__ void add_columns(const char* x, const char* y, int count) {
    using Tile = SharedTile<T, depth, side>;
    const int lane = int(threadIdx.x) % 32;
#pragma unroll
    for (int k = 0; k < depth / 16; ++k) {
      if (16 * k >= count) break;  // only zeros are left
      unsigned a[row_fragments][4], b[column_fragments / 2][4];
#pragma unroll
      for (int m = 0; m < row_fragments; ++m)
        load_matrix_x4_transposed(a[m],
                                  Tile::at(x, 16 * k + lane / 16 * 8 + lane % 8, warp_row() / 8 + 2 * m + lane / 8 % 2));
#pragma unroll
      for (int n = 0; n < column_fragments / 2; ++n)
        load_matrix_x4_transposed(b[n], Tile::at(y, 16 * k + lane % 16, warp_column() / 8 + 2 * n + lane / 16));
      multiply(a, b);
    }
  }

  /// f(column, sum over all rows of x) for each column of x: SharedTile<T, rows, columns>, as a product with ones: no sums
  /// have to pass from warp to warp. A column always meets the same thread.
  template <int rows, int columns, class F>
  static __device__ __forceinline__ void for_each_column_sum(const char* x, const F& f) {
    using Tile = SharedTile<T, rows, columns>;
    static_assert(rows % 32 == 0);
    constexpr unsigned one = std::is_same_v<T, bf16> ? 0x3f80 : 0x3c00, ones = one << 16 | one;
    const unsigned a[4] = {ones, ones, ones, ones};
    const int lane = int(threadIdx.x) % 32;
#pragma unroll 1
    for (int piece = int(threadIdx.x) / 32; piece < Tile::pieces; piece += threads / 32) {
      float column_sums[4] = {};
#pragma unroll
      for (int row = 0; row < rows; row += 32) {
        unsigned b[4];
        load_matrix_x4_transposed(b, Tile::at(x, row + lane, piece));
        multiply_16_8_16<T>(column_sums, a, b[0], b[1]);
        multiply_16_8_16<T>(column_sums, a, b[2], b[3]);
      }
      // All rows of the product are the same: the lanes of two of them give every column once, a sector in all.
      if (lane < 8) f(8 * piece + lane % 4 * 2 + lane / 4, lane < 4 ? column_sums[0] : column_sums[1]);
    }
  }

  /// Pairs of neighbours in a row that a thread has.
  static constexpr int pairs = row_fragments * column_fragments * 2;
  __device__ __forceinline__ float* pair(int k) {
    return &sums[k / 2 / column_fragments][k / 2 % column_fragments][k % 2 * 2];
  }
  /// f(k, row, column) for each pair of this thread, which is in columns column and column + 1.
  template <class F>
  static __device__ __forceinline__ void for_each_pair(const F& f) {
    const int row = warp_row() + int(threadIdx.x) % 32 / 4, column = warp_column() + int(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int k = 0; k < pairs; ++k)
      f(k, row + k / 2 / column_fragments * 16 + k % 2 * 8, column + k / 2 % column_fragments * 8);
  }
  /// f(row, column, sum) of this thread's sums.
  template <class F>
  __device__ __forceinline__ void for_each(const F& f) {
    for_each_pair([&](int k, int row, int column) {
      f(row, column, pair(k)[0]);
      f(row, column + 1, pair(k)[1]);
    });
  }

  /// to[k] = the sum in row and column k, where this thread has it.
  __device__ __forceinline__ void store_diagonal(float* to) const {
    const int lane = int(threadIdx.x) % 32, column = lane / 4 - lane % 4 * 2, across = warp_row() - warp_column();
#pragma unroll
    for (int m = 0; m < row_fragments; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        // At most one fragment of 8 x 8 is on the diagonal.
        float x = 0;
#pragma unroll
        for (int n = 0; n < column_fragments; ++n)
          x = across == 8 * n - 16 * m - 8 * h ? (column == 0 ? sums[m][n][2 * h] : sums[m][n][2 * h + 1]) : x;
        const int place = across + 16 * m + 8 * h;
        if ((column == 0 || column == 1) && place >= 0 && place < 8 * column_fragments)
          to[warp_row() + 16 * m + 8 * h + lane / 4] = x;
      }
  }

  /// This thread's part of the sum of products with the other's sums, in four chains of row_fragments * column_fragments.
  __device__ __forceinline__ float dot(const MmaProduct& other) const {
    float chains[4] = {};
#pragma unroll
    for (int m = 0; m < row_fragments; ++m)
#pragma unroll
      for (int n = 0; n < column_fragments; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) chains[e] = fmaf(sums[m][n][e], other.sums[m][n][e], chains[e]);
    return (chains[0] + chains[1]) + (chains[2] + chains[3]);
  }

 private:
  static __device__ __forceinline__ int warp_row() { return int(threadIdx.x) / 32 / (side / 32) * (side / 2); }
  static __device__ __forceinline__ int warp_column() { return int(threadIdx.x) / 32 % (side / 32) * 32; }
  __device__ __forceinline__ void multiply(const unsigned (&a)[row_fragments][4],
                                           const unsigned (&b)[column_fragments / 2][4]) {
#pragma unroll
    for (int m = 0; m < row_fragments; ++m)
#pragma unroll
      for (int n = 0; n < column_fragments; ++n)
        multiply_16_8_16<T>(sums[m][n], a[m], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
  }
};

/// The same of float numbers by fused multiply-adds: 64 x 64 sums by 128 threads of 8 x 4.
struct FmaProduct {
  static constexpr int side = 64, threads = 128;
  float sums[8][4];

  __device__ __forceinline__ void clear() {
    for_each([](int, int, float& sum) { sum = 0; });
  }

  /// sums[r, c] += sum_k x[r, k] y[c, k]; x, y: SharedTile<float, side, depth>.
  template <int depth>
  __device__ __forceinline__ void add_rows(const char* x, const char* y) {
    using Tile = SharedTile<float, side, depth>;
#pragma unroll 2
    for (int piece = 0; piece < depth / 4; ++piece) {
      float4 a[8];
#pragma unroll
      for (int m = 0; m < 8; ++m) a[m] = *reinterpret_cast<const float4*>(Tile::at(x, thread_row() + 8 * m, piece));
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const float4 b = *reinterpret_cast<const float4*>(Tile::at(y, thread_column() + 16 * n, piece));
#pragma unroll
        for (int m = 0; m < 8; ++m)
          sums[m][n] = fmaf(a[m].w, b.w, fmaf(a[m].z, b.z, fmaf(a[m].y, b.y, fmaf(a[m].x, b.x, sums[m][n]))));
      }
    }
  }

  /// The 64 x 64 sums += sum_k x[k, r] y[k, c] over k < count; x, y: SharedTile<float, depth, side>. A thread then has the
  /// sums that for_each_pair names, not those of for_each.
  template <int depth>
  __device__ __forceinline__ void add_columns(const char* x, const char* y, int count) {
    using Tile = SharedTile<float, depth, side>;
    const int steps = count < depth ? count : depth;
#pragma unroll 4
    for (int k = 0; k < steps; ++k) {
      const float4 a0 = *reinterpret_cast<const float4*>(Tile::at(x, k, thread_row()));
      const float4 a1 = *reinterpret_cast<const float4*>(Tile::at(x, k, thread_row() + 8));
      const float4 b = *reinterpret_cast<const float4*>(Tile::at(y, k, thread_column()));
      const float rows[8] = {a0.x, a0.y, a0.z, a0.w, a1.x, a1.y, a1.z, a1.w}, columns[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
      for (int m = 0; m < 8; ++m)
#pragma unroll
        for (int n = 0; n < 4; ++n) sums[m][n] = fmaf(rows[m], columns[n], sums[m][n]);
    }
  }

  /// f(column, sum over all rows of x) for each column of x: SharedTile<float, rows, columns>. A column always meets the
  /// same thread.
  template <int rows, int columns, class F>
  static __device__ __forceinline__ void for_each_column_sum(const char* x, const F& f) {
    using Tile = SharedTile<float, rows, columns>;
    static_assert(rows % 8 == 0);
    // A warp has two pieces of a row; its four groups of lanes take rows two apart, whose pieces are in other banks.
    const int lane = int(threadIdx.x) % 32, group = lane / 8, column = lane % 8;
#pragma unroll
    for (int first = int(threadIdx.x) / 32 * 8; first < columns; first += threads / 4) {
      float sum = 0;
#pragma unroll 4
      for (int row = 2 * group; row < rows; row += 8)
#pragma unroll
        for (int next = 0; next < 2; ++next)
          sum += reinterpret_cast<const float*>(Tile::at(x, row + next, first / 4 + column / 4))[column % 4];
      sum += __shfl_xor_sync(0xffffffffu, sum, 8);
      sum += __shfl_xor_sync(0xffffffffu, sum, 16);
      if (group == 0) f(first + column, sum);
    }
  }

  static constexpr int pairs = 16;
  __device__ __forceinline__ float* pair(int k) { return &sums[k / 2][k % 2 * 2]; }
  /// f(k, row, column) for each pair of neighbours that add_columns forms in this thread, in columns column and column + 1:
  /// rows 4 thread_row .. + 3 of either half, columns 4 thread_column .. + 3.
  template <class F>
  static __device__ __forceinline__ void for_each_pair(const F& f) {
#pragma unroll
    for (int k = 0; k < pairs; ++k) f(k, k / 8 * 32 + 4 * thread_row() + k / 2 % 4, 4 * thread_column() + k % 2 * 2);
  }

  /// f(row, column, sum) of this thread's sums, as add_rows forms them.
  template <class F>
  __device__ __forceinline__ void for_each(const F& f) {
#pragma unroll
    for (int m = 0; m < 8; ++m)
#pragma unroll
      for (int n = 0; n < 4; ++n) f(thread_row() + 8 * m, thread_column() + 16 * n, sums[m][n]);
  }

  /// to[k] = the sum in row and column k, where this thread has it.
  __device__ __forceinline__ void store_diagonal(float* to) {
    for_each([&](int row, int column, float sum) {
      if (row == column) to[row] = sum;
    });
  }

  /// This thread's part of the sum of products with the other's sums, in four chains of 8.
  __device__ __forceinline__ float dot(const FmaProduct& other) const {
    float chains[4] = {};
#pragma unroll
    for (int m = 0; m < 8; ++m)
#pragma unroll
      for (int n = 0; n < 4; ++n) chains[n] = fmaf(sums[m][n], other.sums[m][n], chains[n]);
    return (chains[0] + chains[1]) + (chains[2] + chains[3]);
  }

 private:
  // A warp is 4 x 8 threads, the block 2 x 2 warps.
  static __device__ __forceinline__ int thread_row() { return int(threadIdx.x) / 64 * 4 + int(threadIdx.x) % 32 / 8; }
  static __device__ __forceinline__ int thread_column() { return int(threadIdx.x) / 32 % 2 * 8 + int(threadIdx.x) % 8; }
};

/// The sum of the squares of this thread's sums: at most gamma_20 off, whatever their size is; NaN next to Inf.
template <class Product>
__device__ __forceinline__ double squares_of(Product& product) {
  float largest = 0;
  product.for_each([&](int, int, float& x) { largest = fmaxf(largest, fabsf(x)); });
  // Scaled so that the largest is in [2, 4), or below where it is a denormal: no square overflows, and none that matters
  // underflows. Inf is scaled by 0.
  const int exponent = ::max(1, __float_as_int(largest) >> 23);
  const float scale = __int_as_float((255 - exponent) << 23);
  float chains[4] = {};
  int next = 0;
  product.for_each([&](int, int, float& x) {
    const float scaled = x * scale;
    chains[next % 4] = fmaf(scaled, scaled, chains[next % 4]);
    ++next;
  });
  const double unit = __hiloint2double((exponent - 128 + 1023) << 20, 0);
  return double((chains[0] + chains[1]) + (chains[2] + chains[3])) * unit * unit;
}
}  // namespace dpmp::inline DPMP_ABI::kernels
