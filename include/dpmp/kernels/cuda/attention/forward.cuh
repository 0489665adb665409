// SPDX-License-Identifier: Apache-2.0
// Attention's forward pass on a CUDA device: softmax(Q K^T / sqrt(width)) V, tile by tile with a running maximum (Milakov
// and Gimelshein 2018, arXiv 1805.02867; Dao 2023, arXiv 2307.08691). Nothing of size tokens x tokens leaves the registers.
#pragma once
#include "dpmp/kernels/cuda/attention/f32.cuh"
#include "dpmp/kernels/cuda/attention/tiles.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
/// A block: attention_warps * 16 * strips queries of one head. Width: the head's width, padded.
template <class T, int Width>
struct AttentionForwardBlock {
  static constexpr int strips = attention_strips<Width>, own = 16 * strips, rows = attention_warps * own;
  static constexpr int threads = attention_threads, blocks_per_multiprocessor = 2;
  using Rows = AttentionRows<T, Width>;
  static constexpr int shared_bytes = attention_shared_bytes<T, Width>;

  AttentionForward<T> work;
  AttentionGrid grid;
  float factor;  // log2(e) / sqrt(width): weights are powers of 2

  __device__ void operator()(char* shared) const {
    const AttentionShape& shape = work.shape;
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, group = lane / 4, member = lane % 4;
    const int tokens = int(shape.tokens), width = int(shape.width);
    const index_t sample = grid.sample(), head = grid.head(), key_head = head / shape.group();
    const int first_row = grid.tile_from_end() * rows, first = first_row + warp * own;
    const T* const sample_rows = work.qkv + sample * tokens * shape.packed();
    const T* const keys = sample_rows + shape.key_column(key_head);
    const std::int32_t* const keep = work.keep ? work.keep + sample * tokens : nullptr;

    // Two buffers of 64 rows of keys and 64 of values. The second one holds the block's queries first.
    const Rows tiles{reinterpret_cast<T*>(shared)};
    const auto buffer = [&](int tile) { return tiles.from(tile % 2 * 2 * attention_tile); };
    const auto copy_tile = [&](int tile, std::uint64_t kept) {
      const Rows to = buffer(tile);
      const int first_key = tile * attention_tile;
      copy_attention_rows(to, keys, shape.packed(), first_key, attention_tile, width, kept, warp, attention_warps);
      copy_attention_rows(to.from(attention_tile), keys + shape.key_heads * width, shape.packed(), first_key, attention_tile,
                          width, kept, warp, attention_warps);
      copy_async_commit();
    };

    const int seen = shape.causal ? min(tokens, first_row + rows) : tokens;
    const int tile_count = (seen + attention_tile - 1) / attention_tile;
    std::uint64_t kept = KeptTokens(keep, 0, tokens).mask();
    copy_attention_rows(buffer(1).from(warp * own), sample_rows + shape.query_column(head), shape.packed(), first, own,
                        width, KeptTokens(keep, first, tokens).mask());
    copy_tile(0, kept);

    unsigned queries[strips][Width / 16][4];
    float sum[strips][Width / 8][4] = {}, total[strips][2] = {}, top[strips][2];
    copy_async_wait<0>();
    __syncwarp();
#pragma unroll
    for (int s = 0; s < strips; ++s) {
      load_strip(queries[s], buffer(1), warp * own + 16 * s);
      top[s][0] = top[s][1] = attention_lowest;
    }

    for (int tile = 0; tile < tile_count; ++tile) {
      // The flags are on their way while the tile lands.
      const KeptTokens next_flags(keep, (tile + 1) * attention_tile, tokens);
      copy_async_wait<0>();
      __syncthreads();
      const std::uint64_t next = next_flags.mask();
      if (tile + 1 < tile_count) copy_tile(tile + 1, next);

      const int first_key = tile * attention_tile;
      // A warp may have nothing to do in this tile; that too depends on public extents only.
      if (first < tokens && (!shape.causal || first_key < first + own)) {
        const Rows key_tile = buffer(tile), value_tile = key_tile.from(attention_tile);
        float scores[strips][attention_tile / 8][4];
        multiply_by_rows<attention_tile / 8>(scores, queries, key_tile, 0);
        // Which tiles need the masks depends on public extents only.
        if (keep || first_key + attention_tile > tokens || (shape.causal && first_key + attention_tile > first))
          hide(scores, kept >> 2 * member, first_key + 2 * member, first + group);
        weigh(scores, sum, total, top);
        // Weights are rounded to storage before they meet the values, as on the host; their total is not. The host divides
        // before it rounds: the same relative error.
#pragma unroll
        for (int k = 0; k < attention_tile / 16; ++k) {
          unsigned weights[strips][4];
#pragma unroll
          for (int s = 0; s < strips; ++s) round_to_first<T>(weights[s], scores[s][2 * k], scores[s][2 * k + 1]);
          add_weighted_rows(sum, weights, value_tile, 16 * k);
        }
      }
      kept = next;
    }
    // Nobody reads the other buffer any more. The flags are read again: registers are short.
    store(sum, total, top, buffer(tile_count).from(warp * own), first, KeptTokens(keep, first, tokens).mask());
  }

 private:
  /// Scores that are not seen become -Inf, and so their weights 0 under any maximum. kept, key: from this lane's first
  /// column on; query: this lane's first row.
  __device__ __forceinline__ void hide(float (&scores)[strips][attention_tile / 8][4], std::uint64_t kept, int key,
                                       int query) const {
#pragma unroll
    for (int s = 0; s < strips; ++s)
#pragma unroll
      for (int j = 0; j < attention_tile / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int column = 8 * j + e % 2;
          const bool seen = (kept >> column & 1) != 0 && (!work.shape.causal || key + column <= query + 16 * s + e / 2 * 8);
          scores[s][j][e] = seen ? scores[s][j][e] : -attention_infinity;
        }
  }
  /// Scores become weights 2^(factor * (score - top)), with top the maximum so far; sum and total go over to the new top.
  /// total: this lane's share. The maximum starts at the lowest number: no Inf - Inf where nothing is seen yet.
  __device__ __forceinline__ void weigh(float (&scores)[strips][attention_tile / 8][4], float (&sum)[strips][Width / 8][4],
                                        float (&total)[strips][2], float (&top)[strips][2]) const {
#pragma unroll
    for (int s = 0; s < strips; ++s)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float old_shift = top[s][h] * factor;
        float t = top[s][h];
#pragma unroll
        for (int j = 0; j < attention_tile / 8; ++j) t = fmaxf(t, fmaxf(scores[s][j][2 * h], scores[s][j][2 * h + 1]));
        t = fmaxf(t, __shfl_xor_sync(~0u, t, 1));
        t = fmaxf(t, __shfl_xor_sync(~0u, t, 2));
        const float shift = t * factor, rescale = exp2_fast(old_shift - shift);
        float added = 0;
#pragma unroll
        for (int j = 0; j < attention_tile / 8; ++j)
#pragma unroll
          for (int e = 2 * h; e < 2 * h + 2; ++e) {
            scores[s][j][e] = exp2_fast(fmaf(scores[s][j][e], factor, -shift));
            added += scores[s][j][e];
          }
        total[s][h] = fmaf(total[s][h], rescale, added);
        top[s][h] = t;
#pragma unroll
        for (int j = 0; j < Width / 8; ++j) sum[s][j][2 * h] *= rescale, sum[s][j][2 * h + 1] *= rescale;
      }
  }
  __device__ __forceinline__ void store(const float (&sum)[strips][Width / 8][4], const float (&total)[strips][2],
                                        const float (&top)[strips][2], Rows staging, int first, std::uint64_t kept) const {
    const AttentionShape& shape = work.shape;
    const int lane = int(threadIdx.x) % 32, tokens = int(shape.tokens);
    const index_t sample = grid.sample(), head = grid.head();
    T* const output = work.output + sample * tokens * shape.plain() + shape.query_column(head);
    float* const log_sum_exp = work.log_sum_exp + (sample * shape.heads + head) * tokens;
#pragma unroll
    for (int s = 0; s < strips; ++s) {
      float inverse[2];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float all = total[s][h];
        all += __shfl_xor_sync(~0u, all, 1);
        all += __shfl_xor_sync(~0u, all, 2);
        inverse[h] = all == 0 ? 0 : 1 / all;
        const int row = 16 * s + lane / 4 + 8 * h;
        const bool empty = all == 0 || (kept >> row & 1) == 0;
        const float value = (top[s][h] * factor + log2f(all)) * attention_ln_2;
        if (lane % 4 == 0 && first + row < tokens) log_sum_exp[first + row] = empty ? attention_infinity : value;
      }
      store_strip<T, Width>(sum[s], inverse, staging.from(16 * s), output + index_t(first + 16 * s) * shape.plain(),
                            shape.plain(), int(shape.width), tokens - first - 16 * s, unsigned(kept >> 16 * s));
    }
  }
};

template <int Width, class T>
void attention_forward_padded(cudaStream_t stream, const AttentionForward<T>& work) {
  using Block = AttentionForwardBlock<T, Width>;
  const AttentionGrid grid(work.shape, work.shape.heads, Block::rows);
  launch_blocks(stream, grid.blocks(), Block::shared_bytes,
                Block{work, grid, attention_scale(work.shape.width) * attention_log2_e});
}

/// output and log_sum_exp of every sample, each by itself: no other sample's values touch it. T: bf16, f16, float.
template <class T>
void attention_forward(cudaStream_t stream, const AttentionForward<T>& work) {
  check_attention(work.shape);
  check_attention_pointer(work.qkv, "qkv");
  check_attention_pointer(work.output, "output");
  if constexpr (std::is_same_v<T, float>)
    attention_forward_f32(stream, work);
  else if (work.shape.width <= 32)
    attention_forward_padded<32>(stream, work);
  else if (work.shape.width <= 64)
    attention_forward_padded<64>(stream, work);
  else if (work.shape.width <= 96)
    attention_forward_padded<96>(stream, work);
  else
    attention_forward_padded<128>(stream, work);
}
}  // namespace dpmp::inline DPMP_ABI::kernels
