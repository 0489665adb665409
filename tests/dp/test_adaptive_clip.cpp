// SPDX-License-Identifier: Apache-2.0
// The threshold that follows a quantile: its count, its noise, and that gradient and count together cost what is accounted.
#include <doctest/doctest.h>
#include <cmath>
#include <limits>
#include <vector>

#include "dpmp/dp/plan.hpp"
#include "support/random.hpp"

using namespace dpmp;
using dp::AdaptiveOptions;
using dp::AdaptiveThreshold;
using dp::NeighbouringRelation;
using dp::Plan;
using dp::PlanOptions;

namespace {
const double infinity = std::numeric_limits<double>::infinity(), nan_value = std::numeric_limits<double>::quiet_NaN();

AdaptiveOptions adaptive() {
  return {.quantile = 0.4, .learning_rate = 0.3, .count_noise = 8, .lowest = 0.01, .highest = 50, .initial_threshold = 0.5};
}
PlanOptions options() {
  return {.delta = 1e-5, .sampling_rate = 0.02, .steps = 100, .dataset_size = 5000, .adaptive = adaptive()};
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
/// The noise multiplier of (gradient sum with multiplier z, count of sensitivity h with noise s_b) as one mechanism.
double joint_multiplier(double z, double s_b, double h) { return 1 / std::sqrt(1 / (z * z) + (h / s_b) * (h / s_b)); }
}  // namespace

TEST_CASE("P18: sigma_z makes gradient and count together one mechanism of multiplier sigma, never less") {
  test::Rng rng(test::seed(), 1);
  for (int k = 0; k < 20000; ++k) {
    const double s_b = std::exp(rng.uniform(-3, 8));
    for (auto relation :
         {NeighbouringRelation::add_or_remove_one, NeighbouringRelation::zero_out, NeighbouringRelation::replace_one}) {
      const double h = relation == NeighbouringRelation::add_or_remove_one ? 0.5 : 1;
      REQUIRE(dp::count_sensitivity(relation) == h);
      const double close = k % 2 ? 1 - std::exp(rng.uniform(-25, -1)) : rng.uniform(1e-6, 0.99);
      const double sigma = close * s_b / h, z = dp::gradient_noise_multiplier(sigma, s_b, relation);
      INFO("sigma ", sigma, " s_b ", s_b, " sigma_z ", z);
      REQUIRE(z > sigma);
      // The sum of inverse squares in the wider type: at most sigma^-2, but for that type's own rounding.
      using Wide = long double;
      const Wide parts = 1 / (Wide(z) * Wide(z)) + (Wide(h) / Wide(s_b)) * (Wide(h) / Wide(s_b));
      REQUIRE(parts * Wide(sigma) * Wide(sigma) <= 1 + 0x1p-60L);
      if (close < 0.99)
        REQUIRE(z == doctest::Approx(1 / std::sqrt(1 / (sigma * sigma) - (h / s_b) * (h / s_b))).epsilon(1e-9));
    }
  }
}

TEST_CASE("P18: a count that alone would spend more than sigma allows is refused, naming the numbers") {
  PlanOptions o = options();
  CHECK_NOTHROW(Plan::with_noise_multiplier(o, 15.99));
  CHECK_THROWS_WITH_AS(
      Plan::with_noise_multiplier(o, 16),
      doctest::Contains("expected a noise multiplier below 16 (the count's noise 8 over its sensitivity 0.5), "
                        "got 16"),
      Error);
  // The largest multiplier of a schedule counts.
  o.noise_schedule = dp::Schedule::piecewise({{0, 1.0}, {50, 2.0}});
  CHECK_NOTHROW(Plan::with_noise_multiplier(o, 7.99));
  CHECK_THROWS_AS(Plan::with_noise_multiplier(o, 8), Error);
  o = options();
  o.adaptive->count_noise = 0.3;
  o.epsilon = 2;
  CHECK_THROWS_WITH_AS(Plan::calibrate(o), doctest::Contains("expected a noise multiplier below 0.6"), Error);
}

TEST_CASE("P3, P18: an adaptive plan adds sigma_z to gradients; sigma there would cost more than is accounted") {
  const Plan plan = Plan::with_noise_multiplier(options(), 1.4);
  PlanOptions flat = options();
  flat.adaptive.reset();
  CHECK(plan.epsilon() == Plan::with_noise_multiplier(flat, 1.4).epsilon());
  for (double C : {0.01, 0.37, 50.0}) {
    const dp::StepPlan step = plan.at(3, C);
    REQUIRE(step.groups.size() == 1);
    CHECK(step.groups[0].clip_threshold() == C);
    const double delta = C * (1 + plan.facts().rho), z = step.noise_standard_deviation / delta;
    CHECK(z == doctest::Approx(step.noise_multiplier).epsilon(1e-14));
    CHECK(joint_multiplier(z, 8, 0.5) == doctest::Approx(1.4).epsilon(1e-12));
    // The known mistake: sigma itself on the gradients in addition to a count. It must not pass for sigma.
    CHECK(joint_multiplier(1.4, 8, 0.5) < 1.4 * (1 - 1e-3));
  }
  CHECK_THROWS_WITH_AS(plan.noise_standard_deviation(), doctest::Contains("got an adaptive one"), Error);
  CHECK_THROWS_WITH_AS(plan.clipping(), doctest::Contains("got an adaptive one"), Error);
  CHECK_THROWS_WITH_AS(plan.sensitivity(), doctest::Contains("got an adaptive one"), Error);
  for (double C : {0.0, 0.00999, 50.1, -1.0, nan_value, infinity})
    CHECK_THROWS_WITH_AS(plan.at(3, C), doctest::Contains("in [0.01, 50]"), Error);
  CHECK_THROWS_WITH_AS(Plan::with_noise_multiplier(flat, 1.4).at(0, 0.5), doctest::Contains("a plan without one"), Error);
  CHECK_THROWS_WITH_AS(Plan::with_noise_multiplier(flat, 1.4).adaptive_threshold(), doctest::Contains("one without"), Error);
  CHECK(plan.adaptive_threshold().threshold() == 0.5);
}

TEST_CASE("P18: the count: half a point up or down, masked and non-finite samples 0, sensitivity h") {
  const std::vector<double> norms{0.1, 1.0, 1.0000001, 5, nan_value, infinity, 0.2, -1};
  std::vector<std::uint8_t> ok{1, 1, 1, 1, 1, 1, 0, 1};
  CHECK(dp::quantile_count(norms, ok, 1) == 0);
  CHECK(dp::quantile_count(norms, ok, 0.5) == -1);
  CHECK(dp::quantile_count(norms, ok, 10) == 2);
  CHECK(dp::quantile_count({}, {}, 1) == 0);
  test::Rng rng(test::seed(), 2);
  std::vector<double> many(500);
  for (double& n : many) n = std::exp(rng.normal());
  std::vector<std::uint8_t> all(500, 1);
  const double with = dp::quantile_count(many, all, 1.1);
  double by_hand = 0;
  for (double n : many) by_hand += n <= 1.1 ? 0.5 : -0.5;
  CHECK(with == by_hand);
  for (std::size_t i = 0; i < 500; ++i) {
    all[i] = 0;
    REQUIRE(std::fabs(with - dp::quantile_count(many, all, 1.1)) == 0.5);
    all[i] = 1;
  }
}

TEST_CASE("P18: noise is on the count always, with the standard deviation s_b, another one every step") {
  const AdaptiveThreshold state(adaptive(), 100);
  for (double count : {-50.0, 0.0, 50.0}) {  // everything clipped, an empty batch, nothing clipped
    double mean = 0, squares = 0, last = nan_value;
    const int n = 20000;
    int same = 0;
    for (index_t t = 0; t < n; ++t) {
      const double noise = (state.noisy_fraction(count, stream(t)) - 0.5) * 100 - count;
      same += noise == last;
      mean += noise / n;
      squares += noise * noise / n;
      last = noise;
    }
    CHECK(same <= 3);  // two draws are equal on the grid with a probability below 2^-20
    CHECK(std::fabs(mean) < 5 * 8 / std::sqrt(double(n)));
    CHECK(std::fabs(std::sqrt(squares) / 8 - 1) < 5 / std::sqrt(2.0 * n));
  }
}

TEST_CASE("P21: the count's noise shares no key stream with the parameters'") {
  dp::StepTicket ticket = dp::StepLedger(10, keys(), 4).begin_step();
  const dp::NoiseStream noise = ticket.noise(), auxiliary = ticket.auxiliary_noise();
  CHECK(auxiliary.key.words != noise.key.words);
  CHECK(auxiliary.step == 4);
  // Values in units of the grid: five at 2^-20 of a standard deviation meet with a probability below 2^-18.
  for (index_t parameter : {index_t(0), index_t(1), dp::max_parameters - 1})
    CHECK(dp::noised(0, 1, auxiliary, 0) != dp::noised(0, 1, noise, parameter));
  // It is element 0 of what add_gaussian_noise draws.
  ThreadTeam team(1);
  std::vector<double> z(9, 0.0);
  dp::add_gaussian_noise(team, z, 1, auxiliary, 3);
  CHECK(dp::noised(0, 1, auxiliary, 3) == z[0]);
}

TEST_CASE("P18: the trajectory is a function of the noisy fractions alone, stays in its range, and can be restored") {
  test::Rng rng(test::seed(), 3);
  AdaptiveThreshold state(adaptive(), 100), follower(adaptive(), 100);
  double C = 0.5;
  for (index_t t = 0; t < 400; ++t) {
    const double count = t < 100 ? 1e4 : t < 200 ? -1e4 : double(rng.integer(-60, 60)) / 2;
    const double b = state.noisy_fraction(count, stream(t));
    state.update(count, stream(t));
    follower.update(b);  // sees nothing but the released number
    C = std::min(50.0, std::max(0.01, C * std::exp(-0.3 * (b - 0.4))));
    REQUIRE(state.threshold() == follower.threshold());
    REQUIRE(state.threshold() == doctest::Approx(C).epsilon(1e-12));
    REQUIRE((state.threshold() >= 0.01 && state.threshold() <= 50));
    if (t == 99) CHECK(state.threshold() == 0.01);
    if (t == 199) CHECK(state.threshold() == 50);
    AdaptiveThreshold restored(adaptive(), 100);
    restored.restore(state.threshold());
    follower = restored;
  }
  for (double bad : {0.0, 0.0099, 51.0, nan_value, infinity})
    CHECK_THROWS_WITH_AS(state.restore(bad), doctest::Contains("clip threshold in [0.01, 50]"), Error);
  for (double b : {1e300, -1e300}) {
    state.update(b);
    CHECK(state.threshold() == (b > 0 ? 0.01 : 50));
  }
}

TEST_CASE("P18: the threshold finds the quantile of the norms") {
  test::Rng rng(test::seed(), 4);
  AdaptiveOptions o = adaptive();
  AdaptiveThreshold state(o, 400);
  double late = 0;
  for (index_t t = 0; t < 400; ++t) {
    std::vector<double> norms(400);
    for (double& n : norms) n = std::exp(rng.normal());
    state.update(dp::quantile_count(norms, std::vector<std::uint8_t>(400, 1), state.threshold()), stream(t, 7));
    if (t >= 200) late += std::log(state.threshold()) / 200;
  }
  // The 0.4 quantile of a standard normal is -0.2533. A step's noisy share has a standard deviation of
  // sqrt(0.24 / 400 + (8 / 400)^2) = 0.032; by the slope 0.386 of the distribution there that is 0.082 of log C, averaged
  // over 200 steps 0.006, and the first 200 steps leave nothing of the start.
  CHECK(std::fabs(late + 0.2533) < 0.04);
}

TEST_CASE("P18, A2: the count moves by at most h between neighbours, and by h for some, whatever the relation") {
  test::Rng rng(test::seed(), 5);
  double largest[3] = {};
  for (int k = 0; k < 2000; ++k) {
    std::vector<double> norms(9);
    std::vector<std::uint8_t> ok(9, 1);
    for (double& n : norms) n = rng.integer(0, 9) == 0 ? nan_value : std::exp(rng.normal());
    for (auto& flag : ok) flag = rng.integer(0, 4) > 0;
    const std::size_t at = std::size_t(rng.integer(0, 8));
    ok[at] = 1;  // the record is drawn
    const double with = dp::quantile_count(norms, ok, 1);
    const auto moved = [&](NeighbouringRelation relation, double count) {
      double& most = largest[std::size_t(relation)];
      most = std::max(most, std::fabs(with - count));
    };
    std::vector<std::uint8_t> gone = ok;
    gone[at] = 0;
    moved(NeighbouringRelation::add_or_remove_one, dp::quantile_count(norms, gone, 1));
    std::vector<double> other = norms;
    other[at] = 0;  // the empty record's gradient is zero, and it is still there
    moved(NeighbouringRelation::zero_out, dp::quantile_count(other, ok, 1));
    other[at] = std::exp(rng.normal());
    moved(NeighbouringRelation::replace_one, dp::quantile_count(other, ok, 1));
  }
  for (auto relation :
       {NeighbouringRelation::add_or_remove_one, NeighbouringRelation::zero_out, NeighbouringRelation::replace_one})
    CHECK(largest[std::size_t(relation)] == dp::count_sensitivity(relation));
}

TEST_CASE("A2: under zero_out gradient and count together are the mechanism that is accounted, not one of half the noise") {
  PlanOptions o = options();
  o.relation = NeighbouringRelation::zero_out;
  const Plan plan = Plan::with_noise_multiplier(o, 1.4);
  const double z = plan.at(0, 0.5).noise_multiplier;
  CHECK(joint_multiplier(z, 8, 1) == doctest::Approx(1.4).epsilon(1e-12));
  // What was done before: h = 1/2, though an emptied record may move the count by 1.
  const double planted = 1 / std::sqrt(1 / (1.4 * 1.4) - (0.5 / 8) * (0.5 / 8));
  CHECK(joint_multiplier(planted, 8, 1) < 1.4 * (1 - 1e-3));
}
