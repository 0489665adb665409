// SPDX-License-Identifier: Apache-2.0
// P10: what is recorded for a physical batch may not depend on its records: padding to the longest of them is refused.
#include <doctest/doctest.h>

#include "dpmp/autograd/rules/elementwise.hpp"
#include "support/errors.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using test::TinyTraining;
using train::Trainer;

namespace {
/// The batch of a TinyTraining cut to its longest record; record k is 2 + k % 5 tokens long.
Variable padded_to_the_longest(const TinyTraining& run, Tape& tape, std::span<const index_t> slots) {
  index_t longest = 1;
  for (const index_t record : slots) longest = std::max(longest, 2 + record % 5);
  const test::Tokens rows = run.batch(slots);
  const auto cut = [&](const Tensor& whole) {
    const index_t width = whole.shape()[1];
    std::vector<std::int32_t> part;
    for (std::size_t i = 0; i < slots.size(); ++i)
      for (index_t t = 0; t < longest; ++t) part.push_back(whole.data<std::int32_t>()[index_t(i) * width + t]);
    return Tensor::from(run.ctx, {index_t(slots.size()), longest}, part);
  };
  return cross_entropy(run.model(tape, cut(rows.ids)), cut(rows.targets));
}
}  // namespace

TEST_CASE("P10: padding to the longest record of a batch is refused, and no length is named") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  TinyTraining run(ctx, DType::f32);
  Trainer trainer(ctx, run.model.parameters(), test::tiny_plan(run, 9, 50), test::random_keys(rng), run.records(),
                  {.physical_batch = 2});
  const auto losses = [&](const train::Batch& b) { return padded_to_the_longest(run, b.tape, b.records); };
  std::string error;
  while (error.empty() && trainer.steps() < 50) {
    const std::vector<double> before = run.masters();
    error = test::error_of([&] { trainer.step(losses); });
    if (!error.empty()) CHECK(run.masters() == before);
  }
  REQUIRE_MESSAGE(error.find("record the operations and shapes of the first one") != std::string::npos, error);
  CHECK_MESSAGE(error.find("got another size of axis 1: neither may depend") != std::string::npos, error);
  // validate() has seen record 0 alone, the shortest, so the first step with a longer one is refused already.
  TinyTraining other(ctx, DType::f32);
  Trainer strict(ctx, other.model.parameters(), test::tiny_plan(other, 30), test::random_keys(rng), other.records(),
                 {.physical_batch = 2});
  const auto cut = [&](const train::Batch& b) { return padded_to_the_longest(other, b.tape, b.records); };
  strict.validate(cut);
  CHECK(test::refuses([&] { strict.step(cut); }, "got another size of axis 1"));
  CHECK(strict.steps() == 1);  // accounted, as every step that fails
}

TEST_CASE("P10: another operation, one more or one less is refused; a public change is announced") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  TinyTraining run(ctx, DType::f32);
  Trainer trainer(ctx, run.model.parameters(), test::tiny_plan(run, 9, 9), test::random_keys(rng), run.records(),
                  {.physical_batch = 4});
  const auto more = [&](const train::Batch& b) { return scale(run.loss(b.tape, b.records), 2); };
  const auto first = [&](const train::Batch& batch) {
    const Variable loss = run.loss(batch.tape, batch.records);
    return multiply(loss, batch.tape.input(Tensor::full(ctx, loss.shape(), DType::f32, 1)));
  };
  trainer.step(run.losses());
  trainer.step(run.losses());
  CHECK(test::refuses([&] { trainer.step(more); }, "operations of the first one, got more"));
  trainer.program_changes();
  trainer.step(first);
  CHECK(test::refuses([&] { trainer.step(more); }, "got another operation"));
  CHECK(test::refuses([&] { trainer.step(run.losses()); }, "got fewer operations"));
  trainer.step(first);
}
