// SPDX-License-Identifier: Apache-2.0
// P10 by launch traces: whole private steps, captured on a data set and on its neighbours, ask the GPU for the same kernels,
// grids, blocks, shared memory, copies and fills. That replays give the bits of the eager step (test_graph.cu) says the
// same of the kernels' arguments.
#include <doctest/doctest.h>

#include <functional>

#include "cuda/device_gpt.hpp"
#include "cuda/launch_trace.cuh"
#include "dpmp/dpmp.cuh"

namespace {
using namespace dpmp;
using per_sample::Strategy;
constexpr index_t none = train::masked_slot;

struct Setting {
  std::string name;
  per_sample::StrategyOptions strategy = {};
  bool by_layer = false;
  Checkpointing checkpointing = Checkpointing::none;
};
const std::vector<Setting> settings{
    {"automatic"},
    {"book-keeping", {.strategy = Strategy::book_keeping}},
    {"two-pass", {.strategy = Strategy::two_pass}},
    {"materialised", {.strategy = Strategy::materialised}},
    {"byte budget", {.byte_budget = 4096}},
    {"automatic, a group for each layer", {}, true},
    {"book-keeping, a group for each layer", {.strategy = Strategy::book_keeping}, true},
    {"two-pass, a group for each layer", {.strategy = Strategy::two_pass}, true},
    {"materialised, a group for each layer", {.strategy = Strategy::materialised}, true},
    {"two-pass, checkpointed blocks", {.strategy = Strategy::two_pass}, false, Checkpointing::block},
    {"a group for each layer, blocks that keep products", {}, true, Checkpointing::selective},
};

/// What a private step (clipped sums, noise, update) launches behind one that was not captured; prepare(its sums) is called
/// between the two, and more() at the end of what is traced.
test::LaunchTrace trace_of_step(Context& ctx, std::span<Parameter* const> parameters, const Setting& setting,
                                std::span<const index_t> slots, const std::function<Variable(Tape&)>& losses,
                                const std::function<void(const per_sample::GradientSums&)>& prepare = {},
                                const std::function<void()>& more = {}) {
  test::Rng rng;
  const Key256 key = test::random_keys(rng).key(dp::Stream::noise);
  const per_sample::Groups groups =
      setting.by_layer ? per_sample::Groups::by_layer(parameters) : per_sample::Groups::flat(parameters);
  const std::vector<dp::FlatClipping> clipping(std::size_t(groups.count()), dp::FlatClipping(0.5));
  per_sample::ClippedSumSink sink(groups, setting.strategy);
  per_sample::GradientSums sums(ctx, parameters);
  const Tensor weights = train::slot_weights(ctx, slots, DType::f32);
  optim::OptimiserState optimiser(ctx, parameters, optim::AdamW{});
  const optim::StepNoise noise{{key, 0}, 0.1};
  optimiser.begin_step(ctx, sums, 0.25, 1e-2, &noise);
  const auto step = [&] {
    sums.set_zero();
    train::accumulate_clipped(
        ctx, [&](const train::Batch& b) { return losses(b.tape); }, {.slots = slots, .weights = weights}, clipping, sink,
        sums);
    optimiser.update(ctx, sums, &key);
  };
  step();
  if (prepare) prepare(sums);
  return test::launch_trace(ctx, [&] {
    step();
    if (more) more();
  });
}

struct Records {
  std::string name;
  std::vector<index_t> slots;
  bool broken = false;  // token 3 of record 2 is no token
};
const std::vector<Records> batches{
    {"D", {0, 1, 2, 3}},
    {"a record changed", {0, 1, 7, 3}},
    {"a record masked", {0, 1, none, 3}},
    {"a record not finite", {0, 1, 2, 3}, true},
    {"all records the same", {5, 5, 5, 5}},
    {"no record", {none, none, none, none}},
};

/// Of a GPT in a context of its own: nothing is left of steps on other data.
test::LaunchTrace trace_of_gpt(const Setting& setting, const Records& batch, bool tied) {
  Context ctx(Device::cuda(0), 1);
  test::DeviceGpt run(ctx, DType::bf16, {.tied = tied, .checkpointing = setting.checkpointing});
  if (batch.broken) run.ids[2 * test::DeviceGpt::tokens + 3] = 999;
  const Shape shape{index_t(batch.slots.size()), test::DeviceGpt::tokens};
  const Tensor ids = Tensor::from(ctx, shape, run.rows(run.ids, train::records_of(batch.slots)));
  const Tensor targets = Tensor::from(ctx, shape, run.rows(run.targets, train::records_of(batch.slots)));
  return trace_of_step(ctx, run.model.parameters().all(), setting, batch.slots,
                       [&](Tape& tape) { return run.loss(tape, ids, targets); });
}

/// Two layers on inputs of any value.
struct Perceptron {
  explicit Perceptron(Context& context) : ctx(context), parameters(context, DType::bf16, test::seed()) {
    parameters.normal("first.weight", {32, 16}, 0.2);
    parameters.constant("first.bias", {32}, 0.1);
    parameters.normal("second.weight", {8, 32}, 0.2);
  }
  static constexpr index_t records = 4, width = 16;
  Variable loss(Tape& tape, const Tensor& x, const Tensor& target) const {
    const auto p = parameters.all();
    return mean_squared_error(linear(gelu(linear(tape.input(x), *p[0], p[1])), *p[2]), target);
  }
  Context& ctx;
  nn::Parameters parameters;
};

test::LaunchTrace trace_of_perceptron(const Setting& setting, double value_of_record_1) {
  Context ctx(Device::cuda(0), 1);
  const Perceptron run(ctx);
  test::Rng rng;
  std::vector<double> x(std::size_t(Perceptron::records * Perceptron::width));
  for (double& v : x) v = rng.normal();
  if (value_of_record_1 != 1)
    for (index_t j = 0; j < Perceptron::width; ++j) x[std::size_t(Perceptron::width + j)] *= value_of_record_1;
  const Tensor input = Tensor::from(ctx, {Perceptron::records, Perceptron::width}, DType::bf16, x);
  const Tensor target = Tensor::zeros(ctx, {Perceptron::records, 8}, DType::f32);
  const std::vector<index_t> slots{0, 1, 2, 3};
  return trace_of_step(ctx, run.parameters.all(), setting, slots, [&](Tape& tape) { return run.loss(tape, input, target); });
}

__global__ void planted(float* x) {
  if (threadIdx.x == 0 && blockIdx.x == 0) x[0] += 1;
}
__global__ void planted_too(float* x) {
  if (threadIdx.x == 0 && blockIdx.x == 0) x[0] += 2;
}
}  // namespace

TEST_CASE("P10: a private GPT step launches the same on neighbouring data, whatever the strategy and the groups") {
  std::vector<test::LaunchTrace> traces;
  for (const Setting& setting : settings) {
    CAPTURE(setting.name);
    const bool tied = traces.size() % 2 == 1;
    traces.push_back(trace_of_gpt(setting, batches[0], tied));
    CHECK(traces.back().size() > 40);
    for (std::size_t k = 1; k < batches.size(); ++k) {
      CAPTURE(batches[k].name);
      CHECK(test::first_difference(traces.back(), trace_of_gpt(setting, batches[k], tied)) == "");
    }
  }
  MESSAGE("nodes of a step: " << traces[0].size() << " (automatic), " << traces[2].size() << " (two-pass)");
  CHECK(traces[1] != traces[2]);
  CHECK(traces[1] != traces[3]);
}

TEST_CASE("P10: inputs that overflow or are no numbers launch the same") {
  for (const Setting& setting : settings) {
    CAPTURE(setting.name);
    const test::LaunchTrace trace = trace_of_perceptron(setting, 1);
    CHECK(trace.size() > 10);
    for (const double value : {0.0, 1e-30, 1e20, 3e38, double(INFINITY), double(NAN)}) {
      CAPTURE(value);
      CHECK(test::first_difference(trace, trace_of_perceptron(setting, value)) == "");
    }
  }
}

TEST_CASE("a private step with a launch that depends on its data is told apart") {
  const auto trace = [](double value_of_record_1) {
    Context ctx(Device::cuda(0), 1);
    const Perceptron run(ctx);
    std::vector<double> x(std::size_t(Perceptron::records * Perceptron::width), 0.5);
    x[std::size_t(Perceptron::width)] = value_of_record_1;
    const Tensor input = Tensor::from(ctx, {Perceptron::records, Perceptron::width}, DType::bf16, x);
    const Tensor target = Tensor::zeros(ctx, {Perceptron::records, 8}, DType::f32),
                 there = Tensor::zeros(ctx, {1}, DType::f32);
    const std::vector<index_t> slots{0, 1, 2, 3};
    unsigned blocks = 0;  // by the norm of the private sum
    return trace_of_step(
        ctx, run.parameters.all(), settings[0], slots, [&](Tape& tape) { return run.loss(tape, input, target); },
        [&](const per_sample::GradientSums& sums) { blocks = 1 + unsigned(1024 * test::norm(test::flat(sums))); },
        [&] { planted<<<blocks, 32, 0, static_cast<cudaStream_t>(ctx.backend().stream())>>>(there.data<float>()); });
  };
  const test::LaunchTrace here = trace(0.5);
  CHECK(test::first_difference(here, trace(0.5)) == "");
  const std::string difference = test::first_difference(here, trace(NAN));
  CHECK(difference.rfind(dpmp::detail::concat("node ", here.size() - 1, ": kernel "), 0) == 0);
}

TEST_CASE("a trace tells apart every property of a launch") {
  Context ctx(Device::cuda(0), 1);
  const Tensor x = Tensor::zeros(ctx, {1024, 64}, DType::f32), y = Tensor::zeros(ctx, {1024, 64}, DType::f32);
  float *a = Tensor(x).data<float>(), *b = Tensor(y).data<float>();
  const auto stream = static_cast<cudaStream_t>(ctx.backend().stream());
  void* pinned = nullptr;
  REQUIRE(cudaMallocHost(&pinned, 4096) == cudaSuccess);
  const auto product = [&](index_t rows) {
    gemm(ctx, {.m = rows, .n = 64, .k = 8, .a = {a, DType::f32, 64}, .b = {a, DType::f32, 64}, .out = {b, DType::f32, 64}});
  };
  // Each work for two values of something that it must not depend on.
  const std::vector<std::pair<std::string, std::function<void(unsigned)>>> cases{
      {"grid", [&](unsigned v) { planted<<<v, 32, 0, stream>>>(a); }},
      {"grid's second number", [&](unsigned v) { planted<<<dim3(2, v), 32, 0, stream>>>(a); }},
      {"block", [&](unsigned v) { planted<<<1, 32 * v, 0, stream>>>(a); }},
      {"shared memory", [&](unsigned v) { planted<<<1, 32, 128 * v, stream>>>(a); }},
      {"kernel", [&](unsigned v) { v == 1 ? planted<<<1, 32, 0, stream>>>(a) : planted_too<<<1, 32, 0, stream>>>(a); }},
      {"number of launches",
       [&](unsigned v) {
         for (unsigned k = 0; k < v; ++k) planted<<<1, 32, 0, stream>>>(a);
       }},
      {"order",
       [&](unsigned v) {
         if (v == 1) planted<<<1, 32, 0, stream>>>(a);
         planted_too<<<1, 32, 0, stream>>>(a);
         if (v != 1) planted<<<1, 32, 0, stream>>>(a);
       }},
      {"type of node",
       [&](unsigned v) {
         if (v == 1)
           cudaMemsetAsync(b, 0, 64, stream);
         else
           cudaMemcpyAsync(b, a, 64, cudaMemcpyDeviceToDevice, stream);
       }},
      {"bytes copied", [&](unsigned v) { cudaMemcpyAsync(b, a, 64 * v, cudaMemcpyDeviceToDevice, stream); }},
      {"rows copied", [&](unsigned v) { cudaMemcpy2DAsync(b, 256, a, 256, 64, 2 * v, cudaMemcpyDeviceToDevice, stream); }},
      {"direction of a copy",
       [&](unsigned v) {
         cudaMemcpyAsync(b, v == 1 ? a : pinned, 64, v == 1 ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice, stream);
       }},
      {"bytes filled", [&](unsigned v) { cudaMemsetAsync(b, 0, 64 * v, stream); }},
      {"value filled", [&](unsigned v) { cudaMemsetAsync(b, int(v), 64, stream); }},
      {"a product's rows", [&](unsigned v) { product(v == 1 ? 16 : 1024); }},
  };
  for (const auto& [name, work] : cases) {
    CAPTURE(name);
    std::vector<test::LaunchTrace> traces;
    for (const unsigned value : {1u, 2u, 1u}) {
      work(value);
      traces.push_back(test::launch_trace(ctx, [&] { work(value); }));
    }
    CHECK(test::first_difference(traces[0], traces[2]) == "");
    CHECK(test::first_difference(traces[0], traces[1]) != "");
  }
  cudaFreeHost(pinned);
}
