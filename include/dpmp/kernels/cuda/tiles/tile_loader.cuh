// SPDX-License-Identifier: Apache-2.0
// Tiles of row-major matrices in shared memory, laid out so that no access pattern of the products meets a bank twice.
#pragma once
#include "dpmp/kernels/cuda/tiles/tensor_core.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
/// A matrix in global memory.
template <class T>
struct RowMajor {
  const T* data;
  index_t row_stride;
  int rows, columns;
  bool vectors;  // rows are whole pieces of 16 bytes at multiples of 16 bytes
};
/// rows and columns below 2^30.
template <class T>
RowMajor<T> row_major(const T* data, index_t rows, index_t columns, index_t row_stride) {
  constexpr index_t piece = 16 / index_t(sizeof(T));
  const bool vectors = reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && row_stride % piece == 0 && columns % piece == 0;
  return {data, row_stride, int(rows), int(columns), vectors};
}

/// row_count x column_count elements in shared memory, aligned to 128 bytes. Pieces of 16 bytes; piece k of row r is at
/// k ^ (r mod 8), so that 8 lanes that read one piece of 8 consecutive rows, or 8 pieces of one row, touch all 32 banks
/// once: what ldmatrix, its transposed form and float4 loads do.
template <class T, int row_count, int column_count>
struct SharedTile {
  static constexpr int per_piece = 16 / int(sizeof(T)), pieces = column_count / per_piece;
  static constexpr int bytes = row_count * column_count * int(sizeof(T));
  static_assert(column_count % per_piece == 0 && pieces % 8 == 0, "a row is a multiple of 128 bytes");

  template <class Pointer>
  static __device__ __forceinline__ Pointer at(Pointer tile, int row, int piece) {
    return tile + ((row * pieces + (piece ^ (row & 7))) << 4);
  }

  /// Fills the tile from x[first_row.., first_column..], zeros outside of x, by all `threads` threads of the block. Whole
  /// rows of 16-byte pieces are copied asynchronously: commit, wait and a barrier are the caller's. Other matrices are read
  /// element by element and stored at once: the tile must be free when this is called, and the barrier serves them too.
  template <int threads>
  static __device__ __forceinline__ void load(char* tile, const RowMajor<T>& x, int first_row, int first_column) {
    // A thread copies the same piece of every row_step-th row.
    constexpr int row_step = threads / pieces, rounds = row_count / row_step;
    static_assert(threads % pieces == 0 && row_step % 8 == 0 && row_count % row_step == 0);
    const int row = int(threadIdx.x) / pieces, piece = int(threadIdx.x) % pieces;
    const int column = first_column + piece * per_piece, columns_left = x.columns - column;
    const int rows_left = x.rows - first_row - row;
    const T* from = x.data + (first_row + row) * x.row_stride + column;
    const index_t step = row_step * x.row_stride;
    char* const to = at(tile, row, piece);
    if (x.vectors) {
#pragma unroll
      for (int k = 0; k < rounds; ++k)  // outside of x, `from` is only an address
        copy_async_16(to + k * row_step * pieces * 16, from + k * step, columns_left > 0 && k * row_step < rows_left);
    } else {
#pragma unroll 1
      for (int k = 0; k < rounds; ++k, from += step) {
        const int count = k * row_step < rows_left ? columns_left : 0;
        T values[per_piece];
#pragma unroll
        for (int e = 0; e < per_piece; ++e) values[e] = e < count ? from[e] : T{};
        uint4 packed;
        memcpy(&packed, values, 16);
        *reinterpret_cast<uint4*>(to + k * row_step * pieces * 16) = packed;
      }
    }
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
