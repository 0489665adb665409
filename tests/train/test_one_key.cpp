// SPDX-License-Identifier: Apache-2.0
// P36 in trainers: one key in two of them, and the attacks that repeated noise or the noise's lattice made possible,
// replayed on what is released.
#include <doctest/doctest.h>
#include <type_traits>

#include "dpmp/autograd/rules/elementwise.hpp"
#include "dpmp/autograd/rules/mean_squared_error.hpp"
#include "support/errors.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using test::TinyTraining;
using train::Trainer;
using train::TrainerOptions;

namespace {
TrainerOptions descent() {
  return {.physical_batch = 2, .optimiser = optim::Sgd{}, .learning_rate = optim::LearningRate::constant(1)};
}
}  // namespace

TEST_CASE("P36, A4: two trainers of one key add independent noise: their difference has sqrt(2) of its deviation") {
  static_assert(!std::is_copy_constructible_v<Trainer>);
  Context ctx(Device::cpu(), 1);
  const dp::StreamKeys keys(dp::random_key());
  std::vector<std::vector<double>> moved;
  std::vector<std::vector<std::vector<index_t>>> draws;
  double deviation = 0;
  for (int time = 0; time < 2; ++time) {
    TinyTraining run(ctx, DType::f64, {.vocabulary = 400});
    const dp::Plan plan = test::tiny_plan(run, 15);
    deviation = plan.noise_standard_deviation() / plan.expected_batch();
    const std::vector<double> before = run.masters();
    Trainer trainer(ctx, run.model.parameters(), plan, keys, run.records(), descent());
    trainer.step([&](const train::Batch& b) { return scale(run.losses()(b), 0); });
    moved.push_back(run.masters());
    for (std::size_t j = 0; j < before.size(); ++j) moved.back()[j] -= before[j];
    draws.push_back(run.calls);
  }
  const std::size_t n = moved[0].size();
  const double apart = test::distance(moved[0], moved[1]) / std::sqrt(double(n)) / deviation;
  CHECK(std::fabs(apart - std::sqrt(2.0)) <= 6 / std::sqrt(double(n)));  // standard error 1 / sqrt(n)
  CHECK(draws[0] != draws[1]);
}

// An f64 model of 64 weights that starts from zero, one step of descent: the weights are the released sum. The record
// contributes 1/8 to each coordinate, the data set without it nothing.
TEST_CASE("P23, A6: the weights of an f64 model after a step from zero tell nothing of membership by their last bits") {
  Context ctx(Device::cpu(), 1);
  const dp::StreamKeys keys(dp::random_key());
  const dp::Plan plan =
      dp::Plan::with_noise_multiplier({.delta = 1e-5, .sampling_rate = 1, .steps = 1, .dataset_size = 2}, 1);
  const double grid = dp::noise_grid(plan.noise_standard_deviation());
  int right = 0, off_grid = 0, above = 0;
  const int runs = 1000;
  for (int k = 0; k < runs; ++k) {
    const bool member = k % 2;
    nn::Parameters parameters(ctx, DType::f64, 1);
    Parameter& w = parameters.constant("w", {1, 64}, 0);
    const auto losses = [&](const train::Batch& batch) {
      std::vector<double> x;
      for (const index_t record : batch.records)
        x.insert(x.end(), 64, record == 1 ? -100.0 : 0.0);  // record 0 has no gradient
      const index_t n = index_t(batch.records.size());
      return mean_squared_error(linear(batch.tape.input(Tensor::from(ctx, {n, 64}, DType::f64, x)), w),
                                Tensor::full(ctx, {n, 1}, DType::f64, 1));
    };
    Trainer trainer(ctx, parameters, plan, keys, member ? 2 : 1, descent());
    trainer.step(losses);
    bool coarse = true;
    double mean = 0;
    for (const double v : w.master().to_doubles()) {
      const double released = -v * plan.expected_batch();  // both factors are powers of two: exact
      off_grid += released / grid != std::nearbyint(released / grid);
      coarse = coarse && released * 0x1p56 == std::nearbyint(released * 0x1p56);
      mean += released / 8;
    }
    right += coarse == member;
    above += (mean > 0.5) == member;
  }
  CHECK(off_grid == 0);
  CHECK(right == runs / 2);  // every run looks alike to the attack that told 909 of 1000
  // The record is really in the sums: by their mean a Gaussian mechanism of distance 1 is told in 69 % of runs.
  CHECK(above > 691 - 5 * 15);
  CHECK(above < 691 + 5 * 15);
}
