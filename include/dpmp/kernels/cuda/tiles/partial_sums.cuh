// SPDX-License-Identifier: Apache-2.0
// Sums in an order that depends on nothing but their length.
#pragma once
#include "dpmp/core/low_precision.hpp"

namespace dpmp::inline DPMP_ABI::kernels {
/// The sum over the warp's lanes, in every lane: 5 additions deep.
template <class Real>
__device__ __forceinline__ Real warp_sum(Real x) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffffu, x, distance);
  return x;
}

/// x[0] + x[stride] + .. (count terms), in every lane of the warp.
__device__ __forceinline__ double warp_sum_of(const double* x, index_t count, index_t stride = 1) {
  double sum = 0;
  for (index_t k = int(threadIdx.x) % 32; k < count; k += 32) sum += x[k * stride];
  return warp_sum(sum);
}

/// warps[w] = the sum of warp w's x in FP32; the caller puts a barrier after it and adds the warps in double.
__device__ __forceinline__ void store_warp_sums(float x, double* warps) {
  const float sum = warp_sum(x);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = double(sum);
}
template <int warp_count>
__device__ __forceinline__ double sum_of_warps(const double* warps) {
  double sum = 0;
#pragma unroll
  for (int w = 0; w < warp_count; ++w) sum += warps[w];
  return sum;
}
}  // namespace dpmp::inline DPMP_ABI::kernels
