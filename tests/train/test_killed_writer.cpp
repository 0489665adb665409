// SPDX-License-Identifier: Apache-2.0
// P20: a run that is killed (SIGKILL) at any moment has left its last checkpoint or the one before, whole, and goes on from
// it bit for bit; what it was writing does not pile up.
#include <doctest/doctest.h>
#include <chrono>
#include <sstream>
#include <thread>

#include "dpmp/autograd/rules/mean_squared_error.hpp"
#include "dpmp/nn/linear.hpp"
#include "dpmp/train/checkpoint.hpp"
#include "support/process.hpp"
#include "support/random.hpp"

using namespace dpmp;

namespace {
constexpr index_t records = 8, width = 128;

/// All from the seed: each one made is the same run.
struct Run {
  Run()
      : parameters(ctx, DType::f32, 1),
        layer(parameters / "a", width, width),
        trainer(ctx, parameters,
                dp::Plan::with_noise_multiplier(
                    {.delta = 1e-5, .sampling_rate = 0.5, .steps = 20000, .clip_threshold = 1, .dataset_size = records}, 1),
                dp::StreamKeys::repeat(key(), 7), records,
                {.physical_batch = 4, .optimiser = optim::AdamW{}, .data_fingerprint = 1}) {}
  static Key256 key() {
    Key256 k;
    for (std::size_t j = 0; j < k.words.size(); ++j) k.words[j] = std::uint32_t(test::seed() >> j) | 1;
    return k;
  }
  void step() {
    trainer.step([&](const train::Batch& batch) {
      const Tensor x = Tensor::full(ctx, {batch.size(), width}, DType::f32, 1),
                   y = Tensor::zeros(ctx, {batch.size(), width}, DType::f32);
      return mean_squared_error(layer(batch.tape.input(x)), y);
    });
  }
  std::vector<double> state() const {
    std::vector<double> all;
    for (const Parameter* p : parameters.all())
      for (const Tensor& t : {p->master(), trainer.optimiser_state().of(*p).first, trainer.optimiser_state().of(*p).second})
        if (t.defined())
          for (const double v : t.to_doubles()) all.push_back(v);
    return all;
  }

  Context ctx{Device::cpu(), 1};
  nn::Parameters parameters;
  nn::Linear layer;
  train::Trainer trainer;
};

/// The step of the last whole line that is about one; -1 where there is none.
index_t announced(const std::string& text) {
  index_t step = -1;
  std::istringstream lines(text.substr(0, text.rfind('\n') + 1));
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("saved ")) step = std::stoll(line.substr(6));
  return step;
}
}  // namespace

TEST_CASE("the writer that the next test kills" * doctest::skip()) {
  const char* path = std::getenv("DPMP_KILLED_WRITER");
  if (!path) return;
  Run run;
  if (std::filesystem::exists(path)) REQUIRE(train::load_checkpoint(path, run.parameters, run.trainer).same_run);
  while (true) {
    run.step();
    train::save_checkpoint(path, run.parameters, run.trainer);
    const std::string line = "saved " + std::to_string(run.trainer.steps()) + "\n";
    if (::write(STDOUT_FILENO, line.data(), line.size()) < 0) return;
  }
}

TEST_CASE("P20: killed a hundred times at random moments, a run always has a whole checkpoint and stays the same run") {
  test::Rng rng(test::seed(), 1);
  const test::TemporaryFolder folder, said;
  const std::filesystem::path path = folder / "c";
  ::setenv("DPMP_KILLED_WRITER", path.c_str(), 1);
  ::setenv("DPMP_TEST_SEED", std::to_string(test::seed()).c_str(), 1);
  Run uninterrupted;
  index_t last = 0;
  int most_files = 0, moved = 0, kills = 100;
  for (int kill = 0; kill < kills; ++kill) {
    CAPTURE(kill);
    index_t written = last;
    std::filesystem::remove(said / "stdout");
    {
      // Three in four after its first checkpoint, the others also while it starts and reads the last one.
      test::Process writer({"/proc/self/exe", "--no-skip", "--test-case=the writer that the next test kills"}, said.path());
      while (kill % 4 != 3 && announced(writer.out()) < 0 && writer.running())
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      std::this_thread::sleep_for(std::chrono::microseconds(rng.integer(0, 30000)));
      REQUIRE(writer.running());
      writer.kill();
      REQUIRE(writer.wait() == 128 + SIGKILL);
      written = std::max(written, announced(writer.out()));
    }
    most_files = std::max(most_files, folder.entries());
    Run resumed;
    REQUIRE(train::load_checkpoint(path, resumed.parameters, resumed.trainer).same_run);
    const index_t steps = resumed.trainer.steps();
    REQUIRE((steps == written || steps == written + 1));
    while (uninterrupted.trainer.steps() < steps) uninterrupted.step();
    REQUIRE(resumed.state() == uninterrupted.state());
    moved += steps > last;
    last = steps;
  }
  MESSAGE("steps ", last, ", at most ", most_files, " files");
  CHECK(moved >= kills / 4 * 3);
  CHECK(most_files <= 2);
  train::save_checkpoint(path, uninterrupted.parameters, uninterrupted.trainer);
  CHECK(folder.entries() == 1);
}
