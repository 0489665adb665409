// SPDX-License-Identifier: Apache-2.0
// Logs and progress lines: what is read back is what was written, in any locale; what a crash, a resumed run and a full disk
// leave; and that nothing private and no time is in it.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "dpmp/train/log.hpp"
#include "support/errors.hpp"
#include "support/german.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using train::Log;
using train::Progress;

namespace {
const std::vector<std::string> own_names{"accuracy", "bits/byte"};
/// Any doubles, those that are not finite and not there among them.
Progress random_progress(test::Rng& rng, index_t step) {
  const auto number = [&]() -> double {
    const double special[] = {INFINITY, -INFINITY, double(NAN), -double(NAN), 0, -0.0, 5e-324, 1.7976931348623157e308, 1e22};
    if (rng.integer(0, 2) == 0) return special[std::size_t(rng.integer(0, 8))];
    return std::ldexp(rng.normal(), int(rng.integer(-60, 60)));
  };
  const auto maybe = [&] { return rng.integer(0, 3) ? std::optional(number()) : std::nullopt; };
  Progress p{.step = step, .steps = 1000, .epsilon = maybe(), .delta = maybe(), .noise_multiplier = maybe()};
  p.learning_rate = maybe();
  p.held_out_loss = maybe();
  for (const std::string& name : own_names) p.more.emplace_back(name, number());
  return p;
}
/// What a line has to say, by name.
std::vector<std::pair<std::string, std::optional<double>>> facts_of(const Progress& p) {
  std::vector<std::pair<std::string, std::optional<double>>> facts{{"step", double(p.step)},
                                                                   {"epsilon", p.epsilon},
                                                                   {"delta", p.delta},
                                                                   {"noise_multiplier", p.noise_multiplier},
                                                                   {"learning_rate", p.learning_rate},
                                                                   {"held_out_loss", p.held_out_loss}};
  for (const auto& [name, value] : p.more) facts.emplace_back(name, value);
  return facts;
}
bool same(double x, double y) { return (std::isnan(x) && std::isnan(y)) || (x == y && std::signbit(x) == std::signbit(y)); }
double read_number(const std::string& text) {
  if (text == "nan") return NAN;
  if (text == "inf") return INFINITY;
  if (text == "-inf") return -INFINITY;
  double x = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), x);
  REQUIRE((error == std::errc() && end == text.data() + text.size()));
  return x;
}
void check_json_line(const std::string& line, const Progress& p) {
  const auto json = nlohmann::ordered_json::parse(line);
  const auto facts = facts_of(p);
  REQUIRE(json.size() == facts.size());
  std::size_t k = 0;
  for (const auto& [name, value] : json.items()) {
    CHECK(name == facts[k].first);
    if (k == 0) CHECK(value.is_number_integer());
    if (!facts[k].second) {
      CHECK(value.is_null());
    } else if (std::isfinite(*facts[k].second)) {
      REQUIRE(value.is_number());
      CHECK(same(value.get<double>(), *facts[k].second));
    } else {
      REQUIRE(value.is_string());
      CHECK(same(read_number(value.get<std::string>()), *facts[k].second));
    }
    ++k;
  }
}
std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts{""};
  for (const char c : text) {
    if (c == at)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}
void check_csv_line(const std::string& line, const Progress& p) {
  const auto fields = split(line, ',');
  const auto facts = facts_of(p);
  REQUIRE(fields.size() == facts.size());
  CHECK(fields[0] == std::to_string(p.step));
  for (std::size_t k = 0; k < facts.size(); ++k) {
    if (facts[k].second)
      CHECK(same(read_number(fields[k]), *facts[k].second));
    else
      CHECK(fields[k].empty());
  }
}
const std::string header = "step,epsilon,delta,noise_multiplier,learning_rate,held_out_loss,accuracy,bits/byte\n";
/// The lines of a file, all of them whole.
std::vector<std::string> lines_of(const std::filesystem::path& file) {
  const std::string text = test::read_text(file);
  REQUIRE((text.empty() || text.back() == '\n'));
  auto lines = split(text, '\n');
  lines.pop_back();
  return lines;
}
}  // namespace

TEST_CASE("a log is read back as it was written, number by number, whatever the locale, over several runs") {
  test::Rng rng;
  for (const bool german : {false, true})
    for (const char* name : {"log.csv", "log.jsonl", "log.ndjson", "log.json"}) {
      CAPTURE(name);
      const test::TemporaryFolder folder;
      const bool csv = std::string(name) == "log.csv";
      std::vector<Progress> written;
      {
        std::optional<test::German> locale;
        if (german) locale.emplace();
        for (int run = 0; run < 3; ++run) {
          Log log((folder / name).string(), {.more = own_names});
          for (int k = 0; k < 40; ++k) {
            written.push_back(random_progress(rng, 1000 * index_t(written.size()) + 1234567));
            log.write(written.back());
          }
        }
      }
      std::vector<std::string> lines = lines_of(folder / name);
      if (csv) {
        CHECK(lines[0] + "\n" == header);
        lines.erase(lines.begin());
      }
      REQUIRE(lines.size() == written.size());
      for (std::size_t k = 0; k < lines.size(); ++k) (csv ? check_csv_line : check_json_line)(lines[k], written[k]);
    }
}

TEST_CASE("a format may be said, and a log without names of its own has the public facts alone") {
  const test::TemporaryFolder folder;
  Log((folder / "a.txt").string(), {.format = train::LogFormat::json_lines}).write({.step = 3, .epsilon = 0.5});
  CHECK(test::read_text(folder / "a.txt") ==
        "{\"step\":3,\"epsilon\":0.5,\"delta\":null,\"noise_multiplier\":null,\"learning_rate\":null,\"held_out_loss\":null}"
        "\n");
  Log((folder / "b.log").string(), {.format = train::LogFormat::csv}).write({.step = 3, .delta = 1e-5});
  CHECK(test::read_text(folder / "b.log") ==
        "step,epsilon,delta,noise_multiplier,learning_rate,held_out_loss\n3,,1e-05,,,\n");
}

TEST_CASE("what a crash left of a line is dropped when the log goes on, wherever it was cut") {
  test::Rng rng;
  for (const char* name : {"log.csv", "log.jsonl"}) {
    const test::TemporaryFolder folder;
    const bool csv = std::string(name) == "log.csv";
    std::vector<Progress> written;
    for (int k = 0; k < 3; ++k) written.push_back(random_progress(rng, k));
    {
      Log log((folder / name).string(), {.more = own_names});
      for (const Progress& p : written) log.write(p);
    }
    const std::string whole = test::read_text(folder / name);
    for (std::size_t cut = 0; cut <= whole.size(); ++cut) {
      CAPTURE(cut);
      test::write_text(folder / name, whole.substr(0, cut));
      const Progress next = random_progress(rng, 9);
      Log((folder / name).string(), {.more = own_names}).write(next);
      std::vector<std::string> lines = lines_of(folder / name);
      std::size_t kept = std::size_t(std::count(whole.begin(), whole.begin() + std::ptrdiff_t(cut), '\n'));
      if (csv) {
        CHECK(lines[0] + "\n" == header);
        lines.erase(lines.begin());
        kept -= kept > 0;
      }
      REQUIRE(lines.size() == kept + 1);
      for (std::size_t k = 0; k < kept; ++k) (csv ? check_csv_line : check_json_line)(lines[k], written[k]);
      (csv ? check_csv_line : check_json_line)(lines[kept], next);
    }
  }
}

TEST_CASE("a disk that is full in the middle of a line is an error, and leaves the lines before it") {
  const test::TemporaryFolder folder;
  const std::string path = (folder / "log.jsonl").string();
  Log log(path);
  log.write({.step = 1});
  const std::string before = test::read_text(path);
  // A limit on the length of files, which a write meets half way.
  struct rlimit was {};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &was) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit few = was;
  few.rlim_cur = before.size() + 10;
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &few) == 0);
  const std::string error = test::error_of([&] { log.write({.step = 2}); });
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &was) == 0);
  std::signal(SIGXFSZ, handler);
  CHECK(error.find("expected room for a line") != std::string::npos);
  CHECK(test::read_text(path) == before);
  log.write({.step = 2});
  CHECK(lines_of(path).size() == 2);
}

TEST_CASE("bad input: files of something else, names, formats and numbers that do not fit") {
  const test::TemporaryFolder folder;
  const auto at = [&](const char* name) { return (folder / name).string(); };
  const auto refused = [&](const std::string& path, const train::LogOptions& options, const char* part) {
    return test::refuses([&] { Log log(path, options); }, part);
  };
  CHECK(refused(at("log.txt"), {}, "expected a log that ends with .csv, .jsonl, .ndjson or .json"));
  CHECK_FALSE(std::filesystem::exists(folder / "log.txt"));
  CHECK(refused(at("no/log.csv"), {}, "expected a file that can be written to: "));
  CHECK(refused(folder.path().string(), {.format = train::LogFormat::csv}, "expected a file that can be written to"));
  for (const char* name : {"", "a b", "a,b", "a\"b", "a\nb", "step", "epsilon", "x\xc3\xa4"})
    CHECK(refused(at("n.csv"), {.more = {name}}, "expected new names"));
  CHECK(refused(at("n.csv"), {.more = {"x", "x"}}, "got 'x'"));
  for (const std::string text : {"my only copy", "my only copy\nof something", "step,epsilon\n1,2\n", "{\"step\":1}\n"}) {
    test::write_text(folder / "mine.csv", text);
    CHECK(refused(at("mine.csv"), {}, "expected a log that begins with 'step,epsilon,delta"));
    CHECK(test::read_text(folder / "mine.csv") == text);
  }
  test::write_text(folder / "mine.jsonl", "{\"weights\":1}\n{\"step\":");
  CHECK(refused(at("mine.jsonl"), {}, "got '{\"weights\":1}'"));
  CHECK(test::read_text(folder / "mine.jsonl") == "{\"weights\":1}\n{\"step\":");
  Log log(at("log.csv"), {.more = {"accuracy"}});
  CHECK(refused(at("log.csv"), {.more = {"f1"}}, "held_out_loss,f1', got 'step,"));
  const std::string before = test::read_text(folder / "log.csv");
  CHECK(test::refuses([&] { log.write({.step = 1}); }, "expected 1 numbers of the log's own names, got 0"));
  CHECK(test::refuses(
      [&] {
        log.write({.step = 1, .more = {{"loss", 1}}});
      },
      "expected the number 'accuracy' in the log, got 'loss'"));
  CHECK(test::read_text(folder / "log.csv") == before);
}

TEST_CASE("P10: the progress of a trainer is its plan's numbers, the schedule's rate and a public loss, and nothing else") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  test::TinyTraining run(ctx, DType::f32);
  dp::PlanOptions options{
      .delta = 1e-5, .sampling_rate = 0.5, .steps = 3, .clip_threshold = 1, .dataset_size = run.records()};
  options.noise_schedule = dp::Schedule::linear(2, 1, 3, 3);
  const auto plan = dp::Plan::with_noise_multiplier(options, 1.5);
  const auto rates = optim::LearningRate([](index_t step) { return 0.5 / double(step + 1); });
  train::Trainer trainer(ctx, run.model.parameters(), plan, test::random_keys(rng), run.records(), {.learning_rate = rates});
  for (index_t step = 0; step <= 3; ++step) {
    const Progress p = train::progress_of(trainer, rates, 2.25);
    const index_t last = std::max<index_t>(step - 1, 0);
    CHECK(p.step == step);
    CHECK(p.steps == 3);
    CHECK(*p.epsilon == plan.epsilon_after(step));
    CHECK(*p.delta == 1e-5);
    CHECK(*p.noise_multiplier == 1.5 * plan.options().noise_schedule.at(last));
    CHECK(*p.learning_rate == 0.5 / double(last + 1));
    CHECK(*p.held_out_loss == 2.25);
    CHECK(p.more.empty());
    if (step < 3) trainer.step(run.losses());
  }
  const train::Trainer plain(ctx, run.model.parameters(), train::NoPrivacy{0.5}, test::random_keys(rng), run.records());
  const Progress p = train::progress_of(plain, rates);
  CHECK_FALSE((p.epsilon || p.delta || p.noise_multiplier || p.held_out_loss));
}

TEST_CASE("the text of progress: epsilon rounded up, none without privacy, a point in every locale") {
  const test::German locale;
  Progress p{.step = 10, .steps = 1600, .epsilon = 1.2341, .learning_rate = 0.004, .held_out_loss = 3.21};
  p.more = {{"bits/byte", 4.632}};
  CHECK(train::progress_text(p) ==
        "step   10/1600  held-out loss 3.210  4.632 bits/byte  epsilon 1.235  learning rate 0.004");
  CHECK(train::progress_text({.step = 12345}) == "step 12345  epsilon none");
  CHECK(train::progress_text({.step = 2, .epsilon = INFINITY, .held_out_loss = 1e308}).ends_with("epsilon inf"));
}

TEST_CASE("a progress line: on a terminal each text covers the last one, elsewhere only what stays is there") {
  const test::TemporaryFolder folder;
  for (const bool terminal : {false, true}) {
    const auto file = folder / (terminal ? "terminal" : "file");
    const int descriptor = ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    REQUIRE(descriptor >= 0);
    {
      train::ProgressLine line(descriptor, terminal);
      CHECK(line.terminal() == terminal);
      line.show("step 1, longer");
      line.show("step 2");
      line.keep("step 3");
      line.show("step 4");
    }
    ::close(descriptor);
    CHECK(test::read_text(file) == (terminal ? "\rstep 1, longer\rstep 2        \rstep 3\n\rstep 4\n" : "step 3\n"));
  }
}
