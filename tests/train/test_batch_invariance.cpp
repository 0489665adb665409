// SPDX-License-Identifier: Apache-2.0
// On a CPU a record's contribution does not even depend on how many slots a physical batch has, or on the threads: the same
// bits alone and among many. (Not so for bf16 where a library multiplies it.)
#include <doctest/doctest.h>

#include "support/tiny_training.hpp"

using namespace dpmp;
using per_sample::Strategy;

namespace {
/// What record 0 adds to the sums, in slot `at` of `slots` slots, the others empty.
std::vector<double> contribution(const test::TinyTraining& run, const dp::Plan& plan, Strategy strategy, index_t slots,
                                 index_t at) {
  const auto& parameters = run.model.parameters();
  std::vector<Parameter*> all(parameters.all().begin(), parameters.all().end());
  per_sample::GradientSums sums(run.ctx, all);
  sums.set_zero();
  per_sample::ClippedSumSink sink(per_sample::Groups::flat(all), {.strategy = strategy});
  std::vector<index_t> batch(std::size_t(slots), train::masked_slot);
  batch[std::size_t(at)] = 0;
  const dp::FlatClipping clipping[] = {plan.clipping()};
  const auto losses = [&](const train::Batch& b) { return run.loss(b.tape, b.records); };
  train::accumulate_clipped(run.ctx, losses, {batch}, clipping, sink, sums);
  std::vector<double> values;
  for (const Tensor& sum : sums.tensors()) {
    const std::vector<double> part = sum.to_doubles();
    values.insert(values.end(), part.begin(), part.end());
  }
  return values;
}
}  // namespace

TEST_CASE("P34: contributions have the same bits in batches of any size, on any number of threads") {
  Context one(Device::cpu(), 1), two(Device::cpu(), 2), three(Device::cpu(), 3);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    if (product_chain(DeviceKind::cpu, dtype, 1000) == 1000) continue;
    for (const bool tied : {false, true})
      for (const Strategy strategy : {Strategy::automatic, Strategy::book_keeping, Strategy::two_pass}) {
        // 600 tokens: sums over them are cut.
        const test::TinySizes sizes{.records = 2, .tokens = tied ? 6 : 600};
        const test::TinyTraining run(one, dtype, sizes, tied), on_two(two, dtype, sizes, tied),
            on_three(three, dtype, sizes, tied);
        const dp::Plan plan = test::tiny_plan(run, 1);
        const std::vector<double> alone = contribution(run, plan, strategy, 1, 0);
        CHECK(test::norm(alone) > 0);
        CHECK(contribution(run, plan, strategy, 2, 1) == alone);
        CHECK(contribution(on_two, plan, strategy, 5, 3) == alone);
        CHECK(contribution(on_three, plan, strategy, 16, 15) == alone);
      }
  }
}
