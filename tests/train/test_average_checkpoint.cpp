// SPDX-License-Identifier: Apache-2.0
// P20: the average of the weights is part of a run, and of its checkpoint.
#include <doctest/doctest.h>

#include "dpmp/train/checkpoint.hpp"
#include "support/errors.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using optim::WeightAverage;
using test::TinyTraining;

namespace {
train::TrainerOptions options() {
  return {.physical_batch = 4,
          .optimiser = optim::AdamW{},
          .learning_rate = optim::LearningRate::constant(1e-2),
          .data_fingerprint = 1};
}
std::vector<double> values(const WeightAverage& average) {
  std::vector<double> all;
  for (const Tensor& t : average.averages())
    for (const double v : t.to_doubles()) all.push_back(v);
  all.push_back(double(average.steps()));
  return all;
}
}  // namespace

TEST_CASE("P20: an average of weights goes on from a checkpoint with the bits of the run that was never left") {
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    const test::TemporaryFolder folder;
    Context ctx(Device::cpu(), 1);
    const double decay = rng.uniform(0.5, 0.99);
    TinyTraining run(ctx, dtype), other(ctx, dtype);
    const dp::StreamKeys keys = test::random_keys(rng);
    train::Trainer trainer(ctx, run.model.parameters(), test::tiny_plan(run, 9), keys, run.records(), options());
    WeightAverage average(ctx, run.model.parameters().all(), decay);
    for (int step = 0; step < 5; ++step) {
      if (step == 2) train::save_checkpoint(folder / "c", run.model.parameters(), trainer, &average);
      trainer.step(run.losses());
      average.follow();
    }
    train::Trainer resumed(ctx, other.model.parameters(), test::tiny_plan(other, 9), keys, other.records(), options());
    WeightAverage again(ctx, other.model.parameters().all(), decay);
    again.follow();  // what was there before is forgotten
    CHECK(train::load_checkpoint(folder / "c", other.model.parameters(), resumed, &again).same_run);
    CHECK(again.steps() == 2);
    for (int step = 2; step < 5; ++step) {
      resumed.step(other.losses());
      again.follow();
    }
    CHECK(other.masters() == run.masters());
    CHECK(values(again) == values(average));
    again.swap();
    average.swap();
    CHECK(other.masters() == run.masters());
  }
}

TEST_CASE("a checkpoint is refused where only one side has an average, of another decay or swapped, and nothing changes") {
  test::Rng rng;
  const test::TemporaryFolder folder;
  Context ctx(Device::cpu(), 1);
  TinyTraining run(ctx, DType::f32), other(ctx, DType::f32);
  const dp::StreamKeys keys = test::random_keys(rng);
  train::Trainer trainer(ctx, run.model.parameters(), test::tiny_plan(run, 9), keys, run.records(), options());
  WeightAverage average(ctx, run.model.parameters().all(), 0.9), others(ctx, other.model.parameters().all(), 0.9);
  trainer.step(run.losses());
  average.follow();
  train::save_checkpoint(folder / "with", run.model.parameters(), trainer, &average);
  train::save_checkpoint(folder / "without", run.model.parameters(), trainer);
  average.swap();
  CHECK(test::refuses([&] { train::save_checkpoint(folder / "x", run.model.parameters(), trainer, &average); },
                      "swap it back"));
  average.swap();
  CHECK(test::refuses([&] { train::save_checkpoint(folder / "x", run.model.parameters(), trainer, &others); },
                      "the parameters that the weight average was made for"));
  CHECK(folder.entries() == 2);

  train::Trainer resumed(ctx, other.model.parameters(), test::tiny_plan(other, 9), keys, other.records(), options());
  WeightAverage slower(ctx, other.model.parameters().all(), 0.99);
  const std::vector<double> before = other.masters(), average_before = values(others);
  const auto refused = [&](const char* name, WeightAverage* given, const char* says) {
    const bool right =
        test::refuses([&] { train::load_checkpoint(folder / name, other.model.parameters(), resumed, given); }, says);
    CHECK(other.masters() == before);
    CHECK(values(others) == average_before);
    CHECK(resumed.steps() == 0);
    return right;
  };
  CHECK(refused("with", nullptr, "got it in the checkpoint alone"));
  CHECK(refused("without", &others, "got it in the run alone"));
  CHECK(refused("with", &slower, "expected a weight average of decay 0.9, got one of 0.99"));
  CHECK(refused("with", &average, "the parameters that the weight average was made for"));
  others.swap();
  CHECK(refused("with", &others, "swap it back"));
  others.swap();
  train::load_checkpoint(folder / "with", other.model.parameters(), resumed, &others);
  CHECK(values(others) == values(average));
  // Put back by hand.
  CHECK(test::refuses([&] { others.restore(-1, average.averages()); }, "a number of steps >= 0"));
  CHECK(test::refuses([&] { others.restore(1, {}); }, "got 0 after 1"));
  std::vector<Tensor> wrong = average.averages();
  wrong.back() = Tensor::zeros(ctx, {1}, DType::f32);
  CHECK(test::refuses([&] { others.restore(1, wrong); }, "expected the average of '"));
  CHECK(values(others) == values(average));
}
