// SPDX-License-Identifier: Apache-2.0
// Logs read back: every number of both formats, what a crash and a continued run leave, and files that are no logs.
#include <doctest/doctest.h>

#include <cmath>

#include "dpmp/train/read_log.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"
#include "support/temporary_folder.hpp"

using namespace dpmp;
using train::Log;
using train::Progress;

namespace {
bool same(double x, double y) { return (std::isnan(x) && std::isnan(y)) || (x == y && std::signbit(x) == std::signbit(y)); }
bool same(const std::optional<double>& x, const std::optional<double>& y) {
  return x.has_value() == y.has_value() && (!x || same(*x, *y));
}
void check_same(const Progress& read, const Progress& written) {
  CHECK(read.step == written.step);
  CHECK(same(read.epsilon, written.epsilon));
  CHECK(same(read.delta, written.delta));
  CHECK(same(read.noise_multiplier, written.noise_multiplier));
  CHECK(same(read.learning_rate, written.learning_rate));
  CHECK(same(read.held_out_loss, written.held_out_loss));
  REQUIRE(read.more.size() == written.more.size());
  for (std::size_t k = 0; k < read.more.size(); ++k) {
    CHECK(read.more[k].first == written.more[k].first);
    CHECK(same(read.more[k].second, written.more[k].second));
  }
}
Progress random_progress(test::Rng& rng, index_t step) {
  const auto number = [&] {
    const double special[] = {INFINITY, -INFINITY, double(NAN), 0, -0.0, 5e-324, 1.7976931348623157e308};
    return rng.integer(0, 2) ? std::ldexp(rng.normal(), int(rng.integer(-60, 60))) : special[std::size_t(rng.integer(0, 6))];
  };
  const auto maybe = [&] { return rng.integer(0, 3) ? std::optional(number()) : std::nullopt; };
  Progress p{.step = step};
  p.epsilon = maybe(), p.delta = maybe(), p.noise_multiplier = maybe(), p.learning_rate = maybe(), p.held_out_loss = maybe();
  p.more = {{"bits/byte", number()}, {"a.b-c_d", number()}};
  return p;
}
}  // namespace

TEST_CASE("a log of either format is read as it was written; of steps written twice the later lines count") {
  test::Rng rng;
  for (const char* name : {"log.csv", "log.jsonl"})
    for (int trial = 0; trial < 20; ++trial) {
      const test::TemporaryFolder folder;
      const std::string path = (folder / name).string();
      std::vector<Progress> expected;
      for (int run = 0; run < 3; ++run) {
        Log log(path, {.more = {"bits/byte", "a.b-c_d"}});
        // A run that continues from a step at or before the last one.
        const index_t first = expected.empty() ? 0 : rng.integer(0, expected.back().step);
        while (!expected.empty() && expected.back().step >= first) expected.pop_back();
        for (index_t k = 0; k < 12; ++k) {
          expected.push_back(random_progress(rng, first + 3 * k));
          log.write(expected.back());
        }
      }
      const std::string whole = test::read_text(path);
      test::write_text(path,
                       whole + whole.substr(0, std::size_t(rng.integer(0, 40))).substr(0, whole.find('\n')));  // a crash
      const std::vector<Progress> read = train::read_log(path);
      REQUIRE(read.size() == expected.size());
      for (std::size_t k = 0; k < read.size(); ++k) check_same(read[k], expected[k]);
    }
}

TEST_CASE("files that are no logs are refused by the line") {
  const test::TemporaryFolder folder;
  const std::string header = "step,epsilon,delta,noise_multiplier,learning_rate,held_out_loss\n";
  const std::string json =
      "{\"step\":1,\"epsilon\":0.5,\"delta\":null,\"noise_multiplier\":null,\"learning_rate\":null,\"held_out_loss\":";
  const std::pair<std::string, const char*> cases[] = {
      {"my notes\n", "line 1"},
      {header + "1,2\n", "line 2"},
      {header + "1,,,,,\nx,,,,,\n", "line 3"},
      {header + "1,0.5x,,,,\n", "line 2"},
      {header + "-1,,,,,\n", "line 2"},
      {header + "1,0;5,,,,\n", "line 2"},
      {"step,delta,epsilon,noise_multiplier,learning_rate,held_out_loss\n1,,,,,\n", "line 2"},
      {json + "1}\n" + json + "\"a word\"}\n", "line 2"},
      {json + "1\n", "line 1"},
      {"{\"step\":1}\n", "line 1"},
      {"{}\n", "line 1"},
      {"\n", "line 1"}};
  for (const auto& [text, place] : cases) {
    CAPTURE(text);
    test::write_text(folder / "log", text);
    CHECK(test::refuses([&] { train::read_log((folder / "log").string()); }, place));
  }
  CHECK(test::refuses([&] { train::read_log((folder / "none").string()); }, "expected a log that can be read"));
  CHECK(test::refuses([&] { train::read_log(folder.path().string()); }, "expected a log that can be read"));
  test::write_text(folder / "log", "");
  CHECK(train::read_log((folder / "log").string()).empty());
  test::write_text(folder / "log", json + "1}\n");
  CHECK(train::read_log((folder / "log").string()).size() == 1);
}
