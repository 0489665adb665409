// SPDX-License-Identifier: Apache-2.0
// The loss scale that follows overflows: its count, its noise, its rule, and that a gradient sum and all counts together
// cost what is accounted.
#include <doctest/doctest.h>
#include <cmath>
#include <deque>
#include <limits>
#include <vector>

#include "dpmp/dp/plan.hpp"
#include "support/random.hpp"

using namespace dpmp;
using dp::NeighbouringRelation;
using dp::NoisyCount;
using dp::OverflowOptions;
using dp::OverflowScale;
using dp::OverflowState;
using dp::Plan;
using dp::PlanOptions;

namespace {
const double infinity = std::numeric_limits<double>::infinity(), nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr NeighbouringRelation relations[] = {NeighbouringRelation::add_or_remove_one, NeighbouringRelation::zero_out,
                                              NeighbouringRelation::replace_one};

OverflowOptions overflow() {
  return {.count_noise = 6,
          .share = 0.2,
          .growth_interval = 7,
          .lowest = 0.25,
          .highest = 64,
          .initial_scale = 8,
          .alarm_after = 3};
}
PlanOptions options() {
  return {.delta = 1e-5, .sampling_rate = 0.02, .steps = 100, .dataset_size = 5000, .overflow = overflow()};
}
dp::StreamKeys keys(std::uint32_t salt = 0) {
  Key256 key;
  key.words[0] = std::uint32_t(test::seed());
  key.words[1] = salt;
  key.words[2] = 1;
  return dp::StreamKeys::repeat(key, salt);
}
dp::NoiseStream stream(index_t step, std::uint32_t salt = 0) {
  return dp::StepLedger(dp::max_steps - 1, keys(salt), step).begin_step().auxiliary_noise();
}
/// The noise multiplier of several independent Gaussians as one, from what each is alone.
double joint_multiplier(std::initializer_list<double> multipliers) {
  double sum = 0;
  for (const double m : multipliers) sum += 1 / (m * m);
  return 1 / std::sqrt(sum);
}

/// The rule once more, from the whole history of what was released: no state but the shares.
OverflowState rule_by_hand(const OverflowOptions& o, const std::vector<double>& shares) {
  double scale = o.initial_scale;
  index_t good = 0, bad = 0, alarms = 0;
  for (const double share : shares) {
    const bool above = share > o.share;
    good = above ? 0 : good + 1;
    bad = above ? bad + 1 : 0;
    if (above) scale = std::max(o.lowest, scale / 2);
    if (good == o.growth_interval) scale = std::min(o.highest, scale * 2), good = 0;
    if (bad == o.alarm_after) ++alarms, bad = 0;
  }
  return {int(std::log2(scale)), good, bad, alarms};
}
}  // namespace

TEST_CASE("P11: sigma_z makes a gradient sum and any counts together one mechanism of multiplier sigma, never less") {
  test::Rng rng(test::seed(), 11);
  for (int k = 0; k < 20000; ++k) {
    std::vector<NoisyCount> counts(std::size_t(rng.integer(1, 4)));
    long double spent = 0;  // sum of the inverse squares of what each count is alone
    for (NoisyCount& c : counts) {
      c = {std::exp(rng.uniform(-3, 8)), rng.integer(0, 1) ? 1.0 : 0.5};
      spent += (long double)(c.sensitivity) * c.sensitivity / ((long double)(c.noise) * c.noise);
    }
    const double close = k % 2 ? 1 - std::exp(rng.uniform(-25, -1)) : rng.uniform(1e-6, 0.99);
    const double sigma = close / std::sqrt(double(spent)), z = dp::gradient_noise_multiplier(sigma, counts);
    INFO("sigma ", sigma, " counts ", counts.size(), " sigma_z ", z);
    REQUIRE(z > sigma);
    using Wide = long double;
    REQUIRE((1 / (Wide(z) * Wide(z)) + spent) * Wide(sigma) * Wide(sigma) <= 1 + 0x1p-60L);
    // Not more noise than that asks for: the bound of the roundings, and double's own in this line.
    if (close < 0.99)
      REQUIRE(z == doctest::Approx(double(1 / std::sqrt(1 / (Wide(sigma) * Wide(sigma)) - spent))).epsilon(1e-12));
    if (counts.size() != 1) continue;
    // The formula of one count, as adaptive thresholds have always had it.
    const double x = counts[0].sensitivity * sigma / counts[0].noise;
    REQUIRE(z == sigma / std::sqrt((1 - x) * (1 + x)) * (1 + 0x1p-50 / (1 - x)));
  }
  CHECK(dp::gradient_noise_multiplier(0.7, {}) == 0.7);
}

TEST_CASE("P11: counts that alone would spend more than sigma allows are refused, naming the numbers") {
  CHECK_NOTHROW(Plan::with_noise_multiplier(options(), 5.99));
  CHECK_THROWS_WITH_AS(Plan::with_noise_multiplier(options(), 6),
                       doctest::Contains("expected a noise multiplier below 6 (the count's noise 6 over its sensitivity 1), "
                                         "got 6"),
                       Error);
  PlanOptions o = options();
  o.noise_schedule = dp::Schedule::piecewise({{0, 1.0}, {50, 2.0}});
  CHECK_NOTHROW(Plan::with_noise_multiplier(o, 2.99));
  CHECK_THROWS_AS(Plan::with_noise_multiplier(o, 3), Error);
  // Each count alone leaves room for 5, both together do not: 1 / sqrt((0.5 / 3)^2 + (1 / 6)^2) = 4.243.
  o = options();
  o.adaptive = dp::AdaptiveOptions{.count_noise = 3};
  CHECK_NOTHROW(Plan::with_noise_multiplier(o, 4.24));
  CHECK_THROWS_WITH_AS(
      Plan::with_noise_multiplier(o, 5),
      doctest::Contains("expected a noise multiplier below 4.24264, that of 2 noisy counts together, got 5"), Error);
  for (const NoisyCount& bad : {NoisyCount{0, 1}, {1, 0}, {-1, 1}, {nan_value, 1}, {1, infinity}})
    CHECK_THROWS_WITH_AS(dp::gradient_noise_multiplier(1, {&bad, 1}), doctest::Contains("finite noise > 0 on a count"),
                         Error);
  for (const double bad : {0.0, -1.0, nan_value, infinity})
    CHECK_THROWS_WITH_AS(dp::gradient_noise_multiplier(bad, {}), doctest::Contains("finite noise multiplier"), Error);
}

TEST_CASE("P3, P11: a plan that counts overflows adds sigma_z to gradients; sigma there would cost more than is accounted") {
  for (const bool adaptive : {false, true})
    for (const auto relation : {NeighbouringRelation::add_or_remove_one, NeighbouringRelation::zero_out}) {
      CAPTURE(adaptive);
      PlanOptions o = options();
      o.relation = relation;
      o.epsilon = 3;
      if (adaptive) o.adaptive = dp::AdaptiveOptions{.count_noise = 8, .initial_threshold = 0.5};
      PlanOptions flat = options();
      flat.relation = relation;
      flat.epsilon = 3;
      flat.overflow.reset();
      const Plan plan = Plan::calibrate(o), without = Plan::calibrate(flat);
      // The accountant sees the same, and the gradient pays for the counts; but where an empty record counts in a quantile,
      // no neighbour of a step contributes nothing, which costs more.
      if (adaptive && relation == NeighbouringRelation::zero_out) {
        CHECK(plan.noise_multiplier() > without.noise_multiplier());
      } else {
        CHECK(plan.noise_multiplier() == without.noise_multiplier());
        CHECK(plan.epsilon() == without.epsilon());
      }
      const double sigma = plan.noise_multiplier(), C = adaptive ? 0.37 : 1;
      for (const index_t step : {0, 57}) {
        const dp::StepPlan numbers = plan.at(step, adaptive ? C : 0);
        const double z = numbers.noise_standard_deviation / (C * (1 + plan.facts().rho));
        CHECK(z == doctest::Approx(numbers.noise_multiplier).epsilon(1e-14));
        const double half = relation == NeighbouringRelation::add_or_remove_one ? 0.5 : 1;
        const double joint = adaptive ? joint_multiplier({z, 6, 8 / half}) : joint_multiplier({z, 6});
        CHECK(joint == doctest::Approx(sigma).epsilon(1e-12));
        // The known mistake: sigma itself on the gradients in addition to a count.
        CHECK(joint_multiplier({sigma, 6}) < sigma * (1 - 1e-3));
      }
      if (!adaptive) CHECK(plan.noise_standard_deviation() == plan.at(3).noise_standard_deviation);
      CHECK(plan.overflow_scale().scale() == 8);
      CHECK_THROWS_WITH_AS(without.overflow_scale(), doctest::Contains("expected a plan that counts overflows"), Error);
    }
}

TEST_CASE("P11: the count: present and not finite, and at most 1 is changed by a record, whatever the relation") {
  test::Rng rng(test::seed(), 12);
  CHECK(dp::overflow_count({}, {}) == 0);
  CHECK_THROWS_WITH_AS(dp::overflow_count(std::vector<std::uint8_t>(3), std::vector<std::uint8_t>(2)),
                       doctest::Contains("expected 3 flags, one a slot, got 2"), Error);
  index_t largest[3] = {};
  for (int k = 0; k < 2000; ++k) {
    std::vector<std::uint8_t> present(9), finite(9);
    for (auto& flag : present) flag = rng.integer(0, 3) > 0;
    for (auto& flag : finite) flag = rng.integer(0, 1) > 0;
    const std::size_t at = std::size_t(rng.integer(0, 8));
    present[at] = 1;
    index_t by_hand = 0;
    for (std::size_t i = 0; i < 9; ++i)
      if (present[i] && !finite[i]) ++by_hand;
    const index_t with = dp::overflow_count(present, finite);
    REQUIRE(with == by_hand);
    const auto moved = [&](NeighbouringRelation relation, index_t count) {
      index_t& most = largest[std::size_t(relation)];
      most = std::max(most, std::abs(with - count));
    };
    std::vector<std::uint8_t> gone = present, other = finite;
    gone[at] = 0;
    moved(NeighbouringRelation::add_or_remove_one, dp::overflow_count(gone, finite));
    other[at] = 1;  // the empty record's gradient is zero, and it is still there
    moved(NeighbouringRelation::zero_out, dp::overflow_count(present, other));
    other[at] = std::uint8_t(rng.integer(0, 1));
    moved(NeighbouringRelation::replace_one, dp::overflow_count(present, other));
  }
  for (const auto relation : relations) CHECK(double(largest[std::size_t(relation)]) == dp::overflow_sensitivity(relation));
}

TEST_CASE("P11: noise is on the count always, with the standard deviation s_o, another one every step") {
  const OverflowScale scale(overflow(), 100);
  for (const index_t count : {0, 50, 1000}) {  // nothing overflows, half of a batch, more than one
    double mean = 0, squares = 0, last = nan_value;
    const int n = 20000;
    int same = 0;
    for (index_t t = 0; t < n; ++t) {
      const double noise = scale.noisy_share(count, stream(t)) * 100 - double(count);
      same += noise == last;
      mean += noise / n;
      squares += noise * noise / n;
      last = noise;
    }
    CHECK(same <= 3);  // two draws are equal on the grid with a probability below 2^-20
    CHECK(std::fabs(mean) < 5 * 6 / std::sqrt(double(n)));
    CHECK(std::fabs(std::sqrt(squares) / 6 - 1) < 5 / std::sqrt(2.0 * n));
  }
}

TEST_CASE("P21: the noise of overflows shares no key stream with the quantile's or the parameters'") {
  dp::StepTicket ticket = dp::StepLedger(10, keys(), 4).begin_step();
  const dp::NoiseStream noise = ticket.noise(), auxiliary = ticket.auxiliary_noise();
  OverflowOptions o = overflow();
  o.count_noise = 1;
  const double here = OverflowScale(o, 100).noisy_share(0, auxiliary) * 100;
  CHECK(here == doctest::Approx(dp::noised(0, 1, auxiliary, 1)).epsilon(1e-15));
  // Values in units of the grid: they meet with a probability below 2^-18.
  const dp::AdaptiveThreshold quantile({.count_noise = 1}, 100);
  CHECK(here != doctest::Approx((quantile.noisy_fraction(0, auxiliary) - 0.5) * 100).epsilon(1e-9));
  for (const index_t parameter : {index_t(0), index_t(1), dp::max_parameters - 1})
    CHECK(here != dp::noised(0, 1, noise, parameter));
}

TEST_CASE("P11: the trajectory is a function of the noisy shares alone, stays in its range, and can be restored") {
  test::Rng rng(test::seed(), 13);
  OverflowScale scale(overflow(), 100), follower(overflow(), 100);
  std::vector<double> released;
  bool at_lowest = false, at_highest = false;
  for (index_t t = 0; t < 600; ++t) {
    const index_t count = t < 60 ? 0 : t < 120 ? 100 : rng.integer(0, rng.integer(0, 9) ? 10 : 60);
    released.push_back(scale.noisy_share(count, stream(t)));
    scale.update(count, stream(t));
    follower.update(released.back());  // sees nothing but the released number
    REQUIRE(scale.state() == follower.state());
    REQUIRE(scale.state() == rule_by_hand(overflow(), released));
    REQUIRE(scale.scale() == std::ldexp(1.0, scale.state().exponent));
    REQUIRE((scale.scale() >= 0.25 && scale.scale() <= 64));
    at_highest = at_highest || scale.scale() == 64;
    at_lowest = at_lowest || scale.scale() == 0.25;
    OverflowScale restored(overflow(), 100);
    restored.restore(scale.state());
    follower = restored;
    if (t == 59) CHECK(at_highest);
  }
  CHECK(at_lowest);
  CHECK(scale.alarms() >= 60 / 3);
}

TEST_CASE("P11: neighbours that release the same noisy shares have the same scales, and others nowhere before they differ") {
  test::Rng rng(test::seed(), 14);
  OverflowOptions few = overflow();
  few.count_noise = 1;
  index_t parted = 0;
  for (int trial = 0; trial < 200; ++trial) {
    // One record more overflows from some step on, with the same noise: the noisy counts are 1 apart, and only that decides.
    OverflowScale with(few, 10), without(few, 10);
    const index_t from = rng.integer(0, 20);
    bool apart = false;
    for (index_t t = 0; t < 40; ++t) {
      const index_t count = rng.integer(0, 2);
      const double x = with.noisy_share(count + (t >= from), stream(t, std::uint32_t(trial))),
                   y = without.noisy_share(count, stream(t, std::uint32_t(trial)));
      // The grid of s_o = 1 is 2^-20, and whole numbers are on it.
      REQUIRE(std::fabs((x - y) * 10 - double(t >= from)) < 1e-12);
      apart = apart || (x > 0.2) != (y > 0.2);
      with.update(x);
      without.update(y);
      if (!apart) REQUIRE(with.state() == without.state());
    }
    parted += apart;
  }
  CHECK(parted > 100);  // a count is 1 below 2 plus noise and 2 above it in a large part of all steps
}

TEST_CASE("P11: options and states out of range are refused") {
  const auto refused = [](auto change, const char* says) {
    OverflowOptions o = overflow();
    change(o);
    CHECK_THROWS_WITH_AS(OverflowScale(o, 100), doctest::Contains(says), Error);
    PlanOptions plan = options();
    plan.overflow = o;
    CHECK_THROWS_WITH_AS(Plan::with_noise_multiplier(plan, 1), doctest::Contains(says), Error);
  };
  for (const double bad : {0.0, -1.0, nan_value, infinity})
    refused([&](OverflowOptions& o) { o.count_noise = bad; }, "expected a finite standard deviation > 0 of the noise on");
  for (const double bad : {0.0, -0.1, 1.0, nan_value, infinity})
    refused([&](OverflowOptions& o) { o.share = bad; }, "expected a share of overflows in (0, 1)");
  refused([](OverflowOptions& o) { o.growth_interval = 0; }, "got 0 and 3");
  refused([](OverflowOptions& o) { o.alarm_after = -1; }, "got 7 and -1");
  for (const double bad : {0.0, 3.0, -2.0, nan_value, infinity, 0x1p-1074})
    for (const auto field : {&OverflowOptions::lowest, &OverflowOptions::highest, &OverflowOptions::initial_scale})
      refused([&](OverflowOptions& o) { o.*field = bad; }, bad == 0x1p-1074 ? "2^-24 <= lowest" : "powers of two");
  refused([](OverflowOptions& o) { o.initial_scale = 128; }, "<= initial <= highest <= 2^40");
  refused([](OverflowOptions& o) { o.initial_scale = 0.125; }, "<= initial <= highest <= 2^40");
  refused([](OverflowOptions& o) { o.highest = 0x1p41; }, "<= initial <= highest <= 2^40");
  // Noise of 6 on a batch of 100 is above a share of 0.06 in 16 % of the steps: seven without are less likely than one with.
  refused([](OverflowOptions& o) { o.share = 0.06; }, "by noise alone the scale would fall");
  OverflowOptions quick = overflow();
  quick.share = 0.06;
  quick.growth_interval = 3;  // 0.84^3 = 0.59
  CHECK_NOTHROW(OverflowScale(quick, 100));
  for (const double bad : {0.0, -1.0, nan_value, infinity})
    CHECK_THROWS_WITH_AS(OverflowScale(overflow(), bad), doctest::Contains("finite expected batch > 0"), Error);

  OverflowScale scale(overflow(), 100);
  for (const OverflowState& bad : {OverflowState{7}, {-3}, {0, 7}, {0, -1}, {0, 0, 3}, {0, 0, -1}, {0, 1, 1}, {0, 0, 0, -1}})
    CHECK_THROWS_AS(scale.restore(bad), Error);
  for (const OverflowState& good : {OverflowState{6, 6}, {-2, 0, 2, 5}, {0}}) {
    scale.restore(good);
    CHECK(scale.state() == good);
  }
}
