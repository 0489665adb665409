// SPDX-License-Identifier: Apache-2.0
// The classic dynamic loss scale: right in plain training, and a leak in private training, where it is refused.
#include <doctest/doctest.h>

#include "dpmp/autograd/rules/elementwise.hpp"
#include "dpmp/per_sample/pass_trace.hpp"
#include "support/errors.hpp"
#include "support/tiny_training.hpp"

namespace {
using namespace dpmp;
using train::GradScaler;
using train::Trainer;
using train::TrainerOptions;

/// Losses of a run, record `victim`'s times `factor`.
auto losses_with(test::TinyTraining& run, index_t victim, double factor) {
  return [&run, victim, factor](const train::Batch& batch) {
    std::vector<double> factors;
    for (const index_t record : batch.records) factors.push_back(record == victim ? factor : 1);
    const Variable losses = run.losses()(batch);
    return multiply(losses, batch.tape.input(Tensor::from(run.ctx, {batch.size()}, losses.dtype(), factors)));
  };
}
}  // namespace

TEST_CASE("the scale is halved by an overflow, doubled after its interval, and stays in its range") {
  GradScaler scaler({.start = 0x1p39, .growth_interval = 3});
  const auto after = [&](bool finite) {
    scaler.update(finite);
    return scaler.scale();
  };
  CHECK(GradScaler().scale() == 65536);
  CHECK(GradScaler().options().growth_interval == 2000);
  CHECK(after(true) == 0x1p39);
  CHECK(after(true) == 0x1p39);
  CHECK(scaler.good_steps() == 2);
  CHECK(after(true) == 0x1p40);
  for (int k = 0; k < 3; ++k) CHECK(after(true) == 0x1p40);
  CHECK(after(true) == 0x1p40);
  CHECK(after(false) == 0x1p39);
  CHECK(scaler.good_steps() == 0);
  for (int k = 0; k < 70; ++k) after(false);
  CHECK(scaler.scale() == 0x1p-24);
  scaler.restore(1024, 2);
  CHECK(after(true) == 2048);
  for (const auto& [scale, good] : {std::pair{1000.0, 0}, {0.0, 0}, {1024.0, 3}, {1024.0, -1}, {0x1p41, 0}})
    CHECK(test::refuses([&] { scaler.restore(scale, good); }, "expected a power of two in [2^-24, 2^40]"));
  CHECK(scaler.scale() == 2048);
  CHECK(test::refuses([] { GradScaler({.start = 3}); }, "a power of two"));
  CHECK(test::refuses([] { GradScaler({.growth_interval = 0}); }, "growth interval"));
}

TEST_CASE("numbers that are not finite are found in any place") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng(test::seed(), 7830);
  for (const index_t n : {1, 7, 4096, 4097, 20000}) {
    const Tensor x = test::normal_tensor(ctx, rng, {n}, DType::f64, 1e300), y = Tensor::zeros(ctx, {3}, DType::f64);
    const std::vector<Tensor> both{y, x};
    CHECK(train::all_finite(ctx, both));
    for (const double bad : {double(NAN), double(INFINITY), -double(INFINITY)}) {
      double& at = x.data<double>()[rng.integer(0, n - 1)];
      const double kept = std::exchange(at, bad);
      CHECK(!train::all_finite(ctx, both));
      at = kept;
    }
  }
}

TEST_CASE("plain training: a step that overflows is skipped, and a scale that does not overflow changes nothing in f32") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng(test::seed(), 7831);
  const dp::StreamKeys keys = test::random_keys(rng);
  const auto trainer = [&](test::TinyTraining& run, const TrainerOptions& options) {
    return Trainer(ctx, run.model.parameters(), train::NoPrivacy{0.5}, keys, run.records(), options);
  };
  // f16 gradients of the logits, up to 1 / 6 a token, times 2^40 are infinite; times 2^16 they are not.
  test::TinyTraining run(ctx, DType::f16);
  Trainer plain = trainer(run, {.grad_scaler = train::GradScalerOptions{.start = 0x1p40}});
  const std::vector<double> before = run.masters();
  index_t skipped = 0;
  while (run.masters() == before && skipped < 40) {
    const double scale = plain.grad_scaler().scale();
    plain.step(run.losses());
    CHECK(plain.steps() == ++skipped);
    if (run.masters() == before) CHECK(plain.grad_scaler().scale() == scale / 2);
    if (run.masters() == before)
      for (const Parameter* p : plain.parameters()) CHECK(plain.optimiser_state().of(*p).updates == 0);
  }
  CHECK(skipped > 10);
  CHECK(skipped < 40);
  CHECK(plain.grad_scaler().good_steps() == 1);

  const auto masters = [&](const std::optional<train::GradScalerOptions>& scaler) {
    test::TinyTraining wide(ctx, DType::f32);
    Trainer t = trainer(wide, {.grad_scaler = scaler});
    for (int k = 0; k < 4; ++k) t.step(wide.losses());
    return wide.masters();
  };
  const std::vector<double> without = masters({});
  CHECK(masters(train::GradScalerOptions{}) == without);
  CHECK(masters(train::GradScalerOptions{.start = 4, .growth_interval = 1}) == without);
}

TEST_CASE("P11: a trainer with a plan refuses a GradScaler and says why") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 7832);
  for (const DType dtype : {DType::f32, DType::f16}) {
    test::TinyTraining run(ctx, dtype);
    const auto make = [&](const train::Privacy& privacy, const TrainerOptions& options) {
      Trainer(ctx, run.model.parameters(), privacy, test::random_keys(rng), run.records(), options);
    };
    CHECK(test::refuses([&] { make(test::tiny_plan(run, 8), {.grad_scaler = train::GradScalerOptions{}}); },
                        "whether a step is skipped, and every scale after it, tell whether a single record overflowed"));
    CHECK(test::refuses(
        [&] {
          make(train::NoPrivacy{0.5}, {.loss_scaling = LossScaling::fixed(2), .grad_scaler = train::GradScalerOptions{}});
        },
        "got both"));
    Trainer plain(ctx, run.model.parameters(), train::NoPrivacy{0.5}, test::random_keys(rng), run.records());
    CHECK(test::refuses([&] { plain.grad_scaler(); }, "TrainerOptions::grad_scaler"));
  }
}

TEST_CASE("P11: skipping on overflow tells two neighbouring data sets apart with certainty, ours does not") {
  // Neighbours: with record 3, and with it zeroed out. Its gradient is 2^20 times the others', so that a scale that fits
  // them overflows with it.
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 7833);
  const index_t victim = 3;
  const double huge = 0x1p20, scale = 0x1p10;
  int told_apart = 0, same = 0, clipped = 0;
  const int runs = 12;
  for (int k = 0; k < runs; ++k) {
    const std::uint64_t keys = rng.bits();
    // Whether the weights of a released step are those before it, to the bit. skipping: a private step by its letter, every
    // record drawn, clipped, noise added, that GradScaler's rule may leave out.
    struct Seen {
      bool moved;
      std::vector<double> masters;
    };
    const auto step = [&](double factor, bool skipping, const LossScaling& scaling) {
      test::Rng of_keys(keys);
      test::TinyTraining run(ctx, DType::f16);
      const auto losses = losses_with(run, victim, factor);
      const dp::Plan plan = test::tiny_plan(run, double(run.records()));  // every record in every step
      Trainer trainer(ctx, run.model.parameters(), plan, test::random_keys(of_keys), run.records(),
                      {.physical_batch = run.records(), .loss_scaling = scaling});
      const std::vector<double> before = run.masters();
      bool skip = false;
      if (skipping) {
        Tape tape(ctx, run.records());
        std::vector<index_t> all;
        for (index_t i = 0; i < run.records(); ++i) all.push_back(i);
        const Variable loss = losses({tape, all, 0});
        per_sample::BookKeepingSink sink;
        tape.backward(loss, sink, scaled_seed(tape, loss, Tensor(), scaling).weights);
        const std::vector<std::uint8_t> finite = sink.norms(ctx, run.records()).finite();
        skip = std::find(finite.begin(), finite.end(), 0) != finite.end();
      }
      if (!skip) trainer.step(losses);
      CHECK(trainer.steps() == index_t(!skip));
      return Seen{run.masters() != before, run.masters()};
    };
    // The guess: the record is there if the weights stood still.
    told_apart += !step(huge, true, LossScaling::fixed(scale)).moved && step(0, true, LossScaling::fixed(scale)).moved;
    // Ours, with the same public scale: the record is left out by itself, and the released weights are those of the
    // neighbour to the bit.
    const Seen with = step(huge, false, LossScaling::fixed(scale)), zeroed = step(0, false, LossScaling::fixed(scale));
    same += with.moved && zeroed.moved && with.masters == zeroed.masters;
    // With a scale per sample the record does not overflow: it takes part, clipped, under the same noise.
    const Seen own = step(huge, false, LossScaling::per_sample()), none = step(0, false, LossScaling::per_sample());
    clipped += own.moved && none.moved && own.masters != none.masters;
  }
  CHECK(told_apart == runs);
  CHECK(same == runs);
  CHECK(clipped == runs);
}
