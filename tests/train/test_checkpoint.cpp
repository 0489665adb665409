// SPDX-License-Identifier: Apache-2.0
// P20: a run that is saved, left and resumed is the run that was never left.
#include <doctest/doctest.h>
#include <functional>

#include "dpmp/train/checkpoint.hpp"
#include "support/checksum.hpp"
#include "support/errors.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using test::TinyTraining;
using train::Trainer;
using train::TrainerOptions;

namespace {
TrainerOptions adam() {
  return {.physical_batch = 4,
          .optimiser = optim::AdamW{.weight_decay = 0.01},
          .learning_rate = optim::LearningRate::cosine(1e-2, 2, 5),
          .data_fingerprint = 1};
}
TrainerOptions sgd() {
  return {.physical_batch = 4,
          .optimiser = optim::Sgd{.momentum = 0.9},
          .learning_rate = optim::LearningRate::constant(1e-2),
          .data_fingerprint = 1};
}

TrainerOptions narrow_adam() {
  TrainerOptions options = adam();
  options.optimiser = optim::AdamW{.weight_decay = 0.01, .moments = DType::bf16, .rounding_seed = 3};
  return options;
}

TrainerOptions unbiased_adam() {
  TrainerOptions options = adam();
  options.optimiser = optim::DpAdamBC{.beta2 = 0.9, .floor = 1e-6};
  return options;
}
TrainerOptions lamb() {
  TrainerOptions options = adam();
  options.optimiser = optim::Lamb{.weight_decay = 0.01};
  return options;
}

/// Weights, what is trained, and optimiser state, all bits of them.
std::vector<double> state(const TinyTraining& run, const Trainer& trainer) {
  std::vector<double> all = run.masters();
  for (const Parameter* p : run.model.parameters().all())
    for (double v : p->value().to_doubles()) all.push_back(v);
  for (const Parameter* p : run.model.parameters().all()) {
    const optim::ParameterState& state = trainer.optimiser_state().of(*p);
    all.push_back(p->trainable());
    all.push_back(double(state.updates));
    all.push_back(state.noise_share);
    for (const Tensor& moment : {state.first, state.second})
      if (moment.defined())
        for (double v : moment.to_doubles()) all.push_back(v);
  }
  all.push_back(double(trainer.steps()));
  return all;
}
/// Moves every weight, so that what a file restores can be told from what was there.
void disturb(TinyTraining& run) {
  for (Parameter* p : run.model.parameters().all()) {
    dispatch_real(p->master().dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      if constexpr (!std::is_same_v<T, bf16> && !std::is_same_v<T, f16>)
        for (index_t j = 0; j < p->numel(); ++j) p->master().data<T>()[j] += T(0.5);
    });
    p->refresh(run.ctx);
  }
}
}  // namespace

TEST_CASE("P20: five steps, and three, a checkpoint, a new model and trainer, and two: the same bits") {
  test::Rng rng;
  for (DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64})
    for (const TrainerOptions& options : {adam(), sgd(), narrow_adam(), unbiased_adam(), lamb()}) {
      const auto* kind = std::get_if<optim::AdamW>(&options.optimiser);
      if (dtype == DType::f64 && kind && kind->moments == DType::bf16) continue;  // refused
      CAPTURE(name_of(dtype));
      const test::TemporaryFolder folder;
      const dp::StreamKeys keys(test::random_keys(rng).root());  // each trainer draws a run nonce of its own
      std::vector<double> uninterrupted;
      {
        Context ctx(Device::cpu(), 2);
        TinyTraining run(ctx, dtype);
        Trainer trainer(ctx, run.model.parameters(), test::tiny_plan(run, 9), keys, run.records(), options);
        for (int step = 0; step < 5; ++step) {
          if (step == 3) train::save_checkpoint(folder / "c", run.model.parameters(), trainer);
          trainer.step(run.losses());
        }
        uninterrupted = state(run, trainer);
      }
      // Twice: resuming again gives the same run, not another one.
      for (int time = 0; time < 2; ++time) {
        Context ctx(Device::cpu(), 2);
        TinyTraining run(ctx, dtype);
        disturb(run);
        const train::CheckpointHeader header = train::read_checkpoint_header(folder / "c");
        CHECK(header.plan == test::tiny_plan(run, 9));
        CHECK(header.keys.root() == keys.root());
        Trainer trainer(ctx, run.model.parameters(), header.plan, header.keys, run.records(), options);
        const train::Resumed resumed = train::load_checkpoint(folder / "c", run.model.parameters(), trainer);
        CHECK((resumed.same_run && resumed.changed.empty()));
        CHECK(trainer.steps() == 3);
        for (int step = 0; step < 2; ++step) trainer.step(run.losses());
        CHECK(state(run, trainer) == uninterrupted);
        CHECK(test::refuses([&] { trainer.step(run.losses()); }, "expected at most 5 steps"));
      }
    }
}

TEST_CASE("P20, P36: resumed with anything changed, or without a word on the data, a run has draws and noise of its own") {
  test::Rng rng;
  const test::TemporaryFolder folder;
  Context ctx(Device::cpu(), 1), two_threads(Device::cpu(), 2);
  TinyTraining run(ctx, DType::f32);
  const dp::Plan plan = test::tiny_plan(run, 15);
  Trainer trainer(ctx, run.model.parameters(), plan, test::random_keys(rng), run.records(), adam());
  trainer.step(run.losses());
  train::save_checkpoint(folder / "c", run.model.parameters(), trainer);
  const train::CheckpointHeader header = train::read_checkpoint_header(folder / "c");
  run.calls.clear();
  trainer.step(run.losses());
  const auto resume = [&](Context& c, const TrainerOptions& options, const std::string& changed) {
    CAPTURE(changed);
    TinyTraining other(c, DType::f32);
    Trainer again(c, other.model.parameters(), header.plan, header.keys, other.records(), options);
    const train::Resumed resumed = train::load_checkpoint(folder / "c", other.model.parameters(), again);
    CHECK(again.steps() == 1);
    const bool same = changed == "nothing";
    CHECK(resumed.same_run == same);
    if (same || !options.data_fingerprint)
      CHECK(resumed.changed.empty());
    else
      CHECK_MESSAGE(resumed.changed.find(changed) == 0, resumed.changed);
    CHECK((again.keys().run_nonce() == trainer.keys().run_nonce()) == same);
    CHECK((again.privacy_statement().find("continues a checkpoint of step 1 with draws and noise of its own") ==
           std::string::npos) == same);
    CHECK((test::noise_by_hand(run, plan, again.keys(), 1) == test::noise_by_hand(run, plan, trainer.keys(), 1)) == same);
    again.step(other.losses());
    CHECK((other.masters() == run.masters()) == same);
    CHECK((other.calls == run.calls) == same);
  };
  resume(ctx, adam(), "nothing");
  resume(two_threads, adam(), "device: cpu");
  TrainerOptions options = adam();
  options.data_fingerprint = 2;
  resume(ctx, options, "data: 2");
  options.data_fingerprint.reset();
  resume(ctx, options, "unknown data");
  options = adam();
  options.physical_batch = 5;
  resume(ctx, options, "physical batch: 5");
  options = adam();
  options.learning_rate = optim::LearningRate::cosine(2e-2, 2, 5);
  resume(ctx, options, "learning rate: cosine 0.02 to 0");
  const optim::LearningRate usual = optim::LearningRate::cosine(1e-2, 2, 5);
  options.learning_rate = [usual](index_t step) { return usual.at(step) * (step == 4 ? 1.25 : 1); };
  resume(ctx, options, "learning rate: a function");
  options = adam();
  options.strategy.strategy = per_sample::Strategy::two_pass;
  resume(ctx, options, "strategy: two-pass");
}

TEST_CASE("P36: a ledger never goes back: a trainer that has taken a step, or resumed one, takes up no checkpoint") {
  test::Rng rng;
  Context ctx(Device::cpu(), 1);
  const test::TemporaryFolder folder;
  TinyTraining run(ctx, DType::f32), other(ctx, DType::f32);
  const dp::Plan plan = test::tiny_plan(run, 9);
  Trainer trainer(ctx, run.model.parameters(), plan, test::random_keys(rng), run.records(), adam());
  for (const char* name : {"one", "two"}) {
    trainer.step(run.losses());
    train::save_checkpoint(folder / name, run.model.parameters(), trainer);
  }
  const std::vector<double> before = state(run, trainer);
  const auto refused = [&](const std::function<void()>& f) {
    return test::refuses(f, "a trainer that has taken no step, got");
  };
  for (const char* name : {"one", "two"})
    CHECK(refused([&] { train::load_checkpoint(folder / name, run.model.parameters(), trainer); }));
  for (index_t steps : {0, 1, 2, 3}) {
    CHECK(refused([&] { trainer.resume_at(steps); }));
    CHECK(refused([&] { trainer.repeat_from(steps, 0, trainer.keys()); }));
  }
  CHECK(state(run, trainer) == before);
  Trainer resumed(ctx, other.model.parameters(), plan, trainer.keys(), other.records(), adam());
  train::load_checkpoint(folder / "two", other.model.parameters(), resumed);
  CHECK(refused([&] { train::load_checkpoint(folder / "one", other.model.parameters(), resumed); }));
  CHECK(refused([&] { resumed.resume_at(0); }));
  CHECK(resumed.steps() == 2);
  // What goes on is epsilon of all that may have been released, and what the statement has to say.
  CHECK(plan.epsilon_after(resumed.steps()) == plan.epsilon_after(2));
  CHECK(resumed.privacy_statement() == trainer.privacy_statement());
  TrainerOptions unsafe = adam();
  unsafe.unsafe_debug = true;
  unsafe.data_fingerprint.reset();
  TinyTraining third(ctx, DType::f32), fourth(ctx, DType::f32);
  Trainer branch(ctx, third.model.parameters(), plan, trainer.keys(), third.records(), unsafe),
      last(ctx, fourth.model.parameters(), plan, trainer.keys(), fourth.records(), adam());
  train::load_checkpoint(folder / "one", third.model.parameters(), branch);
  branch.step(third.losses());
  train::save_checkpoint(folder / "branch", third.model.parameters(), branch);
  train::load_checkpoint(folder / "branch", fourth.model.parameters(), last);
  for (const Trainer* t : {&branch, &last}) {
    CHECK(t->privacy_statement().find("continues a checkpoint of step 1") != std::string::npos);
    CHECK(t->privacy_statement().find("unsafe_debug") != std::string::npos);
  }
}

TEST_CASE("a failed step is saved as accounted") {
  test::Rng rng;
  Context ctx(Device::cpu(), 1);
  const test::TemporaryFolder folder;
  TinyTraining run(ctx, DType::f32), other(ctx, DType::f32);
  Trainer trainer(ctx, run.model.parameters(), test::tiny_plan(run, 9), test::random_keys(rng), run.records(), adam());
  trainer.step(run.losses());
  CHECK_THROWS(trainer.step([](const train::Batch&) -> Variable { throw Error("expected luck"); }));
  train::save_checkpoint(folder / "c", run.model.parameters(), trainer);
  Trainer resumed(ctx, other.model.parameters(), trainer.plan(), trainer.keys(), run.records(), adam());
  train::load_checkpoint(folder / "c", other.model.parameters(), resumed);
  CHECK(resumed.steps() == 2);
  for (const Parameter* p : other.model.parameters().all()) CHECK(resumed.optimiser_state().of(*p).updates == 1);
  trainer.step(run.losses());
  resumed.step(other.losses());
  CHECK(run.masters() == other.masters());
}

TEST_CASE(
    "a checkpoint is refused by a trainer of another plan, naming the numbers; by another optimiser or model too; nothing "
    "changes") {
  test::Rng rng;
  Context ctx(Device::cpu(), 1);
  const test::TemporaryFolder folder;
  TinyTraining run(ctx, DType::f32);
  const dp::StreamKeys keys = test::random_keys(rng);
  Trainer trainer(ctx, run.model.parameters(), test::tiny_plan(run, 9), keys, run.records(), adam());
  trainer.step(run.losses());
  train::save_checkpoint(folder / "c", run.model.parameters(), trainer);
  const auto refusal = [&](TinyTraining& target, const dp::Plan& plan, const TrainerOptions& options) {
    disturb(target);
    Trainer resumed(ctx, target.model.parameters(), plan, keys, target.records(), options);
    const std::vector<double> before = state(target, resumed);
    const std::string text =
        test::error_of([&] { train::load_checkpoint(folder / "c", target.model.parameters(), resumed); });
    CHECK(state(target, resumed) == before);
    return text;
  };
  const auto has = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
  TinyTraining fresh(ctx, DType::f32);
  const std::string text = refusal(fresh, test::tiny_plan(fresh, 9, 6, 0.25), adam());
  CHECK(has(text, "steps: 5, 6"));
  CHECK(has(text, "clip threshold: 0.29999999999999999, 0.25"));
  CHECK_FALSE(has(text, "delta"));
  CHECK_FALSE(has(text, "noise multiplier"));

  // Another model.
  const auto refused_model = [&](TinyTraining&& model, std::initializer_list<const char*> parts) {
    const std::string refused = refusal(model, test::tiny_plan(model, 9), adam());
    CHECK(has(refused, "expected the model and the optimiser of the checkpoint, got others"));
    for (const char* part : parts) CHECK_MESSAGE(has(refused, part), refused);
  };
  refused_model({ctx, DType::f64}, {"checkpoint: tokens.weight: f32[17, 8], clipping", "here: tokens.weight: f64[17, 8]"});
  refused_model({ctx, DType::bf16}, {"here: tokens.weight: bf16[17, 8]"});  // whose masters would fit
  refused_model({ctx, DType::f32, {.width = 10}},
                {"checkpoint: tokens.weight: f32[17, 8]", "here: tokens.weight: f32[17, 10]", " more"});
  refused_model({ctx, DType::f32, {}, true}, {"checkpoint: head.weight: f32"});

  // Another optimiser, or groups of parameters that are treated differently.
  const auto refused_options = [&](const TrainerOptions& options, std::initializer_list<const char*> parts) {
    TinyTraining model(ctx, DType::f32);
    const std::string refused = refusal(model, test::tiny_plan(model, 9), options);
    for (const char* part : parts) CHECK_MESSAGE(has(refused, part), refused);
  };
  refused_options(sgd(), {"checkpoint: optimiser: AdamW, beta1 0.9", "here: optimiser: SGD, momentum 0.9"});
  TrainerOptions options = adam();
  options.optimiser = optim::AdamW{.beta2 = 0.99, .weight_decay = 0.01};
  refused_options(options, {"checkpoint: optimiser: AdamW", ", beta2 0.999, epsilon", "here: optimiser: AdamW",
                            ", beta2 0.98999999999999999, epsilon"});
  options.optimiser = optim::AdamW{.weight_decay = 0.02};
  refused_options(options, {"weight decay 0.01,", "weight decay 0.02,"});
  refused_options(narrow_adam(), {"here: optimiser: AdamW, ", ", moments bf16, rounding seed 3"});
  options.optimiser = optim::AdamW{.weight_decay = 0.01, .decays = [](const Parameter&) { return true; }};
  refused_options(options, {"checkpoint: norm.gain: f32[8], clipping group 0, weight decay 0, learning rate times 1",
                            "here: norm.gain: f32[8], clipping group 0, weight decay 0.01, learning rate times 1"});
  options = adam();
  options.rate_factors = {{[](const Parameter& p) { return p.name() == "norm.gain"; }, 2}};
  refused_options(options, {"here: norm.gain: f32[8], clipping group 0, weight decay 0, learning rate times 2"});

  // The other way round.
  Trainer heavy_ball(ctx, run.model.parameters(), test::tiny_plan(run, 9), keys, run.records(), sgd());
  train::save_checkpoint(folder / "c", run.model.parameters(), heavy_ball);
  refused_options(adam(), {"checkpoint: optimiser: SGD, momentum 0.9", "here: optimiser: AdamW, beta1 0.9"});
}

TEST_CASE("a checkpoint cut off at any length, or damaged, is refused with a clear error and changes nothing") {
  test::Rng rng;
  Context ctx(Device::cpu(), 1);
  const test::TemporaryFolder folder;
  TinyTraining run(ctx, DType::bf16);
  Trainer trainer(ctx, run.model.parameters(), test::tiny_plan(run, 9), test::random_keys(rng), run.records(), adam());
  trainer.step(run.losses());
  train::save_checkpoint(folder / "c", run.model.parameters(), trainer);
  train::save_weights(folder / "w", run.model.parameters(), {{"steps", "1"}});
  disturb(run);
  Trainer fresh(ctx, run.model.parameters(), test::tiny_plan(run, 9), trainer.keys(), run.records(), adam());
  const std::vector<double> before = state(run, fresh);
  const std::string whole = test::read_text(folder / "c"), weights = test::read_text(folder / "w");
  const auto refused = [&](const std::string& bytes) {
    test::write_text(folder / "x", bytes);
    const bool load =
        test::refuses([&] { train::load_checkpoint(folder / "x", run.model.parameters(), fresh); }, "expected");
    CHECK(state(run, fresh) == before);
    return load;
  };
  std::uint64_t header = 0;
  std::memcpy(&header, whole.data(), 8);
  std::vector<std::size_t> lengths{0,
                                   1,
                                   7,
                                   8,
                                   9,
                                   std::size_t(header),
                                   std::size_t(header) + 7,
                                   std::size_t(header) + 8,
                                   std::size_t(header) + 9,
                                   whole.size() - 1};
  for (int k = 0; k < 60; ++k) lengths.push_back(std::size_t(rng.integer(0, std::int64_t(whole.size()) - 1)));
  for (std::size_t length : lengths) {
    CAPTURE(length);
    CHECK(refused(whole.substr(0, length)));
    if (length >= weights.size()) continue;
    test::write_text(folder / "y", weights.substr(0, length));
    CHECK(test::refuses([&] { train::load_weights(folder / "y", run.model.parameters()); }, "expected"));
    CHECK(state(run, fresh) == before);
  }
  CHECK(refused(whole + " "));
  CHECK(test::refuses([&] { train::load_checkpoint(folder / "none", run.model.parameters(), fresh); }, "none"));
  CHECK(test::refuses([&] { train::read_checkpoint_header(folder / "w"); }, "expected a checkpoint of a private run"));
  // One entry of the header changed, its length kept.
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string bytes = whole;
    const std::size_t at = bytes.find(from);
    REQUIRE(at != std::string::npos);
    return test::sealed(bytes.replace(at, to.size(), to));
  };
  CHECK(refused(replaced("\"updates tokens.weight\":\"1\"", "\"updates tokens.weight\":\"x\"")));
  CHECK(refused(replaced("\"updates tokens.weight\":\"1\"", "\"updates tokens.weight\":\"0\"")));  // it has moments
  CHECK(refused(replaced("\"trained tokens.weight\":\"1\"", "\"trained tokens.weight\":\"2\"")));
  CHECK(refused(replaced("\"trained tokens.weight\":\"1\"", "\"trained tokenz.weight\":\"1\"")));
  CHECK(refused(replaced("\"steps\":\"1\"", "\"steps\":\"9\"")));  // more than the plan has
  CHECK(refused(replaced("\"description\":", "\"descriptiom\":")));
  CHECK(refused(replaced("\"steps\":\"1\"", "\"stepz\":\"1\"")));
  CHECK(refused(replaced("\"plan steps\":\"5\"", "\"plan steps\":\"6\"")));
  CHECK(refused(replaced("\"key 0\":", "\"kez 0\":")));
  CHECK(refused(replaced("\"fingerprint\":", "\"fingerprinz\":")));
  CHECK(refused(replaced("dpmp private run 5", "dpmp private run 9")));
  test::write_text(folder / "x", replaced("dpmp private run 5", "dpmp private run 3"));
  CHECK(test::refuses([&] { train::read_checkpoint_header(folder / "x"); },
                      "got 'dpmp private run 3': finish that run with the version of dpmp that wrote it"));
  CHECK(refused(replaced("tokens.weight\":{", "tokenz.weight\":{")));
  // The format before had all of these entries, and none more.
  test::write_text(folder / "x", replaced("dpmp private run 5", "dpmp private run 4"));
  train::load_checkpoint(folder / "x", run.model.parameters(), fresh);
  CHECK(state(run, fresh) != before);
}

TEST_CASE("weights: what is saved is what is loaded, and the file has FP32 masters under the parameters' names") {
  Context ctx(Device::cpu(), 1);
  const test::TemporaryFolder folder;
  TinyTraining run(ctx, DType::bf16), other(ctx, DType::f32);
  train::save_weights(folder / "w", run.model.parameters(), {{"note", "hello"}});
  disturb(other);
  train::load_weights(folder / "w", other.model.parameters());
  CHECK(other.masters() == run.masters());
  interop::SafetensorsFile file(folder / "w");
  CHECK(file.metadata().at("note") == "hello");
  CHECK(file.entries().size() == run.model.parameters().all().size());
  CHECK(file.entry("block0.mlp.up.weight").dtype == DType::f32);
  CHECK(folder.entries() == 1);
  TinyTraining wider(ctx, DType::f32, {.width = 10});
  const std::vector<double> before = wider.masters();
  CHECK(test::refuses([&] { train::load_weights(folder / "w", wider.model.parameters()); }, "f32[17, 8]"));
  CHECK(wider.masters() == before);
}
