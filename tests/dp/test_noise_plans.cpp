// SPDX-License-Identifier: Apache-2.0
// Plans with a noise source: what is accounted, how much noise follows, what is stored and said, what is refused.
#include <doctest/doctest.h>
#include <bit>
#include <cmath>
#include <vector>

#include "dpmp/dp/statement.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;
using dp::NoiseSourceKind;
using dp::Plan;
using dp::PlanOptions;
using dp::SamplingKind;

namespace {
PlanOptions cyclic(index_t period, index_t steps = 40) {
  return {.delta = 1e-6,
          .sampling_rate = 0.3,
          .steps = steps,
          .clip_threshold = 0.5,
          .dataset_size = 1000,
          .sampling = {.kind = SamplingKind::cyclic_poisson, .period = period}};
}
PlanOptions full(index_t steps = 40) {
  return {.delta = 1e-6,
          .steps = steps,
          .clip_threshold = 0.5,
          .dataset_size = 1000,
          .sampling = {.kind = SamplingKind::full_batch}};
}
PlanOptions poisson() {
  return {.delta = 1e-6, .sampling_rate = 0.05, .steps = 40, .clip_threshold = 0.5, .dataset_size = 1000};
}
PlanOptions with(PlanOptions o, const dp::NoiseSourceOptions& source) {
  o.noise_source = source;
  return o;
}
const dp::NoiseSourceOptions tree{.kind = NoiseSourceKind::tree},
    discrete{.kind = NoiseSourceKind::discrete_gaussian, .grid_bits = 20, .dimensions = 100000};
dp::NoiseSourceOptions banded(index_t bands) { return {.kind = NoiseSourceKind::banded, .bands = bands}; }

struct Kind {
  const char* name;
  PlanOptions options;
};
std::vector<Kind> kinds() {
  return {{"bands apart", with(cyclic(8), banded(8))},      {"bands that meet", with(cyclic(4), banded(7))},
          {"bands, full batches", with(full(), banded(5))}, {"tree, once each", with(cyclic(40), tree)},
          {"tree, full batches", with(full(), tree)},       {"discrete, poisson", with(poisson(), discrete)},
          {"discrete, cyclic", with(cyclic(8), discrete)},  {"discrete, full batches", with(full(), discrete)}};
}
/// The epsilon of one Gaussian mechanism: of its closed form, or by the orders of the Renyi accountant.
double gaussian_epsilon(double sigma, double delta, dp::Accountant accountant) {
  if (accountant == dp::Accountant::rdp) {
    std::vector<double> rdp;
    for (const double a : dp::default_orders()) rdp.push_back(a / (2 * sigma * sigma));
    return dp::rdp_to_epsilon(dp::default_orders(), rdp, delta).epsilon;
  }
  const auto normal = [](double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); };
  double low = 0, high = 1000;
  for (int k = 0; k < 200; ++k) {
    const double e = 0.5 * (low + high);
    (normal(0.5 / sigma - e * sigma) - std::exp(e) * normal(-0.5 / sigma - e * sigma) > delta ? low : high) = e;
  }
  return high;
}
}  // namespace

TEST_CASE("P20: plans of every noise source survive as text, and calibrated ones keep their target") {
  for (const Kind& kind : kinds()) {
    INFO(kind.name);
    for (const bool calibrated : {false, true}) {
      PlanOptions o = kind.options;
      o.epsilon = calibrated ? 2 : 0;
      const Plan plan = calibrated ? Plan::calibrate(o) : Plan::with_noise_multiplier(o, 1.25);
      const Plan again = Plan::from_text(plan.text());
      CHECK(again == plan);
      CHECK(again.text() == plan.text());
      CHECK(again.options().noise_source == o.noise_source);
      CHECK(again.describe() == plan.describe());
      if (calibrated) CHECK((plan.epsilon() <= 2 && plan.epsilon() >= 2 - 1e-3));
      double before = 0;
      for (const index_t t : {1, 2, 7, 8, 9, 20, 39, 40, 55}) {
        const double epsilon = plan.epsilon_after(t);
        CHECK(epsilon >= before);
        CHECK(again.epsilon_after(t) == epsilon);
        before = epsilon;
      }
      CHECK(plan.epsilon_after(40) == plan.epsilon());
      CHECK(plan.epsilon_after(55) > plan.epsilon());
    }
  }
}

TEST_CASE("P20: a plan of independent noise is stored as before there were noise sources") {
  const dp::PlanText text = Plan::with_noise_multiplier(poisson(), 1).text();
  for (const auto& [name, value] : text) CHECK(name.find("noise source") == std::string::npos);
  CHECK(!text.contains("noise scale"));
  dp::PlanText other = Plan::with_noise_multiplier(with(full(), tree), 1).text();
  CHECK(other.at("noise source") == "tree");
  dp::PlanText near = other, far = other;
  const double scale = dp::noise_scale(with(full(), tree));
  near["noise scale"] = dp::detail::bits_text(scale * (1 - 0x1p-33)),
  far["noise scale"] = dp::detail::bits_text(scale * (1 - 1e-8));
  CHECK(Plan::from_text(near).text() == near);
  CHECK(test::refuses([&] { Plan::from_text(far); }, "noise scale"));
  other["noise source"] = "forest";
  CHECK(test::refuses([&] { Plan::from_text(other); }, "a noise source in 'noise source'"));
  other["noise source"] = "banded";
  CHECK(test::refuses([&] { Plan::from_text(other); }, "1 to 40 bands"));
}

TEST_CASE("P3, P25: bands that no record meets twice cost what independent noise costs, with the same noise") {
  const Plan independent = Plan::with_noise_multiplier(cyclic(8), 1.1);
  for (const index_t bands : {1, 5, 8}) {
    const Plan plan = Plan::with_noise_multiplier(with(cyclic(8), banded(bands)), 1.1);
    for (const index_t t : {1, 8, 9, 40, 100}) CHECK(plan.epsilon_after(t) == independent.epsilon_after(t));
    CHECK(plan.noise_standard_deviation() == doctest::Approx(independent.noise_standard_deviation()).epsilon(1e-8));
    CHECK(plan.noise_standard_deviation() >= independent.noise_standard_deviation());
  }
}

TEST_CASE("P3, P25: other correlated noise is one Gaussian mechanism, and noise follows from its matrix' sensitivity") {
  for (const Kind& kind : kinds()) {
    if (!dp::is_one_mechanism(kind.options)) continue;
    INFO(kind.name);
    for (const dp::Accountant accountant : {dp::Accountant::pld, dp::Accountant::rdp}) {
      PlanOptions o = kind.options;
      o.accountant = accountant;
      const double sigma = 1.7;
      const Plan plan = Plan::with_noise_multiplier(o, sigma);
      const dp::NoiseMatrix matrix(o.noise_source);
      const index_t separation = o.sampling.least_separation();
      CHECK(plan.noise_standard_deviation() ==
            doctest::Approx(sigma * plan.sensitivity().bound * matrix.sensitivity(40, separation)).epsilon(1e-13));
      const double delta = dp::accounted_delta(plan.options(), 40);
      CHECK(plan.epsilon() == doctest::Approx(gaussian_epsilon(sigma, delta, accountant)).epsilon(1e-6));
      for (const index_t t : {1, 3, 17}) {
        const double share = matrix.sensitivity(t, separation) / matrix.sensitivity(40, separation);
        CHECK(plan.epsilon_after(t) ==
              doctest::Approx(gaussian_epsilon(sigma / share, dp::accounted_delta(plan.options(), t), accountant))
                  .epsilon(1e-6));
      }
    }
  }
}

TEST_CASE("P25: correlated noise over full batches, worked out as a sum over pairs of steps") {
  // sensitivity^2 = sum over steps s, t of (C^T C)_st for a record that is in every step.
  const dp::NoiseMatrix matrix(banded(3));
  double square = 0;
  for (index_t s = 0; s < 10; ++s)
    for (index_t t = 0; t < 10; ++t)
      for (index_t row = 0; row < 10; ++row) square += matrix.entry(row, s) * matrix.entry(row, t);
  const Plan plan = Plan::with_noise_multiplier(with(full(10), banded(3)), 2);
  CHECK(plan.noise_standard_deviation() == doctest::Approx(2 * plan.sensitivity().bound * std::sqrt(square)).epsilon(1e-8));
}

TEST_CASE("P3, P25: discrete noise is at least the plan's, its accountant uses whole orders, its sensitivity the grid") {
  int other_orders = 0;
  for (PlanOptions base : {poisson(), cyclic(8), full()}) {
    CHECK(Plan::with_noise_multiplier(with(base, discrete), 1.1).options().accountant == dp::Accountant::rdp);
    base.accountant = dp::Accountant::rdp;
    const Plan plan = Plan::with_noise_multiplier(with(base, discrete), 1.1),
               continuous = Plan::with_noise_multiplier(base, 1.1);
    // Whole orders are some of the orders: never a smaller epsilon, and close to it.
    std::vector<double> whole;
    for (int a = 2; a <= 1024; ++a)
      if (a < 64 || a % (std::bit_floor(unsigned(a)) / 8) == 0) whole.push_back(a);
    dp::RdpAccountant by_hand(whole);
    for (const auto& [step, count] : dp::accounted_steps(plan.options(), 1.1, 40))
      by_hand.add_steps(step.sampling_rate, step.noise_multiplier, count);
    CHECK(plan.epsilon() == by_hand.epsilon(dp::accounted_delta(plan.options(), 40)));
    other_orders += plan.epsilon() > continuous.epsilon();
    CHECK(plan.epsilon() >= continuous.epsilon());
    CHECK(plan.epsilon() <= continuous.epsilon() * 1.02 + 0.02);
    const dp::StepPlan step = plan.at(0);
    REQUIRE(step.grid.has_value());
    const double spacing = step.grid->spacing;
    CHECK(spacing == 0x1p-21);  // 2^-20 of 1/2
    // 0.5 + sqrt(100000) / 2 units.
    const double bound = 0.5 + 0.5 * std::sqrt(100000.0) * spacing;
    CHECK(plan.facts().sensitivity >= bound);
    CHECK(plan.facts().sensitivity <= bound + spacing);
    CHECK(0.5 * (1 + plan.facts().rho) == doctest::Approx(plan.facts().sensitivity).epsilon(1e-14));
    CHECK(step.noise_standard_deviation == double(step.units) * spacing);
    CHECK(step.noise_standard_deviation >= 1.1 * plan.facts().sensitivity);
    CHECK(step.noise_standard_deviation <= 1.1 * plan.facts().sensitivity + 1.001 * spacing);
  }
  CHECK(other_orders > 0);
  PlanOptions users = with(cyclic(8), discrete);
  users.sampling.records_per_user = 3;
  const Plan of_users = Plan::with_noise_multiplier(users, 1.1),
             of_records = Plan::with_noise_multiplier(with(cyclic(8), discrete), 1.1);
  CHECK(of_users.facts().sensitivity == doctest::Approx(3 * of_records.facts().sensitivity).epsilon(1e-14));
  CHECK(of_users.at(0).noise_standard_deviation >= 1.1 * of_users.facts().sensitivity);
  PlanOptions replaced = with(full(), discrete);
  replaced.relation = dp::NeighbouringRelation::replace_one;
  CHECK(Plan::with_noise_multiplier(replaced, 1.1).at(0).units >=
        2 * Plan::with_noise_multiplier(with(full(), discrete), 1.1).at(0).units - 2);
}

TEST_CASE("statement and table of a plan say which noise it has and how it is accounted") {
  const auto says = [](const PlanOptions& o, std::initializer_list<const char*> statement,
                       std::initializer_list<const char*> table) {
    const Plan plan = Plan::with_noise_multiplier(o, 1.1);
    const std::string words = dp::privacy_statement(plan, 10), lines = plan.describe();
    for (const char* part : statement) {
      CAPTURE(part);
      CHECK(words.find(part) != std::string::npos);
    }
    for (const char* part : table) {
      CAPTURE(part);
      CHECK(lines.find(part) != std::string::npos);
    }
  };
  says(with(cyclic(8), banded(8)), {"C^-1 z", "banded, 8 bands", "which share no row of the matrix"},
       {"noise source", "banded", "bands", "of which no two meet"});
  says(with(full(), tree), {"binary tree", "of all steps together", "for what takes part in all steps"},
       {"sensitivity of C for all steps of a record"});
  says(with(cyclic(4), banded(7)), {"takes part in steps that are 4 apart"}, {"noise scale"});
  says(with(poisson(), discrete),
       {"an exact sample of the discrete Gaussian on the multiples of 2^-21", "divergences of whole orders",
        "the rounding of contributions to the grid", "whole numbers of a public grid, added without rounding"},
       {"discrete_gaussian", "grid", "dimensions"});
  const std::string usual = dp::privacy_statement(Plan::with_noise_multiplier(poisson(), 1.1), 10);
  for (const char* part : {"matrix", "C^-1", "whole"}) CHECK(usual.find(part) == std::string::npos);
}

TEST_CASE("bad input: noise sources are refused with what their analysis does not cover") {
  const auto refused = [](const PlanOptions& o, const char* part) {
    CAPTURE(part);
    CHECK(test::refuses([&] { Plan::with_noise_multiplier(o, 1); }, part));
  };
  for (const dp::NoiseSourceOptions& source : {banded(4), tree}) {
    refused(with(poisson(), source), "cyclic_poisson or full_batch sampling with");
    PlanOptions o = with(full(), source);
    o.noise_schedule = dp::Schedule::linear(1, 2, 40, 4);
    refused(o, "expected no noise schedule with");
  }
  for (const dp::NoiseSourceOptions& source : {banded(4), tree, discrete}) {
    PlanOptions o = with(full(), source);
    o.clip_schedule = dp::Schedule::linear(1, 0.5, 40, 4);
    refused(o, "expected no clip schedule with");
    o = with(cyclic(8), source);
    o.clip_threshold = 1;
    o.adaptive = dp::AdaptiveOptions{};
    refused(o, "expected no adaptive threshold and no count of overflows with");
    o = with(cyclic(8), source);
    o.overflow = dp::OverflowOptions{};
    refused(o, "expected no adaptive threshold and no count of overflows with");
    for (const SamplingKind kind : {SamplingKind::balls_in_bins, SamplingKind::truncated_poisson}) {
      o = with(poisson(), source);
      o.sampling.kind = kind;
      if (kind == SamplingKind::balls_in_bins) o.sampling_rate = 0, o.sampling.period = 20;
      refused(o, "sampling with");
    }
  }
  PlanOptions groups = with(full(), discrete);
  groups.clip_threshold = 1;
  groups.group_thresholds = {0.5, 0.5};
  refused(groups, "expected flat clipping with");
  refused(with(full(), {.kind = NoiseSourceKind::discrete_gaussian, .grid_bits = 30, .dimensions = 10}), "2^-8 to 2^-24");
  refused(with(full(), {.kind = NoiseSourceKind::discrete_gaussian, .grid_bits = 20}), "the number of trained values");
  refused(with(full(), {.kind = NoiseSourceKind::tree, .grid_bits = 20}), "expected no grid for tree");
  refused(with(full(), banded(41)), "1 to 40 bands");
}
