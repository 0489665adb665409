// SPDX-License-Identifier: Apache-2.0
// A private step captured as a CUDA graph: replayed on other data it gives the bits of the step itself, so nothing that is
// launched depends on data (P10); and what must not be captured is refused.
#include <doctest/doctest.h>
#include <array>
#include <cmath>
#include <map>

#include "cuda/device_gpt.hpp"
#include "dpmp/dpmp.cuh"
#include "support/difference.hpp"
#include "support/errors.hpp"

namespace {
using namespace dpmp;
constexpr index_t none = train::masked_slot;

/// A batch in tensors that stay where they are, and the clipped sums of what they hold.
struct StaticStep {
  StaticStep(test::DeviceGpt& r, index_t slots)
      : run(r),
        ids(Tensor::zeros(r.ctx, {slots, test::DeviceGpt::tokens}, DType::i32)),
        targets(Tensor::zeros(r.ctx, {slots, test::DeviceGpt::tokens}, DType::i32)),
        weights(Tensor::zeros(r.ctx, {slots}, DType::f32)),
        sums(r.ctx, r.model.parameters().all()),
        sink(per_sample::Groups::flat(r.model.parameters().all()), {}) {}

  void put(std::span<const index_t> slots) {
    ids.copy_from_host(run.rows(run.ids, train::records_of(slots)).data());
    targets.copy_from_host(run.rows(run.targets, train::records_of(slots)).data());
    std::vector<float> records;
    for (const index_t slot : slots) records.push_back(slot == none ? 0.0f : 1.0f);
    weights.copy_from_host(records.data());
  }
  void operator()() {
    const std::vector<index_t> slots(std::size_t(weights.numel()), 0);
    sums.set_zero();
    train::accumulate_clipped(
        run.ctx, [&](const train::Batch& b) { return run.loss(b.tape, ids, targets); }, {.slots = slots, .weights = weights},
        {&clipping, 1}, sink, sums);
  }

  test::DeviceGpt& run;
  Tensor ids, targets, weights;
  dp::FlatClipping clipping{0.5};
  per_sample::GradientSums sums;
  per_sample::ClippedSumSink sink;
};
}  // namespace

TEST_CASE("P10: a captured private step gives the bits of the step itself, whatever the batch holds") {
  for (const bool tied : {false, true}) {
    CAPTURE(tied);
    Context ctx(Device::cuda(0), 1);
    test::DeviceGpt run(ctx, DType::bf16, {.tied = tied});
    run.ids[2 * test::DeviceGpt::tokens + 3] = 999;  // no token: record 2 is not finite
    StaticStep step(run, 4);
    const std::vector<std::vector<index_t>> batches{{0, 1, 3, 4}, {5, 2, none, 6}, {none, none, none, none}, {7, 7, 8, 9}};
    std::vector<std::vector<double>> expected;
    for (const auto& batch : batches) {
      step.put(batch);
      step();
      expected.push_back(test::flat(step.sums));
    }
    CHECK(test::norm(expected[2]) == 0);
    CHECK(test::norm(expected[1]) > 0);

    CudaGraph graph = CudaGraph::capture(ctx, step);
    const TransferStatistics before = ctx.transfers();
    const CudaGraph again = CudaGraph::capture(ctx, [&] {});
    CHECK(again.nodes() == 0);
    CHECK(graph.nodes() > 20);
    step();  // takes what memory is left: fewer blocks than before the capture, and none of the graph's
    const index_t system = ctx.memory().system_allocations;
    for (std::size_t k = 0; k < batches.size(); ++k) {
      CAPTURE(k);
      step.put(batches[(k + 1) % batches.size()]);
      step();  // other work in between
      step.put(batches[k]);
      graph.launch();
      CHECK(test::difference(test::flat(step.sums), expected[k]) == "");
    }
    CHECK(ctx.memory().system_allocations == system);
    CHECK(ctx.transfers().copies_in - before.copies_in == 6 * index_t(batches.size()));
    CHECK(ctx.transfers().copies_out - before.copies_out ==
          index_t(batches.size() * step.sums.tensors().size()));  // flat() alone
  }
}

TEST_CASE("captures of one step on different batches have the same nodes") {
  Context ctx(Device::cuda(0), 1);
  test::DeviceGpt run(ctx, DType::bf16);
  StaticStep step(run, 4);
  std::vector<std::size_t> nodes;
  for (const std::vector<index_t>& batch : {std::vector<index_t>{0, 1, 3, 4}, {none, none, none, none}}) {
    step.put(batch);
    step();
    nodes.push_back(CudaGraph::capture(ctx, step).nodes());
  }
  CHECK(nodes[0] == nodes[1]);
  // The blocks of a graph that is gone are everybody's again.
  const index_t system = ctx.memory().system_allocations;
  step();
  CHECK(ctx.memory().system_allocations == system);
}

TEST_CASE("a captured step of noise and update follows the numbers of each step") {
  test::Rng rng;
  const dp::StreamKeys keys = test::random_keys(rng);
  const auto train = [&](bool captured) {
    Context ctx(Device::cuda(0), 1);
    test::DeviceGpt run(ctx, DType::bf16);
    StaticStep step(run, 4);
    optim::OptimiserState optimiser(ctx, run.model.parameters().all(), optim::AdamW{});
    const Key256 key = keys.key(dp::Stream::noise);
    const auto work = [&] {
      step();
      optimiser.update(ctx, step.sums, &key);
    };
    std::optional<CudaGraph> graph;
    for (index_t k = 0; k < 4; ++k) {
      const index_t slots[] = {k, k + 1, k + 2, none};
      step.put(slots);
      const optim::StepNoise noise{{key, k}, 0.1};
      optimiser.begin_step(ctx, step.sums, 0.25, 1e-2, &noise);
      if (captured && k == 1) graph.emplace(CudaGraph::capture(ctx, work));
      if (graph)
        graph->launch();
      else
        work();
    }
    return run.masters();
  };
  CHECK(test::difference(train(true), train(false)) == "");
}

TEST_CASE("P28: any pattern of freezing: the updates of the host, and captured ones have the bits of those that are not") {
  constexpr int steps = 14;
  test::Rng rng;
  std::vector<std::array<bool, 3>> patterns(steps, {true, true, true});
  for (int t = 1; t < steps; ++t)
    for (bool& trained : patterns[std::size_t(t)]) trained = rng.uniform() < 0.5;
  patterns[3] = patterns[9] = {false, true, false};  // met again after others, with other counts
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const optim::Optimiser& kind :
         {optim::Optimiser(optim::Sgd{}), optim::Optimiser(optim::Sgd{.momentum = 0.9, .weight_decay = 0.1}),
          optim::Optimiser(optim::AdamW{.epsilon = 1e-3, .weight_decay = 0.1}),
          optim::Optimiser(optim::DpAdamBC{.floor = 0.1, .weight_decay = 0.1}),
          optim::Optimiser(optim::Lamb{.epsilon = 1e-3, .weight_decay = 0.1})}) {
      CAPTURE(dtype);
      CAPTURE(kind.index());
      std::vector<index_t> counts;
      const auto train = [&](Device where, bool captured) {
        Context ctx(where, 1);
        nn::Parameters parameters(ctx, dtype, test::seed());
        parameters.normal("matrix", {5, 7}, 0.5), parameters.normal("vector", {300}, 0.5),
            parameters.normal("scale", {}, 0.5);
        optim::OptimiserState state(ctx, parameters.all(), kind);
        per_sample::GradientSums sums(ctx, parameters.all());
        std::map<std::array<bool, 3>, CudaGraph> graphs;  // the sums have all parameters: they do not move
        for (int t = 0; t < steps; ++t) {
          const auto& trained = patterns[std::size_t(t)];
          for (std::size_t k = 0; k < 3; ++k) {
            parameters.all()[k]->set_trainable(trained[k]);
            test::Rng of_step(test::seed(), std::uint64_t(100 * t) + k);
            std::vector<double> sum(std::size_t(parameters.all()[k]->numel()));
            for (double& x : sum) x = of_step.normal(2);
            Tensor(sums.tensors()[k]).copy_from_host(sum.data());
          }
          state.begin_step(ctx, sums, 1 / 3.0, 0.05);
          const auto update = [&] { state.update(ctx, sums); };
          if (!captured || t == 0) {
            update();
            continue;
          }
          if (!graphs.contains(trained)) graphs.emplace(trained, CudaGraph::capture(ctx, update));
          graphs.at(trained).launch();
        }
        std::vector<double> all;
        counts.clear();
        for (const Parameter* p : parameters.all()) {
          counts.push_back(state.of(*p).updates);
          for (const Tensor& x : {p->master(), state.of(*p).first, state.of(*p).second})
            if (x.defined())
              for (const double v : x.to_doubles()) all.push_back(v);
        }
        return all;
      };
      std::vector<index_t> wanted(3, 0);
      for (const auto& trained : patterns)
        for (std::size_t k = 0; k < 3; ++k) wanted[k] += trained[k];
      const std::vector<double> host = train(Device::cpu(), false), direct = train(Device::cuda(0), false);
      CHECK(counts == wanted);
      CHECK(test::difference(train(Device::cuda(0), true), direct) == "");
      CHECK(counts == wanted);
      // Numbers of the size of 1, with at most twenty roundings of FP32 a step that the two devices may take differently.
      REQUIRE(host.size() == direct.size());
      double worst = 0;
      for (std::size_t j = 0; j < host.size(); ++j)
        worst = std::max(worst, std::fabs(host[j] - direct[j]) / (20 * steps * 0x1p-24 * (std::fabs(host[j]) + 1)));
      CHECK(worst <= 1);
    }
}

TEST_CASE("a constant tensor is filled where it lies") {
  Context ctx(Device::cuda(0), 1);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64, DType::i32})
    for (const index_t n : {0, 1, 255, 257}) {
      const TransferStatistics before = ctx.transfers();
      const Tensor x = Tensor::full(ctx, {n}, dtype, -6);
      CHECK(ctx.transfers().copies_in == before.copies_in);
      CHECK(x.to_doubles() == std::vector<double>(std::size_t(n), -6));
    }
}

TEST_CASE("what a replay could not repeat is refused, and the context works on") {
  Context ctx(Device::cuda(0), 1), cpu(Device::cpu(), 1);
  const Tensor x = Tensor::full(ctx, {3, 8}, DType::f32, 2), sum = Tensor::zeros(ctx, {100}, DType::f64);
  const SampleIdentities nobody(ctx, std::vector<RecordId>(3));
  const std::vector<float> zeros(24);
  const auto captured = [&](auto&& f) { return [&ctx, f] { CudaGraph::capture(ctx, f); }; };
  CHECK(test::refuses(captured([&] { Tensor(x).copy_from_host(zeros.data()); }), "a copy from the host's memory while it"));
  CHECK(test::refuses(captured([&] { x.to_doubles(); }), "a copy to the host's memory while it is captured"));
  CHECK(test::refuses(captured([&] { ctx.backend().synchronize(); }), "a wait for the device while it is captured"));
  CHECK(test::refuses(captured([&] { dp::add_gaussian_noise(ctx, sum.data<double>(), 100, 1, {}, 0); }),
                      "noise of a fixed step while it is captured"));
  CHECK(test::refuses(captured([&] {
                        Tape tape(ctx, 3);
                        dropout(tape.input(x), 0.5, {}, nobody);
                      }),
                      "dropout of a fixed step while it is captured"));
  CHECK(test::refuses(captured([&] { CudaGraph::capture(ctx, [] {}); }), "expected one set of reserved blocks"));
  CHECK(test::refuses(captured([&] { Tensor::empty(ctx, {1 << 20}, DType::f64); }),
                      "run the same work once before it is captured"));
  CHECK(test::refuses([&] { CudaGraph::capture(cpu, [] {}); }, "expected a context on a GPU"));
  CHECK(test::refuses(captured([] { throw Error("of the work itself"); }), "of the work itself"));

  CHECK(x.to_doubles() == std::vector<double>(24, 2));
  Tensor y = Tensor::zeros(ctx, {3, 8}, DType::f32);
  CudaGraph graph = CudaGraph::capture(ctx, [&] { y.copy_from(x); });
  CHECK(y.to_doubles() == std::vector<double>(24, 0));  // recorded, not done
  graph.launch();
  CHECK(y.to_doubles() == std::vector<double>(24, 2));
}
