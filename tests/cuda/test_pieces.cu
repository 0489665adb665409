// SPDX-License-Identifier: Apache-2.0
// Models that are built from public pieces, on CUDA: per-sample norms against float64 batches of one on the CPU, and a
// private run.
#include <doctest/doctest.h>

#include "dpmp/dpmp.cuh"
#include "support/pieces.hpp"
#include "support/tiny_training.hpp"

namespace {
using namespace dpmp;

/// f32: the 1e-5 of tests/per_sample/test_models.cpp. bf16: some 40 roundings of stored values between a token and a
/// gradient, whose norms add in squares, and a factor of 2, as in tests/cuda/test_training.cu.
double limit_of(DType dtype) { return dtype == DType::f32 ? 1e-5 : 2 * std::sqrt(40.0) * unit_roundoff(dtype); }

template <class Model>
void check() {
  Context gpu(Device::cuda(0), 1), cpu(Device::cpu(), 1);
  const std::vector<index_t> records{0, 1, 2, 5};
  const std::vector<double> expected = test::norms_of_one<Model>(cpu, records);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    CAPTURE(dtype);
    test::Pieces<Model> run(gpu, dtype);
    per_sample::GroupPass pass;
    Tape tape(gpu, index_t(records.size()));
    tape.backward(run.losses()({tape, records}), pass);
    const per_sample::NormBounds norms = pass.norms(gpu, index_t(records.size()));
    for (std::size_t i = 0; i < records.size(); ++i) {
      CAPTURE(i);
      CHECK(std::abs(norms.norm(index_t(i)) - expected[i]) <= limit_of(dtype) * expected[i]);
    }
    test::Rng rng;
    const auto plan = dp::Plan::with_noise_multiplier(
        {.delta = 1e-5, .sampling_rate = 0.5, .steps = 2, .clip_threshold = 1, .dataset_size = 8}, 1);
    train::Trainer trainer(gpu, run.model.parameters(), plan, test::random_keys(rng), 8, {.physical_batch = 4});
    const std::vector<double> before = test::masters(run.model.parameters());
    while (trainer.steps() < plan.steps()) trainer.step(run.losses());
    CHECK(test::masters(run.model.parameters()) != before);
  }
}
}  // namespace

TEST_CASE("P13: an encoder with padding on CUDA") { check<examples::Encoder>(); }
TEST_CASE("P13: a vision transformer with a class token on CUDA") { check<examples::VisionTransformer>(); }
TEST_CASE("P13: a block with adaptive norms on CUDA") { check<examples::ConditionalModel>(); }
