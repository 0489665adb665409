// SPDX-License-Identifier: Apache-2.0
// Loss scaling of whole runs: who has it, what it leaves alone, and that nothing is skipped where samples overflow.
#include <doctest/doctest.h>

#include "dpmp/train/checkpoint.hpp"
#include "support/errors.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_training.hpp"

namespace {
using namespace dpmp;
using train::Trainer;
using train::TrainerOptions;
const optim::Sgd sgd{.momentum = 0.9};

std::vector<double> trained(Context& ctx, DType dtype, std::uint64_t of_keys, const std::optional<LossScaling>& scaling,
                            bool is_private, index_t steps = 3) {
  test::Rng rng(of_keys);
  test::TinyTraining run(ctx, dtype);
  const train::Privacy privacy =
      is_private ? train::Privacy(test::tiny_plan(run, 8)) : train::Privacy(train::NoPrivacy{0.3});
  Trainer trainer(ctx, run.model.parameters(), privacy, test::random_keys(rng), run.records(),
                  {.physical_batch = 5, .optimiser = sgd, .loss_scaling = scaling});
  for (index_t k = 0; k < steps; ++k) trainer.step(run.losses());
  return run.masters();
}
}  // namespace

TEST_CASE("P11: a scale per sample is the default of private f16 models, and of nothing else") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 7820);
  for (const DType dtype : {DType::f16, DType::bf16, DType::f32, DType::f64}) {
    test::TinyTraining run(ctx, dtype);
    const auto trainer = [&](const train::Privacy& privacy, const TrainerOptions& options) {
      return Trainer(ctx, run.model.parameters(), privacy, test::random_keys(rng), run.records(), options);
    };
    const dp::Plan plan = test::tiny_plan(run, 8);
    const LossScaling usual = dtype == DType::f16 ? LossScaling::per_sample() : LossScaling();
    CHECK(trainer(plan, {}).loss_scaling() == usual);
    CHECK(trainer(plan, {.loss_scaling = LossScaling()}).loss_scaling() == LossScaling());
    CHECK(trainer(plan, {.loss_scaling = LossScaling::fixed(8)}).loss_scaling() == LossScaling::fixed(8));
    CHECK(trainer(train::NoPrivacy{0.3}, {.loss_scaling = LossScaling::fixed(8)}).loss_scaling() == LossScaling::fixed(8));
    CHECK(test::refuses([&] { trainer(train::NoPrivacy{0.3}, {.loss_scaling = LossScaling::per_sample()}); },
                        "expected no or a fixed loss scale without privacy"));
    const auto text = [&](const std::optional<LossScaling>& scaling) {
      return trainer(plan, {.loss_scaling = scaling}).validate(run.losses()).text();
    };
    CHECK(text({}).find("loss scaling: " + usual.text()) != std::string::npos);
    CHECK(text(LossScaling::fixed(1024)).find("loss scaling: 2^10 for all samples") != std::string::npos);
  }
}

TEST_CASE("P13: an f32 run is the same bits with and without a loss scale, private or plain") {
  Context ctx(Device::cpu(), 2);
  const std::uint64_t keys = test::Rng(test::seed(), 7821).bits();
  for (const bool is_private : {true, false}) {
    CAPTURE(is_private);
    const std::vector<double> plain = trained(ctx, DType::f32, keys, {}, is_private);
    CHECK(trained(ctx, DType::f32, keys, LossScaling::fixed(0x1p16), is_private) == plain);
    if (is_private) CHECK(trained(ctx, DType::f32, keys, LossScaling::per_sample(), true) == plain);
    CHECK(trained(ctx, DType::f32, keys, {}, is_private, 2) != plain);
  }
}

TEST_CASE("P7, P9, P11: a step in which every sample overflows is a step of noise, accounted like any other") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 7822);
  test::TinyTraining run(ctx, DType::f16);
  const dp::Plan plan = test::tiny_plan(run, 8);
  const dp::StreamKeys keys = test::random_keys(rng);
  Trainer trainer(ctx, run.model.parameters(), plan, keys, run.records(),
                  {.optimiser = optim::Sgd{}, .loss_scaling = LossScaling::fixed(0x1p40), .unsafe_debug = true});
  for (index_t step = 0; step < 3; ++step) {
    const std::vector<double> before = run.masters();
    const index_t drawn = index_t(test::drawn(plan, trainer.keys(), run.records(), step).size());
    const std::vector<double> noise = test::noise_by_hand(run, plan, trainer.keys(), step);
    trainer.step(run.losses());
    CHECK(trainer.steps() == step + 1);
    CHECK(trainer.records_left_out() == drawn);
    CHECK(trainer.loss_scaling() == LossScaling::fixed(0x1p40));
    const std::vector<double> after = run.masters();
    // FP32 masters of the size of 1: three roundings of 2^-24 at learning rate 1e-3, and the grid of the noise.
    double worst = 0;
    for (std::size_t k = 0; k < after.size(); ++k)
      worst = std::max(worst, std::fabs(after[k] - (before[k] - 1e-3 * noise[k] / plan.expected_batch())) /
                                  (std::fabs(before[k]) + 1e-3));
    CHECK(worst <= 0x1p-22);
  }
}

TEST_CASE("P20: a checkpoint of another loss scaling is another run") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 7823);
  const test::TemporaryFolder folder;
  test::TinyTraining run(ctx, DType::f16);
  const dp::Plan plan = test::tiny_plan(run, 8);
  const auto trainer = [&](test::TinyTraining& of, const dp::StreamKeys& keys, const std::optional<LossScaling>& scaling) {
    return Trainer(ctx, of.model.parameters(), plan, keys, of.records(), {.loss_scaling = scaling, .data_fingerprint = 7});
  };
  Trainer first = trainer(run, test::random_keys(rng), {});
  first.step(run.losses());
  save_checkpoint(folder / "run", run.model.parameters(), first);
  for (const auto& [scaling, same] : {std::pair<std::optional<LossScaling>, bool>{std::nullopt, true},
                                      {LossScaling::per_sample(), true},
                                      {LossScaling::per_sample(5), false},
                                      {LossScaling::fixed(1024), false}}) {
    test::TinyTraining again(ctx, DType::f16);
    Trainer second = trainer(again, train::read_checkpoint_header(folder / "run").keys, scaling);
    const train::Resumed resumed = load_checkpoint(folder / "run", again.model.parameters(), second);
    CHECK(resumed.same_run == same);
    if (!same) CHECK(resumed.changed.find("loss scaling: " + scaling->text()) != std::string::npos);
  }
}
