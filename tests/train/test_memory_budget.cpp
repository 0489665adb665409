// SPDX-License-Identifier: Apache-2.0
// A trainer within a memory budget: the cheapest way of those whose steps really fit, found before anything is accounted;
// what does not fit says what it needs.
#include <doctest/doctest.h>
#include <cmath>

#include "dpmp/autograd/rules/mean_squared_error.hpp"
#include "dpmp/nn/linear.hpp"
#include "support/errors.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using per_sample::Strategy;
using train::MemoryChoice;
using train::Trainer;
using train::TrainerOptions;
using train::TriedWay;

namespace {
constexpr index_t tokens = 32, records = 60;

/// A GPT of some blocks whose tokens are made as a loader does, in a context of its own.
struct Small {
  explicit Small(DType dtype)
      : ctx(Device::cpu(), 1),
        model(ctx, {.vocabulary = 40, .width = 16, .layers = 3, .heads = 2, .context = tokens, .seed = test::seed()},
              dtype) {}
  auto losses() {
    return [this](const train::Batch& batch) {
      std::vector<std::int32_t> ids;
      for (const index_t r : batch.records)
        for (index_t t = 0; t < tokens; ++t) ids.push_back(std::int32_t((7 * r + 3 * t + r * t) % 40));
      const Tensor x = Tensor::from(ctx, {batch.size(), tokens}, ids);
      return cross_entropy(model(batch.tape, x), x, {.divisor = double(tokens)});
    };
  }
  static dp::Plan plan(double rate = 0.5) {
    return dp::Plan::with_noise_multiplier(
        {.delta = 1e-6, .sampling_rate = rate, .steps = 100, .clip_threshold = 1, .dataset_size = records}, 1);
  }
  Trainer trainer(const train::Privacy& privacy, const dp::StreamKeys& keys, const TrainerOptions& options) {
    return Trainer(ctx, model.parameters(), privacy, keys, records, options);
  }
  index_t peak_of(const train::Privacy& privacy, const dp::StreamKeys& keys, const TrainerOptions& options) {
    Trainer t = trainer(privacy, keys, options);
    for (int step = 0; step < 2; ++step) t.step(losses());
    return ctx.memory().peak_bytes;
  }
  Context ctx;
  nn::Transformer model;
};

/// A budget that everything fits into, and what was looked at for it.
MemoryChoice all_ways(DType dtype, const train::Privacy& privacy, const dp::StreamKeys& keys, index_t batch) {
  Small run(dtype);
  Trainer t = run.trainer(privacy, keys, {.physical_batch = batch, .memory_budget = index_t(1) << 40});
  t.step(run.losses());
  return *t.memory_choice();
}
}  // namespace

TEST_CASE("within a budget the cheapest way is chosen of those whose steps fit, and the peak is within the budget") {
  test::Rng rng;
  const dp::StreamKeys keys = test::random_keys(rng);
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const bool is_private : {true, false}) {
      CAPTURE(name_of(dtype));
      CAPTURE(is_private);
      const train::Privacy privacy = is_private ? train::Privacy(Small::plan()) : train::Privacy(train::NoPrivacy{0.5});
      const index_t batch = rng.integer(8, 24);
      const MemoryChoice all = all_ways(dtype, privacy, keys, batch);
      CHECK(all.ways.size() >= (is_private ? 18 : 12));
      for (const index_t passes : {1, 2, 4, 8})
        CHECK(std::any_of(all.ways.begin(), all.ways.end(), [&](const TriedWay& w) { return w.way.passes == passes; }));
      CHECK(&all.chosen() == &all.ways[0]);
      CHECK(all.chosen().way.checkpointing == Checkpointing::none);
      // What each takes, told to do it.
      std::vector<index_t> peaks;
      for (const TriedWay& w : all.ways)
        peaks.push_back(Small(dtype).peak_of(privacy, keys,
                                             {.physical_batch = (batch + w.way.passes - 1) / w.way.passes,
                                              .strategy = w.way.strategy,
                                              .checkpointing = w.way.checkpointing}));
      const auto [least, most] = std::minmax_element(peaks.begin(), peaks.end());
      for (int trial = 0; trial < 4; ++trial) {
        const index_t budget = trial == 0 ? *least : rng.integer(*least, *most);
        CAPTURE(budget);
        std::size_t cheapest = 0;
        while (peaks[cheapest] > budget) ++cheapest;
        Small run(dtype);
        Trainer t = run.trainer(privacy, keys, {.physical_batch = batch, .memory_budget = budget});
        CHECK(t.memory_choice() == nullptr);
        for (int step = 0; step < 2; ++step) t.step(run.losses());
        REQUIRE(t.memory_choice() != nullptr);
        const TriedWay& chosen = t.memory_choice()->chosen();
        CHECK(chosen.cost == all.ways[cheapest].cost);
        CHECK(chosen.way.text() == all.ways[cheapest].way.text());
        CHECK(run.ctx.memory().peak_bytes <= budget);
        // The pass is a step's peak but for some of its small blocks.
        CHECK(std::fabs(double(*chosen.peak_bytes - peaks[cheapest])) <= 0.005 * double(peaks[cheapest]));
        CHECK(!run.ctx.arena().limit());
      }
    }
}

TEST_CASE("what fits nowhere is refused with its largest consumers and the batch that fits, before a step is accounted") {
  test::Rng rng;
  const dp::StreamKeys keys = test::random_keys(rng);
  const MemoryChoice all = all_ways(DType::f32, Small::plan(), keys, 32);
  index_t least = all.chosen().peak_bytes.value();
  for (const TriedWay& w : all.ways) least = std::min(least, w.peak_bytes.value());
  Small run(DType::f32);
  Trainer t = run.trainer(Small::plan(), keys, {.physical_batch = 32, .memory_budget = least * 3 / 4});
  const auto step = [&] { t.step(run.losses()); };
  CHECK_THROWS_AS(step(), OutOfMemory);
  for (const char* part :
       {"expected a memory budget that a step of 32 slots fits into, got ", "two-pass, blocks keep inputs",
        " slots would fit", "more bytes of memory, got none", " and uses ", "gradient sums ", " bytes of others"})
    CHECK(test::refuses(step, part));
  CHECK(t.steps() == 0);
  CHECK(!run.ctx.arena().limit());
  CHECK(run.ctx.memory().reserved_bytes == run.ctx.memory().live_bytes);
  // What it says fits does.
  std::string text;
  try {
    step();
  } catch (const OutOfMemory& e) {
    text = e.message();
  }
  const std::size_t at = text.find("and about ");
  REQUIRE(at != std::string::npos);
  const index_t fits = std::atoll(text.c_str() + at + 10);
  CHECK(fits >= 1);
  Small smaller(DType::f32);
  CHECK(smaller.peak_of(Small::plan(), keys, {.physical_batch = fits, .memory_budget = least * 3 / 4}) <= least * 3 / 4);
  CHECK(test::refuses([&] { Small(DType::f32).trainer(Small::plan(), keys, {.memory_budget = -1}); },
                      "expected a memory budget >= 0 bytes, got -1"));
  // An error of the losses is none of memory.
  const auto broken = [](const train::Batch&) -> Variable { throw Error("a mistake in the losses"); };
  Small other(DType::f32);
  Trainer fails = other.trainer(Small::plan(), keys, {.memory_budget = least});
  CHECK(test::refuses([&] { fails.step(broken); }, "a mistake in the losses"));
}

TEST_CASE("P36: budgets that come to one strategy share a run's bits, and those that come to others share no noise") {
  test::Rng rng;
  const dp::StreamKeys keys = test::random_keys(rng);
  const MemoryChoice all = all_ways(DType::f32, Small::plan(), keys, 16);
  const auto weights_after = [&](const TrainerOptions& options, double rate, std::string* chosen) {
    Small run(DType::f32);
    Trainer t = run.trainer(Small::plan(rate), keys, options);
    t.step(run.losses());
    if (chosen) *chosen = t.memory_choice()->chosen().way.text();
    return test::masters(run.model.parameters());
  };
  const auto of_strategy = [&](Strategy strategy, Checkpointing how, double rate) {
    std::string chosen;
    const auto weights = weights_after(
        {.physical_batch = 16, .strategy = {.strategy = strategy}, .checkpointing = how, .memory_budget = index_t(1) << 40},
        rate, &chosen);
    CHECK(chosen.find(per_sample::name_of(strategy)) == 0);
    return weights;
  };
  // Checkpointing decides no bit.
  CHECK(of_strategy(Strategy::two_pass, Checkpointing::none, 0.5) ==
        of_strategy(Strategy::two_pass, Checkpointing::block, 0.5));
  // A step without records is noise alone: all of it is another.
  const auto one = of_strategy(Strategy::two_pass, Checkpointing::none, 1e-7),
             two = of_strategy(Strategy::book_keeping, Checkpointing::none, 1e-7);
  CHECK(one == of_strategy(Strategy::two_pass, Checkpointing::block, 1e-7));
  const auto same = [&](const auto& other) {
    std::size_t n = 0;
    for (std::size_t k = 0; k < one.size(); ++k) n += one[k] == other[k];
    return double(n);
  };
  CHECK(same(two) < 0.6 * double(one.size()));
  // Nor do passes on all slots and on half of them.
  const TrainerOptions two_pass{.physical_batch = 16,
                                .strategy = {.strategy = Strategy::two_pass},
                                .checkpointing = Checkpointing::none,
                                .memory_budget = index_t(1) << 40};
  Small whole(DType::f32);
  Trainer looks = whole.trainer(Small::plan(1e-7), keys, two_pass);
  looks.validate(whole.losses());
  TrainerOptions halves = two_pass;
  for (const TriedWay& w : looks.memory_choice()->ways)
    if (w.way.passes == 2) halves.memory_budget = *w.peak_bytes * 101 / 100;
  std::string chosen;
  CHECK(same(weights_after(halves, 1e-7, &chosen)) < 0.6 * double(one.size()));
  CHECK(chosen == "two-pass, blocks keep all, 2 passes");
}

TEST_CASE("a budget is followed again when what is trained or the program changes, and validate() prints the choice") {
  test::Rng rng;
  const dp::StreamKeys keys = test::random_keys(rng);
  const MemoryChoice all = all_ways(DType::f32, Small::plan(), keys, 16);
  Small run(DType::f32);
  const index_t budget = *all.chosen().peak_bytes * 9 / 10;
  Trainer t = run.trainer(Small::plan(), keys, {.physical_batch = 16, .memory_budget = budget});
  const std::string text = t.validate(run.losses()).text();
  for (const char* part : {"memory budget ", "million multiply-adds", "does not fit", "chosen, measured", "dearer"})
    CHECK(text.find(part) != std::string::npos);
  const std::string before = t.memory_choice()->chosen().way.text();
  t.step(run.losses());
  CHECK(t.memory_choice()->chosen().way.text() == before);
  // Next to nothing is trained: everything fits again.
  for (Parameter* p : run.model.parameters().all()) p->set_trainable(p->name().find("norm.gain") == 0);
  t.step(run.losses());
  CHECK(t.memory_choice()->chosen().way.text() != before);
  CHECK(&t.memory_choice()->chosen() == &t.memory_choice()->ways[0]);
  t.program_changes();
  CHECK(t.memory_choice() == nullptr);
  // A model without parts has nothing to checkpoint, and a strategy that is asked for is kept.
  Context ctx(Device::cpu(), 1);
  nn::Parameters parameters(ctx, DType::f32, 1);
  const nn::Linear layer(parameters / "layer", 4, 3);
  Trainer flat(ctx, parameters, Small::plan(), keys, records,
               {.physical_batch = 4, .strategy = {.strategy = Strategy::two_pass}, .memory_budget = 1 << 20});
  flat.step([&](const train::Batch& b) {
    return mean_squared_error(layer(b.tape.input(Tensor::full(ctx, {b.size(), 4}, DType::f32, 1))),
                              Tensor::zeros(ctx, {b.size(), 3}, DType::f32));
  });
  // In 1, 2 and 4 passes.
  CHECK(flat.memory_choice()->ways.size() == 3);
  for (const TriedWay& w : flat.memory_choice()->ways) CHECK(w.way.strategy.strategy == Strategy::two_pass);
}

TEST_CASE("what checkpointing computes again is counted: products but the last, attention, and results") {
  test::Rng rng;
  Small run(DType::f32);
  const double b = double(rng.integer(1, 5)), t = double(tokens), c = 16, layers = 3;
  const auto work = [&](Checkpointing how) {
    Tape tape(run.ctx, index_t(b));
    tape.set_checkpointing(how);
    run.model(tape, Tensor::zeros(run.ctx, {index_t(b), tokens}, DType::i32));
    return tape.recomputed();
  };
  const double attention = layers * 2 * b * t * t * c;
  CHECK(work(Checkpointing::none).parts == 0);
  const RecomputedWork block = work(Checkpointing::block), selective = work(Checkpointing::selective);
  CHECK(block.parts == 3);
  // Queries, keys and values; projection; the first product of the feed-forward block.
  CHECK(block.multiply_adds == layers * b * t * (3 + 1 + 4) * c * c + attention);
  CHECK(selective.multiply_adds == attention);
  CHECK(selective.bytes > 0);
  // Kept: the results of the first two products, with as many values as rows of 3 c and c.
  CHECK(block.bytes - selective.bytes == index_t(layers * b * t * (3 + 1) * c * 4));
}
