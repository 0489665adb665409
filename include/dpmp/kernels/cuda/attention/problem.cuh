// SPDX-License-Identifier: Apache-2.0
// The extents of an attention problem on a CUDA device, where its heads are in packed rows, and what is refused.
#pragma once
#include <cmath>
#include <limits>

#include "dpmp/core/low_precision.hpp"
#include "dpmp/runtime/launch_blocks.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
/// A packed row of qkv is queries [heads, width], keys and values [key_heads, width]; query heads k * heads / key_heads ..
/// share key head k. width: a multiple of 8, at most 128.
struct AttentionShape {
  index_t samples, tokens, heads, key_heads, width;
  /// Token t sees tokens 0..t only.
  bool causal;

  DPMP_HD index_t packed() const { return (heads + 2 * key_heads) * width; }
  DPMP_HD index_t plain() const { return heads * width; }
  DPMP_HD index_t group() const { return heads / key_heads; }
  /// Columns of a packed row.
  DPMP_HD index_t query_column(index_t head) const { return head * width; }
  DPMP_HD index_t key_column(index_t key_head) const { return (heads + key_head) * width; }
  DPMP_HD index_t value_column(index_t key_head) const { return (heads + key_heads + key_head) * width; }
};

/// What the forward pass reads and writes. T: bf16, f16, float. Arrays are aligned to 16 bytes; output is no input.
template <class T>
struct AttentionForward {
  const T* qkv;              // [samples, tokens, packed]
  const std::int32_t* keep;  // [samples, tokens], 0: the token is padding; null: none is
  T* output;                 // [samples, tokens, heads * width]; 0 in rows of padding
  float* log_sum_exp;        // [samples, heads, tokens], of the scores seen; +Inf where none is and in rows of padding
  AttentionShape shape;
};

/// What the backward pass reads and writes.
template <class T>
struct AttentionBackward {
  const T* qkv;              // [samples, tokens, packed]
  const std::int32_t* keep;  // [samples, tokens] or null
  const T* output;           // [samples, tokens, heads * width], of the forward pass
  const float* log_sum_exp;  // [samples, heads, tokens], of the forward pass
  const T* output_gradient;  // [samples, tokens, heads * width]; rows of padding may hold anything
  T* qkv_gradient;           // [samples, tokens, packed], every element is written; 0 in rows of padding
  float* row_sums;           // [samples, heads, tokens], scratch
  AttentionShape shape;
};

/// Throws unless the kernels can run it.
inline void check_attention(const AttentionShape& s) {
  DPMP_CHECK(s.samples >= 0 && s.tokens >= 0 && s.tokens < (index_t(1) << 30),
             "attention: expected samples >= 0 and 0 <= tokens < 2^30, got ", s.samples, " and ", s.tokens);
  DPMP_CHECK(s.heads >= 1 && s.key_heads >= 1 && s.heads % s.key_heads == 0,
             "attention: expected heads >= 1 and key and value heads that divide them, got ", s.heads, " and ", s.key_heads);
  DPMP_CHECK(s.width >= 8 && s.width <= 128 && s.width % 8 == 0,
             "attention on CUDA: expected a head width of 8, 16, .., 128, got ", s.width);
}
/// Rows are read and written 16 bytes at a time.
inline void check_attention_pointer(const void* p, const char* name) {
  DPMP_CHECK(reinterpret_cast<std::uintptr_t>(p) % 16 == 0, "attention on CUDA: expected ", name,
             " at a multiple of 16 bytes, got address ", p);
}

/// The blocks of a launch: tiles of `rows` tokens, of each head of each sample; one block's part of that.
struct AttentionGrid {
  index_t samples, heads, tiles;

  AttentionGrid(const AttentionShape& shape, index_t heads_, index_t rows)
      : samples(shape.samples), heads(heads_), tiles((shape.tokens + rows - 1) / rows) {
    DPMP_CHECK(samples * heads * tiles < (index_t(1) << 31),
               "attention on CUDA: expected fewer than 2^31 tiles, got samples x heads x tiles = ", samples, " x ", heads,
               " x ", tiles);
  }
  dim3 blocks() const { return dim3(unsigned(samples * heads * tiles)); }
  __device__ __forceinline__ int tile() const { return int(blockIdx.x % unsigned(tiles)); }
  /// The same, from the last one to the first: under a causal mask the last queries see the most keys, so they start first.
  __device__ __forceinline__ int tile_from_end() const { return int(tiles) - 1 - tile(); }
  __device__ __forceinline__ index_t head() const { return blockIdx.x / unsigned(tiles) % unsigned(heads); }
  __device__ __forceinline__ index_t sample() const { return blockIdx.x / unsigned(tiles) / unsigned(heads); }
};

/// 1 / sqrt(width), the factor of scores, in FP32 in every dtype, as on the host.
inline float attention_scale(index_t width) { return float(1 / std::sqrt(double(width))); }
inline constexpr float attention_log2_e = 1.44269504088896341f, attention_ln_2 = 0.693147180559945309f;
inline constexpr float attention_infinity = std::numeric_limits<float>::infinity(),
                       attention_lowest = std::numeric_limits<float>::lowest();
}  // namespace dpmp::inline DPMP_ABI::kernels
