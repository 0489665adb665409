// SPDX-License-Identifier: Apache-2.0
// Per-sample gradients of a table whose rows were looked up: G_i[id, :] is the sum of a's rows of sample i with that id, in
// FP32 in the order of the tokens. Squared norms, the addition to per-sample gradients that are kept, and the clipped
// weighted sum into the double table. Tokens come in the order of token_sort.cuh, so that an id's rows follow each other and
// one warp owns a table row: no atomics.
//
// Ids below 0 (padding) or beyond the table count nothing, in the norm and in the sum alike. Which table rows are touched
// depends on the ids, as it must in anything that does not write the whole table; factors act by select only.
#pragma once
#include "dpmp/core/low_precision.hpp"
#include "dpmp/kernels/cuda/sums/token_sort.cuh"
#include "dpmp/runtime/team_cuda.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
/// The rows that were looked up with, and the table's extents.
template <class T>
struct SegmentOperands {
  const T* a;            // [samples, tokens, columns]
  const TokenKey* keys;  // [samples, tokens]
  index_t samples, tokens, rows, columns;
};

namespace detail {
/// Two neighbouring columns of a row, a lane's share: 64 columns a warp.
template <class T>
struct ColumnPair {
  const T* a;
  index_t columns, column;
  bool vector;  // pairs are aligned

  __device__ float2 load(index_t row, bool wanted) const {
    const T* const at = a + row * columns + column;
    struct alignas(2 * sizeof(T)) Pack {
      T v[2];
    } pack{};
    const bool first = wanted && column < columns, second = wanted && column + 1 < columns;
    if (vector) {
      if (first) pack = *reinterpret_cast<const Pack*>(at);
    } else {
      if (first) pack.v[0] = at[0];
      if (second) pack.v[1] = at[1];
    }
    return {to_float(pack.v[0]), to_float(pack.v[1])};
  }
};
inline bool is_pair_aligned(const void* p, index_t columns, std::size_t element) {
  return reinterpret_cast<std::uintptr_t>(p) % (2 * element) == 0 && columns % 2 == 0;
}

/// Rows that a warp reads ahead of their use; 32 keys are read at once.
inline constexpr int walk_batch = 8;

/// Calls f(ended, id, sum of the pairs of that id's rows) after each token of a sample's sorted keys; `ended`: that was the
/// last row of that id, which may be padding or no row of the table. Called whether or not: what ends where is private, and
/// f selects. Every thread of a warp walks along, each with its own pair of columns.
template <class T, class F>
__device__ __forceinline__ void for_each_segment(const TokenKey* keys, index_t tokens, const ColumnPair<T>& row, F&& f) {
  const int lane = int(threadIdx.x) % 32;
  std::int32_t current = -1;
  float2 segment{0, 0};
  for (index_t t = 0; t < tokens; t += 32) {
    const TokenKey mine = t + lane < tokens ? keys[t + lane] : 0;
    for (int k = 0; k < 32 && t + k < tokens; k += walk_batch) {
      TokenKey key[walk_batch];
      float2 x[walk_batch];
#pragma unroll
      for (int j = 0; j < walk_batch; ++j) {
        key[j] = __shfl_sync(~0u, mine, k + j);
        x[j] = row.load(index_t(index_of(key[j])), t + k + j < tokens);
      }
#pragma unroll
      for (int j = 0; j < walk_batch; ++j) {
        const bool changed = t + k + j < tokens && id_of(key[j]) != current;
        f(changed, current, segment);
        current = changed ? id_of(key[j]) : current;
        segment.x = (changed ? 0.0f : segment.x) + x[j].x;
        segment.y = (changed ? 0.0f : segment.y) + x[j].y;
      }
    }
  }
  f(true, current, segment);
}
}  // namespace detail

/// squared[i] = sum over the ids of sample i of |G_i[id, :]|^2. Each pair of columns is squared in FP32, all else is summed
/// in double; a block of 16 warps takes a sample, 1024 columns at a time.
template <class T>
struct SegmentNorms {
  static constexpr int threads = 512, blocks_per_multiprocessor = 2;
  SegmentOperands<T> in;
  double* squared;  // [samples]
  bool pairs;

  __device__ void operator()(char* shared) const {
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
    const TokenKey* const keys = in.keys + index_t(blockIdx.x) * in.tokens;
    double total = 0;
    for (index_t left = 0; left < in.columns; left += threads * 2) {
      const detail::ColumnPair<T> row{in.a, in.columns, left + index_t(threadIdx.x) * 2, pairs};
      detail::for_each_segment(keys, in.tokens, row, [&](bool ended, std::int32_t id, float2 segment) {
        const bool counted = ended && id >= 0 && id < in.rows;
        total += counted ? double(fmaf(segment.y, segment.y, segment.x * segment.x)) : 0.0;
      });
    }
    for (int distance = 16; distance > 0; distance /= 2) total += __shfl_xor_sync(~0u, total, distance);
    double* const warps = reinterpret_cast<double*>(shared);
    if (lane == 0) warps[warp] = total;
    __syncthreads();
    if (threadIdx.x == 0) {
      double sum = 0;
      for (int w = 0; w < threads / 32; ++w) sum += warps[w];
      squared[blockIdx.x] = sum;
    }
  }
};

/// gradients[i, id, :] += G_i[id, :], rounded once for each id of a sample; a block of two warps takes 128 columns of it.
template <class T, class Out>
struct SegmentAdd {
  static constexpr int threads = 64, blocks_per_multiprocessor = 8;
  SegmentOperands<T> in;
  Out* gradients;  // [samples, rows, columns]
  bool pairs, gradient_pairs;

  __device__ void operator()(char*) const {
    const index_t column = index_t(blockIdx.y) * threads * 2 + index_t(threadIdx.x) * 2;
    const detail::ColumnPair<T> row{in.a, in.columns, column, pairs};
    const detail::ColumnPair<Out> before{gradients, in.columns, column, gradient_pairs};
    detail::for_each_segment(in.keys + index_t(blockIdx.x) * in.tokens, in.tokens, row,
                             [&](bool ended, std::int32_t id, float2 segment) {
                               const bool inside = ended && id >= 0 && id < in.rows;
                               const index_t at = index_t(blockIdx.x) * in.rows + id;
                               const float2 old = before.load(inside ? at : 0, inside);
                               if (inside) store(at, column, {old.x + segment.x, old.y + segment.y});
                             });
  }

 private:
  __device__ void store(index_t row, index_t column, float2 x) const {
    using dpmp::detail::narrowed;
    Out* const to = gradients + row * in.columns + column;
    const bool first = column < in.columns, second = column + 1 < in.columns;
    if (gradient_pairs) {
      if (first) dpmp::detail::store_vector(to, dpmp::detail::Vector<Out, 2>{{narrowed<Out>(x.x), narrowed<Out>(x.y)}});
    } else {
      if (first) to[0] = narrowed<Out>(x.x);
      if (second) to[1] = narrowed<Out>(x.y);
    }
  }
};

/// table[id, :] += sum_i c_i G_i[id, :], keys in the order of the whole batch. A warp takes 64 columns of the ids that begin
/// within its 32 keys and follows the last of them beyond. A sample's segment is summed in FP32; c times it is exact in
/// double and is added there, one rounding a sample. A table row is read and written once.
template <class T>
struct SegmentSum {
  static constexpr int threads = 256, blocks_per_multiprocessor = 2, window = 32;
  SegmentOperands<T> in;
  const float* factors;  // [samples]
  double* table;         // [rows, columns]
  bool pairs, table_pairs;

  __device__ void operator()(char*) const {
    const index_t slices = ceil_div(in.columns, 64), count = in.samples * in.tokens;
    const index_t warp = index_t(blockIdx.x) * (threads / 32) + threadIdx.x / 32;
    const index_t begin = warp / slices * window, end = begin + window;
    if (begin >= count) return;
    const int lane = int(threadIdx.x) % 32;
    const index_t column = warp % slices * 64 + lane * 2;
    const detail::ColumnPair<T> row{in.a, in.columns, column, pairs};

    // The id before the window has an owner, who adds its rows wherever they end.
    Segment now{begin > 0 ? id_of(in.keys[begin - 1]) : 0, ~0u};
    bool owned = false, walking = true;
    for (index_t t = begin; t < count && walking; t += 32) {
      const index_t at = t + lane < count ? t + lane : count - 1;
      const TokenKey mine = in.keys[at];
      const unsigned my_sample = index_of(mine) / unsigned(in.tokens);
      const float my_factor = factors[my_sample];
      for (int k = 0; k < 32 && walking; k += detail::walk_batch) {
        Step step[detail::walk_batch];
#pragma unroll
        for (int j = 0; j < detail::walk_batch; ++j) {
          const TokenKey key = __shfl_sync(~0u, mine, k + j);
          step[j] = {id_of(key), __shfl_sync(~0u, my_sample, k + j), __shfl_sync(~0u, my_factor, k + j), float2{}};
          step[j].x = row.load(index_t(index_of(key)), t + k + j < count);
        }
#pragma unroll
        for (int j = 0; j < detail::walk_batch; ++j) {
          const index_t place = t + k + j;
          const bool first_of_all = place == 0, new_id = first_of_all || step[j].id != now.id;
          walking = walking && place < count && !(new_id && place >= end);
          if (!walking) continue;
          if (new_id) {
            if (owned) now.add_to(*this, column);
            now = {step[j].id, step[j].sample};
            owned = true;
          } else if (step[j].sample != now.sample) {
            now.fold();
            now.sample = step[j].sample;
          }
          now.factor = step[j].factor;
          now.segment.x += step[j].x.x;
          now.segment.y += step[j].x.y;
        }
        if (t + k + detail::walk_batch >= end && !owned) walking = false;
      }
    }
    if (owned) now.add_to(*this, column);
  }

 private:
  struct Step {
    std::int32_t id;
    unsigned sample;
    float factor;
    float2 x;
  };
  /// The id at hand: the segment of its current sample, and the sum over the samples before.
  struct Segment {
    std::int32_t id;
    unsigned sample;
    float factor = 0;
    float2 segment{0, 0};
    double2 sum{0, 0};

    /// sum += c segment where c > 0, by select: NaN and Inf of a dropped sample end here.
    __device__ void fold() {
      const double c = factor > 0 ? double(factor) : 0.0;
      sum.x = fma(c, factor > 0 ? double(segment.x) : 0.0, sum.x);
      sum.y = fma(c, factor > 0 ? double(segment.y) : 0.0, sum.y);
      segment = {0, 0};
    }
    __device__ void add_to(const SegmentSum& kernel, index_t column) {
      fold();
      const index_t columns = kernel.in.columns;
      const bool inside = id >= 0 && id < kernel.in.rows, first = inside && column < columns,
                 second = inside && column + 1 < columns;
      double* const at = kernel.table + index_t(id) * columns + column;
      if (kernel.table_pairs) {
        if (first) {
          const double2 old = *reinterpret_cast<const double2*>(at);
          *reinterpret_cast<double2*>(at) = {old.x + sum.x, old.y + sum.y};
        }
      } else {
        if (first) at[0] += sum.x;
        if (second) at[1] += sum.y;
      }
    }
  };
};

namespace detail {
template <class T>
void check_segments(const SegmentOperands<T>& in) {
  DPMP_CHECK(
      in.samples >= 0 && in.tokens >= 0 && in.rows >= 0 && in.columns >= 0 && in.samples * in.tokens < (index_t(1) << 32),
      "expected extents >= 0 and fewer than 2^32 tokens, got ", in.samples, " samples of ", in.tokens, " tokens, ", in.rows,
      " rows, ", in.columns, " columns");
}
}  // namespace detail

/// squared[i] = |G_i|^2, [samples]; in.keys: sorted within each sample (sort_tokens). T: bf16, f16, float.
template <class T>
void segment_norms(cudaStream_t stream, const SegmentOperands<T>& in, double* squared) {
  detail::check_segments(in);
  launch_blocks(stream, dim3(unsigned(in.samples)), SegmentNorms<T>::threads / 32 * sizeof(double),
                SegmentNorms<T>{in, squared, detail::is_pair_aligned(in.a, in.columns, sizeof(T))});
}

/// gradients[i] += G_i, [samples, rows, columns] in FP32 or in T; in.keys: sorted within each sample (sort_tokens).
template <class T, class Out>
void segment_add(cudaStream_t stream, const SegmentOperands<T>& in, Out* gradients) {
  detail::check_segments(in);
  const index_t slices = ceil_div(in.columns, SegmentAdd<T, Out>::threads * 2);
  DPMP_CHECK(slices < 65536, "expected at most 65535 slices of ", SegmentAdd<T, Out>::threads * 2, " columns, got ", slices);
  launch_blocks(stream, dim3(unsigned(in.samples), unsigned(slices)), 0,
                SegmentAdd<T, Out>{in, gradients, detail::is_pair_aligned(in.a, in.columns, sizeof(T)),
                                   detail::is_pair_aligned(gradients, in.columns, sizeof(Out))});
}

/// table += sum_i c_i G_i, [rows, columns]; in.keys: sorted over the batch (merge_samples). A sample with c_i = 0 vanishes
/// whatever its rows hold.
template <class T>
void segment_sum(cudaStream_t stream, const SegmentOperands<T>& in, const float* factors, double* table) {
  detail::check_segments(in);
  DPMP_CHECK(in.samples <= samples_per_chain, "expected a sum over at most ", samples_per_chain,
             " samples, the longest chain of additions in double, got ", in.samples, ": cut the batch");
  const index_t warps = ceil_div(in.samples * in.tokens, SegmentSum<T>::window) * ceil_div(in.columns, 64);
  const index_t blocks = ceil_div(warps, SegmentSum<T>::threads / 32);
  DPMP_CHECK(blocks < (index_t(1) << 31), "expected fewer than 2^31 thread blocks, got ", blocks);
  launch_blocks(stream, dim3(unsigned(blocks)), 0,
                SegmentSum<T>{in, factors, table, detail::is_pair_aligned(in.a, in.columns, sizeof(T)),
                              detail::is_pair_aligned(table, in.columns, sizeof(double))});
}
}  // namespace dpmp::inline DPMP_ABI::kernels
