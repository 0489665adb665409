// SPDX-License-Identifier: Apache-2.0
// Plans of every kind: as numbers and back, what differs, and in words.
#include <doctest/doctest.h>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <vector>

#include "dpmp/dp/statement.hpp"
#include "support/random.hpp"

using namespace dpmp;
using dp::ClipRule;
using dp::Plan;
using dp::PlanNumbers;
using dp::PlanOptions;
using dp::Schedule;

namespace {
PlanOptions options() { return {.delta = 1e-5, .sampling_rate = 0.02, .steps = 50, .dataset_size = 2000}; }
double my_rule(double n) { return 1 / (1 + n); }

struct Kind {
  const char* name;
  PlanOptions options;
};
std::vector<Kind> kinds() {
  const Schedule steps = Schedule::piecewise({{0, 1.0}, {10, 0.5}, {40, 0.25}});
  const dp::AdaptiveOptions adaptive{.quantile = 0.7, .learning_rate = 0.1, .count_noise = 5, .initial_threshold = 0.125};
  std::vector<Kind> r{{"flat", options()}};
  const auto add = [&](const char* name, auto change) { change(r.emplace_back(Kind{name, options()}).options); };
  add("automatic", [](PlanOptions& o) { o.clip_rule = ClipRule::automatic(0.05), o.clip_threshold = 0.3; });
  add("normalise", [](PlanOptions& o) { o.clip_rule = ClipRule::normalise(); });
  add("global", [](PlanOptions& o) { o.clip_rule = ClipRule::global(7.5), o.clip_threshold = 2; });
  add("custom", [](PlanOptions& o) { o.clip_rule = ClipRule::custom("my rule, version 2", my_rule); });
  add("groups", [](PlanOptions& o) { o.group_thresholds = {0.5, 0.25, 1.5}; });
  add("adaptive", [&](PlanOptions& o) { o.adaptive = adaptive; });
  add("schedules", [&](PlanOptions& o) {
    o.clip_schedule = steps;
    o.noise_schedule = Schedule::linear(1, 0.75, 50, 3);
  });
  add("grouped schedules", [&](PlanOptions& o) {
    o.group_thresholds = {0.5, 0.25};
    o.clip_rule = ClipRule::automatic();
    o.clip_schedule = steps;
  });
  add("adaptive, scheduled noise", [&](PlanOptions& o) {
    o.adaptive = adaptive;
    o.noise_schedule = steps;
    o.clip_rule = ClipRule::custom("my rule, version 2", my_rule);
  });
  return r;
}
/// Through names and 64-bit patterns, as a checkpoint does it.
std::map<std::string, std::uint64_t> stored(const PlanNumbers& numbers) {
  std::map<std::string, std::uint64_t> r;
  dp::for_each_number(numbers, [&](const char* name, const auto& value) {
    INFO(name);
    CHECK_FALSE(r.contains(name));
    std::memcpy(&r[name], &value, 8);
  });
  return r;
}
PlanNumbers read_back(const std::map<std::string, std::uint64_t>& numbers) {
  PlanNumbers r;
  std::size_t seen = 0;
  dp::for_each_number(r, [&](const char* name, auto& value) {
    REQUIRE(numbers.contains(name));
    std::memcpy(&value, &numbers.at(name), 8);
    ++seen;
  });
  CHECK(seen == numbers.size());
  return r;
}
Plan plan_from(const PlanNumbers& numbers, const ClipRule& rule) {
  return rule.kind() == ClipRule::Kind::custom ? Plan::from_numbers(numbers, rule) : Plan::from_numbers(numbers);
}
}  // namespace

TEST_CASE("P20: plans of every kind survive as numbers, bit for bit, and act the same") {
  for (const Kind& kind : kinds()) {
    INFO(kind.name);
    for (bool calibrated : {false, true}) {
      PlanOptions o = kind.options;
      o.epsilon = calibrated ? 2 : 0;
      const Plan plan = calibrated ? Plan::calibrate(o) : Plan::with_noise_multiplier(o, 1.25);
      const PlanNumbers numbers = read_back(stored(plan.numbers()));
      CHECK(numbers == plan.numbers());
      CHECK(dp::difference(numbers, plan.numbers()).empty());
      const Plan again = plan_from(numbers, o.clip_rule);
      CHECK(again == plan);
      CHECK(again.describe() == plan.describe());
      CHECK(again.epsilon_after(33) == plan.epsilon_after(33));
      if (calibrated) CHECK((plan.epsilon() <= 2 && plan.epsilon() >= 2 - 1e-3));
      const double threshold = plan.adaptive() ? 0.3 : 0;
      for (index_t t : {0, 9, 10, 49}) {
        const dp::StepNumbers a = plan.at(t, threshold), b = again.at(t, threshold);
        CHECK(a.noise_standard_deviation == b.noise_standard_deviation);
        CHECK(a.noise_multiplier == b.noise_multiplier);
        REQUIRE(a.groups.size() == b.groups.size());
        CHECK(index_t(a.groups.size()) == plan.groups());
        const std::vector<double> norms{0, 0.1, 1, 10};
        std::vector<float> c(4), d(4);
        for (std::size_t g = 0; g < a.groups.size(); ++g) {
          a.groups[g].factors(norms, std::vector<std::uint8_t>(4, 1), c);
          b.groups[g].factors(norms, std::vector<std::uint8_t>(4, 1), d);
          CHECK(c == d);
        }
      }
    }
  }
}

TEST_CASE("P20: plans of different kinds differ, and every changed number is refused or named") {
  const auto all = kinds();
  for (std::size_t i = 0; i < all.size(); ++i)
    for (std::size_t j = 0; j < all.size(); ++j) {
      const Plan x = Plan::with_noise_multiplier(all[i].options, 1), y = Plan::with_noise_multiplier(all[j].options, 1);
      CHECK((x == y) == (i == j));
      CHECK(dp::difference(x.numbers(), y.numbers()).empty() == (i == j));
    }
  for (const Kind& kind : all) {
    INFO(kind.name);
    const Plan plan = Plan::with_noise_multiplier(kind.options, 1);
    const auto entries = stored(plan.numbers());
    for (const auto& entry : entries) {
      const std::string& name = entry.first;
      INFO(name);
      // Counts decide which entries there are; the others are changed one at a time.
      if (name.ends_with(" count") || name == "adaptive") continue;
      auto changed = entries;
      changed[name] = entry.second + 1;
      PlanNumbers numbers;
      try {
        numbers = read_back(changed);
      } catch (const Error&) {
        continue;  // a code out of range
      }
      const std::string line = dp::difference(plan.numbers(), numbers);
      CHECK(line.starts_with(name + ": "));
      CHECK(std::count(line.begin(), line.end(), '\n') == 1);
      const auto same_plan = [&] {
        try {
          return plan_from(numbers, kind.options.clip_rule) == plan;
        } catch (const Error&) {
          return false;
        }
      };
      CHECK_FALSE(same_plan());
    }
  }
}

TEST_CASE("P20: difference names entries that only one plan has") {
  PlanOptions a = options(), b = options();
  a.group_thresholds = {0.5, 0.25};
  b.clip_schedule = Schedule::piecewise({{0, 1.0}, {7, 2.0}});
  const std::string text =
      dp::difference(Plan::with_noise_multiplier(a, 1).numbers(), Plan::with_noise_multiplier(b, 1).numbers());
  for (const char* line :
       {"group count: 2, 0\n", "group 0 threshold: 0.5, none\n", "group 1 threshold: 0.25, none\n",
        "clip schedule count: 1, 2\n", "clip schedule 1 step: none, 7\n", "clip schedule 1 value: none, 2\n"}) {
    INFO(line);
    CHECK(text.find(line) != std::string::npos);
  }
  CHECK(text.find("noise schedule") == std::string::npos);
}

TEST_CASE("P20: a custom rule must be given again, under its name") {
  PlanOptions o = options();
  o.clip_rule = ClipRule::custom("mine", my_rule);
  const PlanNumbers numbers = Plan::with_noise_multiplier(o, 1).numbers();
  CHECK(Plan::from_numbers(numbers, o.clip_rule).clipping().rule() == o.clip_rule);
  CHECK_THROWS_WITH_AS(Plan::from_numbers(numbers), doctest::Contains("expected the custom clip rule 'mine'"), Error);
  CHECK_THROWS_WITH_AS(Plan::from_numbers(numbers, ClipRule::custom("yours", my_rule)),
                       doctest::Contains("name 'mine'), got custom: yours"), Error);
  CHECK_THROWS_AS(Plan::from_numbers(numbers, ClipRule::abadi()), Error);
  CHECK_THROWS_WITH_AS(Plan::from_numbers(Plan::with_noise_multiplier(options(), 1).numbers(), o.clip_rule),
                       doctest::Contains("got custom: mine"), Error);
}

TEST_CASE("P20: stored counts and codes out of range are refused before anything is made of them") {
  const auto refused = [](const std::string& changed, index_t to) {
    PlanOptions o = options();
    o.clip_rule = ClipRule::custom("ab", my_rule);
    PlanNumbers numbers = Plan::with_noise_multiplier(o, 1).numbers();
    CHECK_THROWS_WITH_AS(dp::for_each_number(numbers,
                                             [&](const std::string& name, auto& value) {
                                               if (name == changed) value = std::remove_reference_t<decltype(value)>(to);
                                             }),
                         doctest::Contains(("expected a " + changed + " in [").c_str()), Error);
  };
  for (index_t bad : {index_t(-1), std::numeric_limits<index_t>::max()})
    for (const char* name : {"clip rule", "clip rule name character count", "group count", "adaptive", "clip schedule count",
                             "noise schedule count", "clip rule name character 1"})
      refused(name, bad);
  refused("clip rule name character 0", 31);
  refused("clip rule name character 0", 127);
  // Legal to read, but no plan.
  PlanNumbers numbers = Plan::with_noise_multiplier(options(), 1).numbers();
  numbers.clip_schedule.clear();
  CHECK_THROWS_WITH_AS(Plan::from_numbers(numbers), doctest::Contains("pieces of a schedule, got 0"), Error);
}

TEST_CASE("P33: description and statement of every kind say its numbers") {
  const std::map<std::string, std::vector<std::string>> in_table{
      {"flat", {"clip threshold", "abadi: min(1, C / n)", "sigma * Delta, on the sum"}},
      {"automatic", {"automatic: C / (n + 0.05)", "0.3"}},
      {"normalise", {"normalise: C / n"}},
      {"global", {"global: C / 7.5 where n <= 7.5, else 0"}},
      {"custom", {"custom: my rule, version 2"}},
      {"groups", {"group 0 threshold", "group 2 threshold", "0.25", "1.5", "joint"}},
      {"adaptive", {"adaptive quantile", "0.7", "adaptive count noise", "gradient noise multiplier", "adaptive range"}},
      {"schedules", {"clip schedule", "0.5 from step 10", "noise schedule", "0.875 from step 16", "in the first step"}},
      {"grouped schedules", {"group 1 threshold", "automatic", "0.25 from step 40"}},
      {"adaptive, scheduled noise", {"noise schedule", "adaptive learning rate", "custom: my rule, version 2"}}};
  const std::map<std::string, std::vector<std::string>> in_words{
      {"flat", {"its gradient over all parameters is clipped to the norm 1, and Gaussian noise of standard deviation"}},
      {"automatic", {"clipped to the norm 0.3, by the rule automatic: C / (n + 0.05)"}},
      {"normalise", {"normalise"}},
      {"global", {"clipped to the norm 2, by the rule global"}},
      {"custom", {"custom: my rule, version 2", "never beyond C", "a function of one gradient's norm and nothing else"}},
      {"groups", {"3 groups of parameters", "(0.5, 0.25, 1.5; together to the norm 1.6"}},
      {"adaptive",
       {"released parameters and clip thresholds is (", "starts at 0.125 and follows the 0.7 quantile",
        "standard deviation 5 to the count",
        "accounted as the noise "
        "multiplier 1.25"}},
      {"schedules", {"times a public schedule over the steps (1 from step 0, 0.5 from step 10", "accounted as 1.25 times"}},
      {"grouped schedules", {"2 groups of parameters", "times a public schedule"}},
      {"adaptive, scheduled noise", {"1.25 of that schedule)", "quantile"}}};
  for (const Kind& kind : kinds()) {
    const Plan plan = Plan::with_noise_multiplier(kind.options, 1.25);
    const std::string table = plan.describe(), text = dp::privacy_statement(plan, 3);
    INFO(kind.name, "\n", table, text);
    for (const std::string& part : in_table.at(kind.name)) {
      INFO(part);
      CHECK(table.find(part) != std::string::npos);
    }
    for (const std::string& part : in_words.at(kind.name)) {
      INFO(part);
      CHECK(text.find(part) != std::string::npos);
    }
  }
}
