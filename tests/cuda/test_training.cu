// SPDX-License-Identifier: Apache-2.0
// Whole training runs on a GPU beside the same runs on the CPU; what a step asks the system and the host for; what is
// refused.
#include <doctest/doctest.h>

#include "cuda/device_gpt.hpp"
#include "dpmp/autograd/gradcheck.hpp"
#include "dpmp/dpmp.cuh"
#include "support/difference.hpp"
#include "support/errors.hpp"

namespace {
using namespace dpmp;

/// What rounding makes of a gradient's direction, as a share of its norm. docs/numerics.md takes 40 roundings of stored
/// values between a token and a gradient of a two-block GPT; they fall in different places, so their norms add in squares. A
/// factor of 2 is allowed.
double share_of_roundings(DType dtype) { return 2 * std::sqrt(40.0) * unit_roundoff(dtype); }

dp::Plan plan_of(const test::DeviceGpt& run, index_t steps, double sampling_rate = 0.3) {
  return dp::Plan::with_noise_multiplier(
      {.delta = 1e-5, .sampling_rate = sampling_rate, .steps = steps, .clip_threshold = 0.5, .dataset_size = run.records},
      0.8);
}
dp::StreamKeys fixed_keys(std::uint64_t stream) {
  test::Rng rng(test::seed(), stream);
  return test::random_keys(rng);
}
}  // namespace

// The bound. Both runs draw the same batches and add the same noise (to the last bit of a double), so their masters part by
// what their clipped sums differ in, times rate / expected batch. A sum of B_t records has contributions of norm at most C.
// Each of them differs here and there by share_of_roundings of its norm (that the compute weights of the two runs may be
// rounded differently is one of those roundings), and by what the certificates of the two devices differ in: below 0.5 % of
// the norm (tests/per_sample/test_models.cpp), 0.01 % in f32. Masters are stored in FP32: two roundings a step. A factor of
// 2 pays for what a difference of masters makes of later gradients.
TEST_CASE("a private GPT trained on CUDA ends where the same run on the CPU does") {
  Context gpu(Device::cuda(0), 1), cpu(Device::cpu(), 1);
  constexpr index_t steps = 20;
  constexpr double rate = 0.5;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    CAPTURE(dtype);
    index_t records = 0;
    std::vector<double> start;
    const auto train = [&](Context& ctx) {
      test::DeviceGpt run(ctx, dtype);
      start = run.masters();
      train::Trainer trainer(
          ctx, run.model.parameters(), plan_of(run, steps), fixed_keys(31), run.records,
          {.physical_batch = 4, .optimiser = optim::Sgd{}, .learning_rate = optim::LearningRate::constant(rate)});
      for (index_t step = 0; step < steps; ++step) {
        records += index_t(test::drawn(trainer.plan(), trainer.keys(), run.records, step).size());
        trainer.step(run.losses());
      }
      return run.masters();
    };
    const std::vector<double> here = train(cpu), there = train(gpu);
    const double moved = rate / (0.3 * 12) * 0.5 * double(records) / 2,
                 relative = share_of_roundings(dtype) + (dtype == DType::f32 ? 1e-4 : 5e-3),
                 bound = 2 * moved * relative + double(2 * steps) * 0x1p-24 * test::norm(here);
    MESSAGE(name_of(dtype) << ": apart by " << test::distance(here, there) << ", " << test::distance(here, there) / bound
                           << " of the bound; the run moved by " << test::distance(start, here));
    CHECK(test::distance(here, there) <= bound);
    CHECK(test::distance(start, here) > 10 * bound);
  }
}

TEST_CASE("a plain GPT trained on CUDA ends where the same run on the CPU does") {
  Context gpu(Device::cuda(0), 1), cpu(Device::cpu(), 1);
  constexpr index_t steps = 5, records = 4;
  constexpr double rate = 0.05;
  double path = 0;  // of the sums, had all gradients of a step the same direction
  const auto train = [&](Context& ctx, DType dtype) {
    test::DeviceGpt run(ctx, dtype, {}, records);
    train::Trainer trainer(
        ctx, run.model.parameters(), train::NoPrivacy{1}, fixed_keys(32), records,
        {.physical_batch = 4, .optimiser = optim::Sgd{}, .learning_rate = optim::LearningRate::constant(rate)});
    const std::vector<index_t> all{0, 1, 2, 3};
    for (index_t step = 0; step < steps; ++step) {
      if (!ctx.on_cuda()) {
        per_sample::BookKeepingSink sink;
        Tape tape(ctx, records);
        tape.backward(run.losses()({tape, all}), sink);
        const per_sample::NormBounds norms = sink.norms(ctx, records);
        for (index_t i = 0; i < records; ++i) path += rate / records * norms.norm(i);
      }
      trainer.step(run.losses());
    }
    return run.masters();
  };
  for (const DType dtype : {DType::f32, DType::bf16}) {
    CAPTURE(dtype);
    path = 0;
    const std::vector<double> here = train(cpu, dtype), there = train(gpu, dtype);
    const double bound = 2 * path * share_of_roundings(dtype) + double(2 * steps) * 0x1p-24 * test::norm(here);
    MESSAGE(name_of(dtype) << ": apart by " << test::distance(here, there) / bound << " of the bound");
    CHECK(test::distance(here, there) <= bound);
  }
}

TEST_CASE("P18: an adaptive threshold takes the same way on CUDA") {
  Context gpu(Device::cuda(0), 1), cpu(Device::cpu(), 1);
  const auto train = [&](Context& ctx) {
    test::DeviceGpt run(ctx, DType::f32);
    const dp::Plan plan = dp::Plan::with_noise_multiplier(
        {.delta = 1e-5,
         .sampling_rate = 0.5,
         .steps = 4,
         .dataset_size = run.records,
         .adaptive = dp::AdaptiveOptions{.learning_rate = 1, .count_noise = 2, .initial_threshold = 0.1}},
        0.8);
    train::Trainer trainer(ctx, run.model.parameters(), plan, fixed_keys(33), run.records, {.physical_batch = 4});
    std::vector<double> thresholds;
    for (index_t step = 0; step < 4; ++step) {
      trainer.step(run.losses());
      thresholds.push_back(trainer.clip_threshold());
    }
    return thresholds;
  };
  // The threshold follows a count of records, so it is the same unless a norm lies within the last bits of it.
  const std::vector<double> here = train(cpu);
  CHECK(test::difference(train(gpu), here) == "");
  CHECK(here[0] != here[3]);
}

TEST_CASE("P11: on CUDA overflows are counted, with the noise of the host, and alarms raise the model as they do there") {
  Context gpu(Device::cuda(0), 1), cpu(Device::cpu(), 1);
  const auto train = [&](Context& ctx) {
    test::DeviceGpt run(ctx, nn::Precision::f16().fp32_residual());
    // At 2^40 every record overflows, and in bf16, after the second step, none does.
    const dp::Plan plan = dp::Plan::with_noise_multiplier(
        {.delta = 1e-5,
         .sampling_rate = 0.5,
         .steps = 5,
         .dataset_size = run.records,
         .overflow =
             dp::OverflowOptions{
                 .count_noise = 0.9, .share = 0.3, .growth_interval = 1, .initial_scale = 0x1p40, .alarm_after = 2}},
        0.7);
    train::Trainer trainer(ctx, run.model.parameters(), plan, fixed_keys(35), run.records,
                           {.physical_batch = 4,
                            .precision = train::PrecisionSchedule().raised_on_overflow("*", DType::bf16),
                            .unsafe_debug = true});
    std::vector<double> seen;
    for (index_t step = 0; step < 5; ++step) {
      trainer.step(run.losses());
      const dp::OverflowState state = trainer.overflow_scale()->state();
      seen.insert(seen.end(), {double(state.exponent), double(state.alarms), double(trainer.records_left_out())});
    }
    return seen;
  };
  const std::vector<double> here = train(cpu);
  CHECK(test::difference(train(gpu), here) == "");
  CHECK(here[2] > 0);
  CHECK(here.back() == 0);
}

TEST_CASE("P7, P10: after the first step, a step asks for no memory and nothing comes back to the host") {
  Context ctx(Device::cuda(0), 1);
  for (const auto strategy : {per_sample::Strategy::automatic, per_sample::Strategy::two_pass}) {
    test::DeviceGpt run(ctx, DType::bf16);
    // Three records expected: batches of none, of one physical batch and of two.
    train::Trainer trainer(ctx, run.model.parameters(), plan_of(run, 30), fixed_keys(34), run.records,
                           {.physical_batch = 4, .strategy = {.strategy = strategy}});
    trainer.step(run.losses());
    const index_t system = ctx.memory().system_allocations, live = ctx.memory().live_bytes;
    const TransferStatistics before = ctx.transfers();
    for (int k = 0; k < 5; ++k) trainer.step(run.losses());
    CHECK(ctx.memory().system_allocations == system);
    CHECK(ctx.memory().live_bytes == live);
    CHECK(ctx.transfers().copies_out == before.copies_out);
    CHECK(ctx.transfers().waits == before.waits);
    CHECK(ctx.transfers().copies_in > before.copies_in);
  }
}

TEST_CASE("what a GPU cannot do, and what lies elsewhere, is refused in words") {
  Context gpu(Device::cuda(0), 1), cpu(Device::cpu(), 1);
  CHECK(test::refuses([] { Context(Device::cuda(99)); }, "expected a CUDA device number below"));
  CHECK(test::refuses([] { Context(Device::cuda(-1)); }, "expected a CUDA device number below"));

  const Tensor here = Tensor::zeros(cpu, {2, 8}, DType::f32), ids = Tensor::zeros(cpu, {2, 3}, DType::i32);
  nn::Parameters parameters(cpu, DType::f32, 1);
  Parameter &table = parameters.normal("table", {5, 8}, 1), &bias = parameters.constant("bias", {5}, 0);
  nn::Parameters parameters_there(gpu, DType::f32, 1);
  Parameter& there = parameters_there.normal("weight", {5, 8}, 1);
  Tape tape(gpu, 2);
  CHECK(test::refuses([&] { tape.input(here); }, "expected an input of the tape on cuda:0, got cpu"));
  const Variable x = tape.input(here.to(gpu));
  CHECK(test::refuses([&] { linear(x, table); }, "linear: the weight on cuda:0, got cpu"));
  CHECK(test::refuses([&] { embedding(tape, ids, table); }, "embedding: the ids on cuda:0, got cpu"));
  CHECK(test::refuses([&] { embedding(tape, ids.to(gpu), table); }, "embedding: the table on cuda:0, got cpu"));
  CHECK(test::refuses([&] { cross_entropy(x, Tensor::zeros(cpu, {2}, DType::i32)); }, "the targets on cuda:0, got cpu"));
  CHECK(test::refuses([&] { mean_squared_error(x, here); }, "a target on cuda:0, got cpu"));
  CHECK(test::refuses([&] { Tensor(x.value()).copy_from(here); }, "on cuda:0, got"));
  const Variable losses = mean_squared_error(x, here.to(gpu));
  per_sample::BookKeepingSink sink;
  CHECK(test::refuses([&] { tape.backward(losses, sink, Tensor::zeros(cpu, {2}, DType::f32)); },
                      "loss weights on cuda:0, got cpu"));
  Tape tape_here(cpu, 2);
  CHECK(test::refuses([&] { tape_here.input(x.value()); }, "on cpu, got cuda:0"));
  CHECK(test::refuses([&] { linear(x, there, &bias); }, "linear: the bias on cuda:0, got cpu"));
  CHECK(test::refuses([&] { check_gradients(gpu, 2, {}, {}, {}); }, "expected a context on the CPU for a gradient check"));

  // f64 is for references, which the CPU makes.
  Tape wide(gpu, 2);
  const Variable qkv = wide.input(Tensor::zeros(gpu, {2, 3, 24}, DType::f64));
  CHECK(test::refuses([&] { attention(qkv, {}); }, "attention: expected f32, bf16 or f16 on a GPU, got f64"));
  nn::Parameters wide_parameters(gpu, DType::f64, 1);
  Parameter& w = wide_parameters.normal("w", {3, 8}, 1);
  const per_sample::SiteList sites{
      ParameterSite::outer_product(w, Tensor::zeros(gpu, {2, 4, 8}, DType::f64), Tensor::zeros(gpu, {2, 4, 3}, DType::f64))};
  const std::string refusal = "expected f32, bf16 or f16 for per-sample norms and sums on a GPU, got f64";
  per_sample::NormBounds bounds(gpu, 2);
  for (const auto method : {per_sample::NormMethod::gram, per_sample::NormMethod::instantiate})
    CHECK(test::refuses([&] { per_sample::squared_norms_outer(gpu, sites, bounds, method); }, refusal));
  const Tensor sum = Tensor::zeros(gpu, w.shape(), DType::f64);
  CHECK(test::refuses([&] { per_sample::weighted_sum(gpu, sites, per_sample::SampleFactors::ones(gpu, 2), sum); }, refusal));
}
