// SPDX-License-Identifier: Apache-2.0
// The queries' part of attention's backward pass on a CUDA device: dQ = dS K with dS = P (dO V^T - row sums) / sqrt(width),
// the probabilities formed again from the forward pass's log-sum-exp. Nobody else writes to these rows.
#pragma once
#include "dpmp/kernels/cuda/attention/tiles.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
/// A block: attention_warps * 16 * strips queries of one head. Width: the head's width, padded.
template <class T, int Width>
struct AttentionQueryGradient {
  static constexpr int strips = attention_strips<Width>, own = 16 * strips, rows = attention_warps * own;
  static constexpr int threads = attention_threads, blocks_per_multiprocessor = 2;
  using Rows = AttentionRows<T, Width>;
  static constexpr int shared_bytes = attention_shared_bytes<T, Width>;

  AttentionBackward<T> work;
  AttentionGrid grid;
  float factor;      // log2(e) / sqrt(width): probabilities are powers of 2
  float log2_scale;  // of 1 / sqrt(width), by which the probabilities are multiplied in the exponent

  __device__ void operator()(char* shared) const {
    const AttentionShape& shape = work.shape;
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, group = lane / 4, member = lane % 4;
    const int tokens = int(shape.tokens), width = int(shape.width);
    const index_t sample = grid.sample(), head = grid.head(), key_head = head / shape.group();
    const int first_row = grid.tile_from_end() * rows, first = first_row + warp * own;
    const T* const sample_rows = work.qkv + sample * tokens * shape.packed();
    const T* const keys = sample_rows + shape.key_column(key_head);
    const T* const output_gradient = work.output_gradient + sample * tokens * shape.plain() + shape.query_column(head);
    const std::int32_t* const keep = work.keep ? work.keep + sample * tokens : nullptr;

    // Two buffers of 64 rows of keys and 64 of values. They hold the block's queries and output gradients first.
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
    const std::uint64_t own_kept = KeptTokens(keep, first, tokens).mask();
    std::uint64_t kept = KeptTokens(keep, 0, tokens).mask();

    copy_attention_rows(tiles.from(warp * own), sample_rows + shape.query_column(head), shape.packed(), first, own, width,
                        own_kept);
    copy_attention_rows(tiles.from(rows + warp * own), output_gradient, shape.plain(), first, own, width, own_kept);
    copy_async_commit();
    float shift[strips][2], row_sum[strips][2];
    const index_t statistics = (sample * shape.heads + head) * tokens;
#pragma unroll
    for (int s = 0; s < strips; ++s)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = first + 16 * s + group + 8 * h;
        const bool inside = row < tokens;
        shift[s][h] = (inside ? work.log_sum_exp[statistics + row] : attention_infinity) * attention_log2_e - log2_scale;
        row_sum[s][h] = inside ? work.row_sums[statistics + row] : 0;
      }
    unsigned queries[strips][Width / 16][4], gradients[strips][Width / 16][4];
    copy_async_wait<0>();
    __syncwarp();
#pragma unroll
    for (int s = 0; s < strips; ++s) {
      load_strip(queries[s], tiles, warp * own + 16 * s);
      load_strip(gradients[s], tiles, rows + warp * own + 16 * s);
    }
    __syncthreads();
    copy_tile(0, kept);

    float sum[strips][Width / 8][4] = {};
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
        // Which tiles need the masks depends on public extents only.
        const bool masked =
            keep || first_key + attention_tile > tokens || (shape.causal && first_key + attention_tile > first);
#pragma unroll 1
        for (int k = 0; k < attention_tile; k += 16) {
          float scores[strips][2][4], slopes[strips][2][4];
          multiply_by_rows<2>(scores, queries, key_tile, k);
          multiply_by_rows<2>(slopes, gradients, value_tile, k);
          unsigned weights[strips][4];
#pragma unroll
          for (int s = 0; s < strips; ++s) {
#pragma unroll
            for (int j = 0; j < 2; ++j)
#pragma unroll
              for (int e = 0; e < 4; ++e) {
                const float p = exp2_fast(fmaf(scores[s][j][e], factor, -shift[s][e / 2]));
                const float slope = p * (slopes[s][j][e] - row_sum[s][e / 2]);
                const int column = k + 8 * j + 2 * member + e % 2;
                const bool visible =
                    !masked || ((kept >> column & 1) != 0 &&
                                (!shape.causal || first_key + column <= first + 16 * s + group + e / 2 * 8));
                scores[s][j][e] = visible ? slope : 0;
              }
            round_to_first<T>(weights[s], scores[s][0], scores[s][1]);
          }
          add_weighted_rows(sum, weights, key_tile, k);
        }
      }
      kept = next;
    }
    // Nobody reads the other buffer any more.
    T* const to = work.qkv_gradient + (sample * tokens + first) * shape.packed() + shape.query_column(head);
    const float one[2] = {1, 1};
#pragma unroll
    for (int s = 0; s < strips; ++s)
      store_strip<T, Width>(sum[s], one, buffer(tile_count).from(warp * own + 16 * s), to + index_t(16 * s) * shape.packed(),
                            shape.packed(), width, tokens - first - 16 * s, unsigned(own_kept >> 16 * s));
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
