// SPDX-License-Identifier: Apache-2.0
// What a private step does with groups, clip rules, schedules, adaptive thresholds, strategies and frozen parameters: the
// released sum against one worked out by hand from batches of one, plus the noise of the plan's own numbers.
#include <doctest/doctest.h>

#include "dpmp/train/checkpoint.hpp"
#include "support/errors.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using per_sample::Groups;
using test::refuses;
using test::TinyTraining;
using train::Trainer;
using train::TrainerOptions;

namespace {
TrainerOptions descent() {
  return {.physical_batch = 4,
          .optimiser = optim::Sgd{},
          .learning_rate = optim::LearningRate::constant(1),
          .data_fingerprint = 1};
}
dp::PlanOptions options_of(const TinyTraining& run, double expected = 9) {
  return {.delta = 1e-5, .sampling_rate = expected / double(run.records()), .steps = 6, .dataset_size = run.records()};
}

/// What a step should release: sum_i c_{i,g} g_{i,g} group by group, and the noise of the step.
std::vector<double> released_by_hand(const TinyTraining& run, const dp::Plan& plan, const dp::StreamKeys& keys, index_t step,
                                     const Groups& groups, double threshold) {
  const dp::StepPlan numbers = plan.at(step, threshold);
  const auto parameters = run.model.parameters().all();
  std::vector<double> sum(std::size_t(run.model.parameters().numel()), 0.0);
  for (const index_t i : test::drawn(plan, keys, run.records(), step)) {
    const std::vector<double> gradient = test::batch_of_one(run.ctx, run.model, run.data.rows(i, i + 1))[0];
    std::vector<double> squares(numbers.groups.size(), 0.0);
    for (int pass = 0; pass < 2; ++pass) {
      std::size_t at = 0;
      for (const Parameter* p : parameters) {
        const auto g = std::size_t(groups.of(*p));
        double factor = 0;
        if (pass == 1) {
          const double n = std::sqrt(squares[g]), C = numbers.groups[g].clip_threshold();
          switch (plan.options().clip_rule.kind()) {
            case dp::ClipRule::Kind::abadi: factor = std::min(1.0, C / n); break;
            case dp::ClipRule::Kind::automatic: factor = C / (n + plan.options().clip_rule.parameter()); break;
            case dp::ClipRule::Kind::normalise: factor = C / n; break;
            case dp::ClipRule::Kind::global:
              factor = n <= plan.options().clip_rule.parameter() ? C / plan.options().clip_rule.parameter() : 0;
              break;
            case dp::ClipRule::Kind::custom: factor = std::min(0.5, C / n); break;
          }
        }
        for (index_t j = 0; j < p->numel(); ++j, ++at) {
          if (pass == 0)
            squares[g] += gradient[at] * gradient[at];
          else
            sum[at] += factor * gradient[at];
        }
      }
    }
  }
  std::size_t at = 0;
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    std::vector<double> noise(std::size_t(parameters[k]->numel()), 0.0);
    dp::add_gaussian_noise(run.ctx.team(), noise, numbers.noise_standard_deviation, {keys.key(dp::Stream::noise), step},
                           index_t(k));
    for (double x : noise) sum[at++] += x;
  }
  return sum;
}

/// Runs all planned steps and compares each with the hand-made one.
void follow(Context& ctx, test::Rng& rng, const dp::PlanOptions& options, double sigma,
            const std::function<Groups(std::span<Parameter* const>)>& grouping = Groups::flat) {
  TinyTraining run(ctx, DType::f64);
  dp::PlanOptions o = options;
  o.dataset_size = run.records();
  const dp::Plan plan = dp::Plan::with_noise_multiplier(o, sigma);
  const dp::StreamKeys keys = test::random_keys(rng);
  TrainerOptions trainer_options = descent();
  const Groups groups = grouping(run.model.parameters().all());
  trainer_options.groups = groups;
  Trainer trainer(ctx, run.model.parameters(), plan, keys, run.records(), trainer_options);
  for (index_t step = 0; step < plan.steps(); ++step) {
    CAPTURE(step);
    const double threshold = trainer.clip_threshold();
    const std::vector<double> expected = released_by_hand(run, plan, keys, step, groups, threshold), before = run.masters();
    trainer.step(run.losses());
    const std::vector<double> after = run.masters();
    double largest = 0, total = 0;
    for (const auto& g : plan.at(step, threshold).groups) total += g.clip_threshold();
    for (std::size_t j = 0; j < before.size(); ++j)
      largest = std::max(largest, std::fabs((before[j] - after[j]) * plan.expected_batch() - expected[j]));
    // Factors are up to 2^-20 below their formula and rounded down to FP32.
    CHECK(largest <= 30 * total * 0x1p-19 + 1e-12);
    if (plan.options().adaptive) {
      // The threshold moves by the noisy count of gradients below it, and by nothing else.
      CHECK(trainer.clip_threshold() >= plan.options().adaptive->lowest);
      CHECK(trainer.clip_threshold() <= plan.options().adaptive->highest);
      CHECK(trainer.clip_threshold() != threshold);
    }
  }
}
}  // namespace

TEST_CASE("every clip rule: a step releases what its formula says, plus noise") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  TinyTraining run(ctx, DType::f64);
  for (const dp::ClipRule& rule : {dp::ClipRule::abadi(), dp::ClipRule::automatic(0.02), dp::ClipRule::normalise(),
                                   dp::ClipRule::global(1.0), dp::ClipRule::custom("half", [](double) { return 0.5; })}) {
    CAPTURE(rule.description());
    dp::PlanOptions o = options_of(run);
    o.clip_threshold = 0.3;
    o.clip_rule = rule;
    follow(ctx, rng, o, 0.7);
  }
}

TEST_CASE("P16: groups: each is clipped to its own threshold, the noise is that of the joint sensitivity") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  TinyTraining run(ctx, DType::f64);
  for (const auto& grouping : {Groups::by_layer, Groups::by_parameter}) {
    const index_t count = grouping(run.model.parameters().all()).count();
    dp::PlanOptions o = options_of(run);
    double squares = 0;
    for (index_t g = 0; g < count; ++g) {
      o.group_thresholds.push_back(rng.uniform(0.01, 0.2));
      squares += o.group_thresholds.back() * o.group_thresholds.back();
    }
    const dp::Plan plan = dp::Plan::with_noise_multiplier(o, 0.7);
    CHECK(plan.at(0).noise_standard_deviation == doctest::Approx(0.7 * std::sqrt(squares)).epsilon(1e-3));
    follow(ctx, rng, o, 0.7, grouping);
    TrainerOptions flat = descent();
    CHECK(refuses([&] { Trainer t(ctx, run.model.parameters(), plan, test::random_keys(rng), run.records(), flat); },
                  "expected as many clipping groups as the plan has thresholds"));
  }
}

TEST_CASE("a checkpoint is refused by other clipping groups, and by the parameters of another model than the trainer's") {
  test::Rng rng;
  Context ctx(Device::cpu(), 1);
  const test::TemporaryFolder folder;
  TinyTraining run(ctx, DType::f32), other(ctx, DType::f32);
  const dp::Plan plan = dp::Plan::with_noise_multiplier(
      {.delta = 1e-5, .sampling_rate = 0.3, .steps = 5, .dataset_size = run.records(), .group_thresholds = {0.1, 0.2}}, 0.7);
  const dp::StreamKeys keys = test::random_keys(rng);
  const auto trainer_of = [&](const TinyTraining& r, const char* second_group) {
    TrainerOptions options = descent();
    options.groups = Groups::by(r.model.parameters().all(), [second_group](const Parameter& p) {
      return std::string(p.name() == second_group ? "second" : "first");
    });
    return Trainer(ctx, r.model.parameters(), plan, keys, r.records(), options);
  };
  const Trainer trainer = trainer_of(run, "head.weight");
  train::save_checkpoint(folder / "c", run.model.parameters(), trainer);
  for (Parameter* p : other.model.parameters().all())
    p->master().copy_from(Tensor::full(ctx, p->shape(), DType::f32, rng.normal()));
  Trainer elsewhere = trainer_of(other, "norm.gain"), same = trainer_of(other, "head.weight");
  const std::vector<double> before = other.masters();
  const std::string text =
      test::error_of([&] { train::load_checkpoint(folder / "c", other.model.parameters(), elsewhere); });
  for (const char* part :
       {"checkpoint: head.weight: f32[17, 8], clipping group 1", "here: head.weight: f32[17, 8], clipping group 0"})
    CHECK_MESSAGE(text.find(part) != std::string::npos, text);
  const char* const mixed = "the parameters that the trainer was made for, got others";
  CHECK(refuses([&] { train::load_checkpoint(folder / "c", run.model.parameters(), same); }, mixed));
  CHECK(refuses([&] { train::save_checkpoint(folder / "d", other.model.parameters(), trainer); }, mixed));
  CHECK(folder.entries() == 1);
  CHECK(other.masters() == before);
  CHECK(train::load_checkpoint(folder / "c", other.model.parameters(), same).same_run);
}

TEST_CASE("schedules of threshold and noise: every step clips to and adds what the plan accounts for that step") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  TinyTraining run(ctx, DType::f64);
  dp::PlanOptions o = options_of(run);
  o.clip_threshold = 0.4;
  o.clip_schedule = dp::Schedule::piecewise({{0, 1.0}, {2, 0.5}, {4, 0.25}});
  o.noise_schedule = dp::Schedule::piecewise({{0, 1.0}, {3, 1.5}});
  follow(ctx, rng, o, 0.7);
}

TEST_CASE("P18: adaptive clipping follows the quantile through noisy counts, and resumes from a checkpoint bit for bit") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  TinyTraining run(ctx, DType::f64);
  dp::PlanOptions o = options_of(run);
  o.adaptive = dp::AdaptiveOptions{.quantile = 0.5, .learning_rate = 0.3, .count_noise = 2, .initial_threshold = 0.1};
  follow(ctx, rng, o, 0.7);

  const dp::Plan plan = dp::Plan::with_noise_multiplier(o, 0.7);
  const dp::StreamKeys keys = test::random_keys(rng);
  TinyTraining whole(ctx, DType::bf16), first(ctx, DType::bf16), second(ctx, DType::bf16);
  Trainer a(ctx, whole.model.parameters(), plan, keys, whole.records(), descent()),
      b(ctx, first.model.parameters(), plan, keys, first.records(), descent()),
      c(ctx, second.model.parameters(), plan, keys, second.records(), descent());
  const test::TemporaryFolder folder;
  for (int k = 0; k < 5; ++k) a.step(whole.losses());
  for (int k = 0; k < 2; ++k) b.step(first.losses());
  train::save_checkpoint(folder.path() / "run", first.model.parameters(), b);
  train::load_checkpoint(folder.path() / "run", second.model.parameters(), c);
  CHECK(c.clip_threshold() == b.clip_threshold());
  CHECK(c.clip_threshold() != 0.1);
  for (int k = 0; k < 3; ++k) c.step(second.losses());
  CHECK(second.masters() == whole.masters());
  CHECK(c.clip_threshold() == a.clip_threshold());
}

TEST_CASE("P18: the adaptive threshold finds the quantile of the norms") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  TinyTraining run(ctx, DType::f32, {.records = 64});
  dp::PlanOptions o = options_of(run, 64);
  o.sampling_rate = 1;
  o.steps = 60;
  o.adaptive = dp::AdaptiveOptions{.quantile = 0.5, .learning_rate = 0.3, .count_noise = 3, .initial_threshold = 100};
  const dp::Plan plan = dp::Plan::with_noise_multiplier(o, 0.5);
  TrainerOptions still = descent();
  still.learning_rate = optim::LearningRate::constant(0);  // the norms stay where they are
  Trainer trainer(ctx, run.model.parameters(), plan, test::random_keys(rng), run.records(), still);
  std::vector<double> norms;
  for (index_t i = 0; i < run.records(); ++i)
    norms.push_back(test::norm(test::batch_of_one(ctx, run.model, run.data.rows(i, i + 1))[0]));
  std::sort(norms.begin(), norms.end());
  while (trainer.steps() < plan.steps()) trainer.step(run.losses());
  // Count noise 3 of 64 moves the share by 0.05 a step; averaged by the learning rate it stays within a fifth.
  CHECK(trainer.clip_threshold() > norms[64 * 3 / 10] * 0.98);
  CHECK(trainer.clip_threshold() < norms[64 * 7 / 10] * 1.02);
}

TEST_CASE("P13: the strategy changes speed and memory, never the released sum beyond rounding") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const dp::StreamKeys keys = test::random_keys(rng);
  std::vector<std::vector<double>> masters;
  for (const per_sample::StrategyOptions& strategy : {per_sample::StrategyOptions{},
                                                      {.strategy = per_sample::Strategy::book_keeping},
                                                      {.strategy = per_sample::Strategy::two_pass},
                                                      {.strategy = per_sample::Strategy::materialised},
                                                      {.byte_budget = 20000}}) {
    TinyTraining run(ctx, DType::f32, {}, true);
    TrainerOptions o = descent();
    o.strategy = strategy;
    Trainer trainer(ctx, run.model.parameters(), test::tiny_plan(run, 9), keys, run.records(), o);
    trainer.step(run.losses());
    masters.push_back(run.masters());
    CHECK(test::distance(masters.back(), masters.front()) <= 1e-6 * test::norm(masters.front()));
  }
}

TEST_CASE("P28: parameters frozen and trained again in the middle of a run") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const bool grouped : {false, true}) {
    TinyTraining run(ctx, DType::bf16);
    const auto parameters = run.model.parameters().all();
    dp::PlanOptions o = options_of(run);
    TrainerOptions options = descent();
    if (grouped) {
      options.groups = Groups::by_layer(parameters);
      o.group_thresholds = dp::GroupClipping::uniform_thresholds(0.3, options.groups->count());
    }
    Trainer trainer(ctx, run.model.parameters(), dp::Plan::with_noise_multiplier(o, 1), test::random_keys(rng),
                    run.records(), options);
    for (int step = 0; step < 6; ++step) {
      std::vector<std::vector<double>> before;
      for (Parameter* p : parameters) {
        p->set_trainable(rng.integer(0, 2) > 0);
        before.push_back(p->master().to_doubles());
      }
      parameters[0]->set_trainable(true);
      trainer.step(run.losses());
      for (std::size_t k = 0; k < parameters.size(); ++k) {
        const std::vector<double> after = parameters[k]->master().to_doubles();
        std::size_t moved = 0;
        for (std::size_t j = 0; j < after.size(); ++j) moved += after[j] != before[k][j];
        CAPTURE(parameters[k]->name());
        if (!parameters[k]->trainable())
          CHECK(moved == 0);
        else
          CHECK(double(moved) > 0.9 * double(after.size()));  // FP32 may round a tiny step away
      }
    }
  }
}

TEST_CASE("the validation report names every parameter's form, way, cost and noise, and touches nothing") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  TinyTraining run(ctx, DType::bf16, {}, true);
  nn::Parameters& parameters = run.model.parameters();
  Parameter& extra = parameters.constant("unused", {3}, 0);
  parameters.find("block0.mlp.up.bias").set_trainable(false);
  const dp::Plan plan = test::tiny_plan(run, 9);
  Trainer trainer(ctx, parameters, plan, test::random_keys(rng), run.records(), descent());
  const std::vector<double> before = run.masters();
  const train::ValidationReport report = trainer.validate(run.losses());
  CHECK(run.masters() == before);
  CHECK(trainer.steps() == 0);
  for (const auto& slots : run.calls)
    for (index_t s : slots) CHECK(s == 0);  // all slots are empty
  REQUIRE(report.rows().size() == parameters.all().size());
  for (const train::ValidationRow& row : report.rows()) {
    CAPTURE(row.parameter->name());
    const bool frozen = !row.parameter->trainable();
    CHECK(row.noise_deviation == (frozen ? 0 : plan.noise_standard_deviation()));
    CHECK(row.used == (!frozen && row.parameter != &extra));
    if (row.used) CHECK(row.plan.kept_bytes > 0);
  }
  const auto row_of = [&](const std::string& name) {
    for (const train::ValidationRow& row : report.rows())
      if (row.parameter->name() == name) return row;
    throw Error("expected a row of " + name);
  };
  CHECK(row_of("tokens.weight").form == "outer product + one-hot rows");
  CHECK(row_of("block0.attention.qkv.weight").form == "outer product");
  CHECK(row_of("block0.attention.qkv.weight").tokens == 6);
  CHECK(row_of("block0.attention_norm.gain").form == "vector");
  const std::string text = report.text();
  for (const Parameter* p : parameters.all()) CHECK(text.find(p->name()) != std::string::npos);
  CHECK(text.find("not used: noise only") != std::string::npos);
  CHECK(text.find("frozen") != std::string::npos);
  for (Parameter* p : parameters.all()) p->set_trainable(false);
  CHECK(refuses([&] { trainer.validate(run.losses()); }, "expected at least one trainable parameter"));
}
