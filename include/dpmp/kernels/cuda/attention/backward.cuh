// SPDX-License-Identifier: Apache-2.0
// Attention's backward pass on a CUDA device (Dao 2023, arXiv 2307.08691): one kernel over tiles of queries, one over tiles
// of keys, so that each element of the gradient is summed in one place and in one order. No atomics, no second buffer.
#pragma once
#include "dpmp/kernels/cuda/attention/f32.cuh"
#include "dpmp/kernels/cuda/attention/key_gradient.cuh"
#include "dpmp/kernels/cuda/attention/query_gradient.cuh"
#include "dpmp/kernels/cuda/attention/row_sums.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
template <int Width, class T>
void attention_backward_padded(cudaStream_t stream, const AttentionBackward<T>& work) {
  using Queries = AttentionQueryGradient<T, Width>;
  using Keys = AttentionKeyGradient<T, Width>;
  const float scale = attention_scale(work.shape.width), factor = scale * attention_log2_e;
  const AttentionGrid queries(work.shape, work.shape.heads, Queries::rows);
  const AttentionGrid keys(work.shape, work.shape.key_heads, Keys::rows);
  launch_blocks(stream, queries.blocks(), Queries::shared_bytes, Queries{work, queries, factor, std::log2(scale)});
  launch_blocks(stream, keys.blocks(), Keys::shared_bytes, Keys{work, keys, factor, scale});
}

/// The gradient of qkv of every sample, each by itself. T: bf16, f16, float.
template <class T>
void attention_backward(cudaStream_t stream, const AttentionBackward<T>& work) {
  check_attention(work.shape);
  check_attention_pointer(work.qkv, "qkv");
  check_attention_pointer(work.output, "output");
  check_attention_pointer(work.output_gradient, "output_gradient");
  check_attention_pointer(work.qkv_gradient, "qkv_gradient");
  attention_row_sums(stream, work);
  if constexpr (std::is_same_v<T, float>)
    attention_backward_f32(stream, work);
  else if (work.shape.width <= 32)
    attention_backward_padded<32>(stream, work);
  else if (work.shape.width <= 64)
    attention_backward_padded<64>(stream, work);
  else if (work.shape.width <= 96)
    attention_backward_padded<96>(stream, work);
  else
    attention_backward_padded<128>(stream, work);
}
}  // namespace dpmp::inline DPMP_ABI::kernels
