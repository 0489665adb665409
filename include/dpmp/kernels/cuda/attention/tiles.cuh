// SPDX-License-Identifier: Apache-2.0
// What the attention kernels for bf16 and f16 share: rows of a head in shared memory, which tokens are seen, and the two
// products that every pass consists of. Forward: forward.cuh; backward: backward.cuh.
#pragma once
#include "dpmp/kernels/cuda/attention/problem.cuh"
#include "dpmp/kernels/cuda/tiles/tensor_core.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
/// A block is 4 warps. Each owns `strips` strips of 16 rows (queries, or keys where dK and dV are formed), held in
/// registers; all of them walk over tiles of 64 rows of the other side, which are in shared memory.
inline constexpr int attention_warps = 4, attention_threads = 32 * attention_warps, attention_tile = 64;

/// This thread's lane, read again by every call. What follows from threadIdx the compiler works out once and keeps in
/// registers across main loops, which have none to spare; what follows from this dies after its last use.
__device__ __forceinline__ int read_lane() {
  int lane;
  asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
  return lane;
}

/// Rows of a head in shared memory, Width (the head's width, padded with zeros to 32, 64, 96 or 128) elements each. A row
/// takes an odd number of 16-byte chunks, so one chunk of 8 successive rows (what ldmatrix and the copies touch at a time)
/// covers all banks once.
template <class T, int Width>
struct AttentionRows {
  static_assert(sizeof(T) == 2 && Width % 32 == 0);
  static constexpr int stride = Width + 8;
  static constexpr int bytes(int rows) { return rows * stride * int(sizeof(T)); }
  T* data;

  __device__ __forceinline__ T* at(int row, int column) const { return data + row * stride + column; }
  __device__ __forceinline__ AttentionRows from(int row) const { return {at(row, 0)}; }

  /// Rows row .. row + 15, columns column .. column + 15 as the first operand: a[i][k] = this[row + i][column + k].
  __device__ __forceinline__ void load_first(unsigned (&a)[4], int row, int column) const {
    const int lane = int(threadIdx.x) % 32;
    load_matrix_x4(a, at(row + lane % 16, column + lane / 16 * 8));
  }
  /// 8 columns of the second operand for two steps of 16: b[2 i + ..] of step i is this[row + j][column + 16 i + k].
  __device__ __forceinline__ void load_second(unsigned (&b)[4], int row, int column, int lane) const {
    load_matrix_x4(b, at(row + lane % 8, column + lane / 8 * 8));
  }
  /// 16 columns of the second operand from transposed rows, this[row + k][column + j]: b[0], b[1] for columns 0..7, b[2],
  /// b[3] for 8..15.
  __device__ __forceinline__ void load_second_transposed(unsigned (&b)[4], int row, int column, int lane) const {
    load_matrix_x4_transposed(b, at(row + lane % 16, column + lane / 16 * 8));
  }
};

/// What a block needs: two buffers of two tiles (keys and values, or queries and output gradients).
template <class T, int Width>
inline constexpr int attention_shared_bytes = AttentionRows<T, Width>::bytes(4 * attention_tile);
/// Strips a warp: two use every value that comes from shared memory twice, at 200 to 255 registers a thread. One strip would
/// be bound by ldmatrix (4 clocks for the second operands of two products, which take 4); wide heads must make do with it.
template <int Width>
inline constexpr int attention_strips = Width <= 64 ? 2 : 1;

/// This lane's flags of 64 successive tokens. Loading and voting are apart so that the loads' latency can be hidden.
struct KeptTokens {
  bool low, high;
  __device__ __forceinline__ KeptTokens(const std::int32_t* keep, int first, int tokens)
      : low(kept(keep, first + int(threadIdx.x) % 32, tokens)),
        high(kept(keep, first + int(threadIdx.x) % 32 + 32, tokens)) {}
  /// Bit r: token first + r exists and is no padding. Called by whole warps.
  __device__ __forceinline__ std::uint64_t mask() const {
    return __ballot_sync(~0u, low) | std::uint64_t(__ballot_sync(~0u, high)) << 32;
  }
  static __device__ __forceinline__ bool kept(const std::int32_t* keep, int token, int tokens) {
    return token < tokens && (!keep || keep[token] != 0);
  }
};

/// Starts the copy of rows first .. first + count - 1 (count: a multiple of 8), row t at from + t * row_stride, into `to`;
/// `warps` warps share the work and this is the warp-th of them; lane: this thread's. Rows whose bit in `kept` is 0 and
/// columns from `width` on become 0: padding never gets into a product, whatever it holds. from: a head of the sample's
/// first token.
template <class T, int Width>
__device__ __forceinline__ void copy_attention_rows(AttentionRows<T, Width> to, const T* from, index_t row_stride, int first,
                                                    int count, int width, std::uint64_t kept, int warp = 0, int warps = 1,
                                                    int lane = int(threadIdx.x) % 32) {
  // A warp copies 64 bytes of 8 rows at a time: whole sectors of global memory, every bank of shared memory once.
  constexpr int columns = Width / 32;
#pragma unroll 1
  for (int patch = warp; patch < count / 8 * columns; patch += warps) {
    const int row = patch / columns * 8 + lane % 8, column = (patch % columns * 4 + lane / 8) * 8;
    const bool inside = column < width && (kept >> row & 1) != 0;
    copy_async_16(to.at(row, column), from + (inside ? (first + row) * row_stride + column : 0), inside);
  }
}

/// 2^x, relative error 2^-22; 0 for -Inf, denormal results are 0.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
/// x * y, 0 where that is denormal: bf16 results are stored without denormals.
__device__ __forceinline__ float multiply_flushed(float x, float y) {
  float z;
  asm("mul.ftz.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
  return z;
}
/// Both rounded to T, ties to even; `low` is the one at the lower address.
template <class T>
__device__ __forceinline__ unsigned round_pair(float low, float high) {
  unsigned pair;
  if constexpr (std::is_same_v<T, bf16>)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

/// A strip's 16 x 16 sums (two accumulators side by side) rounded to T, as a first operand.
template <class T>
__device__ __forceinline__ void round_to_first(unsigned (&a)[4], const float (&left)[4], const float (&right)[4]) {
  a[0] = round_pair<T>(left[0], left[1]), a[1] = round_pair<T>(left[2], left[3]);
  a[2] = round_pair<T>(right[0], right[1]), a[3] = round_pair<T>(right[2], right[3]);
}

/// All first operands of a strip of 16 rows.
template <class T, int Width>
__device__ __forceinline__ void load_strip(unsigned (&strip)[Width / 16][4], AttentionRows<T, Width> rows, int row) {
#pragma unroll
  for (int k = 0; k < Width / 16; ++k) rows.load_first(strip[k], row, 16 * k);
}

/// product (strip x 8 * Columns) = strip tile^T, the tile's rows row .. row + 8 * Columns - 1. lane: this thread's.
template <int Columns, class T, int Width, int Strips>
__device__ __forceinline__ void multiply_by_rows(float (&product)[Strips][Columns][4],
                                                 const unsigned (&strip)[Strips][Width / 16][4],
                                                 AttentionRows<T, Width> tile, int row, int lane = int(threadIdx.x) % 32) {
#pragma unroll
  for (int s = 0; s < Strips; ++s)
#pragma unroll
    for (int j = 0; j < Columns; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) product[s][j][e] = 0;
#pragma unroll
  for (int k = 0; k < Width / 16; k += 2)
#pragma unroll
    for (int j = 0; j < Columns; ++j) {
      unsigned b[4];
      tile.load_second(b, row + 8 * j, 16 * k, lane);
#pragma unroll
      for (int s = 0; s < Strips; ++s) multiply_16_8_16<T>(product[s][j], strip[s][k], b[0], b[1]);
#pragma unroll
      for (int s = 0; s < Strips; ++s) multiply_16_8_16<T>(product[s][j], strip[s][k + 1], b[2], b[3]);
    }
}

/// sum (strip x Width) += weights (strip x 16) tile, the tile's rows row .. row + 15. lane: this thread's.
template <class T, int Width, int Strips>
__device__ __forceinline__ void add_weighted_rows(float (&sum)[Strips][Width / 8][4], const unsigned (&weights)[Strips][4],
                                                  AttentionRows<T, Width> tile, int row, int lane = int(threadIdx.x) % 32) {
#pragma unroll
  for (int j = 0; j < Width / 8; j += 2) {
    unsigned b[4];
    tile.load_second_transposed(b, row, 8 * j, lane);
#pragma unroll
    for (int s = 0; s < Strips; ++s) {
      multiply_16_8_16<T>(sum[s][j], weights[s], b[0], b[1]);
      multiply_16_8_16<T>(sum[s][j + 1], weights[s], b[2], b[3]);
    }
  }
}

/// Writes a strip of 16 rows to global memory, row r at to + r * row_stride, through the warp's own `staging` rows: only the
/// first `existing` rows are written, those whose bit in `kept` is 0 become 0; factor[h]: of rows group + 8 h.
template <class T, int Width>
__device__ __forceinline__ void store_strip(const float (&sum)[Width / 8][4], const float (&factor)[2],
                                            AttentionRows<T, Width> staging, T* to, index_t row_stride, int width,
                                            int existing, unsigned kept) {
  const int lane = int(threadIdx.x) % 32, group = lane / 4, member = lane % 4;
  __syncwarp();
#pragma unroll
  for (int j = 0; j < Width / 8; ++j)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const unsigned pair =
          round_pair<T>(multiply_flushed(sum[j][2 * h], factor[h]), multiply_flushed(sum[j][2 * h + 1], factor[h]));
      *reinterpret_cast<unsigned*>(staging.at(group + 8 * h, 8 * j + 2 * member)) = kept >> (group + 8 * h) & 1 ? pair : 0u;
    }
  __syncwarp();
#pragma unroll
  for (int patch = 0; patch < Width / 16; ++patch) {
    const int row = patch % 2 * 8 + lane % 8, column = (patch / 2 * 4 + lane / 8) * 8;
    if (column < width && row < existing)
      *reinterpret_cast<uint4*>(to + row * row_stride + column) = *reinterpret_cast<const uint4*>(staging.at(row, column));
  }
  __syncwarp();
}
}  // namespace dpmp::inline DPMP_ABI::kernels
