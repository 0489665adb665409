// SPDX-License-Identifier: Apache-2.0
// Lower bounds from one run with canaries: against sums of the binomial law, against mechanisms whose chances are known
// exactly, and their coverage and power on simulated releases.
#include <doctest/doctest.h>

#include "dpmp/dp/audit.hpp"
#include "dpmp/dp/claimed_trade_off.hpp"
#include "dpmp/dp/gaussian_curve.hpp"
#include "dpmp/dp/one_run_audit.hpp"
#include "dpmp/dp/statement.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;
using dp::OneRunGuesses;

namespace {
double phi(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

/// P[W >= k] of n trials of probability p, added up in long double.
long double tail(index_t n, long double p, index_t k) {
  long double sum = 0;
  for (index_t j = std::max<index_t>(k, 0); j <= n; ++j)
    sum +=
        std::exp(std::lgamma((long double)n + 1) - std::lgamma((long double)j + 1) - std::lgamma((long double)(n - j) + 1) +
                 (long double)j * std::log(p) + (long double)(n - j) * std::log1p(-p));
  return std::min<long double>(sum, 1);
}

/// Canaries whose scores are drawn each for itself: of(coin).
struct Simulated {
  std::vector<double> scores;
  std::vector<std::uint8_t> included;
};
template <class Score>
Simulated simulate(test::Rng& rng, index_t canaries, Score&& of) {
  Simulated s;
  for (index_t k = 0; k < canaries; ++k) {
    s.included.push_back(std::uint8_t(rng.bits() >> 63));
    s.scores.push_back(of(s.included.back() != 0));
  }
  return s;
}
/// (epsilon, delta) randomised response: the coin itself with probability delta, else the coin, turned around with
/// probability 1 / (1 + e^epsilon). Revealed coins have the larger scores.
auto randomised_response(test::Rng& rng, double epsilon, double delta) {
  return [&rng, epsilon, delta](bool in) {
    const bool revealed = rng.uniform() < delta;
    const bool said = revealed ? in : (rng.uniform() < 1 / (1 + std::exp(-epsilon))) == in;
    return (said ? 1 : -1) * (revealed ? 2 : 1) + 1e-3 * rng.uniform();
  };
}

/// Largest count of events of probability at most p in n trials that an accident of probability 1e-9 explains.
int at_most(int n, double p) {
  int k = 0;
  while (tail(n, p, k + 1) > 1e-9L) ++k;
  return k;
}
constexpr double confidence = 0.95;
}  // namespace

TEST_CASE("one run: the chance of right guesses is what theorem 5.2 of Steinke et al. sums up to") {
  for (const auto& [m, r, v] :
       {std::tuple<index_t, index_t, index_t>{1000, 1000, 620}, {1000, 100, 83}, {50, 20, 20}, {10, 4, 1}, {10, 4, 0}})
    for (const double epsilon : {0.0, 0.3, 2.0})
      for (const double delta : {0.0, 1e-5, 0.01}) {
        const long double p = 1 / (1 + std::exp(-(long double)epsilon)), beta = tail(r, p, v);
        long double alpha = 0;
        for (index_t i = 1; i <= m; ++i) alpha = std::max(alpha, (tail(r, p, v - i) - beta) / (long double)i);
        const double right = double(std::min<long double>(1, beta + 2 * (long double)m * delta * alpha));
        CHECK(dp::one_run_chance({m, r, v}, epsilon, delta) == doctest::Approx(right).epsilon(1e-9));
      }
}

TEST_CASE("one run: what a mechanism really does is never refuted, at any level and for any count of right guesses") {
  // Chances of these mechanisms are known exactly, so for each count c the claim must survive at the level P[N >= c].
  for (const index_t m : {1, 7, 100, 600})
    for (index_t c = 1; c <= m; c = c < 5 ? c + 1 : c + m / 37 + 1) {
      CAPTURE(m);
      CAPTURE(c);
      const auto survives = [&](dp::TradeOffFunction f, double chance) {
        const double level = chance * (1 - 1e-9);
        return level <= 1e-12 || !dp::one_run_refutes({m, m, c}, f, 1 - level);
      };
      for (const double epsilon : {0.1, 1.0, 4.0}) {
        const double chance = double(tail(m, 1 / (1 + std::exp(-(long double)epsilon)), c));
        CHECK(survives(dp::PointsTradeOff{{{epsilon, 0}}}, chance));
        CHECK(dp::one_run_chance({m, m, c}, epsilon, 0) >= chance * (1 - 1e-9));
      }
      for (const double mu : {0.2, 1.0, 3.0}) CHECK(survives(dp::GaussianTradeOff{mu}, double(tail(m, phi(mu / 2), c))));
      // Everything is revealed at once with probability delta, else nothing is: canaries that are not independent.
      for (const double delta : {1e-4, 0.04, 0.3}) {
        const double chance = delta + (1 - delta) * double(tail(m, 0.5L, c));
        CHECK(survives(dp::PointsTradeOff{{{0, delta}}}, chance));
        CHECK(dp::one_run_chance({m, m, c}, 0, delta) >= chance * (1 - 1e-9));
      }
    }
}

TEST_CASE("one run: randomised response: the bound covers epsilon as often as it says, and no more") {
  test::Rng rng;
  constexpr index_t m = 1000;
  constexpr int runs = 2000;
  for (const double epsilon : {0.5, 2.0}) {
    const long double p = 1 / (1 + std::exp(-(long double)epsilon));
    index_t least = 0;  // right guesses that are needed to refute epsilon
    while (tail(m, p, least) >= 1 - confidence) ++least;
    const double wrong = double(tail(m, p, least));
    int above = 0;
    double mean = 0;
    for (int k = 0; k < runs; ++k) {
      const Simulated s = simulate(rng, m, randomised_response(rng, epsilon, 0));
      OneRunGuesses response{m, m, 0};  // guesses what it hears
      for (std::size_t j = 0; j < s.scores.size(); ++j) response.right += (s.scores[j] > 0) == (s.included[j] != 0);
      const double bound = dp::one_run_epsilon(response, 0, confidence);
      above += bound > epsilon;
      mean += bound / runs;
    }
    CAPTURE(epsilon);
    // The bound is exact: it fails as often as it may, up to the steps of a count. Six standard errors.
    CHECK(std::fabs(above - runs * wrong) <= 6 * std::sqrt(runs * wrong));
    CHECK(wrong > 0.04);
    // On average two standard errors of the share of right guesses below.
    const double error = std::sqrt(double(p * (1 - p)) / double(m)), low = double(p) - 2.1 * error;
    CHECK(mean > std::log(low / (1 - low)));
    CHECK(mean < epsilon);
  }
}

TEST_CASE("one run: (epsilon, delta) randomised response and Gaussians: sound, with the power to see a smaller claim fail") {
  test::Rng rng;
  constexpr index_t m = 1000;
  constexpr int runs = 150;
  const int limit = at_most(runs, 1 - confidence);
  const auto counts = dp::default_guess_counts(m);
  for (const double delta : {1e-5, 0.01})
    for (const dp::GuessCounts c : counts) {
      const double epsilon = 1.5;
      int by_epsilon = 0, by_trade_off = 0, smaller = 0;
      for (int k = 0; k < runs; ++k) {
        const Simulated s = simulate(rng, m, randomised_response(rng, epsilon, delta));
        const OneRunGuesses g = dp::guess_one_run(s.scores, s.included, c.in, c.out);
        by_epsilon += dp::one_run_chance(g, epsilon, delta) < 1 - confidence;
        by_trade_off += dp::one_run_refutes(g, dp::PointsTradeOff{{{epsilon, delta}}}, confidence);
        smaller += dp::one_run_refutes(g, dp::PointsTradeOff{{{epsilon / 3, delta}}}, confidence);
      }
      CAPTURE(delta);
      CAPTURE(c.in);
      CHECK(by_epsilon <= limit);
      CHECK(by_trade_off <= limit);
      if (c.in >= (delta > 1e-3 ? m / 5 : m / 10)) CHECK(smaller > limit);  // a third of the epsilon does not pass this test
    }
  for (const double mu : {0.5, 1.0, 2.0})
    for (const dp::GuessCounts c : counts) {
      int above = 0, smaller = 0;
      for (int k = 0; k < runs; ++k) {
        const Simulated s = simulate(rng, m, [&](bool in) { return mu * in + rng.normal(); });
        const OneRunGuesses g = dp::guess_one_run(s.scores, s.included, c.in, c.out);
        above += dp::one_run_refutes(g, dp::GaussianTradeOff{mu}, confidence);
        smaller += dp::one_run_refutes(g, dp::GaussianTradeOff{mu / 2.5}, confidence);
      }
      CAPTURE(mu);
      CAPTURE(c.in);
      CHECK(above <= limit);
      if (mu >= 1 && c.in <= m / 4) CHECK(smaller > limit);
    }
}

TEST_CASE(
    "one run: bounds of mu and epsilon are where the claims stop to be refuted; the whole audit shares its confidence") {
  test::Rng rng;
  constexpr index_t m = 2000;
  const Simulated s = simulate(rng, m, [&](bool in) { return 2.0 * in + rng.normal(); });
  const OneRunGuesses g = dp::guess_one_run(s.scores, s.included, 100, 100);
  const double mu = dp::one_run_mu(g, confidence), epsilon = dp::one_run_epsilon(g, 1e-5, confidence);
  CHECK(mu > 0.8);  // 200 guesses, all of them right but for a few: the share of ones at 1.3 standard deviations is 0.98
  CHECK(dp::one_run_refutes(g, dp::GaussianTradeOff{mu * (1 - 1e-6)}, confidence));
  CHECK(!dp::one_run_refutes(g, dp::GaussianTradeOff{mu + 1e-6}, confidence));
  CHECK(dp::one_run_chance(g, epsilon * (1 - 1e-6), 1e-5) < 1 - confidence);
  CHECK(dp::one_run_chance(g, epsilon + 1e-6, 1e-5) >= 1 - confidence);
  // A second score that says nothing: found by the first one, at half of the miss.
  std::vector<double> noise;
  for (index_t k = 0; k < m; ++k) noise.push_back(rng.normal());
  const std::vector<double> rows[] = {noise, s.scores};
  const dp::GuessCounts counts[] = {{100, 100}};
  const dp::OneRunResult result = dp::audit_one_run(rows, s.included, counts, 1e-5, confidence, dp::GaussianTradeOff{0.5});
  CHECK(result.mu == dp::one_run_mu(g, 1 - (1 - confidence) / 2));
  CHECK(result.epsilon == dp::one_run_epsilon(g, 1e-5, 1 - (1 - confidence) / 2));
  CHECK(result.refuted);
  CHECK(result.of_claim.right == g.right);
  CHECK(result.mu < mu);
  // Nothing shown by scores that say nothing; a claim that holds stands.
  const dp::OneRunResult none = dp::audit_one_run(noise, s.included, 1e-5, 1 - 1e-9, dp::GaussianTradeOff{0.5});
  CHECK(none.mu == 0);
  CHECK(none.epsilon == 0);
  CHECK(!none.refuted);
}

TEST_CASE("one run: trade-off functions are their own inverses, convex, and agree with the epsilons that they come from") {
  const dp::PointsTradeOff points{{{0.5, 0.05}, {1.5, 1e-3}, {3, 1e-6}}};
  for (const double mu : {0.3, 1.0, 4.0}) {
    const dp::GaussianTradeOff f{mu};
    for (const double delta : {1e-8, 1e-5, 0.01}) {
      const double epsilon = dp::gaussian_epsilon(mu, delta);
      // The line of (epsilon, delta) touches f from below.
      const dp::PointsTradeOff line{{{epsilon, delta}}};
      for (double a = 1e-12; a < 1; a *= 1.1) CHECK(f(a) >= line(a) - 1e-9);
      const double touched = phi(-epsilon / mu - mu / 2);
      CHECK(f(touched) == doctest::Approx(line(touched)).epsilon(1e-9));
    }
    for (double a = 0.01; a < 1; a += 0.03) {
      CHECK(f(f(a)) == doctest::Approx(a).epsilon(1e-9));
      CHECK(f(a) <= (f(a - 0.01) + f(a + 0.01)) / 2 + 1e-12);
    }
  }
  for (double a = 0.001; a < 0.9; a += 0.013) {
    const double b = points(a);
    if (b > 0) CHECK(points(b) == doctest::Approx(a).epsilon(1e-9));
    CHECK(b <= (points(a - 0.001) + points(a + 0.001)) / 2 + 1e-12);
  }
}

TEST_CASE(
    "one run: a plan's claim is what its accountant states, and the exact Gaussian where all records are in all steps") {
  const dp::PlanOptions all{.delta = 1e-5, .sampling_rate = 1, .steps = 4, .dataset_size = 100};
  const double sigma = 2, mu = 1;  // sqrt(4) / 2
  const dp::PointsTradeOff f = dp::claimed_trade_off(dp::Plan::with_noise_multiplier(all, sigma), 4);
  const dp::GaussianTradeOff exact{mu};
  for (double a = 1e-6; a < 1; a *= 1.3) {
    // Lines that touch a curve are below it, between deltas that are a fifth apart by less than that; and the deltas include
    // what is set aside for large batches.
    CHECK(f(a) <= exact(a) + 1e-9);
    CHECK(1 - f(a) <= 1.25 * (1 - exact(a)) + 1e-7);
  }
  dp::PlanOptions sampled = all;
  sampled.sampling_rate = 0.1;
  const dp::Plan plan = dp::Plan::with_noise_multiplier(sampled, sigma);
  const dp::PointsTradeOff g = dp::claimed_trade_off(plan, 4);
  CHECK(g.points.size() > 50);
  // At the plan's own delta it claims no less than the plan, and hardly more.
  for (const dp::PrivacyPoint& p : g.points)
    if (p.delta < 1.2e-5 && p.delta > 1e-5 / 1.2) CHECK(p.epsilon == doctest::Approx(plan.epsilon()).epsilon(0.05));
  dp::PlanOptions fixed = sampled;
  fixed.sampling = {.kind = dp::SamplingKind::truncated_poisson, .batch_size = 30};
  fixed.sampling_rate = 0.1;
  const dp::Plan other = dp::Plan::with_noise_multiplier(fixed, sigma);
  for (const dp::PrivacyPoint& p : dp::claimed_trade_off(other, 4).points)
    if (p.delta < 1.2e-5 && p.delta > 1e-5 / 1.2) CHECK(p.epsilon == doctest::Approx(other.epsilon()).epsilon(0.05));
  CHECK(test::refuses([&] { dp::claimed_trade_off(plan, 0); }, "expected at least one step"));
}

TEST_CASE("P31, P33: a statement says of an audit what it has shown, bounds down and claims up") {
  const dp::Plan plan =
      dp::Plan::with_noise_multiplier({.delta = 1e-5, .sampling_rate = 0.1, .steps = 4, .dataset_size = 100}, 2);
  dp::AuditNote note{
      .canaries = 1000, .steps = 4, .claimed_epsilon = 2.00000049, .delta = 1e-5, .epsilon = 1.23456, .confidence = 0.95};
  const std::string text = dp::privacy_statement(plan, 4, {.audit = note});
  for (const char* words : {"Audited: one run of 4 steps with 1000 canaries",
                            "lower bound of epsilon of 1.234 at delta 1e-05, "
                            "at 95 % confidence",
                            "where epsilon 2.00001 was claimed", "was not refuted at 95 %", "proves none"})
    CHECK_MESSAGE(text.find(words) != std::string::npos, words, " in ", text);
  CHECK(dp::privacy_statement(plan, 4).find("Audited") == std::string::npos);
  note.refuted = true;
  CHECK(dp::audit_in_words(note).find("the claim WAS REFUTED at 95 %") != std::string::npos);
  CHECK(test::refuses([] { dp::audit_in_words({}); }, "expected an audit with canaries"));
}

TEST_CASE("one run: bad input is refused") {
  const std::vector<double> scores{1, 2, 3};
  const std::vector<std::uint8_t> coins{1, 0, 1}, few{1};
  CHECK(dp::guess_one_run(scores, coins, 1, 1).right == 1);
  CHECK(test::refuses([&] { dp::guess_one_run(scores, few, 1, 1); }, "expected a coin for each of 3 scores"));
  CHECK(test::refuses([&] { dp::guess_one_run(scores, coins, 2, 2); }, "expected 1 to 3 guesses"));
  CHECK(test::refuses([&] { dp::guess_one_run(scores, coins, 0, 0); }, "expected 1 to 3 guesses"));
  CHECK(test::refuses([&] { dp::guess_one_run(std::vector<double>{1, NAN, 2}, coins, 1, 1); }, "got NaN"));
  CHECK(test::refuses([] { dp::one_run_epsilon({10, 5, 6}, 0, 0.9); }, "expected right guesses of guesses of canaries"));
  CHECK(test::refuses([] { dp::one_run_mu({10, 5, 4}, 1); }, "expected a confidence in (0, 1)"));
  CHECK(test::refuses([] { dp::one_run_chance({10, 5, 4}, -1, 0); }, "expected epsilon >= 0"));
  CHECK(test::refuses([] { dp::default_guess_counts(0); }, "expected at least one canary"));
}
