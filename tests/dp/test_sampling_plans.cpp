// SPDX-License-Identifier: Apache-2.0
// Plans of every way of sampling: their numbers, what the accountant composes, and the claims behind it, each compared with
// the mechanism itself worked out from its definition on a few records.
#include <doctest/doctest.h>
#include <cmath>
#include <map>
#include <vector>

#include "dpmp/dp/gaussian_curve.hpp"
#include "dpmp/dp/pld_accountant.hpp"
#include "dpmp/dp/sampling_words.hpp"
#include "dpmp/dp/statement.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;
using dp::NeighbouringRelation;
using dp::Plan;
using dp::PlanOptions;
using dp::SamplingKind;

namespace {
PlanOptions options(const dp::SamplingOptions& sampling, double rate = 0) {
  return {.delta = 1e-5, .sampling_rate = rate, .steps = 50, .dataset_size = 2000, .sampling = sampling};
}
struct Kind {
  const char* name;
  PlanOptions options;
  std::vector<const char*> in_table, in_words;
};
std::vector<Kind> kinds() {
  using enum SamplingKind;
  std::vector<Kind> r{
      {"truncated",
       options({.kind = truncated_poisson, .batch_size = 90}, 0.02),
       {"truncated Poisson, each record in each step", "batch size", "90", "pays for draws beyond the batch size"},
       {"drawn independently with probability 0.02, and of a larger draw a uniformly random part of 90 is kept",
        "set aside for "
        "draws of more than 90 records"}},
      {"truncated, chosen", options({.kind = truncated_poisson}, 0.02), {"truncated Poisson"}, {"part of 8"}},
      {"without replacement",
       options({.kind = without_replacement, .batch_size = 40}),
       {"without replacement, batch size over dataset size", "Delta = 2 C (1 + rho)", "by the accountant pld"},
       {"a uniformly random set of 40 of the 2000 records is drawn (sampling without replacement)", "replace_one",
        "Accountant: privacy-loss distributions"}},
      {"balls",
       options({.kind = balls_in_bins, .period = 25}),
       {"balls in bins, each record once an epoch", "share of 0.001", "by the accountant pld"},
       {"drawn once in every epoch of 25 steps, in a uniformly random one",
        "whole epochs are composed, each of them as one random allocation of a record", "0.1 % of delta is set aside"}},
      {"cyclic",
       options({.kind = cyclic_poisson, .period = 4}, 0.08),
       {"each record in each step of its group", "period"},
       {"split once at random into 4 groups", "can be drawn in one of every 4 steps"}},
      {"full", options({.kind = full_batch}), {"every record in each step"}, {"in every step all records are used"}},
      {"full, replace",
       options({.kind = full_batch}),
       {"Delta = 2 C (1 + rho)"},
       {"is replaced by any other (replace_one)"}},
      {"full, zero out", options({.kind = full_batch}), {"zero_out"}, {"replaced by an empty one (zero_out)"}},
      {"users",
       options({.records_per_user = 3}, 0.02),
       {"the unit is one user", "Delta = 3 C (1 + rho)", "records per user"},
       {"The unit of privacy is one user with all of their records", "one has one user more",
        "at most 3 records, chosen at "
        "random",
        "2000 users"}}};
  for (Kind& kind : r) {
    const std::string name = kind.name;
    if (name == "without replacement" || name == "full, replace") kind.options.relation = NeighbouringRelation::replace_one;
    if (name == "full, zero out") kind.options.relation = NeighbouringRelation::zero_out;
  }
  return r;
}

/// A mixture of normal distributions of one deviation: probability by mean.
using Mixture = std::map<double, double>;
/// sup_S P(S) - e^epsilon Q(S) by the trapezoidal rule, which is exact to many digits for such integrands but for the kink.
double hockey_stick(const Mixture& P, const Mixture& Q, double sigma, double epsilon) {
  const double step = sigma / 100;
  double sum = 0;
  const auto density = [&](const Mixture& M, double x) {
    double d = 0;
    for (const auto& [mean, p] : M) d += p * std::exp(-0.5 * (x - mean) * (x - mean) / (sigma * sigma));
    return d;
  };
  double low = P.begin()->first, high = P.rbegin()->first;
  for (double x = low - 9 * sigma; x < high + 9 * sigma; x += step)
    sum += std::max(0.0, density(P, x) - std::exp(epsilon) * density(Q, x));
  return sum * step / (sigma * std::sqrt(2 * 3.14159265358979323846));
}
double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }
/// Adds `weight`, spread evenly over the subsets of `size` of these values, to the mixture of their sums plus `shift`.
void add_subsets(Mixture& M, const std::vector<double>& values, std::size_t size, double weight, double shift = 0) {
  std::vector<double> sums;
  for (unsigned bits = 0; bits < 1u << values.size(); ++bits) {
    if (std::size_t(__builtin_popcount(bits)) != size) continue;
    double sum = shift;
    for (std::size_t k = 0; k < values.size(); ++k) sum += bits >> k & 1 ? values[k] : 0;
    sums.push_back(sum);
  }
  for (double sum : sums) M[sum] += weight / double(sums.size());
}
double binomial(index_t n, double q, index_t k) {
  return std::exp(std::lgamma(double(n) + 1) - std::lgamma(double(k) + 1) - std::lgamma(double(n - k) + 1) +
                  double(k) * std::log(q) + double(n - k) * std::log1p(-q));
}
double binomial_tail(index_t n, double q, index_t from) {
  double sum = 0;
  for (index_t k = from; k <= n; ++k) sum += binomial(n, q, k);
  return sum;
}
}  // namespace

TEST_CASE("P20, P26, P33: plans of every sampling survive as text, keep their target and say what they are") {
  for (const Kind& kind : kinds()) {
    CAPTURE(kind.name);
    PlanOptions o = kind.options;
    o.epsilon = 2;
    const Plan plan = Plan::calibrate(o), again = Plan::from_text(plan.text());
    CHECK(again == plan);
    CHECK(again.facts() == plan.facts());
    CHECK(again.describe() == plan.describe());
    CHECK((plan.epsilon() <= 2 && plan.epsilon() >= 2 - 1e-3));
    CHECK(plan.epsilon_after(25) < plan.epsilon());
    if (kind.options.sampling.kind == SamplingKind::balls_in_bins) CHECK(plan.epsilon_after(26) == plan.epsilon());
    CHECK(plan.epsilon_after(0) == 0);
    CHECK(plan.text().contains("sampling"));
    const std::string table = plan.describe(), words = dp::privacy_statement(plan, 50);
    INFO(table, words);
    for (const char* part : kind.in_table) CHECK_MESSAGE(table.find(part) != std::string::npos, part);
    for (const char* part : kind.in_words) CHECK_MESSAGE(words.find(part) != std::string::npos, part);
    // Every entry counts: changed or left out it is no plan or another one.
    for (const auto& [name, value] : plan.text())
      for (bool erased : {false, true}) {
        INFO(name);
        // Facts may be off by the rounding of another build (test_stored_plans.cpp).
        const bool fact = name == "batch bound" || name == "expected batch" || name == "joint clip threshold" ||
                          name == "rho" || name == "sensitivity";
        if (fact && !erased) continue;
        dp::PlanText changed = plan.text();
        changed[name].back() = value.back() == '1' ? '2' : '1';
        if (erased) changed.erase(name);
        bool same = true;
        try {
          same = Plan::from_text(changed) == plan;
        } catch (const Error&) {
          same = false;
        }
        CHECK_FALSE(same);
      }
  }
  // Plans that sample records by Poisson have the text they had before there was a choice.
  CHECK_FALSE(Plan::with_noise_multiplier(options({}, 0.02), 1).text().contains("sampling"));
  dp::PlanText text = Plan::with_noise_multiplier(kinds()[0].options, 1).text();
  text["sampling"] = "shuffled";
  CHECK(test::refuses([&] { Plan::from_text(text); }, "expected a way of sampling in 'sampling' of a plan, got 'shuffled'"));
}

TEST_CASE("P4, P5, P16: bounds, divisors and sensitivities follow from the sampling") {
  const auto facts = [](const PlanOptions& o) { return Plan::with_noise_multiplier(o, 1).facts(); };
  using enum SamplingKind;
  const dp::PlanFacts plain = facts(options({}, 0.02)),
                      truncated = facts(options({.kind = truncated_poisson, .batch_size = 90}, 0.02));
  CHECK(truncated.batch_bound == 90);
  CHECK(truncated.expected_batch == 40);
  const dp::PlanFacts full = facts(options({.kind = full_batch}));
  CHECK(full.batch_bound == 2001);
  CHECK(full.expected_batch == 2000);
  CHECK(facts(options({.kind = balls_in_bins, .period = 3})).expected_batch == 2000.0 / 3);
  // Each step of four groups draws with 0.08 / 4 from all.
  const dp::PlanFacts cyclic = facts(options({.kind = cyclic_poisson, .period = 4}, 0.08));
  CHECK(cyclic.expected_batch == 40);
  CHECK(cyclic.batch_bound == plain.batch_bound);
  const dp::PlanFacts users = facts(options({.records_per_user = 3}, 0.02));
  CHECK(users.batch_bound == 3 * plain.batch_bound);
  CHECK(users.expected_batch == 3 * plain.expected_batch);
  CHECK(users.sensitivity == 3 * (1 + users.rho));
  PlanOptions replaced = options({.kind = full_batch, .records_per_user = 5});
  replaced.relation = NeighbouringRelation::replace_one;
  const Plan plan = Plan::with_noise_multiplier(replaced, 0.5);
  CHECK(plan.facts().sensitivity == 10 * (1 + plan.facts().rho));
  CHECK(plan.noise_standard_deviation() == 0.5 * plan.facts().sensitivity);
  // Clipped in groups and by a schedule, too.
  replaced.group_thresholds = {3, 4};
  replaced.clip_schedule = dp::Schedule::piecewise({{0, 1.0}, {7, 2.0}});
  CHECK(Plan::with_noise_multiplier(replaced, 1).at(7).noise_standard_deviation == doctest::Approx(100).epsilon(1e-6));
}

TEST_CASE("a sampling rate that the sampling makes may be given as well, as a quotient of doubles") {
  const auto rate = [](SamplingKind kind, index_t a, index_t b, double given) {
    dp::SamplingOptions o{.kind = kind};
    (kind == SamplingKind::balls_in_bins ? o.period : o.batch_size) = kind == SamplingKind::balls_in_bins ? b : a;
    return dp::sampling_rate_of(o, given, b);
  };
  test::Rng rng(test::seed(), 6);
  for (index_t n = 1; n <= 100000; ++n) {
    const double made = rate(SamplingKind::balls_in_bins, 1, n, 0);
    REQUIRE(rate(SamplingKind::balls_in_bins, 1, n, 1.0 / double(n)) == made);
    REQUIRE(made * double(n) >= 1);  // rounded up
    const index_t m = rng.integer(1, n);
    REQUIRE(rate(SamplingKind::without_replacement, m, n, double(m) / double(n)) ==
            rate(SamplingKind::without_replacement, m, n, 0));
  }
  CHECK(
      test::refuses([&] { rate(SamplingKind::balls_in_bins, 1, 49, 1.0 / 49 * (1 + 1e-15)); }, "or the one that it makes"));
}

TEST_CASE("P1: the empty record in a quantile's count is not accounted by Renyi divergences, but for full batches") {
  PlanOptions o = options({}, 0.02);
  o.relation = NeighbouringRelation::zero_out;
  o.adaptive = dp::AdaptiveOptions{.count_noise = 10};
  CHECK_NOTHROW(Plan::with_noise_multiplier(o, 1));
  o.accountant = dp::Accountant::rdp;
  CHECK(
      test::refuses([&] { Plan::with_noise_multiplier(o, 1); }, "the count of an adaptive threshold has the empty record"));
  o.sampling = {.kind = SamplingKind::full_batch}, o.sampling_rate = 0;
  CHECK_NOTHROW(Plan::with_noise_multiplier(o, 5));
}

TEST_CASE("P25: a statement says what is set aside of delta for the steps taken, beyond the planned ones too") {
  const Plan plan = Plan::with_noise_multiplier(options({}, 0.02), 1);
  const auto says = [](const Plan& p, index_t steps, const std::string& words) {
    return dp::privacy_statement(p, steps).find(words) != std::string::npos;
  };
  const std::string batches =
      " % of delta is set aside for batches of more than " + std::to_string(plan.facts().batch_bound);
  CHECK(says(plan, 10, "; 0.1" + batches));
  CHECK(says(plan, 50, "; 0.1" + batches));
  CHECK(says(plan, 100, "; 0.2" + batches));
  CHECK(says(plan, 125, "; 0.25" + batches));
  const PlanOptions cut = options({.kind = SamplingKind::truncated_poisson, .batch_size = 80}, 0.02);
  const Plan truncated = Plan::with_noise_multiplier(cut, 1);
  CHECK(says(truncated, 200, "of delta " + dp::digits_up(dp::delta_aside(truncated.options(), 200), 3) + " is set aside"));
  // The bound is the one that the plan has, of another build for instance.
  CHECK(dp::sampling_account_in_words(plan.options(), plan.facts().batch_bound + 1, 1)
            .find(std::to_string(plan.facts().batch_bound + 1) + " records") != std::string::npos);
}

TEST_CASE("P5, P25: what is composed: all steps, one step of a period, and nothing aside where the size is fixed") {
  const auto by_rdp = [](PlanOptions o) {
    o.accountant = dp::Accountant::rdp;
    return o;
  };
  dp::RdpAccountant gaussian, cyclic;
  gaussian.add_steps(1, 8, 50);
  cyclic.add_steps(0.08, 1, 13);  // ceil(50 / 4)
  using enum SamplingKind;
  CHECK(Plan::with_noise_multiplier(by_rdp(options({.kind = full_batch})), 8).epsilon() == gaussian.epsilon(1e-5));
  CHECK(Plan::with_noise_multiplier(options({.kind = full_batch}), 8).epsilon() ==
        doctest::Approx(dp::gaussian_epsilon(std::sqrt(50.0) / 8, 1e-5)).epsilon(1e-12));
  CHECK(Plan::with_noise_multiplier(by_rdp(options({.kind = cyclic_poisson, .period = 4}, 0.08)), 1).epsilon() ==
        cyclic.epsilon(1e-5 - 1e-8));
  const Plan by_turns = Plan::with_noise_multiplier(options({.kind = cyclic_poisson, .period = 4}, 0.08), 1);
  dp::PldAccountant turns;
  turns.add_steps({.sampling_rate = 0.08, .noise_multiplier = 1}, 13);
  CHECK(by_turns.epsilon() == turns.epsilon(1e-5 - 1e-8));
  CHECK(by_turns.epsilon_after(49) == by_turns.epsilon());
  CHECK(by_turns.epsilon_after(48) < by_turns.epsilon());
  // Fixed sizes leave all of delta; one step of them has the closed form q D(log(1 + (e^epsilon - 1) / q)).
  PlanOptions fixed = options({.kind = without_replacement, .batch_size = 40});
  fixed.relation = NeighbouringRelation::replace_one, fixed.steps = 1;
  const double epsilon = Plan::with_noise_multiplier(fixed, 1).epsilon(), q = 0.02;
  const double amplified = std::log1p(std::expm1(epsilon) / q);
  CHECK(q * (normal_cdf(0.5 - amplified) - std::exp(amplified) * normal_cdf(-0.5 - amplified)) ==
        doctest::Approx(1e-5).epsilon(1e-6));
  // In parts of a schedule each is rounded up: 7 steps of one noise and 43 of another hold 2 and 11 of a group.
  PlanOptions o = options({.kind = cyclic_poisson, .period = 4}, 0.08);
  o.noise_schedule = dp::Schedule::piecewise({{0, 1.0}, {7, 1.5}});
  dp::RdpAccountant parts;
  parts.add_steps(0.08, 1, 2);
  parts.add_steps(0.08, 1.5, 11);
  CHECK(Plan::with_noise_multiplier(by_rdp(o), 1).epsilon() == parts.epsilon(1e-5 - 1e-8));
  dp::PldAccountant pld_parts;
  pld_parts.add_steps({.sampling_rate = 0.08, .noise_multiplier = 1}, 2);
  pld_parts.add_steps({.sampling_rate = 0.08, .noise_multiplier = 1.5}, 11);
  CHECK(Plan::with_noise_multiplier(o, 1).epsilon() == pld_parts.epsilon(1e-5 - 1e-8));
}

TEST_CASE("P5: the part of delta that truncation takes is a bound on its probability, and the chosen size is the smallest") {
  test::Rng rng(test::seed(), 1);
  for (int k = 0; k < 200; ++k) {
    PlanOptions o = options({.kind = SamplingKind::truncated_poisson}, std::exp(rng.uniform(-5, -1)));
    o.dataset_size = rng.integer(1, 3000), o.steps = rng.integer(1, 10000), o.delta = std::exp(rng.uniform(-20, -3));
    const PlanOptions chosen = dp::completed_options(o);
    const index_t B = chosen.sampling.batch_size;
    CAPTURE(o.dataset_size);
    CAPTURE(B);
    const double exact = double(o.steps) * o.sampling_rate * binomial_tail(o.dataset_size, o.sampling_rate, B);
    CHECK(dp::delta_aside(chosen, o.steps) >= exact);
    CHECK(dp::delta_aside(chosen, o.steps) <= 1.001e-3 * o.delta);
    // Chernoff's bound is above the tail by at most sqrt(8 B) (Ash 1965, lemma 4.7.2): the size is not far from the
    // smallest.
    if (B > 1)
      CHECK(double(o.steps) * o.sampling_rate * binomial_tail(o.dataset_size + 1, o.sampling_rate, B - 1) *
                std::sqrt(8 * double(B)) >=
            0.99e-3 * std::min(o.delta, 500 * double(o.steps) * o.sampling_rate));
  }
  CHECK(test::refuses(
      [] { dp::completed_options(options({.kind = SamplingKind::truncated_poisson, .batch_size = 40}, 0.02)); },
      "expected draws beyond the batch size 40 to cost at most half of delta"));
}

TEST_CASE("P5, P25: truncated Poisson sampling loses no more than its part of delta, which it can need") {
  test::Rng rng(test::seed(), 2);
  int needed = 0;
  for (int k = 0; k < 40; ++k) {
    const std::size_t n = 5, B = std::size_t(rng.integer(2, 3));
    const double q = rng.uniform(0.3, 0.9), sigma = rng.uniform(0.4, 1.5), epsilon = rng.uniform(0, 3.5);
    std::vector<double> others(n);
    for (double& v : others) v = k % 2 == 0 ? -1 : rng.uniform(-1, 1);
    const double x = 1;
    // Whatever the others draw, x is drawn or not; a larger draw is cut to each of its parts of B with the same probability.
    Mixture with, without, emptied;
    double above = 0;
    for (unsigned bits = 0; bits < 1u << n; ++bits) {
      std::vector<double> drawn;
      for (std::size_t i = 0; i < n; ++i)
        if (bits >> i & 1) drawn.push_back(others[i]);
      const double p = std::pow(q, double(drawn.size())) * std::pow(1 - q, double(n - drawn.size()));
      above += drawn.size() >= B ? p : 0;
      add_subsets(without, drawn, std::min(B, drawn.size()), p);
      for (Mixture* m : {&with, &emptied}) {
        std::vector<double> all = drawn;
        all.push_back(m == &with ? x : 0);
        add_subsets(*m, drawn, std::min(B, drawn.size()), p * (1 - q));
        add_subsets(*m, all, std::min(B, all.size()), p * q);
      }
    }
    const Mixture one{{0.0, 1 - q}, {1.0, q}}, none{{0.0, 1.0}};
    const double forwards = hockey_stick(one, none, sigma, epsilon), back = hockey_stick(none, one, sigma, epsilon);
    const double aside = q * above, rounding = 1e-5;
    CHECK(hockey_stick(with, without, sigma, epsilon) <= forwards + aside + rounding);
    CHECK(hockey_stick(without, with, sigma, epsilon) <= back + aside + rounding);
    CHECK(hockey_stick(with, emptied, sigma, epsilon) <= forwards + aside + rounding);
    CHECK(hockey_stick(emptied, with, sigma, epsilon) <= back + aside + rounding);
    needed += hockey_stick(with, without, sigma, epsilon) > forwards + 0.01 * aside + rounding;
  }
  // A record that pushes out an opposite one moves the sum by 2: a hundredth of the correction would not do.
  CHECK(needed >= 2);
}

TEST_CASE("P5, P25: without replacement: a step loses no more than is accounted, and opposite records reach it") {
  test::Rng rng(test::seed(), 3);
  for (int k = 0; k < 30; ++k) {
    const std::size_t n = 6, m = std::size_t(rng.integer(1, 6));
    const double sigma = rng.uniform(0.5, 2), epsilon = rng.uniform(0, 2), q = double(m) / double(n);
    const bool opposite = k % 2 == 0;
    std::vector<double> values(n), replaced;
    for (double& v : values) v = opposite ? -1 : rng.uniform(-1, 1);
    replaced = values;
    replaced[0] = opposite ? 1 : rng.uniform(-1, 1);
    Mixture before, after;
    add_subsets(before, values, m, 1);
    add_subsets(after, replaced, m, 1);
    // Of sensitivity 2: noise multiplier sigma / 2.
    const dp::PrivacyCurve curve = dp::privacy_curve(
        {dp::StepMechanism::Kind::poisson_gaussian_difference, q, sigma / 2, NeighbouringRelation::replace_one});
    const double there = hockey_stick(after, before, sigma, epsilon), back = hockey_stick(before, after, sigma, epsilon);
    CHECK(there <= curve.forward(epsilon).upper + 1e-5);
    CHECK(back <= curve.forward(epsilon).upper + 1e-5);
    if (opposite) CHECK(there >= curve.forward(epsilon).upper - 1e-5);
  }
}

TEST_CASE("bad input: relations that a sampling is not accounted for, counts next to records of users") {
  using enum SamplingKind;
  const auto refused = [](PlanOptions o, NeighbouringRelation relation, const char* part) {
    o.relation = relation;
    return test::refuses([&] { Plan::with_noise_multiplier(o, 1); }, part);
  };
  for (const Kind& kind : kinds())
    if (kind.options.sampling.kind == truncated_poisson || kind.options.sampling.kind == balls_in_bins)
      CHECK(refused(kind.options, NeighbouringRelation::replace_one, "expected add_or_remove_one or zero_out for "));
  for (NeighbouringRelation r : {NeighbouringRelation::add_or_remove_one, NeighbouringRelation::zero_out})
    CHECK(refused(options({.kind = without_replacement, .batch_size = 20}), r,
                  "expected replace_one for without_replacement"));
  PlanOptions counted = options({.records_per_user = 2}, 0.1);
  counted.adaptive = dp::AdaptiveOptions{.count_noise = 10};
  CHECK(refused(counted, NeighbouringRelation::add_or_remove_one, "expected one record of a user in a step"));
  counted.sampling = {.kind = balls_in_bins, .period = 10}, counted.sampling_rate = 0;
  CHECK(refused(counted, NeighbouringRelation::zero_out, "expected add_or_remove_one for balls_in_bins"));
  CHECK(refused(options({.kind = full_batch}, 0.5), NeighbouringRelation::zero_out, "one that it makes, 1, got 0.5"));
  CHECK(refused(options({.kind = balls_in_bins}), NeighbouringRelation::zero_out, "period in [1, 2^40)"));
  CHECK(refused(options({.batch_size = 4}, 0.5), NeighbouringRelation::zero_out, "no batch size for poisson"));
}
