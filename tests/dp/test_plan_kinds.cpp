// SPDX-License-Identifier: Apache-2.0
// Plans of every kind: as text and back, what differs, and in words.
#include <doctest/doctest.h>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "dpmp/dp/statement.hpp"
#include "support/random.hpp"

using namespace dpmp;
using dp::ClipRule;
using dp::Plan;
using dp::PlanOptions;
using dp::PlanText;
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
  add("by Renyi divergences", [&](PlanOptions& o) { o.accountant = dp::Accountant::rdp; });
  add("adaptive, scheduled noise", [&](PlanOptions& o) {
    o.adaptive = adaptive;
    o.noise_schedule = steps;
    o.clip_rule = ClipRule::custom("my rule, version 2", my_rule);
  });
  const dp::OverflowOptions overflow{
      .count_noise = 3, .share = 0.25, .growth_interval = 70, .lowest = 0.5, .highest = 4096, .initial_scale = 256};
  add("overflows", [&](PlanOptions& o) { o.overflow = overflow; });
  add("overflows, adaptive", [&](PlanOptions& o) {
    o.overflow = overflow;
    o.adaptive = adaptive;
  });
  return r;
}
Plan plan_from(const PlanText& text, const ClipRule& rule) {
  return rule.kind() == ClipRule::Kind::custom ? Plan::from_text(text, rule) : Plan::from_text(text);
}
}  // namespace

TEST_CASE("P20: plans of every kind survive as text, bit for bit, and act the same") {
  for (const Kind& kind : kinds()) {
    INFO(kind.name);
    for (bool calibrated : {false, true}) {
      PlanOptions o = kind.options;
      o.epsilon = calibrated ? 2 : 0;
      const Plan plan = calibrated ? Plan::calibrate(o) : Plan::with_noise_multiplier(o, 1.25);
      const Plan again = plan_from(plan.text(), o.clip_rule);
      CHECK(again == plan);
      CHECK(again.options() == o);
      CHECK(again.facts() == plan.facts());
      CHECK(again.text() == plan.text());
      CHECK(dp::difference(again.text(), plan.text()).empty());
      CHECK(again.describe() == plan.describe());
      CHECK(again.epsilon_after(33) == plan.epsilon_after(33));
      if (calibrated) CHECK((plan.epsilon() <= 2 && plan.epsilon() >= 2 - 1e-3));
      const double threshold = plan.options().adaptive ? 0.3 : 0;
      for (index_t t : {0, 9, 10, 49}) {
        const dp::StepPlan a = plan.at(t, threshold), b = again.at(t, threshold);
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

TEST_CASE("P20: plans of different kinds differ, and every changed, missing or added entry is refused or named") {
  const auto all = kinds();
  for (std::size_t i = 0; i < all.size(); ++i)
    for (std::size_t j = 0; j < all.size(); ++j) {
      const Plan x = Plan::with_noise_multiplier(all[i].options, 1), y = Plan::with_noise_multiplier(all[j].options, 1);
      CHECK((x == y) == (i == j));
      CHECK((x.text() == y.text()) == (i == j));
      CHECK(dp::difference(x.text(), y.text()).empty() == (i == j));
    }
  for (const Kind& kind : all) {
    INFO(kind.name);
    const Plan plan = Plan::with_noise_multiplier(kind.options, 1);
    const PlanText text = plan.text();
    const auto same_plan = [&](const PlanText& changed) {
      try {
        return plan_from(changed, kind.options.clip_rule).text() == text;
      } catch (const Error&) {
        return false;
      }
    };
    for (const auto& [name, value] : text) {
      INFO(name);
      // The last character: the last bits of a double, the last digit of a whole number, the end of a word.
      PlanText changed = text;
      changed[name].back() = value.back() == '1' ? '2' : '1';
      const std::string line = dp::difference(text, changed);
      CHECK(line.starts_with(name + ": "));
      CHECK(std::count(line.begin(), line.end(), '\n') == 1);
      CHECK_FALSE(same_plan(changed));
      changed.erase(name);
      CHECK(dp::difference(text, changed).ends_with(", none\n"));
      CHECK_FALSE(same_plan(changed));
    }
    PlanText more = text;
    more["unknown"] = "1";
    CHECK(dp::difference(text, more) == "unknown: none, 1\n");
    CHECK_THROWS_WITH_AS(plan_from(more, kind.options.clip_rule), doctest::Contains("unknown: none, 1"), Error);
  }
}

TEST_CASE("P20: every field of the options is in the text") {
  // One field more here does not compile: it needs a name in dp/plan_text.hpp, and a kind in this file.
  [[maybe_unused]] const auto [epsilon, delta, rate, steps, threshold, size, relation, rule, groups, adaptive, clip, noise,
                               sampling, source, overflow, accountant] = options();
  const dp::AdaptiveOptions a{.count_noise = 1};
  [[maybe_unused]] const auto [quantile, learning_rate, count_noise, lowest, highest, initial] = a;
  const dp::OverflowOptions f{.count_noise = 3, .share = 0.5};
  [[maybe_unused]] const auto [overflow_noise, share, growth, lowest_scale, highest_scale, initial_scale, alarm] = f;
  PlanOptions o = options();
  o.adaptive = a;
  o.overflow = f;
  const PlanText text = Plan::with_noise_multiplier(o, 0.25).text();
  for (const char* name : {"target epsilon",
                           "delta",
                           "sampling rate",
                           "steps",
                           "clip threshold",
                           "dataset size",
                           "relation",
                           "clip rule",
                           "group threshold count",
                           "adaptive",
                           "clip schedule count",
                           "noise schedule count",
                           "adaptive quantile",
                           "adaptive learning rate",
                           "adaptive count noise",
                           "adaptive lowest",
                           "adaptive highest",
                           "adaptive initial threshold",
                           "overflow",
                           "overflow count noise",
                           "overflow share",
                           "overflow growth interval",
                           "overflow lowest scale",
                           "overflow highest scale",
                           "overflow initial scale",
                           "overflow alarm after",
                           "noise multiplier",
                           "batch bound",
                           "expected batch",
                           "joint clip threshold",
                           "rho",
                           "sensitivity"}) {
    INFO(name);
    CHECK(text.contains(name));
  }
}

TEST_CASE("P20: a plan without a count of overflows has no entry of it: texts from before there was one are read") {
  for (const Kind& kind : kinds()) {
    INFO(kind.name);
    for (const auto& [name, value] : Plan::with_noise_multiplier(kind.options, 1).text())
      CHECK((name.starts_with("overflow") ? kind.options.overflow.has_value() : true));
  }
  PlanOptions o = options();
  o.overflow = dp::OverflowOptions{.count_noise = 3, .share = 0.5};
  PlanText text = Plan::with_noise_multiplier(o, 1).text();
  text["overflow"] = "no";
  CHECK_THROWS_WITH_AS(Plan::from_text(text), doctest::Contains("expected yes or no entry in 'overflow'"), Error);
}

TEST_CASE("P20: difference names entries that only one plan has, and writes doubles in decimal") {
  PlanOptions a = options(), b = options();
  a.group_thresholds = {0.5, 0.25};
  b.clip_schedule = Schedule::piecewise({{0, 1.0}, {7, 2.0}});
  const std::string text =
      dp::difference(Plan::with_noise_multiplier(a, 1).text(), Plan::with_noise_multiplier(b, 1).text());
  for (const char* line :
       {"group threshold count: 2, 0\n", "group threshold 0: 0.5, none\n", "group threshold 1: 0.25, none\n",
        "clip schedule count: 1, 2\n", "clip schedule 1 step: none, 7\n", "clip schedule 1 value: none, 2\n"}) {
    INFO(line);
    CHECK(text.find(line) != std::string::npos);
  }
  CHECK(text.find("noise schedule") == std::string::npos);
}

TEST_CASE("P20: a custom rule must be given again, under its name") {
  PlanOptions o = options();
  // A name that looks like a number stays a name.
  for (const std::string name : {"mine", "0x3ff0000000000000", "\"quoted\" \\ 100 %"}) {
    INFO(name);
    o.clip_rule = ClipRule::custom(name, my_rule);
    const PlanText text = Plan::with_noise_multiplier(o, 1).text();
    CHECK(text.at("clip rule") == "custom: " + name);
    CHECK(Plan::from_text(text, o.clip_rule).clipping().rule() == o.clip_rule);
    CHECK_THROWS_WITH_AS(Plan::from_text(text), doctest::Contains(("plan, custom: " + name + ", got none").c_str()), Error);
    CHECK_THROWS_WITH_AS(Plan::from_text(text, ClipRule::custom("yours", my_rule)), doctest::Contains("got custom: yours"),
                         Error);
    CHECK_THROWS_AS(Plan::from_text(text, ClipRule::abadi()), Error);
    CHECK_THROWS_WITH_AS(
        Plan::from_text(Plan::with_noise_multiplier(options(), 1).text(), o.clip_rule),
        doctest::Contains(("expected no clip rule for a stored plan with the rule abadi, got custom: " + name).c_str()),
        Error);
  }
}

TEST_CASE("P20: entries that are no values of their kind are refused by name") {
  PlanOptions o = options();
  o.adaptive = dp::AdaptiveOptions{.count_noise = 5};
  const PlanText text = Plan::with_noise_multiplier(o, 1).text();
  const auto refused = [&](const std::string& name, const std::string& value, const std::string& says) {
    INFO(name, " = '", value, "'");
    PlanText changed = text;
    REQUIRE(changed.contains(name));
    changed[name] = value;
    CHECK_THROWS_WITH_AS(Plan::from_text(changed), doctest::Contains(says.c_str()), Error);
  };
  for (const char* value : {"", "x", "5x", " 5", "+5", "0x5", "5.0", "9223372036854775808"})
    for (const char* name : {"steps", "dataset size", "clip schedule count", "noise schedule 0 step"})
      refused(name, value, "expected a whole number in '" + std::string(name) + "' of a plan, got '" + value + "'");
  for (const char* value :
       {"", "1e-5", "0x3ff", "3ff8000000000000", "0x3ff800000000000g", "0x3ff80000000000000", "0x-ff8000000000000"})
    for (const char* name : {"delta", "noise multiplier", "adaptive quantile", "clip rule parameter"})
      refused(name, value, "expected the bits of a double in '" + std::string(name) + "' of a plan, got '" + value + "'");
  refused("relation", "add", "expected a neighbouring relation in 'relation' of a plan, got 'add'");
  refused("clip rule", "abad", "expected a clip rule in 'clip rule' of a plan, got 'abad'");
  refused("adaptive", "1", "expected yes or no in 'adaptive' of a plan, got '1'");
  for (const char* list : {"group threshold", "clip schedule", "noise schedule"})
    refused(std::string(list) + " count", "9223372036854775807", "expected an entry '" + std::string(list));
  // Values of their kind, but of no plan.
  refused("clip schedule count", "0", "pieces of a schedule, got 0");
  refused("clip schedule count", "-1", "pieces of a schedule, got 0");
  refused("relation", "replace_one", "sensitivity: ");
  refused("accountant", "prv", "expected the accountant pld or no entry in 'accountant' of a plan, got 'prv'");
  refused("delta", "0x7ff8000000000000", "expected a delta in (0, 1)");
  refused("steps", "-5", "number of steps");
  // Another way to write the same number.
  refused("steps", "050", "steps: 50, 050");
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
      {"adaptive, scheduled noise", {"noise schedule", "adaptive learning rate", "custom: my rule, version 2"}},
      {"overflows",
       {"overflow count noise", "overflow share", "0.25", "growth interval", "0.5 .. 4096", "initial loss scale", "256",
        "alarm after", "the count uses the rest", "sigma_z * Delta, on the sum"}},
      {"overflows, adaptive", {"adaptive range", "overflow count noise", "both counts use the rest"}},
      {"by Renyi divergences", {"by the accountant rdp"}}};
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
      {"adaptive, scheduled noise", {"1.25 of that schedule)", "quantile"}},
      {"overflows",
       {"released parameters and noisy counts of overflows is (",
        "standard deviation 3 to the number of records of which something was not finite",
        "(together they are accounted as the noise multiplier 1.25)"}},
      {"overflows, adaptive",
       {"released parameters, clip thresholds and noisy counts of overflows is (", "standard deviation 5 to the count",
        "standard deviation 3 to the number", "(together they are accounted as the noise multiplier 1.25)"}},
      {"by Renyi divergences", {"Accountant: Renyi differential privacy of the sampled Gaussian mechanism, composed"}}};
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
