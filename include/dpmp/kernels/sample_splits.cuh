// SPDX-License-Identifier: Apache-2.0
// Sums over samples when the output alone has too few tiles for the GPU: several thread blocks share a tile, each sums a
// range of whole FP32 blocks of samples into a slab of its own, and the slabs are added in order. No atomics: the result
// depends on the extents and the number of splits, never on timing.
#pragma once
#include <algorithm>

#include "dpmp/runtime/launch_blocks.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
__host__ __device__ constexpr index_t ceil_div(index_t x, index_t y) { return (x + y - 1) / y; }

/// Samples whose scaled gradients one FP32 accumulator sums before the sum moves on to double. The sensitivity of the
/// clipped sum is derived for at most 8 (dp::samples_per_float_block).
inline constexpr index_t samples_per_accumulator = 8;

/// How a batch is divided. samples_each is a multiple of samples_per_accumulator, so that splits never cut an FP32 block.
struct SampleSplits {
  index_t samples_each = 0, splits = 1;
  /// Doubles of scratch for an output of that many elements.
  index_t scratch(index_t elements) const { return splits > 1 ? splits * elements : 0; }
};

/// As many splits as fit beside each other on the GPU (slots: thread blocks that are resident together), at most one for
/// each FP32 block of samples. Depends on public extents only; the scratch is at most `slots` output tiles of doubles.
inline SampleSplits split_samples(index_t samples, index_t tiles, index_t slots) {
  const index_t blocks = std::max<index_t>(1, ceil_div(samples, samples_per_accumulator));
  const index_t wanted = std::clamp<index_t>(slots / std::max<index_t>(1, tiles), 1, blocks),
                each = ceil_div(blocks, wanted);
  return {each * samples_per_accumulator, ceil_div(blocks, each)};
}

/// sum[e] += slabs[0, e] + slabs[1, e] + ..., from the left.
struct AddSlabs {
  static constexpr int threads = 256, blocks_per_multiprocessor = 4;
  const double* slabs;  // [splits, elements]
  double* sum;          // [elements]
  index_t splits, elements;

  __device__ void operator()(char*) const {
    const index_t e = index_t(blockIdx.x) * threads + threadIdx.x;
    if (e >= elements) return;
    double total = slabs[e];
    for (index_t s = 1; s < splits; ++s) total += slabs[s * elements + e];
    sum[e] += total;
  }
};

inline void add_slabs(cudaStream_t stream, const double* slabs, double* sum, index_t splits, index_t elements) {
  launch_blocks(stream, dim3(unsigned(ceil_div(elements, AddSlabs::threads))), 0, AddSlabs{slabs, sum, splits, elements});
}
}  // namespace dpmp::inline DPMP_ABI::kernels
