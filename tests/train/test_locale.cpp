// SPDX-License-Identifier: Apache-2.0
// Programs set locales for their users. What the library says in numbers is the same in all of them: statements are
// published, plans compared, fingerprints hashed, errors searched for.
#include <doctest/doctest.h>

#include <clocale>
#include <locale>

#include "dpmp/train/checkpoint.hpp"
#include "support/errors.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;

namespace {
/// 1.234.567,5
struct German : std::numpunct<char> {
  char do_decimal_point() const override { return ','; }
  char do_thousands_sep() const override { return '.'; }
  std::string do_grouping() const override { return "\3"; }
};
class GermanProgram {
 public:
  GermanProgram() : before_(std::locale::global(std::locale(std::locale::classic(), new German))) {
    // The C library's, where the machine has one.
    if (const char* old = std::setlocale(LC_NUMERIC, nullptr)) c_before_ = old;
    for (const char* name : {"de_DE.UTF-8", "de_DE.utf8", "de_DE", "fr_FR.UTF-8"})
      if (std::setlocale(LC_NUMERIC, name)) break;
  }
  ~GermanProgram() {
    std::locale::global(before_);
    std::setlocale(LC_NUMERIC, c_before_.c_str());
  }

 private:
  std::locale before_;
  std::string c_before_ = "C";
};

/// All that a run says, and what it writes and reads again.
std::vector<std::string> said(Context& ctx, const std::filesystem::path& checkpoint) {
  test::Rng rng(7);
  const dp::StreamKeys keys = test::random_keys(rng);
  test::TinyTraining run(ctx, DType::f32), other(ctx, DType::f32);
  const dp::Plan plan = dp::Plan::with_noise_multiplier(
      {.delta = 1e-5, .sampling_rate = 0.25, .steps = 12345, .clip_threshold = 1234.5, .dataset_size = run.records()},
      1.125);
  const auto trainer_of = [&](test::TinyTraining& training) {
    return std::make_unique<train::Trainer>(ctx, training.model.parameters(), plan, keys, training.records(),
                                            train::TrainerOptions{.physical_batch = 4,
                                                                  .optimiser = optim::Sgd{},
                                                                  .learning_rate = optim::LearningRate::constant(0.5),
                                                                  .data_fingerprint = 1234567});
  };
  const auto trainer = trainer_of(run), resumed = trainer_of(other);
  std::vector<std::string> texts{plan.describe(), trainer->privacy_statement(), trainer->fingerprint(),
                                 trainer->validate(run.losses()).text()};
  trainer->step(run.losses());
  train::save_checkpoint(checkpoint, run.model.parameters(), *trainer);
  train::load_checkpoint(checkpoint, other.model.parameters(), *resumed);
  texts.push_back(resumed->privacy_statement());
  texts.push_back(test::error_of([&] { DPMP_CHECK(false, "expected ", 1234567, ", got ", 0.5, " of ", Shape{4096, 2}); }));
  texts.push_back(test::error_of([&] { ctx.allocate(index_t(1) << 62); }));
  return texts;
}
}  // namespace

TEST_CASE("statements, plans, reports, fingerprints and errors have the same numbers in every locale") {
  Context ctx(Device::cpu(), 1);
  const test::TemporaryFolder folder;
  const std::vector<std::string> plainly = said(ctx, folder / "plain");
  std::vector<std::string> in_german;
  {
    const GermanProgram german;
    std::ostringstream check;
    check << 1234567.5;
    REQUIRE(check.str().find(',') != std::string::npos);
    in_german = said(ctx, folder / "german");
  }
  REQUIRE(plainly.size() == in_german.size());
  for (std::size_t k = 0; k < plainly.size(); ++k) CHECK(plainly[k] == in_german[k]);
  CHECK(plainly[5].find("expected 1234567, got 0.5 of [4096, 2]") != std::string::npos);
  // One program's file is the other's.
  CHECK(test::read_text(folder / "plain") == test::read_text(folder / "german"));
}
