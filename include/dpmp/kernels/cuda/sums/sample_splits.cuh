// SPDX-License-Identifier: Apache-2.0
// Sums over samples when the output alone has too few tiles for the GPU: several thread blocks share a tile, each sums a
// range of samples into a slab of its own, and the slabs are added in order. No atomics: the result depends on the extents
// and the number of splits, never on timing.
#pragma once
#include <algorithm>

#include "dpmp/core/accumulation.hpp"
#include "dpmp/runtime/launch_blocks.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
__host__ __device__ constexpr index_t ceil_div(index_t x, index_t y) { return (x + y - 1) / y; }

/// How a batch is divided. A split's sum begins at zero, so k samples in s splits are a chain of k / s - 1 roundings, s - 1
/// more of the slabs and one of the output: never more than k.
struct SampleSplits {
  index_t samples_each = 0, splits = 1;
  /// Doubles of scratch for an output of that many elements.
  index_t scratch(index_t elements) const { return splits > 1 ? splits * elements : 0; }
};

/// Samples that a split has at least, so that slabs cost little compared with what they divide.
inline constexpr index_t samples_per_split = 8;

/// As many splits as fit next to each other on the GPU (slots: thread blocks that are resident together). Depends on public
/// extents only; the scratch is at most `slots` output tiles of doubles.
inline SampleSplits split_samples(index_t samples, index_t tiles, index_t slots) {
  const index_t most = std::max<index_t>(1, ceil_div(samples, samples_per_split));
  const index_t wanted = std::clamp<index_t>(slots / std::max<index_t>(1, tiles), 1, most),
                each = ceil_div(most, wanted) * samples_per_split;
  return {each, std::max<index_t>(1, ceil_div(samples, each))};
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
