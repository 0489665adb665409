// SPDX-License-Identifier: Apache-2.0
// How a hand-written kernel is launched: a functor that is one thread block's work, together with its launch facts.
#pragma once
#include "dpmp/runtime/cuda_error.cuh"

namespace dpmp::inline DPMP_ABI {
namespace detail {
template <class K>
__global__ void __launch_bounds__(K::threads, K::blocks_per_multiprocessor) block_kernel(const K kernel) {
  extern __shared__ __align__(128) char shared[];
  kernel(shared);
}
}  // namespace detail

/// Runs kernel(shared memory) in each of `blocks` blocks of K::threads threads. K: a trivially copyable functor with
/// `static constexpr int threads, blocks_per_multiprocessor` and `__device__ void operator()(char* shared) const`; `shared`
/// is aligned to 128 bytes. An empty grid is no launch. Throws what CUDA refuses.
template <class K>
void launch_blocks(cudaStream_t stream, dim3 blocks, std::size_t shared_bytes, const K& kernel) {
  static_assert(std::is_trivially_copyable_v<K>);
  if (blocks.x == 0 || blocks.y == 0 || blocks.z == 0) return;
  if (shared_bytes > (std::size_t(48) << 10))
    detail::check_cuda(
        cudaFuncSetAttribute(detail::block_kernel<K>, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)),
        detail::concat("reserve ", shared_bytes, " bytes of shared memory for a block"));
  detail::block_kernel<K><<<blocks, K::threads, shared_bytes, stream>>>(kernel);
  detail::check_cuda(cudaGetLastError(), detail::concat("launch ", blocks.x, " x ", blocks.y, " x ", blocks.z, " blocks of ",
                                                        K::threads, " threads"));
}
}  // namespace dpmp::inline DPMP_ABI
