// SPDX-License-Identifier: Apache-2.0
// The keys' and values' part of attention's backward pass on a CUDA device: dV = P^T dO and dK = dS^T Q, summed over the
// query heads that share them. Everything is formed transposed, keys in rows, so that P^T and dS^T are first operands as
// they come.
#pragma once
#include "dpmp/kernels/cuda/attention/tiles.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
/// A block: attention_warps * 16 * strips keys of one key head. Width: the head's width, padded.
template <class T, int Width>
struct AttentionKeyGradient {
  static constexpr int strips = attention_strips<Width>, own = 16 * strips, rows = attention_warps * own;
  static constexpr int threads = attention_threads, blocks_per_multiprocessor = 2;
  using Rows = AttentionRows<T, Width>;
  // After the rows, for each buffer: log-sum-exp and row sums of the tile's queries.
  static constexpr int shared_bytes = attention_shared_bytes<T, Width> + 4 * attention_tile * int(sizeof(float));

  AttentionBackward<T> work;
  AttentionGrid grid;
  float factor;  // log2(e) / sqrt(width): probabilities are powers of 2
  float scale;   // 1 / sqrt(width)
  // Worked out on the host: as kernel arguments they take no registers.
  index_t packed = work.shape.packed(), plain = work.shape.plain();
  int group_heads = int(work.shape.group());  // query heads that share a key head

  __device__ void operator()(char* shared) const {
    const AttentionShape& shape = work.shape;
    const int warp = int(threadIdx.x) / 32, tokens = int(shape.tokens), width = int(shape.width);
    const int first_row = grid.tile() * rows, first = first_row + warp * own;
    // Addresses are worked out from the sample where they are needed: the sums leave no registers to keep them in.
    int sample = int(grid.sample()), key_head = int(grid.head());
    const auto first_token = [&] { return sample * shape.tokens; };
    const auto sample_rows = [&] { return work.qkv + first_token() * packed; };
    const auto kept_tokens = [&](int from) {
      return KeptTokens(work.keep ? work.keep + first_token() : nullptr, from, tokens);
    };

    // Two buffers of 64 rows of queries and 64 of output gradients. They hold the block's keys and values first.
    const Rows tiles{reinterpret_cast<T*>(shared)};
    float* const statistics = reinterpret_cast<float*>(shared + attention_shared_bytes<T, Width>);
    const auto buffer = [&](int turn) { return tiles.from(turn % 2 * 2 * attention_tile); };
    // All query heads of the group one after the other, tile by tile. Under a causal mask no query before the block's first
    // key sees one. first_query, head: of the tile that is copied next.
    const int start = shape.causal ? first_row / attention_tile * attention_tile : 0;
    int first_query = start, head = key_head * group_heads;
    const auto copy_tile = [&](int turn, std::uint64_t kept) {
      const Rows to = buffer(turn);
      copy_attention_rows(to, sample_rows() + shape.query_column(head), packed, first_query, attention_tile, width, kept,
                          warp, attention_warps, read_lane());
      copy_attention_rows(to.from(attention_tile), work.output_gradient + first_token() * plain + shape.query_column(head),
                          plain, first_query, attention_tile, width, kept, warp, attention_warps, read_lane());
      const bool sums = int(threadIdx.x) >= attention_tile;
      const int query = first_query + int(threadIdx.x) % attention_tile;
      const float* const from = (sums ? work.row_sums : work.log_sum_exp) + (sample * shape.heads + head) * shape.tokens;
      copy_async_4(statistics + turn % 2 * 2 * attention_tile + int(threadIdx.x), from + (query < tokens ? query : 0),
                   query < tokens);
      copy_async_commit();
    };
    const auto advance = [&] {
      first_query += attention_tile;
      if (first_query >= tokens) first_query = start, ++head;
    };
    const unsigned own_kept = unsigned(kept_tokens(first).mask());
    copy_attention_rows(tiles.from(warp * own), sample_rows() + shape.key_column(key_head), packed, first, own, width,
                        own_kept, 0, 1, read_lane());
    copy_attention_rows(tiles.from(rows + warp * own), sample_rows() + shape.value_column(key_head), packed, first, own,
                        width, own_kept, 0, 1, read_lane());
    copy_async_commit();
    copy_async_wait<0>();
    __syncwarp();
    unsigned keys[strips][Width / 16][4], values[strips][Width / 16][4];
#pragma unroll
    for (int s = 0; s < strips; ++s) {
      load_strip(keys[s], tiles, warp * own + 16 * s);
      load_strip(values[s], tiles, rows + warp * own + 16 * s);
    }
    __syncthreads();
    // Tiles to go, this one included; also picks the buffer.
    int left = group_heads * ((tokens - start + attention_tile - 1) / attention_tile);
    copy_tile(left, kept_tokens(start).mask());

    float key_sum[strips][Width / 8][4] = {}, value_sum[strips][Width / 8][4] = {};
    do {
      const int tile_query = first_query;
      advance();
      // The flags are on their way while the tile lands.
      const KeptTokens next = kept_tokens(first_query);
      copy_async_wait<0>();
      __syncthreads();
      if (left > 1) copy_tile(left - 1, next.mask());
      // A warp may have nothing to do in this tile; that depends on public extents only.
      if (first < tokens && (!shape.causal || tile_query + attention_tile > first)) {
        const int lane = read_lane(), group = lane / 4, member = lane % 4;
        // 16 queries at a time, and the first of this lane minus its first key.
        Rows query_rows = buffer(left);
        const float* log_sum_exp = statistics + left % 2 * 2 * attention_tile + 2 * member;
        int ahead_by = tile_query + 2 * member - first - group;
        // Queries that are padding or do not exist need no mask: their rows are 0 in both tiles, so they add nothing.
        const bool diagonal = shape.causal && tile_query < first + own - 1;
#pragma unroll 1
        for (int k = 0; k < attention_tile; k += 16) {
          const Rows gradient_rows = query_rows.from(attention_tile);
          unsigned probabilities[strips][4], slopes[strips][4];
          // 8 queries at a time: the sums leave few registers.
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            float p[strips][1][4], g[strips][1][4];
            multiply_by_rows<1>(p, keys, query_rows, 8 * j, lane);
            multiply_by_rows<1>(g, values, gradient_rows, 8 * j, lane);
            const float2 shift = *reinterpret_cast<const float2*>(log_sum_exp + 8 * j);
            const float2 row_sum = *reinterpret_cast<const float2*>(log_sum_exp + attention_tile + 8 * j);
#pragma unroll
            for (int s = 0; s < strips; ++s)
#pragma unroll
              for (int h = 0; h < 2; ++h) {
                float x[2], y[2];
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                  // Query minus key.
                  const bool visible = !diagonal || ahead_by + 8 * j + e >= 16 * s + 8 * h;
                  x[e] = exp2_fast(fmaf(p[s][0][2 * h + e], factor, -(e ? shift.y : shift.x) * attention_log2_e));
                  y[e] = x[e] * (g[s][0][2 * h + e] - (e ? row_sum.y : row_sum.x)) * scale;
                  x[e] = visible ? x[e] : 0, y[e] = visible ? y[e] : 0;
                }
                probabilities[s][2 * j + h] = round_pair<T>(x[0], x[1]), slopes[s][2 * j + h] = round_pair<T>(y[0], y[1]);
              }
          }
          add_weighted_rows(value_sum, probabilities, gradient_rows, 0, lane);
          add_weighted_rows(key_sum, slopes, query_rows, 0, lane);
          query_rows = query_rows.from(16), log_sum_exp += 16, ahead_by += 16;
        }
      }
    } while (--left > 0);
    // The walk ended at the next group's first head: the key head comes from there, not out of a register kept for it.
    key_head = head / group_heads - 1;
    const unsigned still_kept = unsigned(kept_tokens(first).mask());
    // Nobody reads the other buffer any more.
    const Rows staging = buffer(0).from(warp * own);
    T* const to = work.qkv_gradient + (first_token() + first) * packed;
    const float one[2] = {1, 1};
#pragma unroll
    for (int s = 0; s < strips; ++s) {
      const index_t offset = index_t(16 * s) * packed;
      const int existing = tokens - first - 16 * s;
      const unsigned strip_kept = still_kept >> 16 * s;
      store_strip<T, Width>(key_sum[s], one, staging.from(16 * s), to + offset + shape.key_column(key_head), packed, width,
                            existing, strip_kept);
      store_strip<T, Width>(value_sum[s], one, staging.from(16 * s), to + offset + shape.value_column(key_head), packed,
                            width, existing, strip_kept);
    }
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
