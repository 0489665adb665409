// SPDX-License-Identifier: Apache-2.0
// Trainers draw what their plan's sampling says, sum it as its sensitivity says, and go on with it after a checkpoint.
#include <doctest/doctest.h>
#include <algorithm>

#include "dpmp/train/checkpoint.hpp"
#include "support/errors.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using dp::SamplingKind;
using test::TinyTraining;
using train::Trainer;
using train::TrainerOptions;

namespace {
struct Case {
  const char* name;
  dp::SamplingOptions sampling;
  double rate;
};
const std::vector<Case>& cases() {
  static const std::vector<Case> all{
      {"truncated", {.kind = SamplingKind::truncated_poisson, .batch_size = 9}, 0.05},
      {"without replacement", {.kind = SamplingKind::without_replacement, .batch_size = 7}, 0},
      {"balls", {.kind = SamplingKind::balls_in_bins, .period = 3}, 0},
      {"cyclic", {.kind = SamplingKind::cyclic_poisson, .period = 2}, 0.5},
      {"full", {.kind = SamplingKind::full_batch}, 0},
      {"users", {.records_per_user = 2}, 0.4},
      {"truncated users", {.kind = SamplingKind::truncated_poisson, .batch_size = 8, .records_per_user = 2}, 0.05}};
  return all;
}
/// Ten users of thirty records: user u has records u, u + 10, u + 20.
std::vector<index_t> users_of(const Case& c, index_t records) {
  std::vector<index_t> users;
  for (index_t r = 0; c.sampling.records_per_user > 0 && r < records; ++r) users.push_back(r % 10);
  return users;
}
dp::Plan plan_of(const Case& c, const TinyTraining& run, index_t steps = 5) {
  return dp::Plan::with_noise_multiplier(
      {.delta = 1e-2,
       .sampling_rate = c.rate,
       .steps = steps,
       .clip_threshold = 0.3,
       .dataset_size = c.sampling.records_per_user > 0 ? 10 : run.records(),
       .relation = c.sampling.kind == SamplingKind::without_replacement ? dp::NeighbouringRelation::replace_one
                                                                        : dp::NeighbouringRelation::add_or_remove_one,
       .sampling = c.sampling},
      0.7);
}
TrainerOptions options_of(const Case& c, index_t records) {
  return {.physical_batch = 4,
          .optimiser = optim::Sgd{},
          .learning_rate = optim::LearningRate::constant(0.5),
          .data_fingerprint = 1,
          .user_of_record = users_of(c, records)};
}
std::vector<index_t> draw_of(const Case& c, const dp::Plan& plan, const dp::StreamKeys& keys, index_t records,
                             index_t step) {
  std::vector<index_t> draw;
  const std::vector<index_t> users = users_of(c, records);
  (users.empty() ? plan.sampler(keys, records) : plan.sampler(keys, dp::UserRecords(users))).draw(step, draw);
  return draw;
}
}  // namespace

TEST_CASE("P3, P4, P5, P7: a step of every sampling is the clipped sum of its draw and its noise, over the public divisor") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const Case& c : cases()) {
    CAPTURE(c.name);
    TinyTraining run(ctx, DType::f64);
    const dp::StreamKeys keys = test::random_keys(rng);
    const dp::Plan plan = plan_of(c, run);
    Trainer trainer(ctx, run.model.parameters(), plan, keys, run.records(), options_of(c, run.records()));
    const index_t fixed =
        c.sampling.kind == SamplingKind::full_batch ? run.records() : c.sampling.batch_size * c.sampling.records_per_unit();
    for (index_t step = 0; step < 5; ++step) {
      const std::vector<index_t> draw = draw_of(c, plan, keys, run.records(), step);
      const std::vector<double> sum = test::clipped_sum_by_hand(run, draw, 0.3);
      const std::vector<double> noise = test::noise_by_hand(run, plan, keys, step), before = run.masters();
      run.calls.clear();
      trainer.step(run.losses());
      // Of a fixed size every step has as many physical batches, however few records it drew (none at all, P7).
      CHECK(index_t(run.calls.size()) == train::physical_batches(std::max(fixed, index_t(draw.size())), 4));
      const std::vector<double> after = run.masters();
      std::vector<double> moved(sum.size()), expected(sum.size());
      for (std::size_t j = 0; j < sum.size(); ++j) {
        moved[j] = (before[j] - after[j]) / 0.5 * plan.expected_batch();
        expected[j] = sum[j] + noise[j];
      }
      // The factors are up to 2^-20 below C / |G_i|, and rounded down to FP32.
      CHECK(test::distance(moved, expected) <=
            0.3 * double(draw.size()) * 0x1p-19 + test::grid_slack(plan.noise_standard_deviation(), sum.size()) + 1e-12);
    }
    CHECK(trainer.steps() == 5);
    CHECK(test::refuses([&] { trainer.step(run.losses()); }, "expected at most 5 steps"));
  }
}

TEST_CASE("P20: runs of every sampling go on from a checkpoint bit for bit, and their statement says how they draw") {
  test::Rng rng;
  for (const Case& c : cases()) {
    CAPTURE(c.name);
    const test::TemporaryFolder folder;
    const dp::StreamKeys keys(test::random_keys(rng).root());
    std::vector<double> uninterrupted;
    std::string statement;
    Context ctx(Device::cpu(), 2);
    {
      TinyTraining run(ctx, DType::f32);
      Trainer trainer(ctx, run.model.parameters(), plan_of(c, run), keys, run.records(), options_of(c, run.records()));
      for (int step = 0; step < 5; ++step) {
        if (step == 2) train::save_checkpoint(folder / "c", run.model.parameters(), trainer);
        trainer.step(run.losses());
      }
      uninterrupted = run.masters();
      statement = trainer.privacy_statement();
    }
    TinyTraining run(ctx, DType::f32);
    const train::CheckpointHeader header = train::read_checkpoint_header(folder / "c");
    CHECK(header.plan == plan_of(c, run));
    const auto trainer_of = [&](const dp::StreamKeys& of, const TrainerOptions& options) {
      return Trainer(ctx, run.model.parameters(), header.plan, of, run.records(), options);
    };
    {
      Trainer trainer = trainer_of(header.keys, options_of(c, run.records()));
      CHECK(train::load_checkpoint(folder / "c", run.model.parameters(), trainer).same_run);
      for (int step = 2; step < 5; ++step) trainer.step(run.losses());
      CHECK(run.masters() == uninterrupted);
      CHECK(trainer.privacy_statement() == statement);
    }
    // With anything changed it has draws of its own; some ways of sampling cannot have them anywhere.
    TrainerOptions other = options_of(c, run.records());
    other.data_fingerprint = 2;
    Trainer changed = trainer_of(header.keys, other);
    const auto load = [&](Trainer& trainer) {
      return train::load_checkpoint(folder / "c", run.model.parameters(), trainer);
    };
    if (c.sampling.kind == SamplingKind::balls_in_bins) {
      CHECK(test::refuses([&] { load(changed); }, "to begin with an epoch of 3 steps, got step 2"));
    } else {
      CHECK_FALSE(load(changed).same_run);
      CHECK(changed.steps() == 2);
    }
    Trainer elsewhere = trainer_of(dp::StreamKeys(test::random_keys(rng).root()), other);
    if (c.sampling.kind == SamplingKind::cyclic_poisson)
      CHECK(test::refuses([&] { load(elsewhere); }, "expected the root key of the checkpoint for cyclic_poisson"));
    if (c.sampling.records_per_user > 0) {
      TrainerOptions regrouped = options_of(c, run.records());
      std::swap(regrouped.user_of_record[0], regrouped.user_of_record[1]);
      Trainer trainer = trainer_of(header.keys, regrouped);
      const train::Resumed resumed = load(trainer);
      CHECK_FALSE(resumed.same_run);
      CHECK(resumed.changed.find("users: ") != std::string::npos);
    }
  }
}

TEST_CASE("P2: one user more or less changes the clipped sum by at most the declared k C, which two aligned records reach") {
  // Records of user 0 are equal, so that their contributions add up: a sensitivity of C alone would be broken by nearly 2.
  Context ctx(Device::cpu(), 2);
  TinyTraining run(ctx, DType::f64);
  const Case c{"users", {.records_per_user = 2}, 0.4};
  const dp::Plan plan = plan_of(c, run);
  CHECK(plan.sensitivity().bound == 2 * 0.3 * (1 + plan.facts().rho));
  const std::vector<double> gradient = test::batch_of_one(ctx, run.model, run.data.rows(0, 1))[0];
  REQUIRE(test::norm(gradient) > 0.3);
  const std::vector<double> with = test::clipped_sum_by_hand(run, std::vector<index_t>{3, 0, 0}, 0.3),
                            without = test::clipped_sum_by_hand(run, std::vector<index_t>{3}, 0.3);
  const double moved = test::distance(with, without);
  CHECK(moved <= plan.sensitivity().bound);
  CHECK(moved > 1.9 * 0.3);
}

TEST_CASE("P5: users and records are not mistaken for each other, and plain training has neither") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  TinyTraining run(ctx, DType::f32);
  const dp::StreamKeys keys = test::random_keys(rng);
  const auto refused = [&](const train::Privacy& privacy, const std::vector<index_t>& users, const char* part) {
    return test::refuses(
        [&] { Trainer(ctx, run.model.parameters(), privacy, keys, run.records(), {.user_of_record = users}); }, part);
  };
  const Case by_user{"users", {.records_per_user = 2}, 0.4}, by_record{"records", {}, 0.4};
  const std::vector<index_t> users = users_of(by_user, run.records());
  CHECK(refused(plan_of(by_user, run), {}, "expected 1 to 10 records"));
  CHECK(refused(plan_of(by_record, run), users, "whose unit is a record"));
  CHECK(refused(plan_of(by_user, run), {0, 1}, "expected the user of each of 30 records, got 2"));
  CHECK(refused(train::NoPrivacy{0.5}, users, "expected no users without privacy"));
  std::vector<index_t> many(30);
  for (index_t r = 0; r < 30; ++r) many[std::size_t(r)] = r;
  CHECK(refused(plan_of(by_user, run), many, "expected 1 to 10 users, the plan's dataset_size, got 30"));
}
