// SPDX-License-Identifier: Apache-2.0
// A checkpoint has a checksum of all its bytes: whatever bit is changed on a disk or on the way, the file is refused.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include "dpmp/autograd/rules/mean_squared_error.hpp"
#include "dpmp/nn/linear.hpp"
#include "dpmp/train/checkpoint.hpp"
#include "support/checksum.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"
#include "support/temporary_folder.hpp"

using namespace dpmp;

namespace {
struct Run {
  explicit Run(const dp::StreamKeys& keys)
      : parameters(ctx, DType::f32, 1),
        layer(parameters / "a", 2, 3),
        trainer(ctx, parameters,
                dp::Plan::with_noise_multiplier(
                    {.delta = 1e-5, .sampling_rate = 0.5, .steps = 4, .clip_threshold = 1, .dataset_size = 8}, 1),
                keys, 8, {.physical_batch = 4, .optimiser = optim::AdamW{}, .data_fingerprint = 1}) {}
  void step() {
    trainer.step([&](const train::Batch& batch) {
      const Tensor x = Tensor::full(ctx, {batch.size(), 2}, DType::f32, 1),
                   y = Tensor::zeros(ctx, {batch.size(), 3}, DType::f32);
      return mean_squared_error(layer(batch.tape.input(x)), y);
    });
  }
  Context ctx{Device::cpu(), 1};
  nn::Parameters parameters;
  nn::Linear layer;
  train::Trainer trainer;
};
}  // namespace

TEST_CASE("P20: a checkpoint of which any single bit was changed is refused, the header's and the checksum's own included") {
  test::Rng rng(test::seed(), 1);
  const test::TemporaryFolder folder;
  Key256 root;
  for (auto& word : root.words) word = std::uint32_t(rng.bits()) | 1;
  Run run{dp::StreamKeys(root)};
  run.step();
  train::save_checkpoint(folder / "c", run.parameters, run.trainer);
  const std::string whole = test::read_text(folder / "c");
  REQUIRE(test::sealed(whole) == whole);
  const int file = ::open((folder / "c").c_str(), O_WRONLY);
  REQUIRE(file >= 0);
  int accepted = 0;
  std::string other;
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      const char changed = char(whole[at] ^ 1 << bit);
      REQUIRE(::pwrite(file, &changed, 1, off_t(at)) == 1);
      const std::string refusal = test::error_of([&] { train::read_checkpoint_header(folder / "c"); });
      if (refusal.find("expected") == std::string::npos)
        ++accepted, other += " " + std::to_string(8 * at + std::size_t(bit));
    }
    REQUIRE(::pwrite(file, &whole[at], 1, off_t(at)) == 1);
  }
  ::close(file);
  CHECK_MESSAGE(accepted == 0, "bits", other);
  // What is read is what is checked: two bits, a byte less, a byte more.
  Run fresh{dp::StreamKeys(root)};
  const auto refused = [&](const std::string& bytes) {
    test::write_text(folder / "c", bytes);
    return test::refuses([&] { train::load_checkpoint(folder / "c", fresh.parameters, fresh.trainer); }, "expected");
  };
  for (int k = 0; k < 200; ++k) {
    std::string bytes = whole;
    for (int changes = int(rng.integer(1, 3)); changes > 0; --changes)
      bytes[std::size_t(rng.integer(0, std::int64_t(bytes.size()) - 1))] ^= char(rng.integer(1, 255));
    if (bytes != whole) CHECK(refused(bytes));
  }
  CHECK(refused(whole.substr(0, whole.size() - 1)));
  CHECK(refused(whole + '\0'));
  CHECK_FALSE(refused(whole));
  CHECK(fresh.trainer.steps() == 1);
}

TEST_CASE("P20: a checkpoint of the format before, which had no checksum, still loads; with one it has to be right") {
  const test::TemporaryFolder folder;
  test::Rng rng(test::seed(), 2);
  Key256 root;
  for (auto& word : root.words) word = std::uint32_t(rng.bits()) | 1;
  Run run{dp::StreamKeys(root)};
  run.step();
  train::save_checkpoint(folder / "c", run.parameters, run.trainer);
  const std::string whole = test::read_text(folder / "c");
  const auto rewritten = [&](const std::string& format, bool checksum) {
    const interop::SafetensorsFile file(folder / "c");
    std::map<std::string, std::string> metadata = file.metadata();
    metadata["format"] = format;
    metadata.erase("checksum");
    std::vector<std::vector<char>> data;
    std::vector<interop::TensorView> views;
    for (const auto& e : file.entries()) {
      data.push_back(file.read(e.name, DType::f32, Shape(e.shape)));
      views.push_back({e.name, DType::f32, Shape(e.shape), data.back().data()});
    }
    interop::write_safetensors(folder / "x", views, metadata, FileAccess::owner_only,
                               checksum ? interop::Checksum::of_all : interop::Checksum::none);
    return folder / "x";
  };
  for (const bool checksum : {false, true}) {
    Run fresh{dp::StreamKeys(root)};
    // Of another state of the library: never the same run.
    CHECK(!train::load_checkpoint(rewritten("dpmp private run 4", checksum), fresh.parameters, fresh.trainer).same_run);
    CHECK(fresh.trainer.steps() == 1);
    CHECK(fresh.parameters.all()[0]->master().to_doubles() == run.parameters.all()[0]->master().to_doubles());
  }
  std::string damaged = test::read_text(folder / "x");
  damaged.back() ^= 1;
  test::write_text(folder / "x", damaged);
  CHECK(test::refuses([&] { train::read_checkpoint_header(folder / "x"); }, "that of other bytes"));
  CHECK(test::refuses([&] { train::read_checkpoint_header(rewritten("dpmp private run 5", false)); },
                      "expected a checksum, got none"));
  CHECK(test::refuses([&] { train::read_checkpoint_header(rewritten("dpmp private run 3", true)); }, "finish that run"));
}

TEST_CASE("safetensors: a checksum is 16 digits in the metadata, of the file with zeros in their place") {
  const test::TemporaryFolder folder;
  const float values[] = {1, 2, 3};
  const interop::TensorView view{"a", DType::f32, {3}, values};
  interop::write_safetensors(folder / "x", {&view, 1}, {{"k", "\"checksum\":\"0123456789abcdef"}}, FileAccess::by_umask,
                             interop::Checksum::of_all);
  const interop::SafetensorsFile file(folder / "x");
  CHECK(file.has_checksum());
  file.check_checksum();
  const std::string bytes = test::read_text(folder / "x");
  CHECK(test::sealed(bytes) == bytes);
  CHECK(file.metadata().at("checksum").size() == 16);
  CHECK(file.metadata().size() == 2);
  interop::write_safetensors(folder / "y", {&view, 1}, {{"k", "v"}});
  const interop::SafetensorsFile without(folder / "y");
  CHECK_FALSE(without.has_checksum());
  CHECK(test::refuses([&] { without.check_checksum(); }, "expected a checksum, got none"));
  CHECK(test::refuses(
      [&] {
        interop::write_safetensors(folder / "y", {&view, 1}, {{"checksum", "mine"}}, FileAccess::by_umask,
                                   interop::Checksum::of_all);
      },
      "expected no metadata entry 'checksum' of a file that gets one, got 'mine'"));
  // Said by somebody else.
  interop::write_safetensors(folder / "y", {&view, 1}, {{"checksum", "of another kind"}});
  CHECK(
      test::refuses([&] { interop::SafetensorsFile(folder / "y").check_checksum(); }, "as written, got 'of another kind'"));
}
