// SPDX-License-Identifier: Apache-2.0
// P20: a plan that another build wrote, whose last bits are rounded otherwise. tests/structure/plans_cross_builds.cmake does
// it with builds as they are.
#include <doctest/doctest.h>
#include <algorithm>
#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include "dpmp/dp/batch_bound.hpp"
#include "dpmp/dp/plan.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;
using dp::Plan;
using dp::PlanOptions;
using dp::PlanText;

namespace {
PlanOptions random_options(test::Rng& rng, bool calibrated) {
  PlanOptions o{.epsilon = calibrated ? std::exp(rng.uniform(-0.7, 2.1)) : 0,
                .delta = std::exp(rng.uniform(-20, -8)),
                .sampling_rate = std::exp(rng.uniform(-6, -1)),
                .steps = rng.integer(1, 2000),
                .dataset_size = rng.integer(1000, 100000)};
  if (const auto groups = rng.integer(1, 5); groups > 1)
    for (auto g = groups; g > 0; --g) o.group_thresholds.push_back(std::exp(rng.uniform(-3, 3)));
  else
    o.clip_threshold = std::exp(rng.uniform(-3, 3));
  return o;
}
/// `units` units of the last place from it: positive numbers have the order of their bits.
double moved(double x, std::int64_t units) {
  return std::bit_cast<double>(std::uint64_t(std::int64_t(std::bit_cast<std::uint64_t>(x)) + units));
}
}  // namespace

TEST_CASE("P20: facts that are a few units of the last place away load, and the plan goes on with what was stored") {
  test::Rng rng(test::seed(), 3);
  for (int k = 0; k < 40; ++k) {
    const PlanOptions o = random_options(rng, k % 4 == 0);
    const Plan plan = o.epsilon > 0 ? Plan::calibrate(o) : Plan::with_noise_multiplier(o, 1.1);
    // A unit of the last place is at least 2^-53 of a number.
    const std::int64_t groups = plan.groups();
    PlanText text = plan.text();
    const auto move = [&](const char* name, double value) {
      text[name] = dp::detail::bits_text(moved(value, rng.integer(-4 - groups / 2, 4 + groups / 2)));
    };
    move("expected batch", plan.facts().expected_batch);
    move("joint clip threshold", plan.facts().clip_threshold);
    move("rho", plan.facts().rho);
    move("sensitivity", plan.facts().sensitivity);
    const Plan again = Plan::from_text(text);
    CHECK(again.text() == text);  // what a checkpoint of the resumed run compares
    CHECK(again == plan);
    const double noise = plan.noise_multiplier() * again.facts().sensitivity;
    CHECK(dp::detail::bits_text(again.facts().sensitivity) == text.at("sensitivity"));
    CHECK(again.first_step().noise_standard_deviation == noise);
    CHECK(again.noise_standard_deviation() == noise);
    CHECK(again.sensitivity().bound == again.facts().sensitivity);
    CHECK(again.epsilon() == plan.epsilon());
  }
}

TEST_CASE("P20: a fact that is further away is refused by its name, on either side") {
  test::Rng rng(test::seed(), 4);
  for (int k = 0; k < 20; ++k) {
    const Plan plan = Plan::with_noise_multiplier(random_options(rng, false), 1.1);
    const dp::PlanFacts facts = plan.facts();
    // A unit is at most 2^-52 of a number, and the tolerance (G + 9) 2^-53.
    const std::int64_t far = plan.groups() + 10;
    for (const auto& [name, value] : {std::pair<std::string, double>("expected batch", facts.expected_batch),
                                      {"joint clip threshold", facts.clip_threshold},
                                      {"rho", facts.rho},
                                      {"sensitivity", facts.sensitivity}})
      for (const std::int64_t units : {-far, far, -(std::int64_t(1) << 40), std::int64_t(1) << 40, std::int64_t(1) << 63}) {
        CAPTURE(name);
        CAPTURE(units);
        PlanText text = plan.text();
        text[name] = dp::detail::bits_text(moved(value, units));
        const std::string refusal = test::error_of([&] { Plan::from_text(text); });
        CHECK(refusal.find("expected the facts of a plan, got (computed, stored):\n" + name + ": ") != std::string::npos);
        CHECK(std::count(refusal.begin(), refusal.end(), '\n') <= 2);  // and no other entry
      }
    for (const char* name : {"sensitivity", "rho", "expected batch"}) {
      PlanText text = plan.text();
      text[name] = dp::detail::bits_text(std::nan(""));
      CHECK(test::refuses([&] { Plan::from_text(text); }, name));
    }
  }
}

TEST_CASE("P20: a stored batch bound is believed where batches exceed it no more often than is paid for") {
  test::Rng rng(test::seed(), 5);
  int above = 0;
  for (int k = 0; k < 20; ++k) {
    const PlanOptions o = random_options(rng, false);
    const Plan plan = Plan::with_noise_multiplier(o, 1);
    const index_t bound = plan.facts().batch_bound;
    const auto with_bound = [&](index_t b) {
      // As a build whose logarithm is rounded otherwise would write it: the other facts follow.
      const dp::GroupClipping clipping(o.group_thresholds.empty() ? std::vector<double>{o.clip_threshold}
                                                                  : o.group_thresholds);
      PlanText text = plan.text();
      const dp::PlanFacts facts = dp::facts_of(o, clipping, b);
      text["batch bound"] = std::to_string(facts.batch_bound);
      for (const auto& [name, value] : {std::pair{"expected batch", facts.expected_batch},
                                        {"joint clip threshold", facts.clip_threshold},
                                        {"rho", facts.rho},
                                        {"sensitivity", facts.sensitivity}})
        text[name] = dp::detail::bits_text(value);
      return text;
    };
    REQUIRE(with_bound(bound) == plan.text());
    if (bound < o.dataset_size) {
      const Plan larger = Plan::from_text(with_bound(bound + 1));
      CHECK(larger.facts().batch_bound == bound + 1);
      CHECK(larger.sensitivity().rho == 0x1.2p-42 * double(bound + 1));
      CHECK(larger.facts().sensitivity >= plan.facts().sensitivity);
      CHECK(test::refuses([&] { Plan::from_text(with_bound(bound + 2)); }, "batch bound: "));
      ++above;
    }
    // Half of the millionth is left: of the bound one below, that is said by the tail itself.
    const double paid = std::log(Plan::batch_share * o.delta / double(o.steps));
    if (bound > 1) {
      const bool holds = dp::log_binomial_tail(o.dataset_size + 1, o.sampling_rate, bound - 1) <= paid - 0.5e-6;
      CHECK(test::refuses([&] { Plan::from_text(with_bound(bound - 1)); }, "batch bound: ") == !holds);
    }
    PlanText text = plan.text();
    text["batch bound"] = "0";
    CHECK(test::refuses([&] { Plan::from_text(text); }, "batch bound: "));
  }
  CHECK(above > 0);
}

TEST_CASE("P26: a calibrated plan is below its target by more than builds differ by") {
  test::Rng rng(test::seed(), 6);
  for (int k = 0; k < 4; ++k) {
    const PlanOptions o = random_options(rng, true);
    const Plan plan = Plan::calibrate(o);
    CHECK(plan.epsilon() <= o.epsilon * (1 - dp::calibration_margin));
    // An epsilon above the target is refused, by however little.
    PlanText text = plan.text();
    text["target epsilon"] = dp::detail::bits_text(plan.epsilon());
    CHECK(Plan::from_text(text).epsilon() == plan.epsilon());
    text["target epsilon"] = dp::detail::bits_text(std::nextafter(plan.epsilon(), 0));
    CHECK(test::refuses([&] { Plan::from_text(text); }, "expected a noise multiplier for epsilon"));
  }
}
