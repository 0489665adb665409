// SPDX-License-Identifier: Apache-2.0
// Losses of public records: the mean by hand, whatever the physical batch.
#include <doctest/doctest.h>

#include "dpmp/train/evaluate.hpp"
#include "support/errors.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;

TEST_CASE("evaluate is the mean of the losses of the records, one at a time, in their order") {
  Context ctx(Device::cpu(), 2);
  test::TinyTraining run(ctx, DType::f64);
  double wanted = 0;
  for (index_t r = 3; r < 14; ++r) {
    Tape tape(ctx, 1, TapeMode::inference);
    wanted += run.loss(tape, std::vector<index_t>{r}).value().item() / 11;
  }
  for (const index_t physical : {1, 4, 11, 64}) {
    run.calls.clear();
    CHECK(train::evaluate(ctx, run.losses(), 3, 11, physical) == doctest::Approx(wanted).epsilon(1e-13));
    index_t seen = 0;
    for (const auto& batch : run.calls) {
      CHECK(index_t(batch.size()) <= physical);
      for (const index_t r : batch) CHECK(r == 3 + seen++);
    }
    CHECK(seen == 11);
  }
}

TEST_CASE("bad input: evaluate without records, slots or per-sample losses is refused") {
  Context ctx(Device::cpu(), 1);
  test::TinyTraining run(ctx, DType::f32);
  CHECK(test::refuses([&] { train::evaluate(ctx, run.losses(), 0, 0); }, "at least one record"));
  CHECK(test::refuses([&] { train::evaluate(ctx, run.losses(), 0, 3, 0); }, "at least one slot"));
  const auto per_token = [&](const train::Batch& b) { return run.model(b.tape, run.batch(b.records).ids); };
  CHECK(test::refuses([&] { train::evaluate(ctx, per_token, 0, 3); }, "evaluate: the losses"));
}
