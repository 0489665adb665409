// SPDX-License-Identifier: Apache-2.0
// Per-sample vectors on CUDA: sums over tokens, norms and weighted sums.
#include "dpmp/runtime/cuda_backend.cuh"
#include "dpmp/runtime/launch_cuda.cuh"
#include "per_sample/many_vectors.hpp"

TEST_CASE("biases of many parameters on CUDA: their vectors, norms and weighted sums") {
  dpmp::Context ctx(dpmp::Device::cuda(0), 1);
  test::Rng rng(test::seed(), 1);
  for (const dpmp::index_t samples : {0, 1, 6, 9}) test::check_many_vectors(ctx, rng, samples);
}
