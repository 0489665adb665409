// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "dpmp/dp/clipping.hpp"
#include "support/random.hpp"

using namespace dpmp;
using dp::NeighbouringRelation;

namespace {
const double infinity = std::numeric_limits<double>::infinity(), nan_value = std::numeric_limits<double>::quiet_NaN();
float factor(double threshold, double norm, std::uint8_t ok = 1) {
  float c = -1;
  dp::FlatClipping(threshold).factors({&norm, 1}, {&ok, 1}, {&c, 1});
  return c;
}
}  // namespace

TEST_CASE("P1: c * norm <= C with the margin of the factor, at every scale") {
  test::Rng rng(test::seed(), 1);
  for (int k = 0; k < 100000; ++k) {
    const double C = std::exp(rng.uniform(-20, 20)), n = C * std::exp(rng.uniform(-2, 80));
    const double c = double(factor(C, n));
    INFO("C ", C, " norm ", n, " factor ", c);
    REQUIRE(c <= 1);
    REQUIRE(c * n <= C * (1 - 0x1p-20) * (1 + 0x1p-52));
    // Rounding down costs less than one unit in the last place of FP32.
    if (n > C) REQUIRE(c * n >= C * (1 - 0x1p-20) * (1 - 0x1p-22));
    if (n < C * (1 - 0x1p-20)) REQUIRE(c == 1);
  }
}

TEST_CASE("P1: factors too small for a normal FP32 number are rounded down, never up") {
  test::Rng rng(test::seed(), 2);
  for (int k = 0; k < 10000; ++k) {
    const double n = std::exp(rng.uniform(85, 110));
    REQUIRE(double(factor(1, n)) * n <= 1);
  }
  CHECK(factor(1, 1e300) == 0);
}

TEST_CASE("P9: masked and non-finite samples get exactly 0, their neighbours the same bits as alone") {
  test::Rng rng(test::seed(), 3);
  std::vector<double> norms(64);
  std::vector<std::uint8_t> ok(64, 1);
  for (double& n : norms) n = std::exp(rng.uniform(-3, 3));
  std::vector<float> before(64), after(64);
  const dp::FlatClipping rule(0.5);
  rule.factors(norms, ok, before);
  norms[3] = nan_value;
  norms[17] = infinity;
  norms[18] = -infinity;
  norms[19] = -1;
  ok[40] = 0;
  norms[41] = nan_value;
  ok[41] = 0;
  rule.factors(norms, ok, after);
  for (std::size_t i = 0; i < 64; ++i) {
    const bool dropped = i == 3 || (i >= 17 && i <= 19) || i == 40 || i == 41;
    CHECK(after[i] == (dropped ? 0.0f : before[i]));
    CHECK_FALSE(std::signbit(after[i]));
  }
  rule.factors({}, {}, {});  // an empty batch is legal
}

TEST_CASE("a gradient of norm 0 is kept, an infinite threshold clips nothing") {
  CHECK(factor(1, 0) == 1);
  CHECK(factor(infinity, 1e30) == 1);
  CHECK(factor(infinity, 0) == 1);
  CHECK(factor(infinity, infinity) == 0);
  CHECK(factor(infinity, 1, 0) == 0);
  CHECK_THROWS_WITH_AS(dp::FlatClipping(infinity).sensitivity(NeighbouringRelation::add_or_remove_one, 10),
                       doctest::Contains("no finite sensitivity"), Error);
}

TEST_CASE("P2: the declared sensitivity: C (1 + rho), doubled where a record is replaced") {
  const dp::FlatClipping rule(3);
  const double rho = 0x1.2p-42 * 500;
  for (auto relation :
       {NeighbouringRelation::add_or_remove_one, NeighbouringRelation::zero_out, NeighbouringRelation::replace_one}) {
    const dp::Sensitivity s = rule.sensitivity(relation, 500);
    CHECK(s.clip_threshold == 3);
    CHECK(s.relation == relation);
    CHECK(s.rho == rho);
    CHECK(s.bound == (relation == NeighbouringRelation::replace_one ? 2 : 1) * 3 * (1 + rho));
  }
  CHECK(dp::name_of(NeighbouringRelation::zero_out) == "zero_out");
}

namespace {
/// The sum of x[from..], FP32 inside blocks of `block` samples, double across them.
double blocked_sum(const std::vector<float>& x, std::size_t from, std::size_t block) {
  double total = 0;
  for (std::size_t i = from; i < x.size(); i += block) {
    float part = 0;
    for (std::size_t k = i; k < std::min(x.size(), i + block); ++k) part += x[k];
    total += double(part);
  }
  return total;
}
double declared(std::size_t batch) {
  return dp::FlatClipping(1).sensitivity(NeighbouringRelation::add_or_remove_one, index_t(batch)).bound;
}
}  // namespace

TEST_CASE("P2: removing one sample moves a chain in double by at most the declared sensitivity") {
  test::Rng rng(test::seed(), 4);
  const std::size_t B = std::size_t(samples_per_chain);
  for (int draw = 0; draw < 200; ++draw) {
    std::vector<float> x(B);
    for (float& v : x) v = draw % 2 ? float(rng.uniform()) : 1 - float(rng.uniform(0, 0x1p-20));
    const double with = blocked_sum(x, 0, 1);
    x.erase(x.begin() + rng.integer(0, index_t(B) - 1));
    CHECK(std::fabs(with - blocked_sum(x, 0, 1)) <= declared(B));
  }
}

TEST_CASE("P2: the binade-crossing example: sums in FP32, also of blocks, exceed C (1 + rho), a chain in double does not") {
  // With the first sample the sum stands at 256, without it at 255, one binade lower. Each further sample is a little more
  // than half a unit in the last place of 256: the larger sum rounds up to twice what the smaller one gains.
  std::vector<float> x(256, 1.0f);
  x.resize(512, 0x1p-16f * (1 + 0x1p-20f));
  CHECK(blocked_sum(x, 0, x.size()) - blocked_sum(x, 1, x.size()) == 1 + 0x1p-8);
  CHECK(1 + 0x1p-8 > declared(512));
  CHECK(std::fabs(blocked_sum(x, 0, 1) - blocked_sum(x, 1, 1)) <= declared(512));
  // Blocks of 4, shifted by one record: in 1, t, t, t each t rounds up, in t, t, t, 1 their sum does, once.
  std::vector<float> y(1, 1.0f);
  const float t = 0x1p-24f * (1 + 0x1p-20f);
  for (int k = 0; k < 127; ++k)
    for (float v : {t, t, t, 1.0f}) y.push_back(v);
  CHECK(std::fabs(blocked_sum(y, 0, 4) - blocked_sum(y, 1, 4)) > declared(512));
  CHECK(std::fabs(blocked_sum(y, 0, 1) - blocked_sum(y, 1, 1)) <= declared(512));
}

TEST_CASE("the room for rounding is at most 1e-6 of C up to 2^20 records and 1e-4 up to 2^28") {
  CHECK(dp::rounding_share(index_t(1) << 20) <= 1e-6);
  CHECK(dp::rounding_share(index_t(1) << 28) <= 1e-4);
  CHECK_THROWS_AS(dp::rounding_share((index_t(1) << 28) + 1), Error);
  CHECK_THROWS_AS(dp::rounding_share(0), Error);
}
