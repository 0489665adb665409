// SPDX-License-Identifier: Apache-2.0
// Batches prepared ahead: the bits, the order and the errors of a run without, whatever a step does.
#include <doctest/doctest.h>
#include <atomic>
#include <chrono>
#include <thread>

#include "dpmp/train/evaluate.hpp"
#include "dpmp/train/prefetch.hpp"
#include "support/errors.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using train::Prefetch;
using train::Trainer;

namespace {
struct Rows {
  std::vector<std::int32_t> ids, targets;
};
/// What is prepared for records: their rows, in the memory of the host.
struct Preparation {
  const test::TinyTraining& run;
  std::atomic<int> at_once{0}, calls{0};
  index_t bad_record = -1;
  Rows operator()(std::span<const index_t> records) {
    CHECK(at_once++ == 0);  // never two at a time
    ++calls;
    Rows rows;
    const index_t tokens = run.data.ids.shape()[1];
    bool bad = false;
    for (const index_t r : records) {
      bad = bad || r == bad_record;
      const auto append = [&](std::vector<std::int32_t>& to, const Tensor& from) {
        const std::int32_t* row = from.data<std::int32_t>() + r * tokens;
        to.insert(to.end(), row, row + tokens);
      };
      append(rows.ids, run.data.ids);
      append(rows.targets, run.data.targets);
    }
    --at_once;
    if (bad) throw Error("expected a file for each record, got none");
    return rows;
  }
};
/// Losses that take their rows from a Prefetch.
auto losses_of(Context& ctx, test::TinyTraining& run, Prefetch<Rows>& rows) {
  return [&](const train::Batch& batch) {
    run.calls.emplace_back(batch.records.begin(), batch.records.end());
    const Rows here = rows.take(batch);
    const Shape shape{batch.size(), run.data.ids.shape()[1]};
    return cross_entropy(run.model(batch.tape, Tensor::from(ctx, shape, here.ids)), Tensor::from(ctx, shape, here.targets),
                         {.divisor = double(shape[1])});
  };
}
train::TrainerOptions options(index_t physical_batch) {
  return {.physical_batch = physical_batch, .learning_rate = optim::LearningRate::constant(1e-2)};
}
index_t followers(const std::vector<std::vector<index_t>>& calls, index_t steps) { return index_t(calls.size()) - steps; }
}  // namespace

TEST_CASE("prefetch: private and plain runs have the bits and the order that they have without") {
  test::Rng rng;
  Context ctx(Device::cpu(), 1);
  for (const index_t physical : {1, 3, 4, 64})
    for (const bool is_private : {true, false}) {
      test::TinyTraining plain(ctx, DType::bf16), ahead(ctx, DType::bf16);
      const dp::StreamKeys keys = test::random_keys(rng);
      const auto trainer = [&](test::TinyTraining& run) {
        const train::Privacy privacy =
            is_private ? train::Privacy(test::tiny_plan(run, 9)) : train::Privacy(train::NoPrivacy{.sampling_rate = 0.3});
        return Trainer(ctx, run.model.parameters(), privacy, keys, run.records(), options(physical));
      };
      Trainer first = trainer(plain), second = trainer(ahead);
      Preparation preparation{ahead};
      Prefetch<Rows> rows(std::ref(preparation));
      const auto losses = losses_of(ctx, ahead, rows);
      for (int step = 0; step < 5; ++step) {
        first.step(plain.losses());
        second.step(losses);
        CHECK(plain.masters() == ahead.masters());
      }
      CHECK(plain.calls == ahead.calls);
      CHECK(rows.prepared_ahead() == followers(ahead.calls, 5));
      CHECK(preparation.calls == int(ahead.calls.size()));
      ahead.calls.clear();
      CHECK(train::evaluate(ctx, plain.losses(), 0, 20, physical) == train::evaluate(ctx, losses, 0, 20, physical));
    }
}

TEST_CASE("prefetch: what prepare throws arrives with the batch that it was for, and the run goes on as without") {
  test::Rng rng;
  Context ctx(Device::cpu(), 1);
  test::TinyTraining plain(ctx, DType::f32), ahead(ctx, DType::f32);
  const dp::StreamKeys keys = test::random_keys(rng);
  Preparation direct{plain}, preparation{ahead};
  const auto trainer = [&](test::TinyTraining& run) {
    return Trainer(ctx, run.model.parameters(), test::tiny_plan(run, 15, 12), keys, run.records(), options(4));
  };
  Trainer first = trainer(plain), second = trainer(ahead);
  Prefetch<Rows> rows(std::ref(preparation));
  const auto losses = losses_of(ctx, ahead, rows);
  const auto without = [&](const train::Batch& batch) {
    plain.calls.emplace_back(batch.records.begin(), batch.records.end());
    direct(batch.records);
    return plain.loss(batch.tape, batch.records);
  };
  int failed = 0;
  for (int step = 0; step < 12; ++step) {
    direct.bad_record = preparation.bad_record = step % 3 == 1 ? rng.integer(0, ahead.records() - 1) : -1;
    const std::string wanted = test::error_of([&] { first.step(without); });
    CHECK(test::error_of([&] { second.step(losses); }) == wanted);
    failed += !wanted.empty();
    CHECK(plain.calls == ahead.calls);  // the same batches before the error
    CHECK(plain.masters() == ahead.masters());
  }
  CAPTURE(failed);
  CHECK(first.steps() == second.steps());
  CHECK(rows.prepared_ahead() > 0);
}

TEST_CASE("prefetch: it ends while something is being prepared, and after what nobody took") {
  Context ctx(Device::cpu(), 1);
  std::atomic<int> begun{0}, ended{0};
  const std::vector<index_t> records{1, 2, 3}, next{4, 5}, others{6};
  Tape tape(ctx, 3, TapeMode::inference);
  for (const bool throws : {false, true}) {
    Prefetch<int> prefetch([&](std::span<const index_t> some) {
      ++begun;
      if (some[0] == 4) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      ++ended;
      if (throws && some[0] == 4) throw Error("expected nobody to take it, got somebody");
      return int(some.size());
    });
    CHECK(prefetch.take({tape, records, 0, train::NextRecords(next)}) == 3);
    if (throws) CHECK(prefetch.take({tape, others}) == 1);  // of another function: what was ahead is dropped
    CHECK(prefetch.prepared_ahead() == 0);
  }
  CHECK(begun == 5);
  CHECK(ended == 5);
  // Taken, its error is thrown, once.
  Prefetch<int> failing([](std::span<const index_t> some) -> int {
    if (some[0] == 4) throw Error("expected a file, got none");
    return 1;
  });
  failing.take({tape, records, 0, train::NextRecords(next)});
  CHECK(test::refuses([&] { failing.take({tape, next}); }, "expected a file"));
  CHECK(failing.take({tape, others}) == 1);
}
