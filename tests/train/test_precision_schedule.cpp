// SPDX-License-Identifier: Apache-2.0
// Layers that get a wider dtype at later steps, or after alarms of a noisy count of overflows: the bits of a run are those
// of one whose parameters somebody raises by hand between steps, checkpoints go on with the dtypes of their step, and
// nothing is ever narrowed.
#include <doctest/doctest.h>

#include "dpmp/train/checkpoint.hpp"
#include "support/errors.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using train::PrecisionSchedule;
using train::Trainer;

namespace {
const nn::Precision start = nn::Precision::f16().fp32_residual();

train::TrainerOptions options_of(const PrecisionSchedule& schedule) {
  return {.physical_batch = 4,
          .learning_rate = optim::LearningRate::constant(1e-2),
          .precision = schedule,
          .data_fingerprint = 1};
}
PrecisionSchedule schedule() {
  return PrecisionSchedule().raised(1, "*", DType::bf16).raised(3, "head", DType::f32).raised(4, "*", DType::f32);
}
/// What the schedule above says, in other words.
DType dtype_at(const Parameter& p, index_t step) {
  const bool island = p.name().find("norm") != std::string::npos;  // f32 from the start, next to an f32 stream
  if (island || step >= 4 || (step >= 3 && p.name() == "head.weight")) return DType::f32;
  return step >= 1 ? DType::bf16 : DType::f16;
}

/// Some 15 of 30 records a step, of which 4.5 may overflow; noise of 1.5 is above that in 0.1 % of the steps.
dp::Plan counting_plan(const test::TinyTraining& run) {
  return dp::Plan::with_noise_multiplier(
      {.delta = 1e-5,
       .sampling_rate = 0.5,
       .steps = 12,
       .clip_threshold = 0.3,
       .dataset_size = run.records(),
       .overflow =
           dp::OverflowOptions{
               .count_noise = 1.5, .share = 0.3, .growth_interval = 2, .initial_scale = 0x1p40, .alarm_after = 3}},
      0.7);
}
/// Raised to bf16 by the first alarm, the head to f32 by the second one.
PrecisionSchedule driven() {
  return PrecisionSchedule().raised_on_overflow("*", DType::bf16).raised_on_overflow("head", DType::f32, 2);
}
}  // namespace

TEST_CASE("a run whose schedule raises layers has the bits of one that is raised by hand, private and plain") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const dp::StreamKeys keys = test::random_keys(rng);
  for (const bool is_private : {true, false}) {
    CAPTURE(is_private);
    test::TinyTraining by_schedule(ctx, start), by_hand(ctx, start), never(ctx, start);
    const train::Privacy privacy =
        is_private ? train::Privacy(test::tiny_plan(by_schedule, 8)) : train::Privacy(train::NoPrivacy{0.3});
    const auto trainer_of = [&](test::TinyTraining& run, const PrecisionSchedule& s) {
      return Trainer(ctx, run.model.parameters(), privacy, keys, run.records(), options_of(s));
    };
    Trainer first = trainer_of(by_schedule, schedule()), second = trainer_of(by_hand, {}), third = trainer_of(never, {});
    for (index_t step = 0; step < 5; ++step) {
      CAPTURE(step);
      for (Parameter* p : by_hand.model.parameters().all())
        if (p->dtype() != dtype_at(*p, step)) p->store_in(ctx, dtype_at(*p, step));
      if (step > 0) second.program_changes();
      if (is_private) {
        const std::string report = first.validate(by_schedule.losses()).text();
        CHECK((report.find(" f16 ") != std::string::npos) == (step == 0));
      }
      first.step(by_schedule.losses());
      second.step(by_hand.losses());
      third.step(never.losses());
      for (const Parameter* p : by_schedule.model.parameters().all()) {
        CAPTURE(p->name());
        CHECK(p->dtype() == dtype_at(*p, step));
      }
      CHECK(by_schedule.masters() == by_hand.masters());
      CHECK((by_schedule.masters() == never.masters()) == (step == 0));
    }
  }
}

TEST_CASE("a checkpoint is continued in the dtypes of its step, and by no other schedule") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const dp::StreamKeys keys = test::random_keys(rng);
  test::TinyTraining whole(ctx, start), resumed(ctx, start), other(ctx, start);
  const dp::Plan plan = test::tiny_plan(whole, 8);
  Trainer trainer(ctx, whole.model.parameters(), plan, keys, whole.records(), options_of(schedule()));
  const test::TemporaryFolder folder;
  const auto path = folder.path() / "checkpoint.safetensors";
  for (int step = 0; step < 3; ++step) trainer.step(whole.losses());
  train::save_checkpoint(path, whole.model.parameters(), trainer);
  for (int step = 3; step < 5; ++step) trainer.step(whole.losses());

  Trainer again(ctx, resumed.model.parameters(), plan, keys, resumed.records(), options_of(schedule()));
  CHECK(train::load_checkpoint(path, resumed.model.parameters(), again).same_run);
  for (const Parameter* p : resumed.model.parameters().all()) CHECK(p->dtype() == dtype_at(*p, 3));
  for (int step = 3; step < 5; ++step) again.step(resumed.losses());
  CHECK(resumed.masters() == whole.masters());

  Trainer without(ctx, other.model.parameters(), plan, keys, other.records(), options_of({}));
  const std::string refusal = test::error_of([&] { train::load_checkpoint(path, other.model.parameters(), without); });
  CHECK(refusal.find("as of step 1 *: bf16") != std::string::npos);
}

TEST_CASE("P11: layers are raised by noisy shares of overflows alone, to the bits of a run that is raised by hand") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const dp::StreamKeys keys = test::random_keys(rng);
  for (const LossScaling& scaling : {LossScaling::noisy(), LossScaling::fixed(0x1p40)}) {
    CAPTURE(scaling.text());
    test::TinyTraining by_alarm(ctx, start), by_hand(ctx, start);
    const dp::Plan plan = counting_plan(by_alarm);
    train::TrainerOptions options = options_of(driven());
    options.loss_scaling = scaling;
    options.unsafe_debug = true;
    Trainer first(ctx, by_alarm.model.parameters(), plan, keys, by_alarm.records(), options);
    // The same plan and a change that never comes.
    options.precision = PrecisionSchedule().raised_on_overflow("*", DType::bf16, 1000);
    Trainer second(ctx, by_hand.model.parameters(), plan, keys, by_hand.records(), options);
    index_t in_a_row = 0, alarms = 0, first_alarm = 0;
    for (index_t step = 0; step < plan.steps(); ++step) {
      CAPTURE(step);
      for (Parameter* p : by_hand.model.parameters().all()) {
        const DType wanted = alarms >= 2 && p->name() == "head.weight" ? DType::f32 : DType::bf16;
        if (alarms == 0 || p->dtype() == DType::f32 || p->dtype() == wanted) continue;
        p->store_in(ctx, wanted);
        second.program_changes();
      }
      first.step(by_alarm.losses());
      second.step(by_hand.losses());
      REQUIRE(by_alarm.masters() == by_hand.masters());
      for (std::size_t k = 0; k < by_hand.model.parameters().all().size(); ++k)
        CHECK(by_alarm.model.parameters().all()[k]->dtype() == by_hand.model.parameters().all()[k]->dtype());
      // What was released of the step, from its key.
      const double share =
          dp::noised(double(first.records_left_out()), 1.5, {first.keys().key(dp::Stream::auxiliary_noise), step}, 1) / 15;
      in_a_row = share > 0.3 ? in_a_row + 1 : 0;
      if (in_a_row == 3) ++alarms, in_a_row = 0;
      if (alarms == 1 && first_alarm == 0) first_alarm = step;
      CHECK(first.overflow_scale()->alarms() == alarms);
    }
    // At 2^40 all of f16 overflows, and in bf16 nothing does.
    CHECK(first_alarm == 2);
    CHECK(first.records_left_out() == 0);
  }
}

TEST_CASE("P20: a checkpoint of a run that alarms have raised is continued in its dtypes, with its alarms") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  const dp::StreamKeys keys = test::random_keys(rng);
  test::TinyTraining whole(ctx, start), resumed(ctx, start), other(ctx, start);
  const dp::Plan plan = counting_plan(whole);
  const auto trainer_of = [&](test::TinyTraining& run, const PrecisionSchedule& s) {
    return Trainer(ctx, run.model.parameters(), plan, keys, run.records(), options_of(s));
  };
  Trainer trainer = trainer_of(whole, driven());
  const test::TemporaryFolder folder;
  const auto path = folder.path() / "checkpoint.safetensors";
  for (int step = 0; step < 4; ++step) trainer.step(whole.losses());
  REQUIRE(trainer.overflow_scale()->alarms() == 1);
  train::save_checkpoint(path, whole.model.parameters(), trainer);
  for (int step = 4; step < 8; ++step) trainer.step(whole.losses());

  Trainer again = trainer_of(resumed, driven());
  CHECK(train::load_checkpoint(path, resumed.model.parameters(), again).same_run);
  for (const Parameter* p : resumed.model.parameters().all()) CHECK(p->dtype() != DType::f16);
  for (int step = 4; step < 8; ++step) again.step(resumed.losses());
  CHECK(resumed.masters() == whole.masters());
  CHECK(again.overflow_scale()->state() == trainer.overflow_scale()->state());

  Trainer without = trainer_of(other, {});
  const std::string refusal = test::error_of([&] { train::load_checkpoint(path, other.model.parameters(), without); });
  CHECK(refusal.find("after overflow alarm 2 head: f32") != std::string::npos);
}

TEST_CASE("a schedule narrows nothing, and a bad one is refused") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  test::TinyTraining run(ctx, nn::Precision::f32());
  const dp::Plan plan = test::tiny_plan(run, 8);
  Trainer trainer(ctx, run.model.parameters(), plan, test::random_keys(rng), run.records(),
                  options_of(PrecisionSchedule().raised(0, "*", DType::bf16)));
  trainer.step(run.losses());
  for (const Parameter* p : run.model.parameters().all()) CHECK(p->dtype() == DType::f32);

  // "*" is the whole model: parameters that are in no scope, too.
  nn::Parameters bare(ctx, nn::Precision::f16(), 1), wide(ctx, nn::Precision::f16().override("*", DType::f32), 1);
  const Parameter& token = bare.normal("class_token", {3}, 1);
  const PrecisionSchedule all = PrecisionSchedule().raised(2, "*", DType::f32);
  CHECK(all.at(token, DType::f16, 1) == DType::f16);
  CHECK(all.at(token, DType::f16, 2) == DType::f32);
  CHECK(wide.normal("class_token", {3}, 1).dtype() == DType::f32);
  CHECK((nn::Scope(wide) / "block0").dtype() == DType::f32);

  CHECK(PrecisionSchedule().text() == "none");
  CHECK(schedule().text() == "as of step 1 *: bf16, as of step 3 head: f32, as of step 4 *: f32");
  CHECK(driven().text() == "after overflow alarm 1 *: bf16, after overflow alarm 2 head: f32");
  CHECK(driven().follows_overflows());
  CHECK_FALSE(schedule().follows_overflows());
  CHECK(driven().at(token, DType::f16, 1000) == DType::f16);
  CHECK(driven().at(token, DType::f16, 0, 1) == DType::bf16);
  CHECK(test::error_of([&] { PrecisionSchedule().raised_on_overflow("*", DType::f32, 0); }).find("got alarm 0") !=
        std::string::npos);
  CHECK(test::error_of([&] { PrecisionSchedule().raised_on_overflow("*", DType::f16); }).find("f16") != std::string::npos);
  CHECK(test::error_of([&] { PrecisionSchedule().raised_on_overflow("", DType::bf16); }).find("''") != std::string::npos);
  CHECK(test::error_of([&] {
          Trainer(ctx, run.model.parameters(), plan, test::random_keys(rng), run.records(), options_of(driven()));
        }).find("got 'after overflow alarm 1 *: bf16") != std::string::npos);
  CHECK(test::error_of([&] { PrecisionSchedule().raised(-1, "*", DType::f32); }).find("got step -1") != std::string::npos);
  CHECK(test::error_of([&] { PrecisionSchedule().raised(1, "*", DType::f16); }).find("f16") != std::string::npos);
  CHECK(test::error_of([&] {
          Trainer(ctx, run.model.parameters(), plan, test::random_keys(rng), run.records(),
                  options_of(PrecisionSchedule().raised(1, "no_such_scope", DType::f32)));
        }).find("none for 'no_such_scope'") != std::string::npos);
  CHECK(test::error_of([&] { run.model.parameters().all()[0]->store_in(ctx, DType::f64); }).find("f64") !=
        std::string::npos);
}
