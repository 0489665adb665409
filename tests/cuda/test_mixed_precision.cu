// SPDX-License-Identifier: Apache-2.0
// A transformer of several dtypes on CUDA: bf16 blocks, norms, residual stream and head in f32, one layer in f16. Per-sample
// norms against float64 batches of one on the CPU, contributions none above C, and a private run.
#include <doctest/doctest.h>

#include "dpmp/dpmp.cuh"
#include "support/mixed_precision.hpp"
#include "support/pieces.hpp"
#include "support/tiny_training.hpp"

namespace {
using namespace dpmp;

/// On random tokens; f64: the same in float64.
struct MixedGpt {
  MixedGpt(Context& context, DType dtype, std::uint64_t seed)
      : ctx(context),
        model(ctx, {.vocabulary = 40, .width = 32, .layers = 1, .heads = 2, .context = 8, .seed = seed},
              dtype == DType::f64 ? nn::Precision::f64() : test::mixed_precision()) {
    test::Rng rng(seed, 17);
    for (index_t k = 0; k < 8 * 8; ++k) {
      ids.push_back(std::int32_t(rng.integer(0, 39)));
      targets.push_back(std::int32_t(rng.integer(-1, 39)));
    }
  }
  nn::Parameters& parameters() { return model.parameters(); }
  Variable losses(const train::Batch& batch) const {
    std::vector<std::int32_t> x, y;
    for (const index_t r : batch.records) {
      x.insert(x.end(), ids.begin() + r * 8, ids.begin() + r * 8 + 8);
      y.insert(y.end(), targets.begin() + r * 8, targets.begin() + r * 8 + 8);
    }
    const Shape shape{index_t(batch.records.size()), 8};
    return cross_entropy(model(batch.tape, Tensor::from(ctx, shape, x)), Tensor::from(ctx, shape, y), {.divisor = 8});
  }
  Context& ctx;
  nn::Transformer model;
  std::vector<std::int32_t> ids, targets;  // [8 records, 8]
};
}  // namespace

TEST_CASE("P1, P13: a model of three dtypes on CUDA: norms, contributions, a private run") {
  Context gpu(Device::cuda(0), 1), cpu(Device::cpu(), 1);
  const std::vector<index_t> records{0, 1, 2, 5};
  const std::vector<double> expected = test::norms_of_one<MixedGpt>(cpu, records);
  const std::vector<double> norms = test::norms_of_pass<MixedGpt>(gpu, DType::bf16, records);
  // As in test_pieces.cu: an error over that of 16 draws is near a t distribution of 16 degrees of freedom.
  const std::vector<double> rounding = test::rounding_of_norms<MixedGpt>(cpu, DType::bf16, records, 16);
  for (std::size_t i = 0; i < records.size(); ++i) {
    CAPTURE(i);
    CHECK(std::abs(norms[i] - expected[i]) <= 10 * rounding[i]);
  }

  test::Pieces<MixedGpt> run(gpu, DType::bf16);
  const double threshold = 0.3 * norms[0];
  for (index_t alone = 0; alone < 4; ++alone) {
    per_sample::GroupPass pass;
    Tape tape(gpu, 4);
    tape.backward(run.losses()({tape, records}), pass);
    const per_sample::NormBounds bounds = pass.norms(gpu, 4);
    std::vector<float> factors(4);
    dp::FlatClipping(threshold).factors(bounds.upper(), bounds.finite(), factors);
    for (index_t i = 0; i < 4; ++i)
      if (i != alone) factors[std::size_t(i)] = 0;
    per_sample::GradientSums sums(gpu, run.model.parameters().all());
    pass.weighted_sum(gpu, factors, sums);
    const double released = test::norm(test::flat(sums));
    CHECK(released <= threshold);
    CHECK(released >= 0.98 * std::min(threshold, norms[std::size_t(alone)]));
  }

  test::Rng rng;
  const auto plan = dp::Plan::with_noise_multiplier(
      {.delta = 1e-5, .sampling_rate = 0.5, .steps = 2, .clip_threshold = 1, .dataset_size = 8}, 1);
  train::Trainer trainer(gpu, run.model.parameters(), plan, test::random_keys(rng), 8, {.physical_batch = 4});
  const std::vector<double> before = test::masters(run.model.parameters());
  while (trainer.steps() < plan.steps()) trainer.step(run.losses());
  CHECK(test::masters(run.model.parameters()) != before);
}
