// SPDX-License-Identifier: Apache-2.0
// Models that are built from public pieces, on CUDA: per-sample norms against float64 batches of one on the CPU, and a
// private run.
#include <doctest/doctest.h>

#include "dpmp/dpmp.cuh"
#include "support/pieces.hpp"
#include "support/tiny_training.hpp"

namespace {
using namespace dpmp;

/// An error of a GPU over that of 16 draws on the CPU is near a t distribution of 16 degrees of freedom, which is
/// above 10 in 3 of 10^8 cases.
constexpr int draws = 16;
constexpr double deviations = 10;

template <class Model>
void check() {
  Context gpu(Device::cuda(0), 1), cpu(Device::cpu(), 1);
  const std::vector<index_t> records{0, 1, 2, 5};
  const std::vector<double> expected = test::norms_of_one<Model>(cpu, records);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    CAPTURE(dtype);
    const std::vector<double> norms = test::norms_of_pass<Model>(gpu, dtype, records);
    const std::vector<double> rounding = test::rounding_of_norms<Model>(cpu, dtype, records, draws);
    for (std::size_t i = 0; i < records.size(); ++i) {
      CAPTURE(i);
      CHECK(std::abs(norms[i] - expected[i]) <= deviations * rounding[i]);
    }
    test::Pieces<Model> run(gpu, dtype);
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
