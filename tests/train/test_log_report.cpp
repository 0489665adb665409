// SPDX-License-Identifier: Apache-2.0
// The page of a log: well-formed, with a plot for each public number and none for others, at any time of a run, and of logs
// that hold anything.
#include <doctest/doctest.h>
#include <cmath>
#include <string>
#include <vector>

#include "dpmp/train/log_report.hpp"
#include "dpmp/train/read_log.hpp"
#include "support/markup.hpp"
#include "support/random.hpp"
#include "support/temporary_folder.hpp"

using namespace dpmp;
using train::Progress;

namespace {
std::vector<std::string> texts_of(const std::string& page, const std::string& element) {
  std::vector<std::string> texts;
  for (const test::Element& e : test::Markup(page).named(element)) texts.push_back(e.text);
  return texts;
}
using Texts = std::vector<std::string>;
bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
}  // namespace

TEST_CASE("the page of a private run's log has its public numbers, bounds rounded up, and leaves the others out") {
  std::vector<Progress> history;
  for (index_t step = 1; step <= 100; ++step)
    history.push_back({.step = step,
                       .epsilon = 0.123456789 * std::sqrt(double(step)),
                       .delta = 1. / 300000,
                       .noise_multiplier = 1.23456789,
                       .learning_rate = 0.5,
                       .more = {{"bits/byte", 3.}, {"unsafe_drawn", 777.125}, {"records_per_second", 888.125}}});
  history[70].held_out_loss = 2.5;
  const std::string page = train::log_report_html(history, "a <b> & \"c\"");
  CHECK(texts_of(page, "h1") == Texts{"a <b> & \"c\""});
  CHECK(texts_of(page, "figcaption") ==
        Texts{"Epsilon against steps", "Held-out loss", "bits/byte", "Learning rate", "Noise multiplier"});
  CHECK(texts_of(page, "dd") ==
        Texts{"100the last in the log", "1.2346at delta = 3.33334e-06", "1.2345of the last step", "2.5after 71 steps"});
  CHECK(has(page, "Log of a private run"));
  CHECK(has(page, "Left out:"));
  for (const char* part : {"777.125", "888.125", "unsafe_", "records_per_second", "Throughput", "script", "href"})
    CHECK_MESSAGE(!has(page, part), part);
}

TEST_CASE("the page of other logs: without privacy, of one line, of none, and with numbers and names of any kind") {
  std::vector<Progress> history{{.step = 3, .held_out_loss = 2., .more = {{"records_per_second", 50.}}}};
  const std::string page = train::log_report_html(history);
  CHECK(texts_of(page, "figcaption") == Texts{"Held-out loss", "Throughput"});
  CHECK(has(page, "guarantees nothing"));
  CHECK_FALSE(has(page, "Left out"));
  CHECK(has(train::log_report_html({}), "no lines yet"));
  CHECK(texts_of(train::log_report_html({}), "h1") == Texts{"Training run"});
  test::Rng rng;
  const double special[] = {INFINITY, -INFINITY, double(NAN), 0, -0.0, 5e-324, -1, 1e308, -1e308, 1e-300, 0.5};
  for (int trial = 0; trial < 100; ++trial) {
    history.clear();
    for (index_t step = 0; step < 4; ++step) {
      const auto number = [&] { return special[std::size_t(rng.integer(0, std::int64_t(std::size(special)) - 1))]; };
      Progress p{.step = step * (trial % 2 ? 1 : index_t(1) << 60)};
      for (auto* fact : {&p.epsilon, &p.delta, &p.noise_multiplier, &p.learning_rate, &p.held_out_loss})
        if (rng.integer(0, 2)) *fact = number();
      p.more = {{"<script>&\"'", number()}, {"\xff\x01", number()}};
      history.push_back(p);
    }
    CHECK_FALSE(has(train::log_report_html(history), "<script>"));
    CHECK(texts_of(train::log_report_html(history), "h2") == Texts{"The run"});
  }
}

TEST_CASE("a log that is being written makes a page at any byte") {
  const test::TemporaryFolder folder;
  for (const char* name : {"x.jsonl", "x.csv"}) {
    {
      train::Log log((folder / name).string());
      for (index_t step = 0; step < 5; ++step) log.write({.step = step, .epsilon = 0.5, .held_out_loss = 1. / 3});
    }
    const std::string text = test::read_text(folder / name);
    for (std::size_t length = 0; length <= text.size(); length += 1 + length / 50) {
      test::write_text(folder / "cut", text.substr(0, length));
      const auto history = train::read_log((folder / "cut").string());
      CHECK(test::Markup(train::log_report_html(history)).named("h1").size() == 1);
    }
  }
}
