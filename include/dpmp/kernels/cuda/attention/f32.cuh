// SPDX-License-Identifier: Apache-2.0
// Attention in FP32 on a CUDA device, forward and backward, on the ordinary units: the tensor cores would round operands to
// TF32, which a certified norm does not allow for. Simple rather than fast; the same cut of the work as for bf16.
#pragma once
#include "dpmp/kernels/cuda/attention/problem.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
/// A block is 4 warps with 4 rows each; a tile of 32 rows of the other side is in shared memory, one for each lane when
/// products of rows are formed. Then each lane holds columns lane, lane + 32, .. of its warp's sums. Width: padded with
/// zeros.
template <int Width>
struct FloatAttention {
  static constexpr int threads = 128, blocks_per_multiprocessor = 2, own = 4, rows = own * threads / 32, tile = 32;
  // An odd number of 16-byte chunks: 8 lanes that read a chunk of their row each meet all banks once.
  static constexpr int stride = Width + 4, columns = Width / 32;
  using Sum = float[own][columns];

  /// Four arrays in shared memory: two of this block's rows, two of a tile's.
  struct Shared {
    float* data;
    __device__ float* first_own() const { return data; }
    __device__ float* second_own() const { return data + rows * stride; }
    __device__ float* first_tile() const { return data + 2 * rows * stride; }
    __device__ float* second_tile() const { return data + (2 * rows + tile) * stride; }
  };
  static constexpr int shared_bytes = (2 * rows + 2 * tile) * stride * int(sizeof(float));

  static __device__ bool kept(const std::int32_t* keep, int token, int tokens) {
    return token < tokens && (!keep || keep[token] != 0);
  }
  /// Rows first .. first + count - 1, row t at from + t * row_stride; rows of padding and beyond the end become 0.
  static __device__ void copy(float* to, const float* from, index_t row_stride, int first, int count, int width,
                              const std::int32_t* keep, int tokens) {
    for (int k = int(threadIdx.x); k < count * (Width / 4); k += threads) {
      const int row = k / (Width / 4), column = k % (Width / 4) * 4;
      float4 x = {0, 0, 0, 0};
      if (column < width && kept(keep, first + row, tokens))
        x = *reinterpret_cast<const float4*>(from + (first + row) * row_stride + column);
      *reinterpret_cast<float4*>(to + row * stride + column) = x;
    }
  }
  /// product[r] = row r of this warp's four, times the tile's row of this lane.
  static __device__ void multiply_rows(float (&product)[own], const float* own_rows, const float* tile_rows) {
    const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
#pragma unroll
    for (int r = 0; r < own; ++r) product[r] = 0;
#pragma unroll 4
    for (int k = 0; k < Width; k += 4) {
      const float4 b = *reinterpret_cast<const float4*>(tile_rows + lane * stride + k);
#pragma unroll
      for (int r = 0; r < own; ++r) {
        const float4 a = *reinterpret_cast<const float4*>(own_rows + (warp * own + r) * stride + k);
        product[r] = fmaf(a.x, b.x, fmaf(a.y, b.y, fmaf(a.z, b.z, fmaf(a.w, b.w, product[r]))));
      }
    }
  }
  /// sum += weights (a lane's: of the tile's row of that lane) times the tile's rows.
  static __device__ void add_rows(Sum& sum, const float (&weights)[own], const float* tile_rows) {
    const int lane = int(threadIdx.x) % 32;
#pragma unroll 4
    for (int k = 0; k < tile; ++k) {
      float w[own];
#pragma unroll
      for (int r = 0; r < own; ++r) w[r] = __shfl_sync(~0u, weights[r], k);
#pragma unroll
      for (int j = 0; j < columns; ++j) {
        const float x = tile_rows[k * stride + lane + 32 * j];
#pragma unroll
        for (int r = 0; r < own; ++r) sum[r][j] = fmaf(w[r], x, sum[r][j]);
      }
    }
  }
  /// Writes row r of this warp's at to + r * row_stride; 0 where it is padding.
  static __device__ void store(const float (&sum)[columns], float factor, bool is_kept, float* to, int width) {
#pragma unroll
    for (int j = 0; j < columns; ++j) {
      const int column = int(threadIdx.x) % 32 + 32 * j;
      if (column < width) to[column] = is_kept ? sum[j] * factor : 0;
    }
  }
};

template <int Width>
struct FloatAttentionForward : FloatAttention<Width> {
  using Base = FloatAttention<Width>;
  AttentionForward<float> work;
  AttentionGrid grid;
  float scale;
  FloatAttentionForward(const AttentionForward<float>& w, const AttentionGrid& g)
      : work(w), grid(g), scale(attention_scale(w.shape.width)) {}

  __device__ void operator()(char* memory) const {
    const AttentionShape& s = work.shape;
    const typename Base::Shared shared{reinterpret_cast<float*>(memory)};
    const int lane = int(threadIdx.x) % 32, tokens = int(s.tokens), width = int(s.width);
    const index_t sample = grid.sample(), head = grid.head(), key_head = head / s.group();
    const int first_row = grid.tile() * Base::rows, first = first_row + int(threadIdx.x) / 32 * Base::own;
    const float* const qkv = work.qkv + sample * tokens * s.packed();
    const std::int32_t* const keep = work.keep ? work.keep + sample * tokens : nullptr;
    Base::copy(shared.first_own(), qkv + s.query_column(head), s.packed(), first_row, Base::rows, width, keep, tokens);

    typename Base::Sum sum = {};
    float total[Base::own] = {}, top[Base::own];
#pragma unroll
    for (int r = 0; r < Base::own; ++r) top[r] = attention_lowest;
    const int seen = s.causal ? min(tokens, first_row + Base::rows) : tokens;
    for (int key = 0; key < seen; key += Base::tile) {
      __syncthreads();
      Base::copy(shared.first_tile(), qkv + s.key_column(key_head), s.packed(), key, Base::tile, width, keep, tokens);
      Base::copy(shared.second_tile(), qkv + s.value_column(key_head), s.packed(), key, Base::tile, width, keep, tokens);
      __syncthreads();
      float weights[Base::own];
      Base::multiply_rows(weights, shared.first_own(), shared.first_tile());
      const bool kept = Base::kept(keep, key + lane, tokens);
#pragma unroll
      for (int r = 0; r < Base::own; ++r) {
        // What is not seen is -Inf: its weight is 0 under any maximum.
        const bool visible = kept && (!s.causal || key + lane <= first + r);
        const float score = visible ? weights[r] * scale : -attention_infinity;
        float t = fmaxf(top[r], score);
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2) t = fmaxf(t, __shfl_xor_sync(~0u, t, distance));
        const float rescale = expf(top[r] - t);
        weights[r] = expf(score - t), top[r] = t;
        total[r] = fmaf(total[r], rescale, weights[r]);
#pragma unroll
        for (int j = 0; j < Base::columns; ++j) sum[r][j] *= rescale;
      }
      Base::add_rows(sum, weights, shared.second_tile());
    }
#pragma unroll
    for (int r = 0; r < Base::own; ++r) {
      float all = total[r];
#pragma unroll
      for (int distance = 16; distance > 0; distance /= 2) all += __shfl_xor_sync(~0u, all, distance);
      const int token = first + r;
      if (token >= tokens) continue;
      const bool kept = Base::kept(keep, token, tokens);
      Base::store(sum[r], all == 0 ? 0 : 1 / all, kept,
                  work.output + (sample * tokens + token) * s.plain() + s.query_column(head), width);
      if (lane == 0)
        work.log_sum_exp[(sample * s.heads + head) * tokens + token] =
            all == 0 || !kept ? attention_infinity : top[r] + logf(all);
    }
  }
};

/// dQ of this block's queries.
template <int Width>
struct FloatAttentionQueryGradient : FloatAttention<Width> {
  using Base = FloatAttention<Width>;
  AttentionBackward<float> work;
  AttentionGrid grid;
  float scale;
  FloatAttentionQueryGradient(const AttentionBackward<float>& w, const AttentionGrid& g)
      : work(w), grid(g), scale(attention_scale(w.shape.width)) {}

  __device__ void operator()(char* memory) const {
    const AttentionShape& s = work.shape;
    const typename Base::Shared shared{reinterpret_cast<float*>(memory)};
    const int lane = int(threadIdx.x) % 32, tokens = int(s.tokens), width = int(s.width);
    const index_t sample = grid.sample(), head = grid.head(), key_head = head / s.group();
    const int first_row = grid.tile() * Base::rows, first = first_row + int(threadIdx.x) / 32 * Base::own;
    const float* const qkv = work.qkv + sample * tokens * s.packed();
    const std::int32_t* const keep = work.keep ? work.keep + sample * tokens : nullptr;
    const index_t statistics = (sample * s.heads + head) * tokens;
    Base::copy(shared.first_own(), qkv + s.query_column(head), s.packed(), first_row, Base::rows, width, keep, tokens);
    Base::copy(shared.second_own(), work.output_gradient + sample * tokens * s.plain() + s.query_column(head), s.plain(),
               first_row, Base::rows, width, keep, tokens);

    typename Base::Sum sum = {};
    const int seen = s.causal ? min(tokens, first_row + Base::rows) : tokens;
    for (int key = 0; key < seen; key += Base::tile) {
      __syncthreads();
      Base::copy(shared.first_tile(), qkv + s.key_column(key_head), s.packed(), key, Base::tile, width, keep, tokens);
      Base::copy(shared.second_tile(), qkv + s.value_column(key_head), s.packed(), key, Base::tile, width, keep, tokens);
      __syncthreads();
      float weights[Base::own], slopes[Base::own];
      Base::multiply_rows(weights, shared.first_own(), shared.first_tile());
      Base::multiply_rows(slopes, shared.second_own(), shared.second_tile());
      const bool kept = Base::kept(keep, key + lane, tokens);
#pragma unroll
      for (int r = 0; r < Base::own; ++r) {
        const int token = min(first + r, tokens - 1);
        const bool visible = kept && (!s.causal || key + lane <= first + r);
        const float p = expf(fmaf(weights[r], scale, -work.log_sum_exp[statistics + token]));
        weights[r] = visible ? (slopes[r] - work.row_sums[statistics + token]) * p * scale : 0;
      }
      Base::add_rows(sum, weights, shared.first_tile());
    }
#pragma unroll
    for (int r = 0; r < Base::own; ++r)
      if (first + r < tokens)
        Base::store(sum[r], 1, Base::kept(keep, first + r, tokens),
                    work.qkv_gradient + (sample * tokens + first + r) * s.packed() + s.query_column(head), width);
  }
};

/// dK and dV of this block's keys, over all query heads that share them.
template <int Width>
struct FloatAttentionKeyGradient : FloatAttention<Width> {
  using Base = FloatAttention<Width>;
  AttentionBackward<float> work;
  AttentionGrid grid;
  float scale;
  FloatAttentionKeyGradient(const AttentionBackward<float>& w, const AttentionGrid& g)
      : work(w), grid(g), scale(attention_scale(w.shape.width)) {}

  __device__ void operator()(char* memory) const {
    const AttentionShape& s = work.shape;
    const typename Base::Shared shared{reinterpret_cast<float*>(memory)};
    const int lane = int(threadIdx.x) % 32, tokens = int(s.tokens), width = int(s.width);
    const index_t sample = grid.sample(), key_head = grid.head();
    const int first_row = grid.tile() * Base::rows, first = first_row + int(threadIdx.x) / 32 * Base::own;
    const float* const qkv = work.qkv + sample * tokens * s.packed();
    const float* const output_gradient = work.output_gradient + sample * tokens * s.plain();
    const std::int32_t* const keep = work.keep ? work.keep + sample * tokens : nullptr;
    Base::copy(shared.first_own(), qkv + s.key_column(key_head), s.packed(), first_row, Base::rows, width, keep, tokens);
    Base::copy(shared.second_own(), qkv + s.value_column(key_head), s.packed(), first_row, Base::rows, width, keep, tokens);

    typename Base::Sum key_sum = {}, value_sum = {};
    for (index_t head = key_head * s.group(); head < (key_head + 1) * s.group(); ++head)
      for (int query = s.causal ? first_row / Base::tile * Base::tile : 0; query < tokens; query += Base::tile) {
        __syncthreads();
        Base::copy(shared.first_tile(), qkv + s.query_column(head), s.packed(), query, Base::tile, width, keep, tokens);
        Base::copy(shared.second_tile(), output_gradient + s.query_column(head), s.plain(), query, Base::tile, width, keep,
                   tokens);
        __syncthreads();
        float weights[Base::own], slopes[Base::own];
        Base::multiply_rows(weights, shared.first_own(), shared.first_tile());
        Base::multiply_rows(slopes, shared.second_own(), shared.second_tile());
        const index_t row = (sample * s.heads + head) * tokens + min(query + lane, tokens - 1);
        const float log_sum_exp = work.log_sum_exp[row], row_sum = work.row_sums[row];
        const bool kept = Base::kept(keep, query + lane, tokens);
#pragma unroll
        for (int r = 0; r < Base::own; ++r) {
          const bool visible = kept && (!s.causal || query + lane >= first + r);
          const float p = expf(fmaf(weights[r], scale, -log_sum_exp));
          weights[r] = visible ? p : 0;
          slopes[r] = visible ? (slopes[r] - row_sum) * p * scale : 0;
        }
        Base::add_rows(value_sum, weights, shared.second_tile());
        Base::add_rows(key_sum, slopes, shared.first_tile());
      }
#pragma unroll
    for (int r = 0; r < Base::own; ++r)
      if (first + r < tokens) {
        float* const to = work.qkv_gradient + (sample * tokens + first + r) * s.packed();
        const bool kept = Base::kept(keep, first + r, tokens);
        Base::store(key_sum[r], 1, kept, to + s.key_column(key_head), width);
        Base::store(value_sum[r], 1, kept, to + s.value_column(key_head), width);
      }
  }
};

template <class Block, class Work>
void launch_float_attention(cudaStream_t stream, const Work& work, index_t heads) {
  const AttentionGrid grid(work.shape, heads, Block::rows);
  launch_blocks(stream, grid.blocks(), Block::shared_bytes, Block(work, grid));
}

inline void attention_forward_f32(cudaStream_t stream, const AttentionForward<float>& work) {
  if (work.shape.width <= 64)
    launch_float_attention<FloatAttentionForward<64>>(stream, work, work.shape.heads);
  else
    launch_float_attention<FloatAttentionForward<128>>(stream, work, work.shape.heads);
}
inline void attention_backward_f32(cudaStream_t stream, const AttentionBackward<float>& work) {
  if (work.shape.width <= 64) {
    launch_float_attention<FloatAttentionQueryGradient<64>>(stream, work, work.shape.heads);
    launch_float_attention<FloatAttentionKeyGradient<64>>(stream, work, work.shape.key_heads);
  } else {
    launch_float_attention<FloatAttentionQueryGradient<128>>(stream, work, work.shape.heads);
    launch_float_attention<FloatAttentionKeyGradient<128>>(stream, work, work.shape.key_heads);
  }
}
}  // namespace dpmp::inline DPMP_ABI::kernels
