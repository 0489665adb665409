// SPDX-License-Identifier: Apache-2.0
// One private step: the clipped sum of the drawn records, noise of the plan on every coordinate, a public divisor.
#include <doctest/doctest.h>
#include <algorithm>
#include <type_traits>

#include "dpmp/autograd/rules/elementwise.hpp"
#include "support/errors.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using test::TinyTraining;
using train::Trainer;
using train::TrainerOptions;

namespace {
/// Plain descent with the rate 1: the weights move by the released sum over the divisor.
TrainerOptions descent(index_t physical_batch = 4) {
  return {.physical_batch = physical_batch, .optimiser = optim::Sgd{}, .learning_rate = optim::LearningRate::constant(1)};
}
/// What a step released, from the way an f64 model went: (before - after) * divisor.
std::vector<double> released(const std::vector<double>& before, const std::vector<double>& after, double divisor) {
  std::vector<double> sum(before.size());
  for (std::size_t j = 0; j < sum.size(); ++j) sum[j] = (before[j] - after[j]) * divisor;
  return sum;
}
std::vector<double> minus(std::vector<double> x, const std::vector<double>& y) {
  for (std::size_t j = 0; j < x.size(); ++j) x[j] -= y[j];
  return x;
}
double standard_deviation(std::span<const double> x) {
  double squares = 0;
  for (double v : x) squares += v * v;
  return std::sqrt(squares / double(x.size()));
}
}  // namespace

TEST_CASE("P3: a step releases the clipped sum of the drawn records plus the noise of its key, step by step") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (bool tied : {false, true}) {
    CAPTURE(tied);
    TinyTraining run(ctx, DType::f64, {}, tied);
    const dp::Plan plan = test::tiny_plan(run, 9, 3);
    const dp::StreamKeys keys = test::random_keys(rng);
    Trainer trainer(ctx, run.model.parameters(), plan, keys, run.records(), descent());
    for (index_t step = 0; step < 3; ++step) {
      const std::vector<index_t> records = test::drawn(plan, keys, run.records(), step);
      const std::vector<double> sum = test::clipped_sum_by_hand(run, records, 0.3),
                                noise = test::noise_by_hand(run, plan, keys, step);
      const std::vector<double> before = run.masters();
      run.calls.clear();
      trainer.step(run.losses());
      const std::vector<double> got = released(before, run.masters(), plan.expected_batch());
      // The factors are up to 2^-20 below C / |G_i|, and rounded down to FP32.
      CHECK(test::distance(minus(got, noise), sum) <=
            0.3 * double(records.size()) * 0x1p-19 + test::grid_slack(plan.noise_standard_deviation(), sum.size()) + 1e-12);
      CHECK(trainer.steps() == step + 1);
      // P6: the loss saw every drawn record once, in full physical batches.
      std::vector<index_t> seen;
      for (const auto& slots : run.calls) {
        CHECK(slots.size() == 4);
        for (std::size_t i = 0; i < slots.size(); ++i)
          if (!test::repeats_first(slots, i)) seen.push_back(slots[i]);
      }
      CHECK(seen == records);
    }
  }
}

TEST_CASE("P3, P29: the noise has the plan's standard deviation on every parameter, rows of unused tokens included") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  // Tokens 0..9 occur; 7990 rows of the table and of the head's outputs are never read by a record.
  TinyTraining run(ctx, DType::f64, {.records = 6, .vocabulary = 8000, .used_ids = 10, .width = 32});
  const dp::Plan plan = test::tiny_plan(run, 3, 1, 0.5, 1.3);
  const dp::StreamKeys keys = test::random_keys(rng);
  Trainer trainer(ctx, run.model.parameters(), plan, keys, run.records(), descent());
  const std::vector<double> sum = test::clipped_sum_by_hand(run, test::drawn(plan, keys, run.records(), 0), 0.5),
                            before = run.masters();
  trainer.step(run.losses());
  const std::vector<double> noise = minus(released(before, run.masters(), plan.expected_batch()), sum);
  const double sigma = 1.3 * 0.5 * (1 + dp::rounding_share(plan.facts().batch_bound));
  CHECK(plan.noise_standard_deviation() == doctest::Approx(sigma).epsilon(1e-14));
  REQUIRE(noise.size() > 500000);
  CHECK(std::fabs(standard_deviation(noise) - sigma) <= 4 * sigma / std::sqrt(2 * double(noise.size())));

  std::size_t at = 0;
  for (const Parameter* p : run.model.parameters().all()) {
    CAPTURE(p->name());
    const std::span<const double> part(noise.data() + at, std::size_t(p->numel()));
    at += part.size();
    // Six standard errors, and for a vector of eight the chi-square tails are wider than the normal ones.
    const double error = 1 / std::sqrt(2 * double(part.size()));
    CHECK(standard_deviation(part) <= sigma * (1 + 6 * error + 12 * error * error));
    CHECK(standard_deviation(part) >= sigma * std::max(0.05, 1 - 6 * error));
    CHECK(std::count(part.begin(), part.end(), 0.0) <= 4);  // a value in 2^21 is rounded to 0
    if (p->name() == "tokens.weight") {
      const std::span<const double> untouched = part.subspan(10 * 32);
      CHECK(std::all_of(sum.begin() + 10 * 32, sum.begin() + 8000 * 32, [](double v) { return v == 0; }));
      CHECK(std::fabs(standard_deviation(untouched) - sigma) <= 5 * sigma / std::sqrt(2 * double(untouched.size())));
      double mean = 0;
      for (double v : untouched) mean += v / double(untouched.size());
      CHECK(std::fabs(mean) <= 5 * sigma / std::sqrt(double(untouched.size())));
    }
  }
}

TEST_CASE("P28: a step changes every trainable tensor and not one bit of a frozen one, in every dtype") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    TinyTraining run(ctx, dtype);
    for (const char* name : {"block0.attention.qkv.weight", "block0.mlp_norm.gain", "tokens.weight"})
      run.model.parameters().find(name).set_trainable(false);
    std::vector<std::vector<double>> masters, values;
    for (const Parameter* p : run.model.parameters().all())
      masters.push_back(p->master().to_doubles()), values.push_back(p->value().to_doubles());
    Trainer trainer(
        ctx, run.model.parameters(), test::tiny_plan(run, 9), test::random_keys(rng), run.records(),
        {.physical_batch = 4, .learning_rate = optim::LearningRate::constant(0.1)});  // many units of a bf16 at 1
    trainer.step(run.losses());
    for (std::size_t k = 0; k < masters.size(); ++k) {
      const Parameter& p = *run.model.parameters().all()[k];
      CAPTURE(p.name());
      CHECK((p.master().to_doubles() == masters[k]) == !p.trainable());
      CHECK((p.value().to_doubles() == values[k]) == !p.trainable());
    }
  }
}

TEST_CASE(
    "P4: the divisor is the plan's, whatever was drawn: one record more or fewer moves nothing when gradients are zero") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  std::vector<std::vector<double>> weights;
  std::vector<std::size_t> sizes;
  const dp::StreamKeys keys = test::random_keys(rng);
  for (index_t records : {30, 29, 5}) {
    TinyTraining run(ctx, DType::f64);
    const dp::Plan plan = test::tiny_plan(run, 27);
    Trainer trainer(ctx, run.model.parameters(), plan, keys, records, descent());
    trainer.step([&](const train::Batch& b) { return scale(run.loss(b.tape, b.records), 0); });
    weights.push_back(run.masters());
    sizes.push_back(test::drawn(plan, keys, records, 0).size());
  }
  CHECK(sizes[0] > sizes[2]);
  CHECK(weights[1] == weights[0]);
  CHECK(weights[2] == weights[0]);
}

TEST_CASE("P7: an empty draw is a step: one physical batch of empty slots, pure noise, accounted") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  TinyTraining run(ctx, DType::f64);
  const dp::Plan plan = test::tiny_plan(run, 1e-9, 5);
  const dp::StreamKeys keys = test::random_keys(rng);
  REQUIRE(test::drawn(plan, keys, run.records(), 0).empty());
  Trainer trainer(
      ctx, run.model.parameters(), plan, keys, run.records(),
      {.physical_batch = 4, .optimiser = optim::Sgd{}, .learning_rate = optim::LearningRate::constant(plan.expected_batch())});
  const std::vector<double> before = run.masters();
  trainer.step(run.losses());
  const std::vector<double> noise = test::noise_by_hand(run, plan, keys, 0), got = released(before, run.masters(), 1);
  CHECK(test::distance(got, noise) <= 1e-12 * test::norm(noise));
  CHECK(run.calls == std::vector<std::vector<index_t>>{std::vector<index_t>(4, 0)});
  CHECK(trainer.steps() == 1);
}

TEST_CASE("P12: the physical batch changes the released sum by rounding only, and noise is added once") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const dp::StreamKeys keys = test::random_keys(rng);
  for (DType dtype : {DType::f64, DType::f32}) {
    std::vector<double> first, start;
    for (index_t physical : {1, 3, 7, 30}) {
      CAPTURE(physical);
      TinyTraining run(ctx, dtype);
      const dp::Plan plan = test::tiny_plan(run, 18);
      Trainer trainer(ctx, run.model.parameters(), plan, keys, run.records(), descent(physical));
      start = run.masters();
      trainer.step(run.losses());
      const index_t n = index_t(test::drawn(plan, keys, run.records(), 0).size());
      CHECK(index_t(run.calls.size()) == (n + physical - 1) / physical);
      if (first.empty()) first = run.masters();
      // Of a sum of at most n C over the divisor: 1e-6 in f32; in f64 the norm's last bit may tip the FP32 rounding of a
      // factor. Then the rounding of the weights themselves.
      const double sum = 0.3 * double(n) / plan.expected_batch();
      CHECK(test::distance(run.masters(), first) <= 1e-6 * sum + unit_roundoff(dtype) * 2 * test::norm(first));
    }
    CHECK(test::distance(first, start) > 0.1);
  }
}

TEST_CASE("P8: what an empty slot computes, NaN too, changes no bit of the step") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const dp::StreamKeys keys = test::random_keys(rng);
  std::vector<std::vector<double>> weights;
  for (int garbage : {0, 1, 2}) {
    TinyTraining run(ctx, DType::f32);
    run.filler = garbage == 0 ? 0 : 11;
    constexpr index_t steps = 12;  // one draw in seven fills its physical batches to the last slot
    Trainer trainer(ctx, run.model.parameters(), test::tiny_plan(run, 9, steps), keys, run.records(), descent(7));
    for (index_t step = 0; step < steps; ++step)
      trainer.step([&](const train::Batch& batch) {
        const Variable loss = run.losses()(batch);
        if (garbage < 2) return loss;
        std::vector<double> factors(batch.records.size());
        for (std::size_t i = 0; i < factors.size(); ++i)
          factors[i] = test::repeats_first(batch.records, i) ? double(NAN) : 1;
        return multiply(loss, batch.tape.input(Tensor::from(ctx, loss.shape(), loss.dtype(), factors)));
      });
    bool some_masked = false;
    for (const auto& slots : run.calls) some_masked = some_masked || slots.back() == slots.front();
    CHECK(some_masked);
    weights.push_back(run.masters());
  }
  CHECK(weights[1] == weights[0]);
  CHECK(weights[2] == weights[0]);
}

TEST_CASE("P9: a record whose loss is NaN contributes nothing; the step counts and the others are untouched") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const dp::StreamKeys keys = test::random_keys(rng);
  TinyTraining run(ctx, DType::f64);
  const dp::Plan plan = test::tiny_plan(run, 15);
  std::vector<index_t> records = test::drawn(plan, keys, run.records(), 0);
  REQUIRE(records.size() > 2);
  const index_t broken = records[1];
  Trainer trainer(ctx, run.model.parameters(), plan, keys, run.records(), descent());
  std::erase(records, broken);
  const std::vector<double> sum = test::clipped_sum_by_hand(run, records, 0.3),
                            noise = test::noise_by_hand(run, plan, keys, 0), before = run.masters();
  trainer.step([&](const train::Batch& batch) {
    const Variable loss = run.loss(batch.tape, batch.records);
    std::vector<double> factors(batch.records.size());
    for (std::size_t i = 0; i < factors.size(); ++i) factors[i] = batch.records[i] == broken ? double(NAN) : 1;
    return multiply(loss, batch.tape.input(Tensor::from(ctx, loss.shape(), loss.dtype(), factors)));
  });
  CHECK(test::distance(minus(released(before, run.masters(), plan.expected_batch()), noise), sum) <=
        0.3 * double(records.size()) * 0x1p-19 + test::grid_slack(plan.noise_standard_deviation(), sum.size()) + 1e-12);
  CHECK(trainer.steps() == 1);
}

TEST_CASE("P10: what is computed, and how often, does not depend on what the records say") {
  test::Rng rng;
  const dp::StreamKeys keys = test::random_keys(rng);
  struct Trace {
    std::vector<std::vector<index_t>> calls;
    std::vector<index_t> allocations, peaks;
    bool operator==(const Trace&) const = default;
  };
  std::vector<Trace> traces;
  std::vector<std::vector<double>> weights;
  for (int data : {0, 1, 2}) {
    Context ctx(Device::cpu(), 1);
    TinyTraining run(ctx, DType::bf16);
    // Other tokens; then all tokens equal, whose gradients are large and clipped differently.
    for (index_t k = 0; data > 0 && k < run.data.ids.numel(); ++k)
      run.data.ids.data<std::int32_t>()[k] = run.data.targets.data<std::int32_t>()[k] =
          data == 1 ? std::int32_t(rng.integer(0, 16)) : 3;
    Trainer trainer(ctx, run.model.parameters(), test::tiny_plan(run, 9), keys, run.records(), descent());
    Trace trace;
    for (int step = 0; step < 5; ++step) {
      ctx.reset_peak_memory();
      trainer.step(run.losses());
      trace.allocations.push_back(ctx.memory().system_allocations);
      trace.peaks.push_back(ctx.memory().peak_bytes);
    }
    trace.calls = run.calls;
    traces.push_back(trace);
    weights.push_back(run.masters());
  }
  CHECK(traces[1] == traces[0]);
  CHECK(traces[2] == traces[0]);
  CHECK(weights[1] != weights[0]);
}

TEST_CASE("P19: a step returns nothing that could be printed") {
  const auto losses = [](const train::Batch& b) { return b.tape.input(Tensor()); };
  static_assert(std::is_void_v<decltype(std::declval<Trainer&>().step(losses))>);
}
