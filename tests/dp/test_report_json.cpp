// SPDX-License-Identifier: Apache-2.0
// What a plan says to programs: every number is there, is the plan's and reads back as the same double; epsilon is never
// less than what was spent. And its curves: each point holds.
#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "dpmp/dp/guarantee_curves.hpp"
#include "dpmp/dp/report_json.hpp"
#include "support/random.hpp"

using namespace dpmp;
using dp::Plan;
using dp::PlanOptions;
using nlohmann::json;

namespace {
/// A plan of any kind whose numbers have all their digits.
Plan random_plan(test::Rng& rng) {
  PlanOptions o{.delta = std::pow(10.0, -rng.uniform(3, 9)),
                .sampling_rate = rng.uniform(0.001, 0.2),
                .steps = rng.integer(2, 300),
                .clip_threshold = rng.uniform(0.01, 10),
                .dataset_size = rng.integer(500, 5000000)};
  const double quarter = rng.uniform(0.1, 1);
  if (rng.integer(0, 1)) o.relation = dp::NeighbouringRelation::zero_out;
  if (rng.integer(0, 1)) o.accountant = dp::Accountant::rdp;
  if (rng.integer(0, 2) == 0) o.noise_schedule = dp::Schedule::piecewise({{0, 1.0}, {o.steps / 2, quarter}});
  if (rng.integer(0, 2) == 0) o.clip_rule = dp::ClipRule::automatic(rng.uniform(0.01, 1));
  switch (rng.integer(0, 3)) {
    case 0:
      o.clip_threshold = PlanOptions{}.clip_threshold;
      o.group_thresholds = {rng.uniform(0.01, 1), rng.uniform(0.01, 1)};
      break;
    case 1:
      o.clip_threshold = PlanOptions{}.clip_threshold;
      o.adaptive = dp::AdaptiveOptions{.quantile = 0.7, .learning_rate = 0.1, .count_noise = 10, .initial_threshold = 0.125};
      break;
    case 2: o.clip_schedule = dp::Schedule::piecewise({{0, 1.0}, {1, quarter}}); break;
    default: break;
  }
  // Where the empty record counts there are no Renyi divergences.
  if (o.adaptive && o.relation == dp::NeighbouringRelation::zero_out) o.accountant = dp::Accountant::pld;
  return Plan::with_noise_multiplier(o, rng.uniform(0.6, 2));
}
}  // namespace

TEST_CASE("the JSON of a plan has every number of it, and epsilon is rounded up") {
  test::Rng rng;
  for (int trial = 0; trial < 15; ++trial) {
    const Plan plan = random_plan(rng);
    const PlanOptions& o = plan.options();
    const index_t steps = rng.integer(0, o.steps);
    dp::StatementNotes notes{.counts_left_out = rng.integer(0, 1) == 1, .times_told = rng.integer(0, 1) == 1};
    if (rng.integer(0, 1)) notes.other_noise_since = rng.integer(0, 100);
    const std::string text = dp::report_json(plan, steps, notes);
    CHECK(text.find_first_of("<>&") == std::string::npos);
    const json report = json::parse(text);

    CHECK(report["schema"] == "dpmp privacy report");
    CHECK(report["schema_version"] == dp::report_schema_version);
    CHECK(report["library"] == json({{"name", "dpmp"}, {"version", DPMP_VERSION_STRING}}));
    const json& guarantee = report["guarantee"];
    CHECK(guarantee["epsilon"].get<double>() >= plan.epsilon_after(steps));
    CHECK(guarantee["epsilon"].get<double>() <= plan.epsilon_after(steps) + 1.01e-4);
    CHECK(guarantee["epsilon_accounted"].get<double>() == plan.epsilon_after(steps));
    CHECK(guarantee["epsilon_of_the_plan"].get<double>() >= plan.epsilon());
    CHECK(guarantee["delta"].get<double>() == o.delta);
    CHECK(guarantee["relation"] == name_of(o.relation));
    CHECK(guarantee["unit"] == "record");
    CHECK(guarantee["sampler"] == "poisson");
    CHECK(guarantee["accountant"] == name_of(o.accountant));
    CHECK(guarantee["steps_taken"] == steps);
    CHECK(guarantee["steps_planned"] == o.steps);

    // Every entry by its name, doubles by their bits.
    const json& entries = report["plan"];
    dp::PlanText expected = plan.text();
    CHECK(entries.size() == expected.size());
    for (const auto& [name, value] : expected) {
      std::string key = name;
      std::replace(key.begin(), key.end(), ' ', '_');
      CAPTURE(key);
      REQUIRE(entries.contains(key));
      if (value.starts_with("0x"))
        CHECK(std::bit_cast<std::uint64_t>(entries[key].get<double>()) == std::stoull(value, nullptr, 16));
      else if (entries[key].is_number_integer())
        CHECK(std::to_string(entries[key].get<index_t>()) == value);
      else
        CHECK(entries[key] == value);
    }
    CHECK(entries["sampling_rate"].get<double>() == o.sampling_rate);
    CHECK(entries["noise_multiplier"].get<double>() == plan.noise_multiplier());
    CHECK(entries["batch_bound"].get<index_t>() == plan.facts().batch_bound);
    const dp::StepPlan first = plan.first_step();
    CHECK(report["first_step"]["noise_standard_deviation"].get<double>() == first.noise_standard_deviation);
    REQUIRE(report["first_step"]["clip_thresholds"].size() == first.groups.size());
    for (std::size_t g = 0; g < first.groups.size(); ++g)
      CHECK(report["first_step"]["clip_thresholds"][g].get<double>() == first.groups[g].clip_threshold());

    CHECK(report["notes"]["counts_left_out"] == notes.counts_left_out);
    CHECK(report["notes"]["times_told"] == notes.times_told);
    CHECK(report["notes"]["other_noise_since"] == (notes.other_noise_since ? json(*notes.other_noise_since) : json()));

    // The parts are the statement.
    std::string words, titles;
    for (const json& part : report["statement"]) {
      const std::string title = part["title"];
      const bool said = title != "Guarantee" && title != "Unit" && title != "Continued";
      words += (words.empty() ? "" : " ") + (said ? title + ": " : "") + part["text"].get<std::string>();
      titles += title + ' ';
    }
    CHECK(words == dp::privacy_statement(plan, steps, notes));
    std::string wanted = "Guarantee Unit Mechanism Accountant Assumptions Not accounted ";
    if (notes.other_noise_since) wanted += "Continued ";
    for (int k = notes.counts_left_out + notes.times_told; k > 0; --k) wanted += "Unsafe ";
    CHECK(titles == wanted);
  }
}

TEST_CASE("an epsilon that is infinite is a word in JSON, and the name of a custom rule is only text") {
  const Plan plan = Plan::with_noise_multiplier(
      {.delta = 1e-5,
       .sampling_rate = 0.1,
       .steps = 10,
       .dataset_size = 1000,
       .clip_rule = dp::ClipRule::custom("a \"rule\" </script>", [](double n) { return 1 / (1 + n); })},
      1);
  const json report = json::parse(dp::report_json(plan, 10000));
  CHECK(report["guarantee"]["epsilon"] == "inf");
  CHECK(report["guarantee"]["epsilon_accounted"] == "inf");
  CHECK(report["plan"]["clip_rule"] == "custom: a \"rule\" </script>");
}

TEST_CASE("P25: curves of a plan: epsilon grows, delta falls, and no test is promised to do worse than the best one does") {
  test::Rng rng;
  for (int trial = 0; trial < 6; ++trial) {
    const Plan plan = random_plan(rng);
    const index_t steps = rng.integer(1, plan.steps());
    const dp::GuaranteeCurves curves = dp::guarantee_curves(plan, steps);
    double before = -1;
    for (const auto& [n, epsilon] : curves.epsilon_by_steps) {
      CHECK(n > before);
      before = n;
      CHECK(epsilon == plan.epsilon_after(index_t(n)));
    }
    CHECK(curves.epsilon_by_steps.front() == std::pair(0.0, 0.0));
    CHECK(curves.epsilon_by_steps.back().first == double(plan.steps()));
    REQUIRE(curves.delta_by_epsilon.size() > 5);
    for (std::size_t k = 1; k < curves.delta_by_epsilon.size(); ++k) {
      CHECK(curves.delta_by_epsilon[k].first > curves.delta_by_epsilon[k - 1].first);
      CHECK(curves.delta_by_epsilon[k].second < curves.delta_by_epsilon[k - 1].second);
    }
    for (std::size_t k = 1; k < curves.trade_off.size(); ++k) {
      CHECK(curves.trade_off[k].first > curves.trade_off[k - 1].first);
      CHECK(curves.trade_off[k].second >= curves.trade_off[k - 1].second);
      CHECK(curves.trade_off[k].second >= curves.trade_off[k].first);  // guessing is always possible
    }
    CHECK(curves.trade_off.back() == std::pair(1.0, 1.0));
  }
  // Without sampling n steps are one Gaussian mechanism of mu = sqrt(n) / sigma, whose best test has the power
  // Phi(Phi^-1(rate) + mu) (Dong, Roth, Su 2022): the bound may not be below it, and not far above.
  const auto Phi = [](double x) { return std::erfc(-x / std::numbers::sqrt2) / 2; };
  for (int trial = 0; trial < 20; ++trial) {
    const index_t steps = rng.integer(1, 50);
    const double sigma = rng.uniform(1, 20), mu = std::sqrt(double(steps)) / sigma;
    const Plan plan = Plan::with_noise_multiplier(
        {.delta = 1e-6, .sampling_rate = 1, .steps = steps, .clip_threshold = 1, .dataset_size = 1000}, sigma);
    const dp::GuaranteeCurves curves = dp::guarantee_curves(plan, steps);
    for (double threshold = -4; threshold <= 4; threshold += 0.25) {
      const double false_positive = Phi(-threshold), power = Phi(mu - threshold);
      const double bound = dp::true_positive_bound(curves.delta_by_epsilon, false_positive);
      CHECK(bound >= power);
      for (const auto& [epsilon, delta] : curves.delta_by_epsilon)  // what (epsilon, delta) says of both errors
        CHECK((bound <= delta + std::exp(epsilon) * false_positive && bound <= 1 &&
               1 - false_positive <= delta + std::exp(epsilon) * (1 - bound) + 1e-15 * std::exp(epsilon)));
    }
  }
}
