// SPDX-License-Identifier: Apache-2.0
// Trainers of models with checkpointed blocks: the same weights after every step, private or not, and checkpoints that
// either model continues.
#include <doctest/doctest.h>

#include "../../examples/encoder.hpp"
#include "../../examples/vision_transformer.hpp"
#include "dpmp/train/checkpoint.hpp"
#include "support/errors.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using per_sample::Groups;
using per_sample::Strategy;
using train::Trainer;

namespace {
constexpr index_t records = 14;
constexpr Checkpointing every_choice[] = {Checkpointing::none, Checkpointing::selective, Checkpointing::block};

/// A GPT with dropout on records of its own.
class Gpt {
 public:
  Gpt(Context& ctx, DType dtype, std::uint64_t seed, Checkpointing checkpointing)
      : model_(ctx,
               {.vocabulary = 17,
                .width = 8,
                .layers = 2,
                .heads = 2,
                .context = 6,
                .tied = true,
                .dropout = 0.2,
                .checkpointing = checkpointing,
                .seed = seed},
               dtype) {
    test::Rng rng(seed, 3);
    data_ = test::random_tokens(ctx, rng, records, 6, 17);
  }
  nn::Parameters& parameters() { return model_.parameters(); }
  Variable losses(const train::Batch& batch) const {
    Context& ctx = batch.tape.ctx();
    std::vector<std::int32_t> ids, targets;
    for (const index_t r : batch.records)
      for (index_t t = 0; t < 6; ++t) {
        ids.push_back(data_.ids.data<std::int32_t>()[r * 6 + t]);
        targets.push_back(data_.targets.data<std::int32_t>()[r * 6 + t]);
      }
    return cross_entropy(model_(batch.tape, Tensor::from(ctx, {batch.size(), 6}, ids)),
                         Tensor::from(ctx, {batch.size(), 6}, targets), {.divisor = 6});
  }

 private:
  nn::Transformer model_;
  test::Tokens data_;
};

dp::Plan plan_of(index_t groups) {
  dp::PlanOptions options{.delta = 1e-5, .sampling_rate = 0.5, .steps = 3, .dataset_size = records};
  if (groups > 1)
    options.group_thresholds.assign(std::size_t(groups), 0.1);
  else
    options.clip_threshold = 0.3;
  return dp::Plan::with_noise_multiplier(options, 0.7);
}
train::TrainerOptions options_of(const per_sample::StrategyOptions& strategy) {
  return {.physical_batch = 4,
          .learning_rate = optim::LearningRate::constant(1e-2),
          .strategy = strategy,
          .data_fingerprint = 1,
          .identity = [](const Key256& secret, index_t k) { return stable_id(secret, std::uint64_t(k)); }};
}

template <class Model>
void check_training(DType dtype) {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const dp::StreamKeys keys = test::random_keys(rng);
  struct Run {
    bool is_private, by_layer;
    per_sample::StrategyOptions strategy;
  };
  for (const Run& run : {Run{false, false, {}}, Run{true, false, {}}, Run{true, true, {}},
                         Run{true, false, {.strategy = Strategy::two_pass}}, Run{true, false, {.byte_budget = 3000}}}) {
    std::vector<double> expected;
    for (Checkpointing how : every_choice) {
      CAPTURE(int(how));
      Model model(ctx, dtype, test::seed(), how);
      train::TrainerOptions options = options_of(run.strategy);
      if (run.by_layer) options.groups = Groups::by_layer(model.parameters().all());
      const auto losses = [&](const train::Batch& batch) { return model.losses(batch); };
      const auto train = [&](Trainer& trainer) {
        const std::vector<double> before = test::masters(model.parameters());
        for (int step = 0; step < 3; ++step) trainer.step(losses);
        CHECK(test::masters(model.parameters()) != before);
      };
      if (run.is_private) {
        const index_t groups = options.groups ? options.groups->count() : 1;
        Trainer trainer(ctx, model.parameters(), plan_of(groups), keys, records, options);
        CHECK(trainer.validate(losses, std::vector<index_t>{1, 4, 2, 7}).rows().size() > 5);
        train(trainer);
      } else {
        Trainer trainer(ctx, model.parameters(), train::NoPrivacy{0.5}, keys, records, options);
        train(trainer);
      }
      const std::vector<double> found = test::masters(model.parameters());
      if (how == Checkpointing::none) expected = found;
      CHECK(found == expected);
    }
  }
}
}  // namespace

TEST_CASE("three steps with checkpointed blocks leave the weights of three steps without, private and plain") {
  for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    CAPTURE(dtype);
    check_training<Gpt>(dtype);
  }
  check_training<examples::Encoder>(DType::bf16);
  check_training<examples::VisionTransformer>(DType::bf16);
}

TEST_CASE("P20: what a run checkpoints of its blocks is no part of what it computes: a saved run goes on either way") {
  test::Rng rng;
  const test::TemporaryFolder folder;
  Context ctx(Device::cpu(), 2);
  const dp::StreamKeys keys(test::random_keys(rng).root());
  const auto losses = [](const Gpt& model) { return [&](const train::Batch& batch) { return model.losses(batch); }; };
  Gpt first(ctx, DType::bf16, test::seed(), Checkpointing::none);
  Trainer trainer(ctx, first.parameters(), plan_of(1), keys, records, options_of({}));
  trainer.step(losses(first));
  train::save_checkpoint(folder / "c", first.parameters(), trainer);
  trainer.step(losses(first));
  for (Checkpointing how : every_choice) {
    Gpt model(ctx, DType::bf16, test::seed(), how);
    const train::CheckpointHeader header = train::read_checkpoint_header(folder / "c");
    Trainer again(ctx, model.parameters(), header.plan, header.keys, records, options_of({}));
    const train::Resumed resumed = train::load_checkpoint(folder / "c", model.parameters(), again);
    CHECK((resumed.same_run && resumed.changed.empty()));
    again.step(losses(model));
    CHECK(test::masters(model.parameters()) == test::masters(first.parameters()));
  }
}

TEST_CASE("checked mode sees a part that mixes samples when it is recorded again, and only then") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  nn::Parameters parameters(ctx, DType::f32, 1);
  Parameter& w = parameters.normal("w", {3, 4}, 0.5);
  const Tensor values = test::normal_tensor(ctx, rng, {records, 4}, DType::f32);
  const auto losses = [&](bool mixes) {
    return [&, mixes](const train::Batch& batch) {
      std::vector<double> rows;
      for (const index_t r : batch.records)
        for (index_t j = 0; j < 4; ++j) rows.push_back(double(values.data<float>()[r * 4 + j]));
      const Variable x = batch.tape.input(Tensor::from(ctx, {batch.size(), 4}, DType::f32, rows));
      const auto calls = std::make_shared<int>(0);
      const auto part = [&ctx, &w, calls, mixes](const Variable& in) {
        double mean = 1;
        if (mixes && (*calls)++ > 0)
          for (const double v : in.value().to_doubles()) mean += v;
        return linear(scale(in, mean), w);
      };
      const Variable y = checkpointed(Checkpointing::block, batch.tape, part, x);
      return mean_squared_error(y, Tensor::zeros(ctx, y.shape(), DType::f32));
    };
  };
  const std::vector<index_t> some{1, 4, 2, 7};
  train::check_isolation(ctx, losses(false), some);
  CHECK(test::refuses([&] { train::check_isolation(ctx, losses(true), some); }, "the input rows of w"));
}
