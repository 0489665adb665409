// SPDX-License-Identifier: Apache-2.0
// Layers that get a wider dtype at later steps: the bits of a run are those of one whose parameters somebody raises by hand
// between steps, checkpoints go on with the dtypes of their step, and nothing is ever narrowed.
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
  CHECK(test::error_of([&] { PrecisionSchedule().raised(-1, "*", DType::f32); }).find("got step -1") != std::string::npos);
  CHECK(test::error_of([&] { PrecisionSchedule().raised(1, "*", DType::f16); }).find("f16") != std::string::npos);
  CHECK(test::error_of([&] {
          Trainer(ctx, run.model.parameters(), plan, test::random_keys(rng), run.records(),
                  options_of(PrecisionSchedule().raised(1, "no_such_scope", DType::f32)));
        }).find("none for 'no_such_scope'") != std::string::npos);
  CHECK(test::error_of([&] { run.model.parameters().all()[0]->store_in(ctx, DType::f64); }).find("f64") !=
        std::string::npos);
}
