// SPDX-License-Identifier: Apache-2.0
// Schedules of thresholds and of noise, and what the accountant makes of them.
#include <doctest/doctest.h>
#include <cmath>
#include <ctime>
#include <numbers>
#include <optional>
#include <vector>

#include "dpmp/dp/plan.hpp"
#include "support/random.hpp"

using namespace dpmp;
using dp::Plan;
using dp::PlanOptions;
using dp::Schedule;

namespace {
PlanOptions options(dp::Accountant accountant = dp::Accountant::pld) {
  return {.delta = 1e-5, .sampling_rate = 0.03, .steps = 200, .dataset_size = 8000, .accountant = accountant};
}
Schedule random_schedule(test::Rng& rng, index_t steps) {
  std::vector<Schedule::Piece> pieces{{0, std::exp(rng.uniform(-0.7, 0.7))}};
  while (pieces.size() < 6) {
    const index_t next = pieces.back().first_step + rng.integer(1, steps / 4);
    pieces.push_back({next, std::exp(rng.uniform(-0.7, 0.7))});
  }
  return Schedule::piecewise(pieces);
}
double epsilon_by_hand(const Plan& plan, index_t steps) {
  dp::RdpAccountant rdp;
  dp::PldAccountant pld;
  for (index_t t = 0; t < steps; ++t) {
    rdp.add_steps(plan.options().sampling_rate, plan.at(t).noise_multiplier, 1);
    pld.add_steps({.sampling_rate = plan.options().sampling_rate, .noise_multiplier = plan.at(t).noise_multiplier}, 1);
  }
  const double delta = plan.options().delta * (1 - Plan::batch_share * std::max(1.0, double(steps) / double(plan.steps())));
  return plan.options().accountant == dp::Accountant::rdp ? rdp.epsilon(delta) : pld.epsilon(delta);
}
}  // namespace

TEST_CASE("a schedule says its value for every step, and equal functions are equal schedules") {
  const Schedule s = Schedule::piecewise({{0, 2.0}, {10, 0.5}, {11, 3.0}});
  for (index_t t = 0; t < 30; ++t) CHECK(s.at(t) == (t < 10 ? 2.0 : t < 11 ? 0.5 : 3.0));
  CHECK(s.at(index_t(1) << 39) == 3);
  CHECK(s.smallest() == 0.5);
  CHECK(s.largest() == 3);
  CHECK(Schedule::constant().is_constant());
  CHECK(Schedule::constant().at(123456) == 1);
  CHECK(Schedule::piecewise({{0, 2.0}, {5, 2.0}, {10, 0.5}, {11, 3.0}, {20, 3.0}}) == s);
  CHECK_FALSE(Schedule::piecewise({{0, 2.0}, {10, 0.5}, {12, 3.0}}) == s);
  CHECK(dpmp::detail::concat(s) == "2 from step 0, 0.5 from step 10, 3 from step 11");
}

TEST_CASE("parts of a schedule add up to its steps") {
  test::Rng rng(test::seed(), 1);
  for (int k = 0; k < 200; ++k) {
    const Schedule s = random_schedule(rng, 40);
    const index_t steps = rng.integer(0, 80);
    index_t t = 0;
    s.for_each_part(steps, [&](double value, index_t count) {
      CHECK(count > 0);
      for (index_t j = 0; j < count; ++j) REQUIRE(s.at(t++) == value);
    });
    CHECK(t == steps);
  }
}

TEST_CASE("linear and cosine schedules start and end where they are told to, in nearly equal parts") {
  const Schedule linear = Schedule::linear(1, 0.2, 103, 5), cosine = Schedule::cosine(2, 0.5, 64, 4);
  REQUIRE(linear.pieces().size() == 5);
  for (std::size_t k = 0; k < 5; ++k) {
    CHECK(linear.pieces()[k].first_step == index_t(k) * 103 / 5);
    CHECK(linear.pieces()[k].value == doctest::Approx(1 - 0.2 * double(k)).epsilon(1e-15));
  }
  REQUIRE(cosine.pieces().size() == 4);
  for (std::size_t k = 0; k < 4; ++k)
    CHECK(cosine.pieces()[k].value ==
          doctest::Approx(0.5 + 0.75 * (1 + std::cos(std::numbers::pi * double(k) / 3))).epsilon(1e-15));
  CHECK(cosine.at(0) == 2);
  CHECK(cosine.at(1000) == 0.5);
  CHECK(Schedule::linear(3, 3, 10, 10) == Schedule::piecewise({{0, 3.0}}));
}

TEST_CASE("P25: the accountant of a noise schedule is the sum of its steps, at every prefix and beyond the plan") {
  test::Rng rng(test::seed(), 2);
  for (int k = 0; k < 4; ++k) {
    PlanOptions o = options(k % 2 ? dp::Accountant::rdp : dp::Accountant::pld);
    o.noise_schedule = random_schedule(rng, o.steps);
    o.clip_schedule = random_schedule(rng, o.steps);
    const Plan plan = Plan::with_noise_multiplier(o, 0.9);
    for (index_t steps : {index_t(1), rng.integer(2, 199), index_t(200), index_t(333)})
      CHECK(plan.epsilon_after(steps) == doctest::Approx(epsilon_by_hand(plan, steps)).epsilon(1e-12));
    CHECK(plan.epsilon_after(0) == 0);
    CHECK(plan.epsilon() == plan.epsilon_after(200));
    // Thresholds do not matter to the accountant.
    o.clip_schedule = Schedule::constant();
    CHECK(Plan::with_noise_multiplier(o, 0.9).epsilon() == plan.epsilon());
  }
  // More noise somewhere, less epsilon; the same noise everywhere is a constant plan.
  PlanOptions o = options();
  const double plain = Plan::with_noise_multiplier(o, 1.2).epsilon();
  o.noise_schedule = Schedule::piecewise({{0, 1.0}, {100, 1.5}});
  CHECK(Plan::with_noise_multiplier(o, 1.2).epsilon() < plain);
  o.noise_schedule = Schedule::piecewise({{0, 2.0}});
  CHECK(Plan::with_noise_multiplier(o, 0.6).epsilon() == plain);
}

TEST_CASE("P26: calibration under a noise schedule keeps the target, from below and within 1e-3") {
  test::Rng rng(test::seed(), 3);
  for (double target : {0.8, 3.0}) {
    PlanOptions o = options();
    o.epsilon = target;
    o.noise_schedule = target < 1 ? Schedule::linear(1.5, 0.6, o.steps, 4) : random_schedule(rng, o.steps);
    const Plan plan = Plan::calibrate(o);
    INFO("schedule ", dpmp::detail::concat(o.noise_schedule), " sigma ", plan.noise_multiplier());
    CHECK(plan.epsilon() <= target);
    CHECK(plan.epsilon() >= target - 1e-3);
    CHECK(epsilon_by_hand(plan, plan.steps()) == doctest::Approx(plan.epsilon()).epsilon(1e-12));
  }
}

TEST_CASE("P26: a schedule of ten thousand different values is calibrated with some hundred divergences each") {
  const index_t pieces = 10000;
  PlanOptions o = options(dp::Accountant::rdp);
  o.steps = 3 * pieces;
  o.sampling_rate = 0.004;
  o.epsilon = 2.5;
  o.noise_schedule = Schedule::cosine(2, 0.8, o.steps, pieces);
  REQUIRE(index_t(o.noise_schedule.pieces().size()) == pieces);
  const auto seconds = [](auto&& f) {
    const std::clock_t begin = std::clock();
    f();
    return double(std::clock() - begin) / CLOCKS_PER_SEC;
  };
  std::optional<Plan> plan;
  const double whole = seconds([&] { plan = Plan::calibrate(o); });
  CHECK(plan->epsilon() <= o.epsilon);
  CHECK(plan->epsilon() >= o.epsilon - 1e-9);
  // By hand, at every tenth order: none is below, and the best one is near.
  const double delta = o.delta * (1 - Plan::batch_share);
  double least = 1e300, once = 0;
  index_t orders = 0;
  const std::vector<double> all = dp::default_orders();
  for (std::size_t k = 3; k < all.size() && all[k] <= 64; k += 10, ++orders) {
    const double a = all[k];
    double rdp = 0;
    once += seconds([&] {
      o.noise_schedule.for_each_part(o.steps, [&](double value, index_t count) {
        rdp += double(count) * dp::subsampled_gaussian_rdp(o.sampling_rate, plan->noise_multiplier() * value, a);
      });
    });
    const double epsilon = dp::rdp_to_epsilon({a}, {rdp}, delta).epsilon;
    CHECK(epsilon >= o.epsilon - 1e-9);
    least = std::min(least, epsilon);
  }
  CHECK(least <= o.epsilon * 1.05);
  // All orders at each of forty bisections would be ten thousand times one order.
  MESSAGE(whole << " s to calibrate, " << once / double(orders) << " s for all pieces at one order");
  CHECK(whole <= 300 * once / double(orders));
}

TEST_CASE("P26: equal values of a schedule are accounted once") {
  // Two values in turn: as fast as a schedule of two pieces, and the same numbers.
  std::vector<Schedule::Piece> pieces;
  for (index_t t = 0; t < 20000; ++t) pieces.push_back({t, t % 2 ? 1.0 : 0.75});
  PlanOptions o = options();
  o.steps = 20000;
  o.epsilon = 2;
  o.noise_schedule = Schedule::piecewise(pieces);
  const Plan turns = Plan::calibrate(o);
  o.noise_schedule = Schedule::piecewise({{0, 0.75}, {10000, 1.0}});
  const Plan halves = Plan::calibrate(o);
  CHECK(turns.noise_multiplier() == halves.noise_multiplier());
  CHECK(turns.epsilon() == halves.epsilon());
}

TEST_CASE("P3: noise follows the sensitivity and the multiplier of every step") {
  test::Rng rng(test::seed(), 4);
  PlanOptions o = options();
  o.clip_threshold = 0.4;
  o.clip_schedule = random_schedule(rng, o.steps);
  o.noise_schedule = random_schedule(rng, o.steps);
  const Plan plan = Plan::with_noise_multiplier(o, 0.9);
  const double rho = plan.facts().rho;
  for (index_t t = 0; t < 250; ++t) {
    const dp::StepPlan step = plan.at(t);
    REQUIRE(step.groups.size() == 1);
    CHECK(step.groups[0].clip_threshold() == 0.4 * o.clip_schedule.at(t));
    CHECK(step.noise_multiplier == 0.9 * o.noise_schedule.at(t));
    CHECK(step.noise_standard_deviation ==
          doctest::Approx(0.9 * o.noise_schedule.at(t) * 0.4 * o.clip_schedule.at(t) * (1 + rho)).epsilon(1e-14));
  }
  CHECK_THROWS_WITH_AS(plan.clipping(), doctest::Contains("constant clip threshold, got the schedule"), Error);
  CHECK_THROWS_WITH_AS(plan.sensitivity(), doctest::Contains("ask for at(step)"), Error);
  CHECK_THROWS_WITH_AS(plan.noise_standard_deviation(), doctest::Contains("constant"), Error);

  // Groups follow the schedule together.
  o.clip_threshold = 1;
  o.group_thresholds = {0.3, 0.4};
  const Plan grouped = Plan::with_noise_multiplier(o, 0.9);
  for (index_t t : {0, 77, 199}) {
    CHECK(grouped.at(t).groups[1].clip_threshold() == 0.4 * o.clip_schedule.at(t));
    CHECK(grouped.at(t).noise_standard_deviation ==
          doctest::Approx(0.9 * o.noise_schedule.at(t) * 0.5 * o.clip_schedule.at(t) * (1 + rho)).epsilon(1e-14));
  }

  // With a schedule of noise alone the clipper stays available, without any the noise too.
  PlanOptions noisy = options();
  noisy.noise_schedule = o.noise_schedule;
  const Plan half = Plan::with_noise_multiplier(noisy, 0.9);
  CHECK(half.clipping().clip_threshold() == 1);
  CHECK(half.sensitivity().bound == half.facts().sensitivity);
  CHECK_THROWS_WITH_AS(half.noise_standard_deviation(), doctest::Contains("constant noise multiplier"), Error);
  noisy.noise_schedule = Schedule::constant();
  noisy.clip_schedule = Schedule::piecewise({{0, 3.0}});
  const Plan whole = Plan::with_noise_multiplier(noisy, 0.9);
  CHECK(whole.clipping().clip_threshold() == 3);
  CHECK(whole.noise_standard_deviation() == whole.at(7).noise_standard_deviation);
  CHECK(whole.sensitivity().bound == doctest::Approx(3 * whole.facts().sensitivity).epsilon(1e-15));
}
