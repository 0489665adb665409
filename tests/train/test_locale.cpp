// SPDX-License-Identifier: Apache-2.0
// Programs set locales for their users. What the library says in numbers is the same in all of them: statements are
// published, plans compared, fingerprints hashed, errors searched for.
#include <doctest/doctest.h>

#include <cstdio>
#include <regex>

#include "dpmp/dp/audit_note.hpp"
#include "dpmp/dp/report_json.hpp"
#include "dpmp/train/checkpoint.hpp"
#include "dpmp/train/read_log.hpp"
#include "dpmp/train/report.hpp"
#include "support/errors.hpp"
#include "support/german.hpp"
#include "support/source_folder.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;

namespace {
/// Plans of every kind, with numbers that a locale would group and point differently.
std::vector<dp::Plan> plans() {
  const dp::PlanOptions plain{.delta = 1.5e-5, .sampling_rate = 0.0125, .steps = 12345, .dataset_size = 1234567};
  std::vector<dp::PlanOptions> kinds(6, plain);
  kinds[0].clip_threshold = 1234.5;
  kinds[1].group_thresholds = {1234.5, 0.25};
  kinds[1].clip_rule = dp::ClipRule::automatic(0.0125);
  kinds[2].adaptive =
      dp::AdaptiveOptions{.quantile = 0.75, .learning_rate = 0.25, .count_noise = 1234.5, .initial_threshold = 0.125};
  kinds[3].noise_schedule = dp::Schedule::piecewise({{0, 1.5}, {10000, 0.75}});
  kinds[3].relation = dp::NeighbouringRelation::zero_out;
  kinds[4].sampling_rate = 0;
  kinds[4].relation = dp::NeighbouringRelation::replace_one;
  kinds[4].sampling = {.kind = dp::SamplingKind::without_replacement, .batch_size = 12345};
  kinds[5].overflow = dp::OverflowOptions{.count_noise = 124.5};
  std::vector<dp::Plan> all;
  for (const dp::PlanOptions& o : kinds) all.push_back(dp::Plan::with_noise_multiplier(o, 1.125));
  dp::PlanOptions calibrated = plain;
  calibrated.epsilon = 2.5;
  all.push_back(dp::Plan::calibrate(calibrated));
  return all;
}

/// All that a run says, and what it writes and reads again.
std::vector<std::string> said(Context& ctx, const std::filesystem::path& folder) {
  std::vector<std::string> texts;
  const train::Progress progress = [] {
    train::Progress p{
        .step = 12345, .steps = 1234567, .epsilon = 1234.5, .delta = 1e-5, .learning_rate = 0.0125, .held_out_loss = 2.5};
    p.more = {{"bits/byte", 1234567.25}};
    return p;
  }();
  for (const dp::Plan& plan : plans()) {
    const dp::Plan read = dp::Plan::from_text(plan.text());
    CHECK(read == plan);
    dp::PlanText other = plan.text();
    other["delta"] = "none";
    texts.push_back(plan.describe());
    texts.push_back(dp::privacy_statement(plan, 10000, {.other_noise_since = 1234}));
    texts.push_back(dp::difference(plan.text(), other));
    texts.push_back(dp::report_json(plan, 10000));
  }
  texts.push_back(train::report_html(plans()[1], 10000, {}, std::vector{progress}));
  texts.push_back(dp::audit_in_words(
      {.canaries = 12345, .steps = 1234, .claimed_epsilon = 2.5, .delta = 1e-5, .epsilon = 0.75, .confidence = 0.95}));

  texts.push_back(train::progress_text(progress));
  for (const char* name : {"log.csv", "log.jsonl"}) {
    const std::string log = (folder / name).string();
    train::Log(log, {.more = {"bits/byte"}}).write(progress);
    texts.push_back(test::read_text(log));
    const std::vector<train::Progress> read = train::read_log(log);
    REQUIRE(read.size() == 1);
    CHECK((read[0].epsilon == progress.epsilon && read[0].learning_rate == progress.learning_rate &&
           read[0].more == progress.more));
  }

  test::Rng rng(7);
  const dp::StreamKeys keys = test::random_keys(rng);
  test::TinyTraining run(ctx, DType::f32), resumed_run(ctx, DType::f32);
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
  const auto trainer = trainer_of(run), resumed = trainer_of(resumed_run);
  texts.insert(texts.end(), {trainer->privacy_statement(), trainer->fingerprint(), trainer->description(),
                             trainer->validate(run.losses()).text()});
  trainer->step(run.losses());
  train::save_checkpoint(folder / "checkpoint", run.model.parameters(), *trainer);
  train::load_checkpoint(folder / "checkpoint", resumed_run.model.parameters(), *resumed);
  train::write_report(folder / "report.html", *resumed, {});
  texts.push_back(resumed->privacy_statement());
  texts.push_back(test::error_of([&] { DPMP_CHECK(false, "expected ", 1234567, ", got ", 0.5, " of ", Shape{4096, 2}); }));
  texts.push_back(test::error_of([&] { ctx.allocate(index_t(1) << 62); }));
  texts.push_back(test::error_of([&] { dp::Plan::with_noise_multiplier({.delta = 1234.5}, 1); }));
  for (const char* name : {"checkpoint", "report.html"}) texts.push_back(test::read_text(folder / name));
  return texts;
}
}  // namespace

TEST_CASE("statements, plans, reports, logs, files and errors have the same numbers in every locale") {
  Context ctx(Device::cpu(), 1);
  const test::TemporaryFolder plain, german;
  const std::vector<std::string> plainly = said(ctx, plain.path());
  std::vector<std::string> in_german;
  {
    const test::German program;
    std::ostringstream check;
    check << 12345.5;
    REQUIRE(check.str() == "12.345,5");
    if (program.in_c()) {
      char text[32];
      std::snprintf(text, sizeof text, "%.1f", 0.5);
      REQUIRE(std::string(text) == "0,5");
    } else {
      MESSAGE("C's half is skipped: there is no German locale, and no localedef to make one");
    }
    in_german = said(ctx, german.path());
  }
  REQUIRE(plainly.size() == in_german.size());
  for (std::size_t k = 0; k < plainly.size(); ++k) CHECK(plainly[k] == in_german[k]);
  const auto any = [&](const std::string& part) {
    return std::any_of(plainly.begin(), plainly.end(),
                       [&](const std::string& text) { return text.find(part) != std::string::npos; });
  };
  CHECK(any("expected 1234567, got 0.5 of [4096, 2]"));
  CHECK(any("a delta in (0, 1), got 1234.5"));
}

TEST_CASE("what a locale changes stands in few places of the library, each of them with a locale of its own or no numbers") {
  // Streams of text take the global locale of C++, printf, strtod and what is made of them C's. to_string is for integers.
  const std::regex dependent(
      "(^|[^a-zA-Z_])(w?[io]?stringstream|[fsn]*printf|[fs]*scanf|strto(f|d|ld)|ato[fil]|sto(f|d|ld)|put_money|setlocale|"
      "tolower|toupper|is(alpha|alnum|space|punct))( |\\(|<|;|\\{)");
  const std::map<std::string, std::string> known{{"dpmp/core/error.hpp", "TextStream, with the classic locale"},
                                                 {"dpmp/dp/rounded_text.hpp", "reads back with the classic locale"},
                                                 {"dpmp/interop/text_records.hpp", "the bytes of a file"},
                                                 {"dpmp/train/run_fingerprint.hpp", "lines of text"}};
  std::map<std::string, std::string> found;
  const std::filesystem::path include = test::source_folder() / "include";
  for (const auto& entry : std::filesystem::recursive_directory_iterator(include)) {
    if (!entry.is_regular_file()) continue;
    const std::string name = std::filesystem::relative(entry.path(), include).generic_string();
    std::ifstream in(entry.path());
    for (std::string line; std::getline(in, line);)
      if (std::regex_search(line.substr(0, line.find("//")), dependent)) found[name] = line;
  }
  for (const auto& [name, line] : found) CHECK_MESSAGE(known.contains(name), name << ": " << line);
  for (const auto& [name, why] : known) CHECK_MESSAGE(found.contains(name), name << " has nothing of the kind any more");
}
