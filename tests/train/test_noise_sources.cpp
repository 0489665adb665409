// SPDX-License-Identifier: Apache-2.0
// Training with correlated and with discrete noise: what a step releases, step by step against matrices and samples worked
// out here; resumed runs; what is refused.
#include <doctest/doctest.h>
#include <cmath>

#include "dpmp/dp/discrete_gaussian.hpp"
#include "dpmp/train/checkpoint.hpp"
#include "support/errors.hpp"
#include "support/noise.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using dp::NoiseSourceKind;
using test::TinyTraining;
using train::Trainer;
using train::TrainerOptions;

namespace {
constexpr double C = 0.3;
constexpr index_t steps = 6;

dp::Plan plan_of(const TinyTraining& run, const dp::NoiseSourceOptions& source, dp::SamplingOptions sampling) {
  const double rate = sampling.kind == dp::SamplingKind::full_batch ? 1 : 0.4;
  dp::NoiseSourceOptions of_model = source;
  if (source.is_discrete()) of_model.dimensions = run.model.parameters().numel();
  return dp::Plan::with_noise_multiplier({.delta = 1e-5,
                                          .sampling_rate = rate,
                                          .steps = steps,
                                          .clip_threshold = C,
                                          .dataset_size = run.records(),
                                          .sampling = sampling,
                                          .noise_source = of_model},
                                         0.7);
}
const dp::SamplingOptions full{.kind = dp::SamplingKind::full_batch};
dp::SamplingOptions cyclic(index_t period) { return {.kind = dp::SamplingKind::cyclic_poisson, .period = period}; }
const dp::NoiseSourceOptions tree{.kind = NoiseSourceKind::tree}, three_bands{.kind = NoiseSourceKind::banded, .bands = 3},
    discrete{.kind = NoiseSourceKind::discrete_gaussian, .grid_bits = 20};
struct Kind {
  const char* name;
  dp::NoiseSourceOptions source;
  dp::SamplingOptions sampling;
};
const Kind kinds[] = {{"bands, cyclic", three_bands, cyclic(3)}, {"bands, full batches", three_bands, full},
                      {"tree, once each", tree, cyclic(steps)},  {"tree, full batches", tree, full},
                      {"discrete, poisson", discrete, {}},       {"discrete, cyclic", discrete, cyclic(2)}};

TrainerOptions descent(index_t physical_batch = 4) {
  return {.physical_batch = physical_batch,
          .optimiser = optim::Sgd{},
          .learning_rate = optim::LearningRate::constant(1),
          .data_fingerprint = 1};
}
/// Row t of C^-1 z for one coordinate, by rows from the definition of C.
double correlated(const dp::NoiseMatrix& matrix, const std::vector<double>& z) {
  std::vector<long double> n;
  for (std::size_t t = 0; t < z.size(); ++t) {
    long double rest = z[t];
    for (std::size_t k = 0; k < t; ++k) rest -= (long double)(matrix.entry(index_t(t), index_t(k))) * n[k];
    n.push_back(rest / (long double)(matrix.entry(index_t(t), index_t(t))));
  }
  return double(n.back());
}
/// The noise of a step on all parameters, one behind the other.
std::vector<double> source_noise(const TinyTraining& run, const dp::Plan& plan, const dp::StreamKeys& keys, index_t step) {
  const Key256 key = keys.key(dp::Stream::noise);
  const dp::StepPlan numbers = plan.at(step);
  std::vector<double> all;
  const auto parameters = run.model.parameters().all();
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    const std::size_t n = std::size_t(parameters[k]->numel());
    std::vector<std::vector<double>> z;  // by step
    for (index_t t = 0; t <= step; ++t) z.push_back(test::normals_by_hand(key, dp::noise_nonce(t, index_t(k)), n));
    for (std::size_t j = 0; j < n; ++j) {
      if (plan.options().noise_source.is_discrete()) {
        dp::ElementBits bits({key, step}, index_t(k), index_t(j));
        all.push_back(double(dp::discrete_gaussian(numbers.units, bits)) * numbers.grid->spacing);
        continue;
      }
      std::vector<double> of_element;
      for (const auto& x : z) of_element.push_back(x[j]);
      all.push_back(numbers.noise_standard_deviation * correlated(dp::NoiseMatrix(plan.options().noise_source), of_element));
    }
  }
  return all;
}
}  // namespace

TEST_CASE("P3: with every noise source a step releases the clipped sum and the noise of its matrix or its samples") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const Kind& kind : kinds) {
    INFO(kind.name);
    TinyTraining run(ctx, DType::f64);
    const dp::Plan plan = plan_of(run, kind.source, kind.sampling);
    const dp::StreamKeys keys = test::random_keys(rng);
    Trainer trainer(ctx, run.model.parameters(), plan, keys, run.records(), descent());
    for (index_t step = 0; step < steps; ++step) {
      const std::vector<index_t> records = test::drawn(plan, keys, run.records(), step);
      const std::vector<double> wanted = test::clipped_sum_by_hand(run, records, C),
                                noise = source_noise(run, plan, keys, step), before = run.masters();
      trainer.step(run.losses());
      std::vector<double> off = run.masters();
      for (std::size_t j = 0; j < off.size(); ++j)
        off[j] = (before[j] - off[j]) * plan.expected_batch() - noise[j] - wanted[j];
      // Factors are up to 2^-20 below C / |G_i|; what is released is on a grid, or each contribution is.
      const double deviation = plan.at(step).noise_standard_deviation,
                   unit =
                       plan.at(step).grid ? plan.at(step).grid->spacing * double(records.size()) : dp::noise_grid(deviation);
      CHECK(test::norm(off) <=
            C * double(records.size()) * 0x1p-19 + unit * std::sqrt(double(off.size())) + 1e-9 * deviation);
    }
    CHECK(test::refuses([&] { trainer.step(run.losses()); }, "expected at most 6 steps"));
  }
}

TEST_CASE("P20: with every noise source a resumed run has the bits of one that was never left") {
  test::Rng rng;
  for (const Kind& kind : kinds)
    for (const bool frozen : {false, true}) {
      INFO(kind.name);
      CAPTURE(frozen);
      const test::TemporaryFolder folder;
      Context ctx(Device::cpu(), 2);
      TrainerOptions options = descent();
      options.optimiser = optim::DpAdamBC{.floor = 1e-4};
      TinyTraining run(ctx, DType::f32);
      if (frozen) run.model.parameters().all()[1]->set_trainable(false);
      const dp::Plan plan = plan_of(run, kind.source, kind.sampling);
      Trainer trainer(ctx, run.model.parameters(), plan, test::random_keys(rng), run.records(), options);
      for (index_t step = 0; step < steps; ++step) {
        if (step == 4) train::save_checkpoint(folder / "c", run.model.parameters(), trainer);
        trainer.step(run.losses());
      }
      TinyTraining again(ctx, DType::f32);
      const train::CheckpointHeader header = train::read_checkpoint_header(folder / "c");
      CHECK(header.plan == plan);
      Trainer resumed(ctx, again.model.parameters(), header.plan, header.keys, again.records(), options);
      CHECK(train::load_checkpoint(folder / "c", again.model.parameters(), resumed).same_run);
      for (index_t step = 4; step < steps; ++step) resumed.step(again.losses());
      CHECK(again.masters() == run.masters());
      for (const Parameter* p : again.model.parameters().all())
        CHECK(resumed.optimiser_state().of(*p).noise_share ==
              trainer.optimiser_state().of(run.model.parameters().find(p->name())).noise_share);
    }
}

TEST_CASE("P21: with discrete noise the bits of a run depend neither on the physical batch nor on the threads") {
  test::Rng rng;
  const dp::StreamKeys keys = test::random_keys(rng);
  std::vector<double> first;
  for (const auto& [threads, slots] : {std::pair<int, index_t>{1, 1}, {2, 4}, {2, 7}, {1, 64}}) {
    Context ctx(Device::cpu(), threads);
    TinyTraining run(ctx, DType::bf16);
    Trainer trainer(ctx, run.model.parameters(), plan_of(run, discrete, {}), keys, run.records(), descent(slots));
    for (index_t step = 0; step < steps; ++step) trainer.step(run.losses());
    if (first.empty()) first = run.masters();
    CHECK(run.masters() == first);
  }
}

TEST_CASE("P36: correlated noise goes on in the same run alone, with the same parameters, and not after a failed step") {
  test::Rng rng;
  Context ctx(Device::cpu(), 1);
  for (const Kind& kind : kinds) {
    if (kind.source.is_discrete()) continue;
    INFO(kind.name);
    const test::TemporaryFolder folder;
    TinyTraining run(ctx, DType::f32);
    const dp::Plan plan = plan_of(run, kind.source, kind.sampling);
    const dp::StreamKeys keys = test::random_keys(rng);
    Trainer trainer(ctx, run.model.parameters(), plan, keys, run.records(), descent());
    trainer.step(run.losses());
    train::save_checkpoint(folder / "c", run.model.parameters(), trainer);
    Parameter& other = *run.model.parameters().all()[0];
    other.set_trainable(false);
    const std::vector<double> before = run.masters();
    CHECK(test::refuses([&] { trainer.step(run.losses()); }, "the trained parameters and the strategy of the first step"));
    CHECK(trainer.steps() == 1);  // nothing was accounted
    CHECK(run.masters() == before);
    other.set_trainable(true);
    trainer.step(run.losses());
    CHECK_THROWS(trainer.step([](const train::Batch&) -> Variable { throw Error("no loss today"); }));
    CHECK(trainer.steps() == 3);
    CHECK(test::refuses([&] { trainer.step(run.losses()); }, "no step that failed"));

    TinyTraining elsewhere(ctx, DType::f32);
    const train::CheckpointHeader header = train::read_checkpoint_header(folder / "c");
    TrainerOptions changed = descent();
    changed.data_fingerprint = 2;
    Trainer resumed(ctx, elsewhere.model.parameters(), header.plan, header.keys, elsewhere.records(), changed);
    const std::vector<double> fresh = elsewhere.masters();
    CHECK(test::refuses([&] { train::load_checkpoint(folder / "c", elsewhere.model.parameters(), resumed); },
                        "to go on as the same run"));
    CHECK(elsewhere.masters() == fresh);
    CHECK(resumed.steps() == 0);
  }
}

TEST_CASE("P36: of correlated noise the history is one number for all steps, which knows what is frozen and the strategy") {
  Context ctx(Device::cpu(), 1);
  TinyTraining run(ctx, DType::f32);
  const auto parameters = run.model.parameters().all();
  const auto after = [&](std::uint64_t way, index_t frozen) {
    for (Parameter* p : parameters) p->set_trainable(true);
    if (frozen >= 0) parameters[std::size_t(frozen)]->set_trainable(false);
    train::FrozenHistory history;
    for (index_t step = 0; step < 3; ++step) history.begin_step(step, parameters, true, way);
    train::FrozenHistory resumed;
    resumed.restore(history.value());
    resumed.begin_step(3, parameters, true, way);
    CHECK(resumed.value() == history.value());
    CHECK(test::refuses([&] { resumed.begin_step(4, parameters, true, way + 1); }, "the strategy of the first step"));
    history.step_failed(2);
    CHECK(test::refuses([&] { history.begin_step(3, parameters, true, way); }, "no step that failed"));
    return resumed.value();
  };
  const std::uint64_t values[] = {after(0, -1), after(0, 0), after(0, 1), after(7, -1), after(8, -1), after(7, 0)};
  CHECK(values[0] == 0);
  for (std::size_t a = 0; a < std::size(values); ++a)
    for (std::size_t b = 0; b < a; ++b) CHECK(values[a] != values[b]);
}

TEST_CASE("discrete noise goes on where parameters are frozen, and in runs with noise of their own") {
  test::Rng rng;
  Context ctx(Device::cpu(), 1);
  const test::TemporaryFolder folder;
  TinyTraining run(ctx, DType::f32);
  Trainer trainer(ctx, run.model.parameters(), plan_of(run, discrete, {}), test::random_keys(rng), run.records(), descent());
  trainer.step(run.losses());
  run.model.parameters().all()[0]->set_trainable(false);
  const std::vector<double> kept = run.model.parameters().all()[0]->master().to_doubles();
  trainer.step(run.losses());
  CHECK(run.model.parameters().all()[0]->master().to_doubles() == kept);
  train::save_checkpoint(folder / "c", run.model.parameters(), trainer);
  TinyTraining elsewhere(ctx, DType::f32);
  const train::CheckpointHeader header = train::read_checkpoint_header(folder / "c");
  TrainerOptions changed = descent();
  changed.data_fingerprint = 2;
  Trainer resumed(ctx, elsewhere.model.parameters(), header.plan, header.keys, elsewhere.records(), changed);
  CHECK(!train::load_checkpoint(folder / "c", elsewhere.model.parameters(), resumed).same_run);
  resumed.step(elsewhere.losses());
  trainer.step(run.losses());
  CHECK(elsewhere.masters() != run.masters());
}

TEST_CASE("bad input: more trained values than a discrete plan has dimensions") {
  test::Rng rng;
  Context ctx(Device::cpu(), 1);
  TinyTraining run(ctx, DType::f32);
  dp::PlanOptions o = plan_of(run, discrete, {}).options();
  --o.noise_source.dimensions;
  Trainer trainer(ctx, run.model.parameters(), dp::Plan::with_noise_multiplier(o, 1), test::random_keys(rng), run.records(),
                  descent());
  CHECK(test::refuses([&] { trainer.step(run.losses()); }, "trained values"));
}
