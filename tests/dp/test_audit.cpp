// SPDX-License-Identifier: Apache-2.0
// Lower bounds from black-box runs: against published values, their coverage, and what they find of known mechanisms.
#include <doctest/doctest.h>

#include <array>
#include <random>

#include "dpmp/dp/audit.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;

TEST_CASE("Clopper-Pearson bounds: closed forms, and the tails of the binomial law that they are made of") {
  CHECK(dp::binomial_bounds(0, 10, 0.95).lower == 0);
  CHECK(dp::binomial_bounds(10, 10, 0.95).upper == 1);
  // No hit of n: (1 - p)^n = 1 - confidence.
  for (const index_t n : {1, 10, 1000, 100000})
    for (const double confidence : {0.9, 0.975, 1 - 1e-7}) {
      const double p = -std::expm1(std::log1p(-confidence) / double(n));
      CHECK(dp::binomial_bounds(0, n, confidence).upper == doctest::Approx(p).epsilon(1e-9));
      CHECK(dp::binomial_bounds(n, n, confidence).lower == doctest::Approx(1 - p).epsilon(1e-9));
    }
  // P[X <= k; upper] = P[X >= k; lower] = 1 - confidence, by adding up the law in long double.
  const auto term = [](index_t n, index_t j, double p) {
    return std::exp((long double)(std::lgamma(double(n) + 1) - std::lgamma(double(j) + 1) - std::lgamma(double(n - j) + 1)) +
                    (long double)j * std::log((long double)p) + (long double)(n - j) * std::log1p(-(long double)p));
  };
  for (const auto& [k, n] : {std::pair<index_t, index_t>{3, 20}, {50, 100}, {999, 2000}, {1990, 2000}}) {
    const dp::BinomialBounds b = dp::binomial_bounds(k, n, 0.999);
    long double below = 0, above = 0;
    for (index_t j = 0; j <= k; ++j) below += term(n, j, b.upper);
    for (index_t j = k; j <= n; ++j) above += term(n, j, b.lower);
    CHECK(double(below) == doctest::Approx(1e-3).epsilon(1e-6));
    CHECK(double(above) == doctest::Approx(1e-3).epsilon(1e-6));
  }
  CHECK(dp::normal_quantile(0.975) == doctest::Approx(1.959963984540054).epsilon(1e-13));
  CHECK(dp::normal_quantile(1e-9) == doctest::Approx(-5.997807015007687).epsilon(1e-12));
  // As far as there are doubles; above 0 a unit in the last place of the probability moves x by 1.1e-16 / density.
  for (double x = -37; x < 8; x += 0.37)
    CHECK(std::fabs(dp::normal_quantile(0.5 * std::erfc(-x / std::sqrt(2.0))) - x) <=
          1e-12 * (1 + std::fabs(x)) + (x > 0 ? 1e-15 * std::exp(x * x / 2) : 0));
}

TEST_CASE("bad input of an audit is refused") {
  CHECK(test::refuses([] { dp::binomial_bounds(3, 2, 0.9); }, "expected 0 <= hits <= trials"));
  CHECK(test::refuses([] { dp::binomial_bounds(1, 2, 1); }, "expected a confidence in (0, 1)"));
  CHECK(test::refuses([] { dp::audit(dp::AuditScores{}, 1e-5, 0.9); }, "expected scores of at least two runs"));
  CHECK(test::refuses([] { dp::audit(dp::AuditScores{{1, 2}, {1, 2, 3}}, 1e-5, 0.9); }, "expected 3 scores"));
}

TEST_CASE("an audit of Gaussians: never above the truth beyond its confidence, and close below it") {
  test::Rng rng;
  constexpr int runs = 4000, tries = 40;
  constexpr double confidence = 1 - 1e-9;  // of a false alarm in 80 bounds: below 1e-7
  // Of the quantile of a rate that is counted in half of the runs.
  const auto standard_error = [](double rate) {
    const double z = dp::normal_quantile(rate), density = std::exp(-z * z / 2) / std::sqrt(2 * 3.14159265358979);
    return std::sqrt(rate * (1 - rate) / (runs / 2)) / density;
  };
  for (const double mu : {0.5, 1.0, 2.0}) {
    CAPTURE(mu);
    for (int k = 0; k < tries / 2; ++k) {
      dp::AuditScores scores;
      for (int r = 0; r < runs; ++r) scores.without.push_back(rng.normal()), scores.with.push_back(-mu + rng.normal());
      const dp::AuditResult result = dp::audit(scores, 1e-5, confidence);
      CHECK(result.runs == runs / 2);
      CHECK(result.mu <= mu);
      // The bounds of the two rates are six standard errors away from them, which is 12 / sqrt(2) = 8.5 of both together,
      // and the rates themselves are up to seven away from the truth.
      CHECK(mu - result.mu <= 16 * std::hypot(standard_error(result.false_positive), standard_error(result.true_positive)));
      // What somebody claims who is wrong by a factor of two is found out.
      if (mu == 2.0) CHECK(result.mu > mu / 2);
      CHECK(result.epsilon >= 0);
      CHECK(result.epsilon < 8);
    }
  }
  // Releases that tell everything: the bound is what the number of runs can show.
  const dp::AuditResult all =
      dp::audit(dp::AuditScores{std::vector<double>(2000, 0.0), std::vector<double>(2000, 1.0)}, 0, 0.95);
  const double p = dp::binomial_bounds(0, 1000, 0.975).upper;
  CHECK(all.epsilon == doctest::Approx(std::log((1 - p) / p)));
  // Releases that tell nothing.
  CHECK(dp::audit(dp::AuditScores{std::vector<double>(2000, 0.0), std::vector<double>(2000, 0.0)}, 0, 0.95).epsilon == 0);
}

TEST_CASE("an audit chooses among several scores on other runs than it counts on") {
  test::Rng rng;
  std::array<dp::AuditScores, 3> scores;
  for (int r = 0; r < 2000; ++r)
    for (std::size_t c = 0; c < 3; ++c) {
      scores[c].without.push_back(rng.normal());
      scores[c].with.push_back((c == 1 ? 3 : 0) + rng.normal());
    }
  const dp::AuditResult result = dp::audit(scores, 1e-5, 0.999999);
  CHECK(result.mu > 2);
  CHECK(result.mu < 3.2);
}
