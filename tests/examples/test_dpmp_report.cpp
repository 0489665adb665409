// SPDX-License-Identifier: Apache-2.0
// dpmp-report as a user runs it: a page, an event file, and what it refuses.
#include <doctest/doctest.h>
#include <string>
#include <vector>

#include "dpmp/train/log.hpp"
#include "dpmp/train/tensorboard.hpp"
#include "support/markup.hpp"
#include "support/process.hpp"

using namespace dpmp;

namespace {
struct Outcome {
  int code;
  std::string out, error;
};
Outcome run(const test::TemporaryFolder& folder, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), DPMP_DPMP_REPORT);
  test::Process process(arguments, folder.path());
  const int code = process.wait();
  return {code, process.out(), process.error()};
}
bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
}  // namespace

TEST_CASE("dpmp-report: the page of a log, whose last line is still being written, on standard output or in a file") {
  const test::TemporaryFolder folder;
  const std::string log = (folder / "log.jsonl").string();
  std::vector<train::Progress> history;
  {
    train::Log writer(log);
    for (index_t step = 1; step <= 7; ++step) {
      history.push_back({.step = step, .epsilon = 0.25 * double(step), .held_out_loss = 3. / double(step)});
      writer.write(history.back());
    }
  }
  test::write_text(log, test::read_text(log) + "{\"step\":8,\"eps");
  const Outcome page = run(folder, {log, "--title", "a < b"});
  CHECK(page.code == 0);
  CHECK(page.error == "");
  const test::Markup markup(page.out);
  CHECK(markup.named("h1")[0].text == "a < b");
  CHECK(markup.named("figcaption").size() == 2);
  CHECK(has(page.out, "1.7500"));  // epsilon
  const std::string file = (folder / "run.html").string(), board = (folder / "runs/first").string();
  const Outcome both = run(folder, {"--title", "a < b", "--tensorboard", board, "-o", file, log});
  CHECK((both.code == 0 && both.out == "" && both.error == ""));
  CHECK(test::read_text(file) == page.out);
  CHECK(test::read_text(board + "/events.out.tfevents.log.dpmp") == train::tensorboard_events(history));
  CHECK(run(folder, {log, "--tensorboard", board}).out == "");
}

TEST_CASE("dpmp-report: what is no log or no command line") {
  const test::TemporaryFolder folder;
  const std::string log = (folder / "x.csv").string();
  test::write_text(log, "a,b\n1,2\n");
  const Outcome refused = run(folder, {log});
  CHECK(refused.code == 1);
  CHECK(refused.out == "");
  CHECK(has(refused.error, "x.csv', line 1"));
  CHECK(run(folder, {(folder / "none").string()}).code == 1);
  for (const std::vector<std::string>& line :
       std::vector<std::vector<std::string>>{{}, {log, log}, {"--frobnicate", log}, {log, "-o"}, {log, "--title"}}) {
    const Outcome usage = run(folder, line);
    CHECK(usage.code == 2);
    CHECK(has(usage.error, "usage: dpmp-report"));
  }
  const Outcome help = run(folder, {"--help"});
  CHECK((help.code == 0 && help.error == "" && help.out.starts_with("usage: dpmp-report")));
  test::write_text(log, "step,epsilon,delta,noise_multiplier,learning_rate,held_out_loss\n1,,,,,2\n");
  CHECK(run(folder, {log, "-o", (folder / "none/x.html").string()}).code == 1);
  CHECK(run(folder, {log, "--tensorboard", log}).code == 1);
}
