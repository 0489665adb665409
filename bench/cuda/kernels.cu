// SPDX-License-Identifier: Apache-2.0
#include "kernels.hpp"

#include "model_kernels.cuh"
#include "private_kernels.cuh"

namespace bench {
namespace {
using dpmp::bf16;

/// Tiles, a rest, and more than one sample: enough to see that every kernel runs and is right.
void measure_tiny(Suite& suite) {
  bench_copy(suite, 1 << 16);
  bench_gemm<bf16, bf16>(suite, "ceiling, product", 1, 64, 64, 64, false, true, false, false);
  const SiteExtents site{2, 128, 64, 192};
  bench_norms<bf16>(suite, site);
  bench_norms<float>(suite, {2, 64, 64, 64});
  bench_weighted_sum<bf16>(suite, site);
  bench_weighted_sum<float>(suite, {2, 32, 64, 64});
  bench_segments<bf16>(suite, 2, 64, 32, 64);
  bench_attention<bf16>(suite, 2, 128, 2, 64);
  bench_layer_norm<bf16>(suite, 2, 16, 64);
  bench_cross_entropy<bf16>(suite, 2, 8, 512);
  bench_update(suite, 4096);
  bench_gemm<bf16, bf16>(suite, "gemm, forward", 1, 128, 48, 32, false, true);
  bench_gemm<bf16, float>(suite, "gemm, per-sample gradients", 2, 48, 32, 64, true, false);
  bench_gemm<bf16, float>(suite, "gemm, per-sample gradients with biases", 2, 48, 32, 64, true, false, true);
}

/// The ceilings, and the layers of GPT-2 small, 32 samples of 1024 tokens; shorter samples for the other side of the choice
/// of norms.
void measure_all(Suite& suite) {
  bench_copy(suite, 1 << 30);
  bench_gemm<bf16, bf16>(suite, "ceiling, product", 1, 8192, 8192, 8192, false, true, false, false);
  const index_t samples = 32, tokens = 1024, width = 768, vocabulary = 50304;
  const SiteExtents qkv{samples, tokens, width, 3 * width}, up{samples, tokens, width, 4 * width},
      down{samples, tokens, 4 * width, width}, square{samples, tokens, width, width}, quarter{128, 256, width, 3 * width},
      head{4, tokens, width, vocabulary};
  for (const SiteExtents& e : {square, qkv, up, down, quarter}) {
    bench_norms<bf16>(suite, e);
    bench_weighted_sum<bf16>(suite, e);
  }
  bench_norms<bf16>(suite, head);
  bench_weighted_sum<bf16>(suite, head);
  bench_norms<float>(suite, {4, tokens, width, 3 * width});
  bench_weighted_sum<float>(suite, {4, tokens, width, 3 * width});
  bench_segments<bf16>(suite, samples, tokens, vocabulary, width);
  bench_attention<bf16>(suite, samples, tokens, 12, 64);
  bench_layer_norm<bf16>(suite, samples, tokens, width);
  bench_cross_entropy<bf16>(suite, 8, tokens, vocabulary);
  bench_update(suite, 24 << 20);
  const index_t rows = samples * tokens;
  bench_gemm<bf16, bf16>(suite, "gemm, forward", 1, rows, 3 * width, width, false, true);
  bench_gemm<bf16, bf16>(suite, "gemm, input gradient", 1, rows, width, 3 * width, false, false);
  bench_gemm<bf16, float>(suite, "gemm, weight gradient", 1, 3 * width, width, rows, true, false);
  bench_gemm<bf16, float>(suite, "gemm, weight and bias gradient", 1, 3 * width, width, rows, true, false, true);
  bench_gemm<bf16, float>(suite, "gemm, per-sample gradients", samples, 3 * width, width, tokens, true, false);
  bench_gemm<bf16, float>(suite, "gemm, per-sample gradients with biases", samples, 3 * width, width, tokens, true, false,
                          true);
}
}  // namespace

void measure_kernels(const KernelOptions& options, const Gpu& gpu, const std::function<void(const KernelRow&)>& take) {
  Suite suite(options, gpu, take);
  if (options.tiny)
    measure_tiny(suite);
  else
    measure_all(suite);
}
}  // namespace bench
