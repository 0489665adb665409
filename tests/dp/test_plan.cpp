// SPDX-License-Identifier: Apache-2.0
// The plan: one object from which sampler, clip rule, noise and accountant come, so that they agree.
#include <doctest/doctest.h>
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

#include "dpmp/dp/batch_bound.hpp"
#include "dpmp/dp/statement.hpp"
#include "support/random.hpp"

using namespace dpmp;
using dp::NeighbouringRelation;
using dp::Plan;
using dp::PlanOptions;

namespace {
PlanOptions options(dp::Accountant accountant = dp::Accountant::pld) {
  return {.delta = 1e-5,
          .sampling_rate = 0.02,
          .steps = 300,
          .clip_threshold = 1.5,
          .dataset_size = 20000,
          .accountant = accountant};
}
dp::StreamKeys keys() {
  Key256 key;
  key.words[0] = std::uint32_t(test::seed());
  return dp::StreamKeys::repeat(key, 0);
}
/// log P[Binomial(n, q) >= b], summed term by term.
double exact_log_tail(index_t n, double q, index_t b) {
  double largest = -std::numeric_limits<double>::infinity(), log_binomial = 0;
  std::vector<double> terms;
  for (index_t k = 0; k <= n; ++k) {
    if (k >= b) terms.push_back(log_binomial + double(k) * std::log(q) + double(n - k) * std::log1p(-q));
    log_binomial += std::log(double(n - k)) - std::log(double(k + 1));
  }
  for (double t : terms) largest = std::max(largest, t);
  double sum = 0;
  for (double t : terms) sum += std::exp(t - largest);
  return largest + std::log(sum);
}
}  // namespace

TEST_CASE("P26: a calibrated plan keeps its target epsilon, from below and within 1e-3") {
  for (double target : {0.5, 3.0, 8.0}) {
    PlanOptions o = options();
    o.epsilon = target;
    const Plan plan = Plan::calibrate(o);
    CHECK(plan.epsilon() <= target);
    CHECK(plan.epsilon() >= target - 1e-3);
    CHECK(plan.options().epsilon == target);
    CHECK(Plan::with_noise_multiplier(options(), plan.noise_multiplier()).epsilon() == plan.epsilon());
  }
}

TEST_CASE("P5, P25: accountant, sampler, clip rule and noise of a plan carry the same numbers") {
  const Plan plan = Plan::with_noise_multiplier(options(), 0.9);
  const double q = plan.sampler(keys()).probability(), sigma = plan.noise_standard_deviation() / plan.sensitivity().bound;
  const double delta = plan.options().delta;
  dp::PldAccountant accountant;
  accountant.add_steps({.sampling_rate = q, .noise_multiplier = sigma}, plan.steps());
  CHECK(plan.epsilon() == doctest::Approx(accountant.epsilon(delta * (1 - Plan::batch_share))).epsilon(1e-12));
  CHECK(plan.epsilon() > accountant.epsilon(delta));  // part of delta is paid for large batches
  const Plan by_rdp = Plan::with_noise_multiplier(options(dp::Accountant::rdp), 0.9);
  dp::RdpAccountant rdp;
  rdp.add_steps(q, sigma, plan.steps());
  CHECK(by_rdp.epsilon() == doctest::Approx(rdp.epsilon(delta * (1 - Plan::batch_share))).epsilon(1e-12));
  CHECK(by_rdp.epsilon() > rdp.epsilon(delta));
  CHECK(by_rdp.epsilon() > plan.epsilon());
  CHECK(plan.sampler(keys()).records() == 20000);
  CHECK(plan.clipping().clip_threshold() == 1.5);
  CHECK(plan.sensitivity().rho == 0x1.2p-42 * double(plan.facts().batch_bound));
  CHECK(plan.sensitivity().bound == 1.5 * (1 + plan.sensitivity().rho));
  CHECK(plan.noise_standard_deviation() == 0.9 * plan.sensitivity().bound);
}

TEST_CASE("P4: the divisor is a public constant, whatever is drawn and however many records there are") {
  const Plan plan = Plan::with_noise_multiplier(options(), 0.9);
  CHECK(plan.expected_batch() == 0.02 * 20000);
  const dp::PlanText before = plan.text();
  std::vector<index_t> all, fewer;
  plan.sampler(keys()).draw(0, all);
  plan.sampler(keys(), 19999).draw(0, fewer);
  CHECK(plan.text() == before);
  CHECK(std::mismatch(fewer.begin(), fewer.end(), all.begin()).first == fewer.end());
  CHECK_THROWS_AS(plan.sampler(keys(), 20001), Error);
  CHECK_THROWS_AS(plan.sampler(keys(), 0), Error);
}

TEST_CASE("P25: epsilon_after grows, starts at 0, and tells the truth beyond the plan") {
  const Plan plan = Plan::with_noise_multiplier(options(), 0.9);
  const Plan by_rdp = Plan::with_noise_multiplier(options(dp::Accountant::rdp), 0.9);
  for (const Plan& p : {plan, by_rdp}) {
    CHECK(p.epsilon_after(0) == 0);
    CHECK(p.epsilon_after(p.steps()) == p.epsilon());
    double last = 0;
    for (index_t steps : {1, 2, 10, 100, 299, 300, 301, 600, 10000, 299999}) {
      const double epsilon = p.epsilon_after(steps);
      CHECK(epsilon > last);
      last = epsilon;
    }
    CHECK(std::isinf(p.epsilon_after(300000)));
  }
  // Twice the steps spend twice the share of delta that pays for large batches.
  dp::RdpAccountant rdp;
  rdp.add_steps(0.02, 0.9, 600);
  CHECK(by_rdp.epsilon_after(600) == doctest::Approx(rdp.epsilon(1e-5 * (1 - 2 * Plan::batch_share))).epsilon(1e-12));
  dp::PldAccountant accountant;
  accountant.add_steps({.sampling_rate = 0.02, .noise_multiplier = 0.9}, 600);
  CHECK(plan.epsilon_after(600) == doctest::Approx(accountant.epsilon(1e-5 * (1 - 2 * Plan::batch_share))).epsilon(1e-12));
  CHECK_THROWS_AS(plan.ledger(keys(), 300).begin_step(), Error);
  CHECK(plan.ledger(keys(), 300, dp::BeyondPlan::account).begin_step().step() == 300);
}

TEST_CASE("P2: the batch bound: Chernoff above the exact binomial tail, smallest of its kind, rarely exceeded") {
  test::Rng rng(test::seed(), 1);
  for (int k = 0; k < 30; ++k) {
    const index_t n = rng.integer(1, 3000);
    const double q = std::exp(rng.uniform(-6, -0.01)), probability = std::exp(rng.uniform(-30, -3));
    const index_t bound = dp::poisson_batch_bound(n, q, probability);
    INFO("n ", n, " q ", q, " probability ", probability, " bound ", bound);
    CHECK((bound >= 1 && bound <= n));
    if (bound < n) CHECK(exact_log_tail(n, q, bound) <= std::log(probability));
    if (bound > 1) CHECK(dp::log_binomial_tail(n, q, bound - 1) > std::log(probability) - 2e-6);
    // Chernoff's bound is within a factor sqrt(8 n) of the tail, so the bound is not far from the best one either.
    if (bound > 1) CHECK(exact_log_tail(n, q, bound - 1) >= std::log(probability) - 0.5 * std::log(8.0 * double(n)) - 1e-3);
  }
  CHECK(dp::poisson_batch_bound(100, 1, 1e-9) == 100);
  CHECK(dp::poisson_batch_bound(1, 0.3, 1e-9) == 1);
  const Plan plan = Plan::with_noise_multiplier(options(), 0.9);
  CHECK(dp::log_binomial_tail(20001, 0.02, plan.facts().batch_bound) <= std::log(1e-3 * 1e-5 / 300));
}

TEST_CASE("P17: the relation is explicit, printed, and one that the accountant holds for") {
  PlanOptions o = options();
  o.relation = NeighbouringRelation::zero_out;
  const Plan plan = Plan::with_noise_multiplier(o, 1);
  CHECK(plan.options().relation == NeighbouringRelation::zero_out);
  CHECK(plan.describe().find("zero_out") != std::string::npos);
  CHECK(dp::privacy_statement(plan, 3).find("zero_out") != std::string::npos);
  CHECK_FALSE(plan == Plan::with_noise_multiplier(options(), 1));
  o.relation = NeighbouringRelation::replace_one;
  const Plan replaced = Plan::with_noise_multiplier(o, 1);
  CHECK(replaced.sensitivity().bound == 2 * plan.sensitivity().bound);
  CHECK(dp::privacy_statement(replaced, 3).find("replace_one") != std::string::npos);
  o.accountant = dp::Accountant::rdp;
  CHECK_THROWS_WITH_AS(Plan::with_noise_multiplier(o, 1),
                       doctest::Contains("pld for poisson and replace_one, got rdp: the RDP analysis"), Error);
}

TEST_CASE("P20: a plan survives as text, bit for bit, and a changed entry is refused by name") {
  PlanOptions o = options();
  o.epsilon = 2.5;
  const Plan plan = Plan::calibrate(o);
  const dp::PlanText text = plan.text();
  CHECK(text.size() == 24);
  CHECK(text.at("accountant") == "pld");
  CHECK(text.at("relation") == "add_or_remove_one");
  CHECK(text.at("steps") == "300");
  CHECK(text.at("clip threshold") == "0x3ff8000000000000");
  const Plan again = Plan::from_text(text);
  CHECK(again == plan);
  CHECK(again.options() == o);
  CHECK(again.facts() == plan.facts());
  CHECK(again.text() == text);
  CHECK(again.epsilon_after(17) == plan.epsilon_after(17));
  CHECK(dp::difference(text, again.text()).empty());

  const auto with = [&](const std::string& name, double value) {
    dp::PlanText changed = text;
    const auto bits = std::bit_cast<std::uint64_t>(value);
    char digits[19];
    std::snprintf(digits, sizeof digits, "0x%016llx", static_cast<unsigned long long>(bits));
    REQUIRE(changed.contains(name));
    changed[name] = digits;
    return changed;
  };
  const dp::PlanFacts facts = plan.facts();
  for (const auto& [name, value] : {std::pair("noise multiplier", plan.noise_multiplier()),
                                    {"expected batch", facts.expected_batch},
                                    {"joint clip threshold", facts.clip_threshold},
                                    {"rho", facts.rho},
                                    {"sensitivity", facts.sensitivity}}) {
    INFO(name);
    CHECK(with(name, value) == text);
  }
  CHECK(text.at("batch bound") == std::to_string(facts.batch_bound));
  CHECK_THROWS_WITH_AS(Plan::from_text(with("sensitivity", 0.5 * plan.facts().sensitivity)),
                       doctest::Contains("(computed, stored):\nsensitivity: 1.5"), Error);
  CHECK_THROWS_WITH_AS(Plan::from_text(with("noise multiplier", 0.99 * plan.noise_multiplier())),
                       doctest::Contains("expected a noise multiplier for epsilon"), Error);
  CHECK(dp::difference(text, with("delta", 2e-5)) == "delta: 1.0000000000000001e-05, 2.0000000000000002e-05\n");
  dp::PlanText changed = text;
  changed["batch bound"] = std::to_string(plan.facts().batch_bound - 1);
  CHECK_THROWS_WITH_AS(Plan::from_text(changed), doctest::Contains("batch bound: "), Error);
}

TEST_CASE("P33: statement and description say every number, what is assumed and what is not accounted") {
  PlanOptions o = options();
  o.epsilon = 3;
  const Plan plan = Plan::calibrate(o);
  const std::string text = dp::privacy_statement(plan, 120), table = plan.describe();
  for (const char* part : {"120 of 300 planned steps", "1e-05", "one training record", "one record more than the other",
                           "0.02", "Poisson sampling", "privacy-loss distributions", "Assumptions", "Not accounted",
                           "hyper-parameters", "held-out records", "without the records", "initial weights"}) {
    INFO(part);
    CHECK(text.find(part) != std::string::npos);
  }
  const std::string by_rdp = dp::privacy_statement(Plan::with_noise_multiplier(options(dp::Accountant::rdp), 1), 120);
  CHECK(by_rdp.find("Accountant: Renyi") != std::string::npos);
  CHECK(by_rdp.find("privacy-loss") == std::string::npos);
  CHECK(text.find("(" + dp::rounded_up(plan.epsilon_after(120), 4) + ", 1e-05)") != std::string::npos);
  for (const char* part :
       {"add_or_remove_one", "epsilon", "delta", "sampling rate", "steps", "dataset size", "expected batch", "batch bound",
        "clip threshold", "rho", "sensitivity", "noise multiplier", "noise standard deviation"}) {
    INFO(part);
    CHECK(table.find(part) != std::string::npos);
  }
}

TEST_CASE("P25: a printed bound is never below the number, printed noise never above it, and both are next to it") {
  CHECK(dp::rounded_up(1.23401, 4) == "1.2341");
  CHECK(dp::rounded_up(2, 4) == "2.0000");
  CHECK(dp::rounded_up(0, 2) == "0.00");
  CHECK(dp::rounded_up(std::nextafter(2, 3), 4) == "2.0001");
  CHECK(dp::digits_up(1.0 / 300000, 6) == "3.33334e-06");
  CHECK(dp::digits_down(1.0 / 300000, 6) == "3.33333e-06");
  CHECK(dp::digits_up(1e-5, 6) == "1e-05");
  CHECK(dp::digits_down(1e-5, 6) == "1e-05");
  CHECK(dp::digits_up(0.99999951, 6) == "1");
  CHECK(dp::digits_down(0.99999951, 6) == "0.999999");
  CHECK(dp::digits_up(std::nextafter(1, 2), 6) == "1.00001");
  CHECK(dp::digits_up(0, 6) == "0");
  const double infinity = std::numeric_limits<double>::infinity();
  for (const std::string& text : {dp::rounded_up(infinity, 4), dp::digits_up(infinity, 6)}) CHECK(text == "inf");
  for (double bad : {-1.0, std::nan("")}) {
    CHECK_THROWS_AS(dp::rounded_up(bad, 4), Error);
    CHECK_THROWS_AS(dp::digits_down(bad, 6), Error);
  }
  test::Rng rng(test::seed(), 2);
  for (int k = 0; k < 3000; ++k) {
    // Numbers of few digits, too, which are printed as they are.
    double x = std::exp(rng.uniform(-30, 30));
    if (k % 3 == 0) x = std::stod(dp::digits_down(x, int(rng.integer(1, 6))));
    CAPTURE(x);
    const int digits = int(rng.integer(1, 15));
    const double up = std::stod(dp::digits_up(x, digits)), down = std::stod(dp::digits_down(x, digits));
    CHECK((down <= x && x <= up));
    // One unit of the last digit apart at most, and the same where the number has no more digits. Reading costs 2^-53.
    const double unit = std::pow(10, std::floor(std::log10(x)) - digits + 1);
    CHECK(up - down <= unit + 0x1p-52 * x);
    if (k % 3 == 0 && digits >= 6) CHECK(up == down);
    if (x > 1e9) continue;
    const double fixed = std::stod(dp::rounded_up(x, 4));
    CHECK((x <= fixed && fixed <= x + 1e-4 + 0x1p-52 * x));
  }
}

TEST_CASE("P33: no bound in a statement or a description is rounded down, and no noise up") {
  PlanOptions o = options();
  o.delta = 1.0 / 300000;
  o.sampling_rate = 1.0 / 30;
  o.clip_threshold = 1.0 / 3;
  const Plan plan = Plan::with_noise_multiplier(o, 2.0 / 3);
  const std::string text = dp::privacy_statement(plan, 120), table = plan.describe();
  INFO(text, "\n", table);
  for (const char* part : {", 3.33334e-06)-differentially", "probability 0.0333334 ", "clipped to the norm 0.333334,",
                           "standard deviation 0.222222 (noise multiplier 0.666666 times the sensitivity 0.333334 (1 + "}) {
    INFO(part);
    CHECK(text.find(part) != std::string::npos);
  }
  const std::string rho = dp::digits_up(plan.facts().rho, 3);
  CHECK(std::stod(rho) >= plan.facts().rho);
  CHECK(text.find("sensitivity 0.333334 (1 + " + rho + "), which includes the rounding of the sum)") != std::string::npos);
  for (const char* part : {" 3.333333334e-06 ", " 0.03333333334 ", " 0.3333333334 ", " 0.6666666666 ", " 0.2222222222 "}) {
    INFO(part);
    CHECK(table.find(part) != std::string::npos);
  }
}
