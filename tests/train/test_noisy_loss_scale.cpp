// SPDX-License-Identifier: Apache-2.0
// Private runs whose loss scale follows a noisy count of overflows: what a step releases and where the scale goes, worked
// out by hand; neighbours; checkpoints; and that no contribution is above C, whatever overflows.
#include <doctest/doctest.h>

#include "dpmp/autograd/rules/elementwise.hpp"
#include "dpmp/train/checkpoint.hpp"
#include "dpmp/train/memory_plan.hpp"
#include "support/checksum.hpp"
#include "support/errors.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_training.hpp"

namespace {
using namespace dpmp;
using train::masked_slot;
using train::Trainer;
using train::TrainerOptions;

/// About 15 of 30 records a step. Noise of 2 is above 4.5 in 1 % of the steps.
dp::PlanOptions options_of(const test::TinyTraining& run, const dp::OverflowOptions& overflow) {
  return {.delta = 1e-5,
          .sampling_rate = 0.5,
          .steps = 20,
          .clip_threshold = 0.3,
          .dataset_size = run.records(),
          .overflow = overflow};
}
const dp::OverflowOptions quick{.count_noise = 2, .share = 0.3, .growth_interval = 3, .initial_scale = 0x1p22};
dp::Plan plan_of(const test::TinyTraining& run, const dp::OverflowOptions& overflow = quick) {
  return dp::Plan::with_noise_multiplier(options_of(run, overflow), 0.7);
}
TrainerOptions descent() {
  return {.physical_batch = 4,
          .optimiser = optim::Sgd{},
          .learning_rate = optim::LearningRate::constant(0.01),
          .data_fingerprint = 1};
}
/// Losses of a run, each record's times a factor of its own.
auto losses_with(test::TinyTraining& run, const std::vector<double>& factors) {
  return [&run, factors](const train::Batch& batch) {
    std::vector<double> here;
    for (const index_t record : batch.records) here.push_back(factors[std::size_t(record)]);
    const Variable losses = run.losses()(batch);
    return multiply(losses, batch.tape.input(Tensor::from(run.ctx, {batch.size()}, losses.dtype(), here)));
  };
}
/// The noisy share of a step, from its key and a count.
double share_by_hand(const dp::Plan& plan, const dp::StreamKeys& keys, index_t step, index_t count) {
  return dp::noised(double(count), plan.options().overflow->count_noise, {keys.key(dp::Stream::auxiliary_noise), step}, 1) /
         plan.expected_batch();
}
/// One scale after another by the rule in words.
struct ScaleByHand {
  dp::OverflowOptions o;
  double scale = o.initial_scale;
  index_t good = 0;
  void see(double share) {
    good = share > o.share ? 0 : good + 1;
    if (share > o.share) scale = std::max(o.lowest, scale / 2);
    if (good < o.growth_interval) return;
    scale = std::min(o.highest, scale * 2);
    good = 0;
  }
};

/// Sums over these records with one public scale, and how many of them were not finite: one at a time.
struct SumByHand {
  std::vector<double> sum;
  index_t overflows = 0;
};
SumByHand sum_by_hand(test::TinyTraining& run, train::Losses losses, const dp::StepPlan& numbers,
                      const std::vector<index_t>& records, double scale, index_t slots, index_t step) {
  per_sample::GradientSums sums(run.ctx, run.model.parameters().all());
  per_sample::ClippedSumSink sink(per_sample::Groups::flat(run.model.parameters().all()), {});
  SumByHand r;
  std::vector<index_t> batch(std::size_t(slots), 0);
  for (index_t k = 0; k < train::physical_batches(index_t(records.size()), slots); ++k) {
    train::fill_physical_batch(records, k, batch);
    train::detail::RecordNorms norms(index_t(batch.size()));
    train::accumulate_clipped(run.ctx, losses, {.slots = batch, .step = step}, numbers.groups, sink, sums,
                              {.norms = &norms, .loss_scaling = LossScaling::fixed(scale)});
    train::UnsafeNumbers numbers_here;
    norms.add_to(numbers_here, batch);
    r.overflows += numbers_here.left_out;
  }
  for (const Tensor& t : sums.tensors()) {
    const std::vector<double> part = t.to_doubles();
    r.sum.insert(r.sum.end(), part.begin(), part.end());
  }
  return r;
}
}  // namespace

TEST_CASE("P3, P9, P11: steps and scales of a run by hand: nothing skipped, sigma_z on the sum, the scale by noisy counts") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng(test::seed(), 7840);
  test::TinyTraining run(ctx, DType::f16);
  const dp::Plan plan = plan_of(run);
  Trainer trainer(ctx, run.model.parameters(), plan, test::random_keys(rng), run.records(), descent());
  CHECK(trainer.loss_scaling() == LossScaling::noisy());
  ScaleByHand by_hand{quick};
  index_t overflows = 0, good = 0, bad = 0;
  for (index_t step = 0; step < plan.steps(); ++step) {
    CAPTURE(step);
    REQUIRE(trainer.overflow_scale()->scale() == by_hand.scale);
    const std::vector<double> before = run.masters();
    const dp::StepPlan numbers = plan.at(step);
    const SumByHand expected = sum_by_hand(run, run.losses(), numbers,
                                           test::drawn(plan, trainer.keys(), run.records(), step), by_hand.scale, 4, step);
    trainer.step(run.losses());
    CHECK(trainer.steps() == step + 1);
    overflows += expected.overflows;
    by_hand.see(share_by_hand(plan, trainer.keys(), step, expected.overflows));
    (test::norm(expected.sum) == 0 ? bad : good) += 1;
    const std::vector<double> after = run.masters();
    std::size_t at = 0;
    double worst = 0;
    const auto parameters = run.model.parameters().all();
    for (std::size_t k = 0; k < parameters.size(); ++k) {
      std::vector<double> released(expected.sum.begin() + std::ptrdiff_t(at),
                                   expected.sum.begin() + std::ptrdiff_t(at) + parameters[k]->numel());
      dp::add_gaussian_noise(ctx.team(), released, numbers.noise_standard_deviation,
                             {trainer.keys().key(dp::Stream::noise), step}, index_t(k));
      for (const double x : released) {
        // FP32 masters: three roundings of 2^-24 of numbers of the size of the master and of its move.
        const double moved = 0.01 * x / plan.expected_batch(), error = std::fabs(after[at] - (before[at] - moved));
        worst = std::max(worst, error / (std::fabs(before[at]) + std::fabs(moved)));
        ++at;
      }
    }
    CHECK(worst <= 0x1p-22);
  }
  // The first scale is too large for all, and the run finds one that is not.
  CHECK(overflows > 0);
  CHECK(bad > 0);
  CHECK(good > 0);
  // sigma_z = (0.7^-2 - (1 / 2)^2)^(-1/2).
  CHECK(plan.at(0).noise_multiplier == doctest::Approx(1 / std::sqrt(1 / 0.49 - 0.25)).epsilon(1e-12));
}

TEST_CASE("P11: neighbours under one noise: scales part only where the noisy count of the one is above the share") {
  // D' has record 3 emptied; in D it overflows in every step that it is drawn in, whatever the scale is.
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 7841);
  int parted = 0, same = 0;
  for (int trial = 0; trial < 6; ++trial) {
    // A share of 0.1 is 1.5 records, so that one more decides often; the noise is 1, above it in 7 % of the steps.
    const dp::OverflowOptions o{.count_noise = 1, .share = 0.1, .growth_interval = 3, .initial_scale = 64};
    const dp::StreamKeys keys = test::random_keys(rng);
    struct Seen {
      std::vector<dp::OverflowState> states;
      std::vector<double> shares;
    };
    const auto run_with = [&](double factor) {
      test::TinyTraining run(ctx, DType::f16);
      const dp::Plan plan = plan_of(run, o);
      TrainerOptions options = descent();
      options.unsafe_debug = true;
      options.learning_rate = optim::LearningRate::constant(0);  // the others' gradients stay what they are
      Trainer trainer(ctx, run.model.parameters(), plan, keys, run.records(), options);
      std::vector<double> factors(std::size_t(run.records()), 1.0);
      factors[3] = factor;
      Seen seen;
      ScaleByHand by_hand{o};
      for (index_t step = 0; step < 12; ++step) {
        trainer.step(losses_with(run, factors));
        seen.shares.push_back(share_by_hand(plan, trainer.keys(), step, trainer.records_left_out()));
        by_hand.see(seen.shares.back());
        seen.states.push_back(trainer.overflow_scale()->state());
        CHECK(std::ldexp(1.0, seen.states.back().exponent) == by_hand.scale);
      }
      return seen;
    };
    const Seen with = run_with(0x1p60), without = run_with(0);
    bool apart = false, counted = false;
    for (std::size_t step = 0; step < with.states.size(); ++step) {
      const double difference = (with.shares[step] - without.shares[step]) * 15;
      if (!apart) CHECK((std::fabs(difference) < 1e-9 || std::fabs(difference - 1) < 1e-9));
      counted = counted || difference > 0.5;
      apart = apart || (with.shares[step] > o.share) != (without.shares[step] > o.share);
      if (!apart) CHECK(with.states[step] == without.states[step]);
    }
    CHECK(counted);
    (apart ? parted : same) += 1;
  }
  CHECK(parted > 0);
  MESSAGE(parted << " of " << parted + same << " pairs of runs have other scales at some step");
}

TEST_CASE(
    "P1, P9, P11: with any scale no contribution is above C, and those that overflow are 0 and counted, each by itself") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 7842);
  index_t contributions = 0, counted = 0, largest_at_C = 0;
  for (int trial = 0; trial < 60; ++trial) {
    const DType dtype = trial % 4 == 0 ? DType::bf16 : DType::f16;
    test::TinyTraining run(ctx, dtype, {.records = 8});
    for (Parameter* p : run.model.parameters().all()) {
      const double size = std::exp(rng.uniform(-3, 3));
      for (index_t j = 0; j < p->numel(); ++j) p->master().data<float>()[j] *= float(size);
      p->refresh(ctx);
    }
    std::vector<double> factors;
    for (int i = 0; i < 8; ++i) factors.push_back(rng.integer(0, 9) == 0 ? INFINITY : std::exp2(rng.uniform(-30, 30)));
    const auto losses = losses_with(run, factors);
    // The scale of a run's step: wherever noisy shares have brought it.
    dp::OverflowScale scale({.count_noise = 1, .growth_interval = 1, .initial_scale = 0x1p8}, 100);
    for (index_t k = rng.integer(0, 30); k > 0; --k) scale.update(rng.integer(0, 1) ? 1 : 0);
    const LossScaling scaling = LossScaling::noisy().of_step(scale.scale());
    const bool grouped = rng.integer(0, 2) == 0;
    const auto parameters = run.model.parameters().all();
    const per_sample::Groups groups =
        grouped ? per_sample::Groups::by_parameter(parameters) : per_sample::Groups::flat(parameters);
    const double C = std::exp2(rng.uniform(-10, 10));
    const std::vector<dp::FlatClipping> clipping(std::size_t(groups.count()), dp::FlatClipping(C));
    per_sample::ClippedSumSink sink(groups, {});
    const auto pass = [&](const std::vector<index_t>& slots, index_t& overflows) {
      per_sample::GradientSums sums(ctx, parameters);
      train::accumulate_clipped(ctx, losses, {.slots = slots}, clipping, sink, sums,
                                {.overflow_count = &overflows, .loss_scaling = scaling});
      std::vector<std::vector<double>> released(std::size_t(groups.count()));
      for (const Parameter* p : sums.parameters()) {
        const std::vector<double> part = sums.of(*p).to_doubles();
        auto& all = released[std::size_t(groups.of(*p))];
        all.insert(all.end(), part.begin(), part.end());
      }
      return released;
    };
    index_t one_by_one = 0, together = -1;
    for (index_t i = 0; i < 8; ++i) {
      std::vector<index_t> slots(8, masked_slot);
      slots[std::size_t(i)] = i;
      index_t overflows = -1;
      bool any_zero = false;
      for (const std::vector<double>& part : pass(slots, overflows)) {
        const double n = test::norm(part);
        CHECK(n <= C);
        ++contributions;
        largest_at_C += n > 0.99 * C;
        any_zero = any_zero || n == 0;
      }
      CHECK((overflows == 0 || overflows == 1));
      // What is counted contributes 0, to some group at least.
      if (overflows == 1) CHECK(any_zero);
      if (std::isinf(factors[std::size_t(i)])) CHECK(overflows == 1);
      one_by_one += overflows;
    }
    pass({0, 1, 2, 3, 4, 5, 6, 7}, together);
    CHECK(together == one_by_one);
    counted += together;
  }
  CHECK(largest_at_C > contributions / 20);
  CHECK(counted > contributions / 50);
  MESSAGE(contributions << " contributions to groups, " << largest_at_C << " within 1 % of C, " << counted << " overflows");
}

TEST_CASE("P20: a run with a noisy scale is resumed bit for bit, state and all, and by nothing else") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng(test::seed(), 7843);
  const dp::StreamKeys keys = test::random_keys(rng);
  const test::TemporaryFolder folder;
  for (const bool adaptive : {false, true}) {
    test::TinyTraining whole(ctx, DType::f16), first(ctx, DType::f16), second(ctx, DType::f16), third(ctx, DType::f16);
    dp::PlanOptions o = options_of(whole, quick);
    if (adaptive) {
      o.clip_threshold = 1;
      o.adaptive = dp::AdaptiveOptions{.count_noise = 2, .initial_threshold = 0.1};
    }
    const dp::Plan plan = dp::Plan::with_noise_multiplier(o, 0.7);
    const auto trainer_of = [&](test::TinyTraining& run) {
      return Trainer(ctx, run.model.parameters(), plan, keys, run.records(), descent());
    };
    Trainer a = trainer_of(whole), b = trainer_of(first), c = trainer_of(second), d = trainer_of(third);
    for (int k = 0; k < 15; ++k) a.step(whole.losses());
    for (int k = 0; k < 8; ++k) b.step(first.losses());
    const auto path = folder / (adaptive ? "both" : "run");
    train::save_checkpoint(path, first.model.parameters(), b);
    CHECK(train::load_checkpoint(path, second.model.parameters(), c).same_run);
    CHECK(c.overflow_scale()->state() == b.overflow_scale()->state());
    CHECK(c.overflow_scale()->scale() != quick.initial_scale);
    for (int k = 8; k < 15; ++k) c.step(second.losses());
    CHECK(second.masters() == whole.masters());
    CHECK(c.overflow_scale()->state() == a.overflow_scale()->state());
    CHECK(c.clip_threshold() == a.clip_threshold());

    // A damaged state, and a trainer whose plan has no count.
    const std::string bytes = test::read_text(path);
    const auto damaged = [&](const std::string& entry) {
      std::string other = bytes;
      const std::size_t at = other.find("\"" + entry + "\":\"");
      REQUIRE(at != std::string::npos);
      other[at + entry.size() + 4] = 'f';  // a hexadecimal digit: out of range, or of no state that can be reached
      test::write_text(folder / "damaged", test::sealed(other));
      return test::error_of([&] { train::load_checkpoint(folder / "damaged", third.model.parameters(), d); });
    };
    for (const char* entry : {"good steps", "bad steps"}) CHECK(damaged(entry).find("good steps") != std::string::npos);
    CHECK(damaged("loss scale exponent").find("loss scale") != std::string::npos);
    CHECK(d.steps() == 0);
    CHECK(d.overflow_scale()->scale() == quick.initial_scale);
    CHECK(test::refuses([&] { d.resume_at(3, a.clip_threshold()); }, "expected the state of a loss scale"));
    test::TinyTraining other(ctx, DType::f16);
    Trainer without(ctx, other.model.parameters(), test::tiny_plan(other, 8), keys, other.records(), descent());
    CHECK(test::refuses([&] { without.resume_at(3, {0, dp::OverflowState{}}); }, "got one"));
    CHECK(test::refuses([&] { train::load_checkpoint(path, other.model.parameters(), without); }, "overflow: yes, none"));
    d.resume_at(3, {a.clip_threshold(), a.overflow_scale()->state()});
    CHECK(d.overflow_scale()->state() == a.overflow_scale()->state());
  }
}

TEST_CASE("P11: a noisy scale needs a plan that counts, a count somebody who follows it, and both are in the report") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 7844);
  test::TinyTraining run(ctx, DType::f16);
  const dp::Plan counting = plan_of(run), plain = test::tiny_plan(run, 8);
  const auto trainer = [&](const train::Privacy& privacy, const TrainerOptions& options) {
    return Trainer(ctx, run.model.parameters(), privacy, test::random_keys(rng), run.records(), options);
  };
  const auto with = [](const std::optional<LossScaling>& scaling) { return TrainerOptions{.loss_scaling = scaling}; };
  CHECK(trainer(counting, {}).loss_scaling() == LossScaling::noisy());
  CHECK(trainer(counting, with(LossScaling::noisy())).overflow_scale()->scale() == 0x1p22);
  CHECK_FALSE(trainer(plain, {}).overflow_scale());
  CHECK_FALSE(trainer(train::NoPrivacy{0.5}, {}).overflow_scale());
  CHECK(
      test::refuses([&] { trainer(plain, with(LossScaling::noisy())); },
                    "expected a plan that counts overflows (dp::PlanOptions::overflow) for a loss scale that follows them, "
                    "got one without"));
  CHECK(test::refuses([&] { trainer(train::NoPrivacy{0.5}, with(LossScaling::noisy())); }, "got none"));
  for (const LossScaling& other : {LossScaling(), LossScaling::per_sample(), LossScaling::fixed(8)}) {
    CHECK(test::refuses([&] { trainer(counting, with(other)); }, "would pay for a count that nobody uses"));
    TrainerOptions options = with(other);
    options.precision = train::PrecisionSchedule().raised_on_overflow("*", DType::bf16);
    CHECK(trainer(counting, options).loss_scaling() == other);
    CHECK(test::refuses([&] { trainer(plain, options); }, "for a schedule that follows them"));
  }
  CHECK(test::refuses([&] { trainer(counting, {.grad_scaler = train::GradScalerOptions{}}); }, "no GradScaler"));
  Tape tape(ctx, 2);
  const std::vector<index_t> records{0, 1};
  const Variable losses = run.loss(tape, records);
  CHECK(test::refuses([&] { scaled_seed(tape, losses, Tensor(), LossScaling::noisy()); },
                      "expected the loss scale of a step (LossScaling::of_step)"));
  CHECK(LossScaling::noisy().of_step(256) == LossScaling::fixed(256));
  CHECK(LossScaling::per_sample().of_step(256) == LossScaling::per_sample());
  CHECK(LossScaling().of_step(256) == LossScaling());
  Trainer made = trainer(counting, {});
  CHECK(made.validate(run.losses()).text().find("moved by noisy counts of overflows") != std::string::npos);
  CHECK(made.privacy_statement().find("number of records of which something was not finite") != std::string::npos);
  // Memory is planned without a plan of privacy.
  TrainerOptions raised = with(LossScaling::per_sample());
  raised.precision = train::PrecisionSchedule().raised_on_overflow("*", DType::bf16);
  CHECK_NOTHROW(train::plan_memory(ctx, run.model.parameters(), raised, run.losses()));
  CHECK(train::plan_memory(ctx, run.model.parameters(), with(LossScaling::noisy()), run.losses()).text(1 << 20, 4) ==
        train::plan_memory(ctx, run.model.parameters(), with(LossScaling::fixed(4)), run.losses()).text(1 << 20, 4));
}

TEST_CASE("P11: losses of one's own in f16 have a scale per sample unless another is asked for") {
  Context ctx(Device::cpu(), 1);
  for (const DType dtype : {DType::f16, DType::bf16, DType::f32}) {
    CAPTURE(name_of(dtype));
    test::TinyTraining run(ctx, dtype);
    const auto losses = losses_with(run, std::vector<double>(std::size_t(run.records()), 0x1p-18));
    const auto sums = [&](const std::optional<LossScaling>& scaling) {
      const auto parameters = run.model.parameters().all();
      per_sample::GradientSums all(ctx, parameters);
      per_sample::ClippedSumSink sink(per_sample::Groups::flat(parameters), {});
      const std::vector<index_t> slots{1, 2, 3};
      const std::vector<dp::FlatClipping> clipping{dp::FlatClipping(1.0)};
      train::accumulate_clipped(ctx, losses, {.slots = slots}, clipping, sink, all, {.loss_scaling = scaling});
      std::vector<double> flat;
      for (const Tensor& t : all.tensors()) {
        const std::vector<double> part = t.to_doubles();
        flat.insert(flat.end(), part.begin(), part.end());
      }
      return flat;
    };
    CHECK(sums({}) == sums(dtype == DType::f16 ? LossScaling::per_sample() : LossScaling()));
    CHECK((sums({}) == sums(LossScaling())) == (dtype != DType::f16));
  }
}
