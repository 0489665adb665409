// SPDX-License-Identifier: Apache-2.0
// Everything that saves memory or bits at once: 16-bit layers around an FP32 stream, a layer in another dtype, a scale of
// each sample's own, a tied head in chunks, checkpointed blocks, dropout. What changes no bit alone changes none in company.
#include <doctest/doctest.h>

#include "dpmp/train/trainer.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using per_sample::Groups;
using per_sample::Strategy;

namespace {
constexpr index_t records = 14, tokens = 6;

struct Choice {
  Checkpointing checkpointing = Checkpointing::none;
  bool chunked_head = false;
};

/// The masters after three steps.
std::vector<double> trained(Context& ctx, const nn::Precision& precision, const Choice& choice,
                            const per_sample::StrategyOptions& strategy, bool by_layer, const dp::StreamKeys& keys) {
  const nn::Transformer model(ctx,
                              {.vocabulary = 17,
                               .width = 8,
                               .layers = 2,
                               .heads = 2,
                               .context = tokens,
                               .tied = true,
                               .dropout = 0.2,
                               .checkpointing = choice.checkpointing,
                               .seed = test::seed(),
                               .fp32_logits = true,
                               .chunked_head = choice.chunked_head},
                              precision);
  test::Rng rng(test::seed(), 3);
  const test::Tokens data = test::random_tokens(ctx, rng, records, tokens, 17);
  const auto losses = [&](const train::Batch& batch) {
    std::vector<std::int32_t> ids, targets;
    for (const index_t r : batch.records)
      for (index_t t = 0; t < tokens; ++t) {
        ids.push_back(data.ids.data<std::int32_t>()[r * tokens + t]);
        targets.push_back(data.targets.data<std::int32_t>()[r * tokens + t]);
      }
    const Shape shape{batch.size(), tokens};
    return model.losses(batch.tape, Tensor::from(ctx, shape, ids), Tensor::from(ctx, shape, targets), {.divisor = tokens});
  };
  train::TrainerOptions options{
      .physical_batch = 4,
      .learning_rate = optim::LearningRate::constant(1e-2),
      .strategy = strategy,
      .loss_scaling = LossScaling::per_sample(),
      .precision = train::PrecisionSchedule().raised(2, "block0", DType::f32),
      .identity = [](const Key256& secret, index_t k) { return stable_id(secret, std::uint64_t(k)); }};
  dp::PlanOptions plan{.delta = 1e-5, .sampling_rate = 0.5, .steps = 3, .dataset_size = records};
  if (by_layer) {
    options.groups = Groups::by_layer(model.parameters().all());
    plan.group_thresholds.assign(std::size_t(options.groups->count()), 0.1);
  } else {
    plan.clip_threshold = 0.3;
  }
  train::Trainer trainer(ctx, model.parameters(), dp::Plan::with_noise_multiplier(plan, 0.7), keys, records, options);
  const std::vector<double> before = test::masters(model.parameters());
  for (int step = 0; step < 3; ++step) trainer.step(losses);
  const std::vector<double> after = test::masters(model.parameters());
  CHECK(after != before);
  for (const double x : after) CHECK(std::isfinite(x));
  return after;
}
}  // namespace

TEST_CASE("checkpointed blocks and a head in chunks keep all bits of mixed, scaled, private training") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const dp::StreamKeys keys = test::random_keys(rng);
  const nn::Precision precisions[] = {nn::Precision::f16().fp32_residual().override("block1", DType::bf16),
                                      nn::Precision::bf16().fp32_norms()};
  struct Way {
    per_sample::StrategyOptions strategy;
    bool by_layer;
  };
  for (const nn::Precision& precision : precisions)
    for (const Way& way : {Way{{}, false}, Way{{}, true}, Way{{.strategy = Strategy::two_pass}, false},
                           Way{{.strategy = Strategy::materialised}, false}}) {
      CAPTURE(precision.text());
      CAPTURE(int(way.strategy.strategy));
      CAPTURE(way.by_layer);
      const std::vector<double> expected = trained(ctx, precision, {}, way.strategy, way.by_layer, keys);
      for (const Checkpointing how : {Checkpointing::none, Checkpointing::selective, Checkpointing::block})
        for (const bool chunked : {false, true}) {
          CAPTURE(int(how));
          CAPTURE(chunked);
          CHECK(trained(ctx, precision, {how, chunked}, way.strategy, way.by_layer, keys) == expected);
        }
    }
}
