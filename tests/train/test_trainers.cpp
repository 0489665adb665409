// SPDX-License-Identifier: Apache-2.0
// Trainers as state: failed steps, spent plans, refusals, memory, and training without privacy.
#include <doctest/doctest.h>

#include <functional>

#include "support/errors.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using test::TinyTraining;
using train::Trainer;
using train::TrainerOptions;

namespace {
/// A rule whose backward fails behind those that were recorded after it.
struct FailingBackward {
  static constexpr std::string_view name = "failing_backward";
  void backward(BackwardPass&, const Tensor&) const { throw Error("expected luck, got none"); }
};
Variable fails_backwards(const Variable& x) { return x.tape().record(x.value(), true, FailingBackward{}); }
}  // namespace

TEST_CASE("P27: a step that fails stays accounted; the next one goes on with its own draw and noise") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const dp::StreamKeys keys = test::random_keys(rng);
  enum class Failure { before_forward, second_batch, backward };
  for (Failure failure : {Failure::before_forward, Failure::second_batch, Failure::backward}) {
    CAPTURE(int(failure));
    TinyTraining run(ctx, DType::f32), other(ctx, DType::f32);
    const dp::Plan plan = test::tiny_plan(run, 20, 3);
    Trainer trainer(ctx, run.model.parameters(), plan, keys, run.records(), {.physical_batch = 4});
    const std::vector<double> before = run.masters();
    int calls = 0;
    const auto failing = [&](const train::Batch& batch) -> Variable {
      ++calls;
      if (failure == Failure::before_forward || (failure == Failure::second_batch && calls == 2))
        throw Error("expected luck, got none");
      if (failure == Failure::second_batch) return run.loss(batch.tape, batch.records);
      // The head's site is handed over before the walk fails: none of it may reach the next step.
      const nn::Parameters& parameters = run.model.parameters();
      const test::Tokens rows = run.batch(batch.records);
      const Variable x = fails_backwards(embedding(batch.tape, rows.ids, parameters.find("tokens.weight")));
      return cross_entropy(linear(x, parameters.find("head.weight")), rows.targets);
    };
    CHECK(test::refuses([&] { trainer.step(failing); }, "luck"));
    CHECK(trainer.steps() == 1);
    CHECK(run.masters() == before);
    for (const Parameter* p : run.model.parameters().all()) CHECK(trainer.optimiser_state().of(*p).updates == 0);
    // As if the run had been repeated from after the failed step; that it failed is part of what the noise depends on.
    CHECK(trainer.frozen_history() != 0);
    Trainer fresh(ctx, other.model.parameters(), plan, keys, other.records(), {.physical_batch = 4});
    fresh.repeat_from(1, 0, keys, {}, trainer.frozen_history());
    for (int step = 0; step < 2; ++step) {
      trainer.step(run.losses());
      fresh.step(other.losses());
    }
    CHECK(run.masters() == other.masters());
    CHECK(trainer.steps() == 3);
  }
}

TEST_CASE("a spent plan is refused, and nothing happens then") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  TinyTraining run(ctx, DType::f32);
  const dp::Plan plan = test::tiny_plan(run, 9, 2);
  Trainer trainer(ctx, run.model.parameters(), plan, test::random_keys(rng), run.records(), {.physical_batch = 4});
  for (int step = 0; step < 2; ++step) trainer.step(run.losses());
  const std::vector<double> spent = run.masters();
  const std::size_t calls = run.calls.size();
  for (int attempt = 0; attempt < 2; ++attempt)
    CHECK(test::refuses([&] { trainer.step(run.losses()); }, "expected at most 2 steps"));
  CHECK(run.masters() == spent);
  CHECK(run.calls.size() == calls);
  CHECK(trainer.steps() == 2);
}

TEST_CASE(
    "bad input: trainers refuse physical batches without slots, more records than planned, and losses of the wrong shape") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  TinyTraining run(ctx, DType::f32);
  const dp::Plan plan = test::tiny_plan(run, 9);
  const dp::StreamKeys keys = test::random_keys(rng);
  for (index_t bad : {0, -3}) {
    CHECK(test::refuses([&] { Trainer(ctx, run.model.parameters(), plan, keys, run.records(), {.physical_batch = bad}); },
                        "physical batch"));
    CHECK(test::refuses(
        [&] { Trainer(ctx, run.model.parameters(), train::NoPrivacy{0.5}, keys, run.records(), {.physical_batch = bad}); },
        "physical batch"));
  }
  CHECK(test::refuses([&] { Trainer(ctx, run.model.parameters(), plan, keys, run.records() + 1); }, "30"));
  CHECK(test::refuses([&] { Trainer(ctx, run.model.parameters(), plan, keys, 0); }, "records"));
  for (double rate : {0.0, -1.0, 1.5, double(NAN)})
    CHECK(test::refuses([&] { Trainer(ctx, run.model.parameters(), train::NoPrivacy{rate}, keys, run.records()); },
                        "probability"));
  Trainer trainer(ctx, run.model.parameters(), plan, keys, run.records(), {.physical_batch = 4});
  const std::vector<double> before = run.masters();
  const auto per_token = [&](const train::Batch& b) { return run.model(b.tape, run.batch(b.records).ids); };
  CHECK(test::refuses([&] { trainer.step(per_token); }, "per-sample losses of shape [4]"));
  CHECK(run.masters() == before);
}

TEST_CASE("after the second step the arena asks the system for nothing, and nothing is left alive between steps") {
  test::Rng rng;
  for (DType dtype : {DType::f32, DType::bf16}) {
    Context ctx(Device::cpu(), 1);
    TinyTraining run(ctx, dtype);
    Trainer trainer(ctx, run.model.parameters(), test::tiny_plan(run, 9, 12), test::random_keys(rng), run.records(),
                    {.physical_batch = 4});
    trainer.step(run.losses());  // makes the moments
    const index_t live = ctx.memory().live_bytes;
    trainer.step(run.losses());
    const MemoryStatistics second = ctx.memory();
    for (int step = 2; step < 12; ++step) trainer.step(run.losses());
    CHECK(ctx.memory().system_allocations == second.system_allocations);
    CHECK(ctx.memory().reserved_bytes == second.reserved_bytes);
    CHECK(ctx.memory().peak_bytes == second.peak_bytes);
    CHECK(ctx.memory().live_bytes == live);
  }
}

TEST_CASE("training without privacy: the same draws, the plain sum, the same divisor, as a loop by hand") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  TinyTraining run(ctx, DType::f64), by_hand(ctx, DType::f64);
  const dp::StreamKeys keys = test::random_keys(rng);
  const double q = 0.4, momentum = 0.8;
  const TrainerOptions options{.physical_batch = 4,
                               .optimiser = optim::Sgd{.momentum = momentum},
                               .learning_rate = optim::LearningRate::cosine(0.3, 2, 6)};
  Trainer trainer(ctx, run.model.parameters(), train::NoPrivacy{q}, keys, run.records(), options);
  std::vector<double> velocity(std::size_t(run.model.parameters().numel()), 0.0);
  for (index_t step = 0; step < 5; ++step) {
    trainer.step(run.losses());
    std::vector<index_t> draw;
    dp::PoissonSampler(keys.key(dp::Stream::sampler), run.records(), q).draw(step, draw);
    const std::vector<double> sum = test::clipped_sum_by_hand(by_hand, draw, double(INFINITY));
    std::size_t at = 0;
    for (Parameter* p : by_hand.model.parameters().all())
      for (index_t j = 0; j < p->numel(); ++j, ++at) {
        velocity[at] = momentum * velocity[at] + sum[at] / (q * double(run.records()));
        p->master().data<double>()[j] -= options.learning_rate.at(step) * velocity[at];
      }
    CHECK(trainer.steps() == step + 1);
    CHECK(test::distance(run.masters(), by_hand.masters()) <= 1e-12 * test::norm(by_hand.masters()));
  }
}

TEST_CASE("training without privacy: parameters may be frozen and trained again, as in private training") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  TinyTraining run(ctx, DType::f32);
  nn::Parameters& parameters = run.model.parameters();
  Trainer trainer(ctx, parameters, train::NoPrivacy{1}, test::random_keys(rng), run.records(), {.physical_batch = 8});
  const Parameter& frozen = parameters.find("block0.mlp.up.weight");
  const std::vector<double> before = frozen.master().to_doubles();
  parameters.set_trainable([](const Parameter& p) { return p.name().ends_with("bias"); });
  trainer.step(run.losses());
  CHECK(frozen.master().to_doubles() == before);
  parameters.set_trainable([](const Parameter&) { return true; });
  trainer.step(run.losses());
  CHECK(frozen.master().to_doubles() != before);
}

TEST_CASE("a trainer without a plan says so where a plan is asked for") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  TinyTraining run(ctx, DType::f32);
  Trainer trainer(ctx, run.model.parameters(), train::NoPrivacy{0.5}, test::random_keys(rng), run.records());
  CHECK(!trainer.is_private());
  for (const auto& asks : std::vector<std::function<void()>>{
           [&] { trainer.plan(); }, [&] { trainer.notes(); }, [&] { trainer.privacy_statement(); },
           [&] { trainer.validate(run.losses()); }, [&] { trainer.repeat_from(1, 0, trainer.keys()); }})
    CHECK(test::refuses(asks, "expected a trainer with a plan, got one without privacy"));
}

TEST_CASE("training without privacy learns: the loss of the records falls") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  TinyTraining run(ctx, DType::bf16);
  const auto loss = [&] {
    std::vector<index_t> all;
    for (index_t k = 0; k < run.records(); ++k) all.push_back(k);
    Tape tape(ctx, run.records(), TapeMode::inference);
    double total = 0;
    for (double v : run.loss(tape, all).value().to_doubles()) total += v;
    return total / double(run.records());
  };
  const double before = loss();
  Trainer trainer(ctx, run.model.parameters(), train::NoPrivacy{0.5}, test::random_keys(rng), run.records(),
                  {.physical_batch = 8, .learning_rate = optim::LearningRate::constant(1e-2)});
  for (int step = 0; step < 60; ++step) trainer.step(run.losses());
  CHECK(loss() < 0.7 * before);
}
