// SPDX-License-Identifier: Apache-2.0
// Generation with a key and value cache on CUDA: the logits of whole forward passes in float64 on the CPU, and what is
// drawn.
#include <doctest/doctest.h>

#include "dpmp/dpmp.cuh"
#include "support/generation.hpp"

using namespace dpmp;

TEST_CASE("the cache on CUDA: prompts of several lengths in pieces, against float64 on the stored weights") {
  Context gpu(Device::cuda(0), 1), cpu(Device::cpu(), 1);
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (const nn::Positions positions : {nn::Positions::learned, nn::Positions::rotary}) {
      CAPTURE(dtype);
      CAPTURE(int(positions));
      const bool rotary = positions == nn::Positions::rotary;
      const nn::TransformerConfig config{.vocabulary = 24,
                                         .width = 32,
                                         .layers = 2,
                                         .heads = 4,
                                         .context = 70,
                                         .seed = test::seed(),
                                         .norm = rotary ? nn::Norm::rms_norm : nn::Norm::layer_norm,
                                         .feed_forward = rotary ? nn::FeedForward::swiglu : nn::FeedForward::gelu_tanh,
                                         .hidden = 48,
                                         .positions = positions,
                                         .rope_base = 500,
                                         .qkv_bias = !rotary,
                                         .key_value_heads = rotary ? 2 : 0,
                                         .fp32_logits = rotary};
      const nn::Transformer model(gpu, config, dtype);
      nn::Transformer exact(cpu, config, DType::f64);
      test::copy_weights(model, exact);
      const std::vector<test::Sequence> all{test::random_sequence(rng, 70, 24), test::random_sequence(rng, 9, 24),
                                            test::random_sequence(rng, 33, 24)};
      const auto logits = test::cached_logits(model, all, rng);
      // As in tests/nn/test_generator.cpp: eleven roundings of stored values in a block and four others; in f32 each of
      // them is that of a sum of up to 2^8 terms.
      const double limit = double(4 + 11 * 2) * (dtype == DType::f32 ? 0x1p8 : 1) * unit_roundoff(dtype);
      for (std::size_t b = 0; b < all.size(); ++b)
        CHECK(test::relative_distance(logits[b], test::whole_logits(exact, all[b])) <= limit);
    }
}

TEST_CASE("a generator on CUDA continues prompts until they stop or the cache is full") {
  Context gpu(Device::cuda(0), 1);
  const nn::Transformer model(
      gpu, {.vocabulary = 16, .width = 32, .layers = 1, .heads = 2, .context = 20, .seed = test::seed()}, DType::bf16);
  nn::Generator generator(model, {.sampling = {.temperature = 0.8, .top_k = 5, .seed = test::seed()}, .stop = 3});
  const std::vector<test::Sequence> prompts{{1, 2, 4}, {5}};
  const auto drawn = generator(prompts, 100);
  for (std::size_t b = 0; b < 2; ++b) {
    const test::Sequence& s = generator.sequences()[b];
    CHECK_FALSE(generator.goes_on(index_t(b)));
    CHECK((s.back() == 3 || s.size() == 21));
    CHECK(std::find(drawn[b].begin(), drawn[b].end(), 3) == drawn[b].end());
  }
  CHECK(generator(prompts, 100) == drawn);
}
