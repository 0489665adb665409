// SPDX-License-Identifier: Apache-2.0
// Checkpoints of runs whose parameters are frozen and trained again: what is trained, and each parameter's moments and count
// of updates, are in the file; nothing else is; and a file that ends early changes nothing.
#include <doctest/doctest.h>
#include <filesystem>
#include <functional>

#include "dpmp/autograd/rules/mean_squared_error.hpp"
#include "dpmp/nn/linear.hpp"
#include "dpmp/train/checkpoint.hpp"
#include "support/errors.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using test::TinyTraining;
using train::Trainer;
using train::TrainerOptions;

namespace {
TrainerOptions options_of(const optim::Optimiser& optimiser) {
  return {.physical_batch = 4,
          .optimiser = optimiser,
          .rate_factors = {{[](const Parameter& p) { return p.name() == "tokens.weight"; }, 0.5}},
          .learning_rate = optim::LearningRate::constant(1e-2),
          .data_fingerprint = 1};
}
const optim::Optimiser optimisers[] = {optim::Sgd{.momentum = 0.9, .weight_decay = 0.1}, optim::AdamW{.weight_decay = 0.1}};

/// What is trained from a step on: bit k for parameter k, at least one of them; no value where a step changes nothing.
using Schedule = std::vector<std::optional<std::uint64_t>>;
Schedule random_schedule(test::Rng& rng, index_t steps, std::size_t parameters) {
  Schedule schedule;
  for (index_t step = 0; step < steps; ++step) {
    schedule.emplace_back();
    if (step > 0 && rng.uniform() < 0.4) continue;
    const std::uint64_t all = (std::uint64_t(1) << parameters) - 1;
    schedule.back() = (rng.bits() & all) | std::uint64_t(1) << rng.integer(0, std::int64_t(parameters) - 1);
  }
  return schedule;
}
void train_to_the_end(
    TinyTraining& run, Trainer& trainer, const Schedule& schedule,
    const std::function<void(index_t)>& after_step = [](index_t) {}) {
  while (trainer.steps() < index_t(schedule.size())) {
    if (const auto& trained = schedule[std::size_t(trainer.steps())])
      for (std::size_t k = 0; k < run.model.parameters().all().size(); ++k)
        run.model.parameters().all()[k]->set_trainable(*trained >> k & 1);
    trainer.step(run.losses());
    after_step(trainer.steps());
  }
}
/// Other weights than it was made with, another half of the parameters trained.
void disturb(TinyTraining& run, test::Rng& rng) {
  for (Parameter* p : run.model.parameters().all()) {
    p->master().copy_from(Tensor::full(run.ctx, p->shape(), p->master().dtype(), rng.normal()));
    p->refresh(run.ctx);
    p->set_trainable(rng.uniform() < 0.5);
  }
}
struct Bits {
  std::vector<double> weights;
  std::vector<index_t> counts;
  bool operator==(const Bits&) const = default;
};
Bits bits_of(const nn::Parameters& parameters, const Trainer& trainer) {
  Bits bits{test::masters(parameters), {trainer.steps()}};
  for (const Parameter* p : parameters.all()) {
    const optim::ParameterState& state = trainer.optimiser_state().of(*p);
    bits.counts.insert(bits.counts.end(), {p->trainable(), state.updates});
    for (const Tensor& t : {p->value(), state.first, state.second})
      if (t.defined())
        for (double v : t.to_doubles()) bits.weights.push_back(v);
  }
  return bits;
}
}  // namespace

TEST_CASE("P20, P28: resumed at every step of any pattern of freezing: the bits of the run that was never left") {
  constexpr index_t steps = 6;
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const optim::Optimiser& optimiser : optimisers)
      for (const bool adaptive : {false, true}) {
        CAPTURE(name_of(dtype));
        CAPTURE(optimiser.index());
        CAPTURE(adaptive);
        const test::TemporaryFolder folder;
        Context ctx(Device::cpu(), 2);
        TinyTraining run(ctx, dtype);
        dp::PlanOptions plan_options{.delta = 1e-5, .sampling_rate = 0.3, .steps = steps, .dataset_size = run.records()};
        if (adaptive) plan_options.adaptive = dp::AdaptiveOptions{.count_noise = 2, .initial_threshold = 0.1};
        const dp::Plan plan = dp::Plan::with_noise_multiplier(plan_options, 0.7);
        const Schedule schedule = random_schedule(rng, steps, run.model.parameters().all().size());
        Trainer trainer(ctx, run.model.parameters(), plan, test::random_keys(rng), run.records(), options_of(optimiser));
        const auto file = [&](index_t step) { return folder / std::to_string(step); };
        train_to_the_end(run, trainer, schedule,
                         [&](index_t step) { train::save_checkpoint(file(step), run.model.parameters(), trainer); });
        const Bits uninterrupted = bits_of(run.model.parameters(), trainer);
        const std::string last_file = test::read_text(file(steps));
        for (index_t step = 1; step < steps; ++step) {
          CAPTURE(step);
          TinyTraining other(ctx, dtype);
          disturb(other, rng);
          const train::CheckpointHeader header = train::read_checkpoint_header(file(step));
          Trainer again(ctx, other.model.parameters(), header.plan, header.keys, other.records(), options_of(optimiser));
          CHECK(train::load_checkpoint(file(step), other.model.parameters(), again).same_run);
          train_to_the_end(other, again, schedule);
          CHECK(bits_of(other.model.parameters(), again) == uninterrupted);
          train::save_checkpoint(folder / "again", other.model.parameters(), again);
          CHECK(test::read_text(folder / "again") == last_file);
        }
      }
}

TEST_CASE("P28: what is trained is in the checkpoint: saved with a frozen bias, a run goes on with it frozen") {
  test::Rng rng;
  const test::TemporaryFolder folder;
  Context ctx(Device::cpu(), 1);
  TinyTraining run(ctx, DType::f32), fresh(ctx, DType::f32), all_frozen(ctx, DType::f32);
  const dp::Plan plan = test::tiny_plan(run, 9);
  const char* const name = "block0.mlp.up.bias";
  run.model.parameters().find(name).set_trainable(false);
  Trainer trainer(ctx, run.model.parameters(), plan, test::random_keys(rng), run.records(), options_of(optimisers[1]));
  trainer.step(run.losses());
  train::save_checkpoint(folder / "c", run.model.parameters(), trainer);
  trainer.step(run.losses());
  all_frozen.model.parameters().set_trainable([](const Parameter&) { return false; });
  for (TinyTraining* other : {&fresh, &all_frozen}) {
    Trainer resumed(ctx, other->model.parameters(), plan, trainer.keys(), other->records(), options_of(optimisers[1]));
    CHECK(train::load_checkpoint(folder / "c", other->model.parameters(), resumed).same_run);
    for (const Parameter* p : other->model.parameters().all()) {
      CHECK(p->trainable() == (p->name() != name));
      CHECK(resumed.optimiser_state().of(*p).updates == (p->name() != name));
    }
    resumed.step(other->losses());
    CHECK(bits_of(other->model.parameters(), resumed) == bits_of(run.model.parameters(), trainer));
  }
}

TEST_CASE("LoRA: state and checkpoint are those of the adapters, to the byte, and a base that is thawed gets its own") {
  test::Rng rng;
  const test::TemporaryFolder folder;
  Context ctx(Device::cpu(), 1);
  nn::Transformer model(
      ctx,
      {.vocabulary = 64, .width = 32, .layers = 2, .heads = 2, .context = 6, .seed = 1, .lora = {.rank = 2, .alpha = 4}},
      DType::bf16);
  const dp::Plan plan = dp::Plan::with_noise_multiplier(
      {.delta = 1e-5, .sampling_rate = 0.5, .steps = 9, .clip_threshold = 1, .dataset_size = 8}, 1);
  const auto losses = [&](const train::Batch& batch) {
    const Tensor ids = Tensor::zeros(ctx, {batch.size(), 6}, DType::i32);
    return cross_entropy(model(batch.tape, ids), ids);
  };
  const auto trained = [&] {
    index_t n = 0;
    for (const Parameter* p : model.parameters().all()) n += p->trainable() ? p->numel() : 0;
    return n;
  };
  /// Bytes of tensors in a checkpoint, and of its file without the header.
  const auto tensor_bytes = [&](const Trainer& trainer) {
    train::save_checkpoint(folder / "c", model.parameters(), trainer);
    std::uint64_t header = 0;
    std::memcpy(&header, test::read_text(folder / "c").data(), 8);
    index_t bytes = 0;
    const interop::SafetensorsFile file(folder / "c");
    for (const interop::TensorEntry& e : file.entries()) bytes += e.end - e.begin;
    CHECK(bytes == index_t(std::filesystem::file_size(folder / "c") - header - 8));
    return bytes;
  };
  const index_t adapters = trained(), all = model.parameters().numel();
  CHECK(all > 10 * adapters);
  for (const optim::Optimiser& optimiser : optimisers) {
    model.parameters().set_trainable([](const Parameter& p) { return nn::is_lora(p); });
    const index_t before = ctx.memory().live_bytes, moment_bytes = 4 * (optimiser.index() == 1 ? 2 : 1);
    {
      Trainer trainer(ctx, model.parameters(), plan, test::random_keys(rng), 8, options_of(optimiser));
      CHECK(tensor_bytes(trainer) == 4 * all);
      trainer.step(losses);
      CHECK(tensor_bytes(trainer) == 4 * all + moment_bytes * adapters);
      // Moments; a sum of doubles; seven numbers a parameter. The arena rounds up by an eighth or to 64 bytes; sums begin
      // every 128 bytes.
      const index_t parameters = index_t(model.parameters().all().size());
      const double grown = double(ctx.memory().live_bytes - before), least = double((moment_bytes + 8) * adapters);
      CHECK(grown >= least);
      CHECK(grown <= 1.125 * (least + double(parameters * (56 + 128 + 2 * 64))));
      CHECK(grown < double(moment_bytes * all));

      model.parameters().set_trainable([](const Parameter& p) { return p.name() == "head.weight"; });
      const index_t head = trained();
      trainer.step(losses);
      CHECK(tensor_bytes(trainer) == 4 * all + moment_bytes * (adapters + head));
    }
    CHECK(ctx.memory().live_bytes == before);
  }
}

TEST_CASE("a first step that fails leaves no state in the checkpoint, and the run goes on from there") {
  test::Rng rng;
  const test::TemporaryFolder folder;
  Context ctx(Device::cpu(), 1);
  TinyTraining run(ctx, DType::f32), other(ctx, DType::f32);
  Trainer trainer(ctx, run.model.parameters(), test::tiny_plan(run, 9), test::random_keys(rng), run.records(),
                  options_of(optimisers[1]));
  CHECK_THROWS(trainer.step([](const train::Batch&) -> Variable { throw Error("expected luck"); }));
  train::save_checkpoint(folder / "c", run.model.parameters(), trainer);
  CHECK(interop::SafetensorsFile(folder / "c").entries().size() == run.model.parameters().all().size());
  Trainer resumed(ctx, other.model.parameters(), trainer.plan(), trainer.keys(), other.records(), options_of(optimisers[1]));
  CHECK(train::load_checkpoint(folder / "c", other.model.parameters(), resumed).same_run);
  trainer.step(run.losses());
  resumed.step(other.losses());
  CHECK(bits_of(run.model.parameters(), trainer) == bits_of(other.model.parameters(), resumed));
}

TEST_CASE("a file that is cut off after it was opened is refused, and nothing changes") {
  test::Rng rng;
  const test::TemporaryFolder folder;
  Context ctx(Device::cpu(), 1);
  // In a file weights come before moments, in the order in which they are read: with most cuts some of them are whole.
  struct Layers {
    Layers(Context& ctx, DType dtype, std::uint64_t seed)
        : parameters(ctx, dtype, seed), a(parameters / "a", 64, 64), b(parameters / "b", 64, 64) {}
    nn::Parameters parameters;
    nn::Linear a, b;
  };
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Layers run(ctx, dtype, 1), other(ctx, dtype, 2);
    const dp::Plan plan = dp::Plan::with_noise_multiplier(
        {.delta = 1e-5, .sampling_rate = 0.5, .steps = 5, .clip_threshold = 1, .dataset_size = 8}, 1);
    // Rates are asked for between the opening of a file and the reading of its tensors.
    std::function<void()> meanwhile;
    TrainerOptions options = options_of(optimisers[1]);
    options.learning_rate = [&](index_t) {
      if (meanwhile) meanwhile();
      return 1e-2;
    };
    Trainer trainer(ctx, run.parameters, plan, test::random_keys(rng), 8, options),
        resumed(ctx, other.parameters, plan, trainer.keys(), 8, options);
    trainer.step([&](const train::Batch& batch) {
      const Tensor x = Tensor::full(ctx, {batch.size(), 64}, dtype, 1), y = Tensor::zeros(ctx, x.shape(), DType::f32);
      return mean_squared_error(run.b(run.a(batch.tape.input(x))), y);
    });
    run.parameters.find("b.bias").set_trainable(false);
    train::save_checkpoint(folder / "c", run.parameters, trainer);
    train::save_weights(folder / "w", run.parameters);
    const Bits before = bits_of(other.parameters, resumed);
    const std::string whole = test::read_text(folder / "c"), weights = test::read_text(folder / "w");
    for (int k = 0; k <= 16; ++k) {
      // All but the last k sixteenths of the tensors, and a random part of one more.
      const auto cut = [&](const std::string& text) {
        std::uint64_t header = 0;
        std::memcpy(&header, text.data(), 8);
        const double data = double(text.size() - 8 - header), kept = (16 - k - (k < 16 ? rng.uniform() : 0)) / 16;
        return std::min<std::uintmax_t>(text.size() - 1, 8 + header + std::uintmax_t(kept * data));
      };
      test::write_text(folder / "x", whole);
      const std::uintmax_t length = cut(whole);
      CAPTURE(length);
      meanwhile = [&] { std::filesystem::resize_file(folder / "x", length); };
      CHECK(test::refuses([&] { train::load_checkpoint(folder / "x", other.parameters, resumed); }, "bytes for '"));
      CHECK(bits_of(other.parameters, resumed) == before);

      test::write_text(folder / "y", weights);
      interop::SafetensorsFile file(folder / "y");
      std::filesystem::resize_file(folder / "y", cut(weights));
      CHECK(test::refuses([&] { train::detail::read_weights(file, other.parameters.all(), ctx); }, "bytes for '"));
      CHECK(bits_of(other.parameters, resumed) == before);
    }
    meanwhile = {};
    CHECK(train::load_checkpoint(folder / "c", other.parameters, resumed).same_run);
    CHECK(bits_of(other.parameters, resumed) == bits_of(run.parameters, trainer));
  }
}

TEST_CASE("P36: from a step in which other parameters are frozen on, two continuations of a run share no noise") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const dp::StreamKeys keys = dp::StreamKeys::repeat(test::random_keys(rng).root(), 7);
  // What the last of some steps adds to the last parameter, of losses without gradients: noise alone. frozen: in the first
  // of two steps; -1: nothing is.
  const auto noise = [&](int steps, int frozen) {
    TinyTraining run(ctx, DType::f32);
    const auto& all = run.model.parameters().all();
    Trainer trainer(ctx, run.model.parameters(), test::tiny_plan(run, 3), keys, run.records(),
                    {.physical_batch = 4, .optimiser = optim::Sgd{}});
    std::vector<double> before, moved;
    for (int step = 0; step < steps; ++step) {
      if (frozen >= 0) all[std::size_t(frozen)]->set_trainable(step > 0);
      before = all.back()->master().to_doubles();
      trainer.step([&](const train::Batch& batch) { return scale(run.losses()(batch), 0); });
      moved = all.back()->master().to_doubles();
    }
    for (std::size_t k = 0; k < moved.size(); ++k) moved[k] = moved[k] - before[k];
    return moved;
  };
  for (const int steps : {1, 2}) {
    CAPTURE(steps);
    const std::vector<double> none = noise(steps, -1), first = noise(steps, 0), second = noise(steps, 1);
    const double size = test::norm(none);
    CHECK(size > 0);
    CHECK(noise(steps, -1) == none);
    CHECK(noise(steps, 0) == first);
    // Of independent noise the difference is about 1.4 as large as each.
    CHECK(test::distance(first, none) > 0.5 * size);
    CHECK(test::distance(second, none) > 0.5 * size);
    CHECK(test::distance(second, first) > 0.5 * size);
  }
}

TEST_CASE("P36, P27: after a step that fails, two continuations of one file share no noise") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const test::TemporaryFolder folder;
  const auto options = [] { return TrainerOptions{.physical_batch = 4, .optimiser = optim::Sgd{}, .data_fingerprint = 1}; };
  TinyTraining start(ctx, DType::f32);
  const dp::Plan plan = test::tiny_plan(start, 20);  // several physical batches a step
  Trainer first(ctx, start.model.parameters(), plan, test::random_keys(rng), start.records(), options());
  first.step([&](const train::Batch& batch) { return scale(start.losses()(batch), 1); });
  train::save_checkpoint(folder / "c", start.model.parameters(), first);
  enum class Fails { never, in_losses, between_batches };
  // What the third step adds to the last parameter, of losses without gradients: noise alone. The second one may fail.
  const auto noise = [&](Fails how, bool saved_afterwards) {
    TinyTraining run(ctx, DType::f32), again(ctx, DType::f32);
    Trainer trainer(ctx, run.model.parameters(), plan, first.keys(), run.records(), options());
    CHECK(train::load_checkpoint(folder / "c", run.model.parameters(), trainer).same_run);
    int passes = 0;
    const auto second = [&](const train::Batch& batch) -> Variable {
      if (how == Fails::in_losses || (how == Fails::between_batches && passes++ > 0)) throw Error("expected luck");
      return scale(run.losses()(batch), 0);
    };
    if (how == Fails::never)
      trainer.step(second);
    else
      CHECK_THROWS(trainer.step(second));
    CHECK(trainer.steps() == 2);
    const auto third = [](TinyTraining& of, Trainer& by) {
      const std::vector<double> before = of.model.parameters().all().back()->master().to_doubles();
      by.step([&](const train::Batch& batch) { return scale(of.losses()(batch), 0); });
      std::vector<double> moved = of.model.parameters().all().back()->master().to_doubles();
      for (std::size_t k = 0; k < moved.size(); ++k) moved[k] -= before[k];
      return moved;
    };
    if (!saved_afterwards) return third(run, trainer);
    train::save_checkpoint(folder / "d", run.model.parameters(), trainer);
    Trainer resumed(ctx, again.model.parameters(), plan, first.keys(), again.records(), options());
    CHECK(train::load_checkpoint(folder / "d", again.model.parameters(), resumed).same_run);
    return third(again, resumed);
  };
  const std::vector<double> well = noise(Fails::never, false);
  const double size = test::norm(well);
  CHECK(size > 0);
  for (const Fails how : {Fails::in_losses, Fails::between_batches}) {
    const std::vector<double> failed = noise(how, false);
    // Of independent noise the difference is about 1.4 as large as each.
    CHECK(test::distance(failed, well) > 0.5 * size);
    CHECK(noise(how, true) == failed);
  }
}
