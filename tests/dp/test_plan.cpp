// SPDX-License-Identifier: Apache-2.0
// The plan: one object from which sampler, clip rule, noise and accountant come, so that they agree.
#include <doctest/doctest.h>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <vector>

#include "dpmp/dp/statement.hpp"
#include "support/random.hpp"

using namespace dpmp;
using dp::NeighbouringRelation;
using dp::Plan;
using dp::PlanNumbers;
using dp::PlanOptions;

namespace {
PlanOptions options() {
  return {.delta = 1e-5, .sampling_rate = 0.02, .steps = 300, .clip_threshold = 1.5, .dataset_size = 20000};
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
    CHECK(plan.numbers().target_epsilon == target);
    CHECK(Plan::with_noise_multiplier(options(), plan.noise_multiplier()).epsilon() == plan.epsilon());
  }
}

TEST_CASE("P5, P25: accountant, sampler, clip rule and noise of a plan carry the same numbers") {
  const Plan plan = Plan::with_noise_multiplier(options(), 0.9);
  dp::RdpAccountant accountant;
  accountant.add_steps(plan.sampler(keys()).probability(), plan.noise_standard_deviation() / plan.sensitivity().bound,
                       plan.steps());
  CHECK(plan.epsilon() == doctest::Approx(accountant.epsilon(plan.delta() * (1 - Plan::batch_share))).epsilon(1e-12));
  CHECK(plan.epsilon() > accountant.epsilon(plan.delta()));  // part of delta is paid for large batches
  CHECK(plan.sampler(keys()).records() == 20000);
  CHECK(plan.clipping().clip_threshold() == 1.5);
  CHECK(plan.sensitivity().rho == 0x1.2p-42 * double(plan.batch_bound()));
  CHECK(plan.sensitivity().bound == 1.5 * (1 + plan.sensitivity().rho));
  CHECK(plan.noise_standard_deviation() == 0.9 * plan.sensitivity().bound);
}

TEST_CASE("P4: the divisor is a public constant, whatever is drawn and however many records there are") {
  const Plan plan = Plan::with_noise_multiplier(options(), 0.9);
  CHECK(plan.expected_batch() == 0.02 * 20000);
  const PlanNumbers before = plan.numbers();
  std::vector<index_t> all, fewer;
  plan.sampler(keys()).draw(0, all);
  plan.sampler(keys(), 19999).draw(0, fewer);
  CHECK(plan.numbers() == before);
  CHECK(std::mismatch(fewer.begin(), fewer.end(), all.begin()).first == fewer.end());
  CHECK_THROWS_AS(plan.sampler(keys(), 20001), Error);
  CHECK_THROWS_AS(plan.sampler(keys(), 0), Error);
}

TEST_CASE("P25: epsilon_after grows, starts at 0, and tells the truth beyond the plan") {
  const Plan plan = Plan::with_noise_multiplier(options(), 0.9);
  CHECK(plan.epsilon_after(0) == 0);
  CHECK(plan.epsilon_after(plan.steps()) == plan.epsilon());
  double last = 0;
  for (index_t steps : {1, 2, 10, 100, 299, 300, 301, 600, 10000, 299999}) {
    const double epsilon = plan.epsilon_after(steps);
    CHECK(epsilon > last);
    last = epsilon;
  }
  // Twice the steps spend twice the share of delta that pays for large batches.
  dp::RdpAccountant accountant;
  accountant.add_steps(0.02, 0.9, 600);
  CHECK(plan.epsilon_after(600) == doctest::Approx(accountant.epsilon(1e-5 * (1 - 2 * Plan::batch_share))).epsilon(1e-12));
  CHECK(std::isinf(plan.epsilon_after(300000)));
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
  CHECK(dp::log_binomial_tail(20001, 0.02, plan.batch_bound()) <= std::log(1e-3 * 1e-5 / 300));
}

TEST_CASE("P17: the relation is explicit, printed, and one that the accountant holds for") {
  PlanOptions o = options();
  o.relation = NeighbouringRelation::zero_out;
  const Plan plan = Plan::with_noise_multiplier(o, 1);
  CHECK(plan.relation() == NeighbouringRelation::zero_out);
  CHECK(plan.describe().find("zero_out") != std::string::npos);
  CHECK(dp::privacy_statement(plan, 3).find("zero_out") != std::string::npos);
  CHECK_FALSE(plan == Plan::with_noise_multiplier(options(), 1));
  o.relation = NeighbouringRelation::replace_one;
  CHECK_THROWS_WITH_AS(Plan::with_noise_multiplier(o, 1), doctest::Contains("got replace_one: the RDP analysis"), Error);
}

TEST_CASE("P20: a plan survives as numbers, bit for bit, and a changed number is refused by name") {
  PlanOptions o = options();
  o.epsilon = 2.5;
  const Plan plan = Plan::calibrate(o);
  // Through names and 64-bit patterns, as a checkpoint would.
  std::map<std::string, std::uint64_t> stored;
  dp::for_each_number(plan.numbers(), [&](const char* name, const auto& value) { std::memcpy(&stored[name], &value, 8); });
  CHECK(stored.size() == 23);
  PlanNumbers read;
  dp::for_each_number(read, [&](const char* name, auto& value) { std::memcpy(&value, &stored.at(name), 8); });
  CHECK(read == plan.numbers());
  CHECK(dp::difference(read, plan.numbers()).empty());
  const Plan again = Plan::from_numbers(read);
  CHECK(again == plan);
  CHECK(again.epsilon_after(17) == plan.epsilon_after(17));

  PlanNumbers changed = read;
  changed.sensitivity *= 0.5;
  CHECK_THROWS_WITH_AS(Plan::from_numbers(changed), doctest::Contains("sensitivity: "), Error);
  changed = read;
  changed.batch_bound -= 1;
  CHECK_THROWS_WITH_AS(Plan::from_numbers(changed), doctest::Contains("batch_bound: "), Error);
  changed = read;
  changed.noise_multiplier *= 0.99;
  CHECK_THROWS_WITH_AS(Plan::from_numbers(changed), doctest::Contains("expected a noise multiplier for epsilon"), Error);
  changed = read;
  changed.delta = std::nextafter(changed.delta, 1);
  CHECK(dp::difference(read, changed).substr(0, 7) == "delta: ");
}

TEST_CASE("P33: statement and description say every number, what is assumed and what is not accounted") {
  PlanOptions o = options();
  o.epsilon = 3;
  const Plan plan = Plan::calibrate(o);
  const std::string text = dp::privacy_statement(plan, 120), table = plan.describe();
  for (const char* part :
       {"120 of 300 planned steps", "1e-05", "one training record", "one record more than the other", "0.02",
        "Poisson sampling", "Renyi", "Assumptions", "Not accounted", "hyper-parameters", "held-out records"}) {
    INFO(part);
    CHECK(text.find(part) != std::string::npos);
  }
  CHECK(text.find("(" + dp::rounded_up(plan.epsilon_after(120), 4) + ", 1e-05)") != std::string::npos);
  for (const char* part :
       {"add_or_remove_one", "epsilon", "delta", "sampling rate", "steps", "dataset size", "expected batch", "batch bound",
        "clip threshold", "rho", "sensitivity", "noise multiplier", "noise standard deviation"}) {
    INFO(part);
    CHECK(table.find(part) != std::string::npos);
  }
}

TEST_CASE("P25: a printed epsilon is never below the computed one") {
  CHECK(dp::rounded_up(1.23401, 4) == "1.2341");
  CHECK(dp::rounded_up(2, 4) == "2.0000");
  CHECK(dp::rounded_up(0, 2) == "0.00");
  test::Rng rng(test::seed(), 2);
  for (int k = 0; k < 1000; ++k) {
    const double x = std::exp(rng.uniform(-5, 5));
    CHECK(std::stod(dp::rounded_up(x, 4)) >= x * (1 - 1e-12));
  }
}
