// SPDX-License-Identifier: Apache-2.0
// Every rule for clip factors, over norms of every size and over user's functions that misbehave.
#include <doctest/doctest.h>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

#include "dpmp/dp/clipping.hpp"
#include "support/random.hpp"

using namespace dpmp;
using dp::ClipRule;
using dp::FlatClipping;

namespace {
const double infinity = std::numeric_limits<double>::infinity(), nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr float largest = std::numeric_limits<float>::max();

float factor(const FlatClipping& clipping, double norm, std::uint8_t ok = 1) {
  float c = -1;
  clipping.factors({&norm, 1}, {&ok, 1}, {&c, 1});
  return c;
}
std::vector<ClipRule> rules(test::Rng& rng, double C) {
  const double p = C * std::exp(rng.uniform(-3, 3));
  return {ClipRule::abadi(),
          ClipRule::automatic(p),
          ClipRule::automatic(),
          ClipRule::normalise(),
          ClipRule::global(p),
          ClipRule::custom("square root", [C](double n) { return std::sqrt(C / n); }),
          ClipRule::custom("huge", [](double) { return 1e300; }),
          ClipRule::custom("infinite", [](double) { return infinity; })};
}
double random_norm(test::Rng& rng, double C) {
  switch (rng.integer(0, 6)) {
    case 0: return 0;
    case 1: return std::numeric_limits<double>::denorm_min() * double(rng.integer(1, 1000));
    case 2: return std::exp(rng.uniform(-740, 709));
    case 3: return std::numeric_limits<double>::max();
    case 4: return C * (1 + rng.uniform(-1, 1) * 0x1p-20);
    default: return C * std::exp(rng.uniform(-6, 6));
  }
}
/// What the mathematical rule says, for n > 0.
double formula(const ClipRule& rule, double C, double n) {
  switch (rule.kind()) {
    case ClipRule::Kind::abadi: return std::min(1.0, C / n);
    case ClipRule::Kind::automatic: return C / (n + rule.parameter());
    case ClipRule::Kind::normalise: return C / n;
    case ClipRule::Kind::global: return n <= rule.parameter() ? C / rule.parameter() : 0;
    case ClipRule::Kind::custom: break;
  }
  return nan_value;
}
}  // namespace

TEST_CASE("P1, P2: c n <= C for every rule and every norm, without tolerance") {
  test::Rng rng(test::seed(), 1);
  for (int k = 0; k < 40000; ++k) {
    const double C = std::exp(rng.uniform(-40, 40)), n = random_norm(rng, C);
    for (const ClipRule& rule : rules(rng, C)) {
      const float c = factor(FlatClipping(C, rule), n);
      INFO(rule, ", C ", C, ", n ", n, ", c ", c);
      REQUIRE((c >= 0 && c <= largest && !std::signbit(c)));
      // The wider type holds the product to 2^-64, the factor keeps 2^-20 away.
      REQUIRE(static_cast<long double>(c) * static_cast<long double>(n) <= static_cast<long double>(C));
    }
  }
}

TEST_CASE("P1: factors are what the formulas say, to the margin of 2^-20 and a rounding to FP32") {
  test::Rng rng(test::seed(), 2);
  for (int k = 0; k < 20000; ++k) {
    const double C = std::exp(rng.uniform(-20, 20)), n = C * std::exp(rng.uniform(-8, 8));
    for (const ClipRule& rule : rules(rng, C)) {
      if (rule.kind() == ClipRule::Kind::custom) continue;
      const double c = double(factor(FlatClipping(C, rule), n)), exact = formula(rule, C, n);
      INFO(rule, ", C ", C, ", n ", n, ", c ", c, ", formula ", exact);
      REQUIRE(c <= exact);
      REQUIRE(c >= exact * (1 - 0x1p-20) * (1 - 0x1p-22));
    }
  }
}

TEST_CASE("P1: the rules differ where they should") {
  const double C = 2;
  CHECK(factor(FlatClipping(C, ClipRule::abadi()), 0.5) == 1);
  CHECK(factor(FlatClipping(C, ClipRule::normalise()), 0.5) == doctest::Approx(4).epsilon(1e-5));
  CHECK(factor(FlatClipping(C, ClipRule::automatic(0.5)), 0.5) == 2);
  CHECK(factor(FlatClipping(C, ClipRule::global(4)), 3.9) == 0.5);
  CHECK(factor(FlatClipping(C, ClipRule::global(4)), 4) == doctest::Approx(0.5).epsilon(1e-5));
  CHECK(factor(FlatClipping(C, ClipRule::global(4)), 4.1) == 0);
  CHECK(factor(FlatClipping(C, ClipRule::custom("constant", [](double) { return 0.25; })), 1) == 0.25f);
}

TEST_CASE("a gradient of norm 0 gets a finite factor from every rule, so that 0 stays 0") {
  test::Rng rng(test::seed(), 3);
  for (double C : {1e-10, 1.0, 0x1p120}) {
    for (const ClipRule& rule : rules(rng, C))
      for (double n : {0.0, std::numeric_limits<double>::denorm_min(), 1e-300}) {
        const float c = factor(FlatClipping(C, rule), n);
        INFO(rule, ", C ", C, ", n ", n, ", c ", c);
        CHECK(c * 0.0f == 0.0f);
      }
    CHECK(factor(FlatClipping(C), 0) == 1);
    CHECK(factor(FlatClipping(C, ClipRule::normalise()), 0) == largest);
  }
  CHECK(factor(FlatClipping(3, ClipRule::automatic(2)), 0) == 1.5f);
  CHECK(factor(FlatClipping(3, ClipRule::global(2)), 0) == 1.5f);
}

TEST_CASE("P9: every rule drops masked and non-finite samples and leaves their neighbours alone") {
  test::Rng rng(test::seed(), 4);
  for (const ClipRule& rule : rules(rng, 0.5)) {
    INFO(rule);
    std::vector<double> norms(16);
    std::vector<std::uint8_t> ok(16, 1);
    for (double& n : norms) n = std::exp(rng.uniform(-3, 3));
    std::vector<float> before(16), after(16);
    const FlatClipping clipping(0.5, rule);
    clipping.factors(norms, ok, before);
    const double bad[] = {nan_value, infinity, -infinity, -1, -nan_value, 1};
    for (std::size_t k = 0; k < 6; ++k) norms[2 * k] = bad[k];
    ok[10] = 0;
    clipping.factors(norms, ok, after);
    for (std::size_t i = 0; i < 16; ++i) {
      const bool dropped = i % 2 == 0 && i <= 10;
      CHECK(after[i] == (dropped ? 0.0f : before[i]));
      CHECK_FALSE(std::signbit(after[i]));
    }
    clipping.factors({}, {}, {});
  }
}

TEST_CASE("P2: a user's function that returns garbage or throws removes the sample, and no more") {
  const auto with = [](std::function<double(double)> f) { return FlatClipping(1, ClipRule::custom("bad", std::move(f))); };
  for (double value : {nan_value, -nan_value, -1.0, -0.0, -infinity, 0.0}) {
    INFO(value);
    const float c = factor(with([value](double) { return value; }), 3);
    CHECK(c == 0);
    CHECK_FALSE(std::signbit(c));
  }
  CHECK(factor(with([](double) -> double { throw std::runtime_error("no"); }), 3) == 0);
  CHECK(factor(with([](double) -> double { throw 1; }), 3) == 0);
  // Only where it throws.
  const FlatClipping picky = with([](double n) { return n > 2 ? throw std::runtime_error("no") : 0.5; });
  const std::vector<double> norms{1, 3, 1.5};
  std::vector<float> c(3);
  picky.factors(norms, std::vector<std::uint8_t>(3, 1), c);
  CHECK(c == std::vector<float>{0.5f, 0, 0.5f});
}

TEST_CASE("P2: a user's function is called once a sample, and never with a norm that is not a finite number >= 0") {
  std::vector<double> seen;
  const ClipRule rule = ClipRule::custom("spy", [&seen](double n) {
    seen.push_back(n);
    return 1.0;
  });
  const std::vector<double> norms{1, nan_value, infinity, -2, 4};
  std::vector<float> c(5);
  FlatClipping(1, rule).factors(norms, std::vector<std::uint8_t>{1, 1, 1, 1, 0}, c);
  CHECK(seen == std::vector<double>{1, 0, 0, 0, 4});
}

TEST_CASE("P2: the sensitivity is C (1 + rho) whatever the rule says") {
  test::Rng rng(test::seed(), 5);
  for (const ClipRule& rule : rules(rng, 3))
    for (auto relation : {dp::NeighbouringRelation::add_or_remove_one, dp::NeighbouringRelation::replace_one})
      CHECK(FlatClipping(3, rule).sensitivity(relation, 100) == FlatClipping(3).sensitivity(relation, 100));
}

TEST_CASE("rules compare by what they say, custom ones by name, and describe themselves") {
  const auto f = [](double) { return 1.0; };
  CHECK(ClipRule::automatic(0.01) == ClipRule::automatic());
  CHECK_FALSE(ClipRule::automatic(0.02) == ClipRule::automatic());
  CHECK_FALSE(ClipRule::automatic(0.02) == ClipRule::global(0.02));
  CHECK(ClipRule::custom("a", f) == ClipRule::custom("a", [](double) { return 2.0; }));
  CHECK_FALSE(ClipRule::custom("a", f) == ClipRule::custom("b", f));
  CHECK(ClipRule::automatic().description() == "automatic: C / (n + 0.01)");
  CHECK(ClipRule::global(4).description() == "global: C / 4 where n <= 4, else 0");
  CHECK(ClipRule::custom("mine", f).description() == "custom: mine");
}
