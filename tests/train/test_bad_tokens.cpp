// SPDX-License-Identifier: Apache-2.0
// A8: a record with a token that no table has. Whether there is one is private: nothing is thrown, named or timed by it, and
// the record contributes nothing, as on a GPU.
#include <doctest/doctest.h>

#include "support/errors.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using test::TinyTraining;
using train::Trainer;
using train::TrainerOptions;

namespace {
TrainerOptions descent() {
  return {.physical_batch = 4, .optimiser = optim::Sgd{}, .learning_rate = optim::LearningRate::constant(1)};
}
struct Bad {
  bool target;
  index_t position;
  std::int32_t token;
};
const Bad kinds[] = {{false, 0, 17}, {false, 5, -1},       {false, 3, INT32_MIN},
                     {true, 0, 99},  {true, 5, INT32_MAX}, {true, 2, -2}};

void spoil(TinyTraining& run, index_t record, const Bad& bad) {
  const Tensor& rows = bad.target ? run.data.targets : run.data.ids;
  rows.data<std::int32_t>()[record * rows.shape()[1] + bad.position] = bad.token;
}
}  // namespace

TEST_CASE("A8: a bad token makes its own sample's loss NaN, in every dtype, and changes no bit of the others") {
  Context ctx(Device::cpu(), 2);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64})
    for (const Bad& bad : kinds) {
      TinyTraining run(ctx, dtype);
      const std::vector<index_t> slots{4, 5, 6, 7};
      const auto losses = [&] {
        Tape tape(ctx, 4);
        return run.loss(tape, slots).value().to_doubles();
      };
      const std::vector<double> before = losses();
      spoil(run, 6, bad);
      const std::vector<double> after = losses();
      for (std::size_t i = 0; i < 4; ++i) CHECK((i == 2 ? std::isnan(after[i]) : after[i] == before[i]));
    }
}

TEST_CASE("A8: a private step with a bad token is the step without that record; only the unsafe switch counts it") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const dp::StreamKeys keys = test::random_keys(rng);
  std::vector<std::vector<double>> weights;
  for (const Bad& bad : kinds) {
    TinyTraining run(ctx, DType::f64);
    const dp::Plan plan = test::tiny_plan(run, 30);  // everybody is drawn
    spoil(run, 11, bad);
    TrainerOptions options = descent();
    options.unsafe_debug = bad.target;
    Trainer trainer(ctx, run.model.parameters(), plan, keys, run.records(), options);
    std::vector<index_t> others;
    for (index_t k = 0; k < run.records(); ++k)
      if (k != 11) others.push_back(k);
    const std::vector<double> sum = test::clipped_sum_by_hand(run, others, 0.3),
                              noise = test::noise_by_hand(run, plan, keys, 0), before = run.masters();
    CHECK_NOTHROW(trainer.step(run.losses()));
    weights.push_back(run.masters());
    double squares = 0;
    for (std::size_t j = 0; j < sum.size(); ++j) {
      const double released = (before[j] - weights.back()[j]) * plan.expected_batch();
      squares += (released - noise[j] - sum[j]) * (released - noise[j] - sum[j]);
    }
    CHECK(std::sqrt(squares) <= 0.3 * 30 * 0x1p-19 + test::grid_slack(plan.noise_standard_deviation(), sum.size()));
    const bool told = trainer.privacy_statement().find("unsafe_debug") != std::string::npos;
    CHECK(told == bad.target);
    if (bad.target)
      CHECK(trainer.records_left_out() == 1);
    else
      CHECK(test::refuses([&] { trainer.records_left_out(); }, "expected TrainerOptions::unsafe_debug"));
  }
  for (const auto& w : weights) CHECK(w == weights[0]);  // whatever is wrong with it
}

TEST_CASE("A8: plain training is on open records: a bad token is refused and named, and nothing moves") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  for (const Bad& bad : kinds) {
    TinyTraining run(ctx, DType::f32);
    spoil(run, 2, bad);
    Trainer trainer(ctx, run.model.parameters(), train::NoPrivacy{1}, test::random_keys(rng), run.records(),
                    {.physical_batch = 4});
    const std::vector<double> before = run.masters();
    CHECK(test::refuses([&] { trainer.step(run.losses()); }, "got " + std::to_string(bad.token) + " at sample 2"));
    CHECK(run.masters() == before);
  }
}
