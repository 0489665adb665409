// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <cmath>
#include <vector>

#include "dpmp/dp/plan.hpp"
#include "support/random.hpp"

using namespace dpmp;
using dp::FlatClipping;
using dp::GroupClipping;
using dp::NeighbouringRelation;
using dp::Plan;
using dp::PlanOptions;

namespace {
PlanOptions options(std::vector<double> thresholds) {
  return {
      .delta = 1e-5, .sampling_rate = 0.02, .steps = 100, .dataset_size = 5000, .group_thresholds = std::move(thresholds)};
}
}  // namespace

TEST_CASE("P16: the joint sensitivity is sqrt(sum C_g^2) (1 + rho), doubled where a record is replaced") {
  test::Rng rng(test::seed(), 1);
  for (int k = 0; k < 200; ++k) {
    const index_t groups = rng.integer(1, 60);
    std::vector<double> C(static_cast<std::size_t>(groups));
    long double squares = 0;
    for (double& c : C) {
      c = std::exp(rng.uniform(-30, 30));
      squares += static_cast<long double>(c) * static_cast<long double>(c);
    }
    const GroupClipping clipping(C);
    const auto s = clipping.sensitivity(NeighbouringRelation::add_or_remove_one, 700);
    CHECK(s.rho == 0x1.2p-42 * 700);
    // Never below the true root (the one of long double has 2^-58 of it as its error), and above it by what is added for
    // roundings, G + 4 of 2^-52, and as much again for the roundings themselves. One group has no root to take.
    const long double ratio = static_cast<long double>(s.clip_threshold) / std::sqrt(squares);
    CHECK(ratio >= 1 - 0x1p-58L);
    CHECK(ratio <= 1 + (groups > 1 ? 0x1p-51L * static_cast<long double>(groups + 4) : 0x1p-58L));
    CHECK(s.bound == s.clip_threshold * (1 + s.rho));
    CHECK(clipping.sensitivity(NeighbouringRelation::replace_one, 700).bound == 2 * s.bound);
    CHECK(clipping.groups() == groups);
    for (index_t g = 0; g < groups; ++g) CHECK(clipping.group(g).clip_threshold() == C[std::size_t(g)]);
  }
  // One group is flat clipping, to the bit.
  for (double C : {0.3, 1.7, 1e-30, 0x1p120})
    CHECK(GroupClipping({C}).sensitivity(NeighbouringRelation::zero_out, 9) ==
          FlatClipping(C).sensitivity(NeighbouringRelation::zero_out, 9));
}

TEST_CASE("P16: removing one record moves the sums of all groups together by at most the declared sensitivity") {
  test::Rng rng(test::seed(), 2);
  for (int draw = 0; draw < 100; ++draw) {
    const std::size_t groups = std::size_t(rng.integer(2, 6)), width = 4, records = 33;
    std::vector<double> C(groups);
    for (double& c : C) c = std::exp(rng.uniform(-2, 2));
    const dp::ClipRule rule = draw % 2 ? dp::ClipRule::normalise() : dp::ClipRule::abadi();
    const GroupClipping clipping(C, rule);
    // gradients[record][group * width + coordinate], clipped group by group; every group of every record above its
    // threshold.
    std::vector<std::vector<double>> clipped(records, std::vector<double>(groups * width));
    for (auto& g : clipped)
      for (std::size_t k = 0; k < groups; ++k) {
        double squares = 0;
        for (std::size_t j = 0; j < width; ++j) {
          g[k * width + j] = rng.uniform(-60, 60) + (j ? 0 : 100);
          squares += g[k * width + j] * g[k * width + j];
        }
        const double norm = std::sqrt(squares) * (1 + 1e-12);
        const std::uint8_t ok = 1;
        float c = 0;
        clipping.group(index_t(k)).factors({&norm, 1}, {&ok, 1}, {&c, 1});
        for (std::size_t j = 0; j < width; ++j) g[k * width + j] *= double(c);
      }
    const double bound = clipping.sensitivity(NeighbouringRelation::add_or_remove_one, index_t(records)).bound;
    double joint = 0;
    for (double c : C) joint = std::max(joint, c);
    for (const auto& g : clipped) {
      double squares = 0;
      for (double x : g) squares += x * x;
      REQUIRE(std::sqrt(squares) <= bound);
      REQUIRE(std::sqrt(squares) > joint);  // no single group's threshold would be enough
    }
  }
}

TEST_CASE("P16: doubling the groups changes the noise accordingly") {
  const Plan one = Plan::with_noise_multiplier(options({0.5, 0.5}), 1.1);
  const Plan two = Plan::with_noise_multiplier(options({0.5, 0.5, 0.5, 0.5}), 1.1);
  CHECK(two.noise_standard_deviation() / one.noise_standard_deviation() == doctest::Approx(std::sqrt(2.0)).epsilon(1e-14));
  CHECK(one.epsilon() == two.epsilon());
  // Thresholds C / sqrt(groups) keep it, at that of flat clipping.
  PlanOptions flat = options({});
  flat.clip_threshold = 0.7;
  const double expected = Plan::with_noise_multiplier(flat, 1.1).noise_standard_deviation();
  for (index_t groups : {1, 2, 3, 14, 200}) {
    const Plan plan = Plan::with_noise_multiplier(options(GroupClipping::uniform_thresholds(0.7, groups)), 1.1);
    CHECK(plan.noise_standard_deviation() == doctest::Approx(expected).epsilon(1e-13));
    CHECK(plan.groups() == groups);
    CHECK(GroupClipping::uniform(0.7, groups).groups() == groups);
    CHECK(GroupClipping::uniform(0.7, groups).group(0).clip_threshold() == 0.7 / std::sqrt(double(groups)));
  }
}

TEST_CASE("P3, P16: a step of a grouped plan has a clipper a group and one noise for all of them") {
  PlanOptions o = options({0.2, 0.9, 0.4});
  o.clip_rule = dp::ClipRule::automatic(0.1);
  const Plan plan = Plan::with_noise_multiplier(o, 0.8);
  const dp::StepPlan step = plan.at(5);
  REQUIRE(step.groups.size() == 3);
  for (std::size_t g = 0; g < 3; ++g) {
    CHECK(step.groups[g].clip_threshold() == o.group_thresholds[g]);
    CHECK(step.groups[g].rule() == o.clip_rule);
  }
  const double delta = std::sqrt(0.2 * 0.2 + 0.9 * 0.9 + 0.4 * 0.4) * (1 + plan.sensitivity().rho);
  CHECK(step.noise_multiplier == 0.8);
  CHECK(step.noise_standard_deviation == doctest::Approx(0.8 * delta).epsilon(1e-14));
  CHECK(plan.noise_standard_deviation() == step.noise_standard_deviation);
  CHECK(plan.facts().sensitivity == plan.sensitivity().bound);
  CHECK_THROWS_WITH_AS(plan.clipping(), doctest::Contains("3 groups: ask for at(step)"), Error);
}
