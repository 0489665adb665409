// SPDX-License-Identifier: Apache-2.0
// Before attention's backward pass on a CUDA device: sum over a head's columns of output gradient times output. It is the
// mean of the probabilities' gradients under the probabilities, which the softmax's backward subtracts.
#pragma once
#include "dpmp/kernels/cuda/attention/problem.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
/// 8 lanes a row of a head. T: bf16, f16, float.
template <class T>
struct AttentionRowSums {
  static constexpr int threads = 128, blocks_per_multiprocessor = 4, lanes = 8, rows = threads / lanes;

  AttentionBackward<T> work;

  __device__ void operator()(char*) const {
    const AttentionShape& shape = work.shape;
    constexpr int chunk = 16 / int(sizeof(T));
    const index_t row = index_t(blockIdx.x) * rows + int(threadIdx.x) / lanes,
                  all = shape.samples * shape.heads * shape.tokens;
    const index_t token = row % shape.tokens, head = row / shape.tokens % shape.heads,
                  sample = row / shape.tokens / shape.heads;
    const index_t offset = (sample * shape.tokens + token) * shape.plain() + shape.query_column(head);
    float sum = 0;
    if (row < all)
      for (int k = int(threadIdx.x) % lanes * chunk; k < int(shape.width); k += lanes * chunk) {
        T x[chunk], g[chunk];
        *reinterpret_cast<uint4*>(x) = *reinterpret_cast<const uint4*>(work.output + offset + k);
        *reinterpret_cast<uint4*>(g) = *reinterpret_cast<const uint4*>(work.output_gradient + offset + k);
#pragma unroll
        for (int j = 0; j < chunk; ++j) sum = fmaf(to_float(x[j]), to_float(g[j]), sum);
      }
#pragma unroll
    for (int distance = lanes / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
    if (row < all && int(threadIdx.x) % lanes == 0) {
      const bool kept = !work.keep || work.keep[sample * shape.tokens + token] != 0;
      work.row_sums[row] = kept ? sum : 0;
    }
  }
};

template <class T>
void attention_row_sums(cudaStream_t stream, const AttentionBackward<T>& work) {
  const index_t rows = work.shape.samples * work.shape.heads * work.shape.tokens;
  const index_t blocks = (rows + AttentionRowSums<T>::rows - 1) / AttentionRowSums<T>::rows;
  DPMP_CHECK(blocks < (index_t(1) << 31), "attention on CUDA: expected fewer than 2^35 rows of heads, got ", rows);
  launch_blocks(stream, dim3(unsigned(blocks)), 0, AttentionRowSums<T>{work});
}
}  // namespace dpmp::inline DPMP_ABI::kernels
