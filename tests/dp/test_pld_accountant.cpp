// SPDX-License-Identifier: Apache-2.0
// The accountant by privacy-loss distributions: references of other accountants, order and monotonicity, inverses, inputs of
// any size.
#include <algorithm>
#include <cmath>
#include <tuple>

#include "dp/references.hpp"
#include "dpmp/dp/gaussian_curve.hpp"
#include "dpmp/dp/plan.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;
using dp::NeighbouringRelation;
using dp::PldAccountant;
using dp::StepMechanism;

namespace {
PldAccountant accountant_of(const nlohmann::json& setting) {
  PldAccountant accountant;
  for (const auto& s : setting["segments"])
    accountant.add_steps({.sampling_rate = s["q"], .noise_multiplier = s["sigma"]}, s["steps"]);
  return accountant;
}
struct Setting {
  StepMechanism step;
  index_t steps;
  double delta;

  PldAccountant accountant() const {
    PldAccountant a;
    a.add_steps(step, steps);
    return a;
  }
};
/// Settings of an epsilon between about 0.05 and 50.
Setting random_setting(test::Rng& rng) {
  Setting s{{.sampling_rate = std::exp(rng.uniform(-6, -0.1)), .noise_multiplier = std::exp(rng.uniform(-0.5, 1.5))},
            1,
            std::exp(rng.uniform(-28, -7))};
  const double q = s.step.sampling_rate, sigma = s.step.noise_multiplier;
  s.steps =
      std::max<index_t>(1, index_t(std::exp(rng.uniform(0, std::log(2 + 5 / (q * q * std::expm1(1 / (sigma * sigma))))))));
  s.steps = std::min<index_t>(s.steps, 20000);
  if (rng.integer(0, 2) == 0) s.step.relation = NeighbouringRelation::replace_one;
  return s;
}
// What grids differ by between settings that are close: the accountant's own looseness.
constexpr double grids = 5e-4;
}  // namespace

TEST_CASE("P25: epsilons of the references: not below PRV's lower bound, at most 1.001 of dp_accounting's upper one") {
  for (const auto& s : test::accountant_references()["settings"]) {
    const double delta = s["delta"];
    const PldAccountant accountant = accountant_of(s);
    const double epsilon = accountant.epsilon(delta), least = accountant.least_epsilon(delta);
    INFO(s["id"].get<std::string>(), " epsilon ", least, " .. ", epsilon);
    CHECK(epsilon >= s["prv"]["lower"].get<double>() - 1e-4);
    if (!s["pld_upper"].is_null()) CHECK(epsilon <= s["pld_upper"].get<double>() * 1.001);
    if (!s["pld_upper"].is_null()) CHECK(least <= s["pld_upper"].get<double>() + 1e-5);
    CHECK(least <= s["prv"]["upper"].get<double>() + 1e-4);
    CHECK(least <= epsilon);
    if (!s["exact"].is_null()) CHECK(epsilon >= s["exact"]["eps"].get<double>() * (1 - 1e-6));
    // Opacus' and TensorFlow Privacy's default: what it is above.
    CHECK(epsilon <= s["rdp"]["eps"].get<double>() * (1 + 1e-9));
  }
}

TEST_CASE("P25: epsilon is between its bounds, the inverse of delta, below that of Renyi and grows as it has to") {
  test::Rng rng(test::seed(), 1);
  for (int k = 0; k < 10; ++k) {
    const Setting s = random_setting(rng);
    const PldAccountant accountant = s.accountant();
    const double epsilon = accountant.epsilon(s.delta);
    INFO(name_of(s.step.relation), " q ", s.step.sampling_rate, " sigma ", s.step.noise_multiplier, " steps ", s.steps,
         " delta ", s.delta, " epsilon ", epsilon);
    CHECK(accountant.least_epsilon(s.delta) <= epsilon);
    if (epsilon > 0) {
      CHECK(accountant.delta(epsilon) <= s.delta * (1 + 2e-2));
      CHECK(accountant.least_delta(epsilon) <= s.delta * (1 + 1e-9));
    }
    if (s.step.relation != NeighbouringRelation::replace_one) {
      dp::RdpAccountant rdp;
      rdp.add_steps(s.step.sampling_rate, s.step.noise_multiplier, s.steps);
      CHECK(epsilon <= rdp.epsilon(s.delta));
    }
    const double least = epsilon * (1 - grids) - 1e-9;
    Setting more = s;
    more.step.sampling_rate = std::min(1.0, s.step.sampling_rate * rng.uniform(1, 1.5));
    CHECK(more.accountant().epsilon(s.delta) >= least);
    more = s, more.step.noise_multiplier *= rng.uniform(0.7, 1);
    CHECK(more.accountant().epsilon(s.delta) >= least);
    more = s, more.steps += rng.integer(0, s.steps);
    CHECK(more.accountant().epsilon(s.delta) >= least);
    CHECK(accountant.epsilon(s.delta * rng.uniform(0.1, 1)) >= least);
    // Of the whole curve every point holds, and none is far from its own.
    const std::vector<double> deltas{s.delta, s.delta / 30, std::min(0.5, s.delta * 30)};
    const std::vector<double> epsilons = accountant.epsilons(deltas);
    CHECK(epsilons[0] == doctest::Approx(epsilon).epsilon(2e-2));
    CHECK(epsilons[1] >= epsilons[0]);
    CHECK(epsilons[2] <= epsilons[0]);
    // Whoever tests the neighbours is bounded by every (epsilon, delta), and can do nothing better than guess without it.
    const double rate = rng.uniform(0.001, 0.9), power = accountant.true_positive_rate(rate);
    CHECK(power >= rate);
    CHECK(power <= s.delta + std::exp(epsilon) * rate * (1 + 1e-6));
  }
}

TEST_CASE("P25: all records in every step: the closed form, alone and next to sampled steps") {
  test::Rng rng(test::seed(), 2);
  for (const auto relation : {NeighbouringRelation::add_or_remove_one, NeighbouringRelation::replace_one}) {
    PldAccountant a;
    double mu_squared = 0;
    for (int k = 0; k < 5; ++k) {
      const double sigma = std::exp(rng.uniform(0, 3));
      const index_t steps = rng.integer(1, 30);
      a.add_steps({.noise_multiplier = sigma, .relation = relation}, steps);
      mu_squared += double(steps) / (sigma * sigma);
    }
    const double exact = dp::gaussian_epsilon(std::sqrt(mu_squared), 1e-6);
    CHECK(a.epsilon(1e-6) >= exact);
    CHECK(a.epsilon(1e-6) <= exact * (1 + 1e-9));
    CHECK(a.spent(1e-6).method == dp::AccountingMethod::exact_gaussian);
    // A sampled step more costs something, and less than one that uses every record.
    PldAccountant more = a, most = a;
    more.add_steps({.sampling_rate = 0.1, .noise_multiplier = 2, .relation = relation}, 20);
    most.add_steps({.noise_multiplier = 2, .relation = relation}, 20);
    CHECK(more.epsilon(1e-6) > exact);
    CHECK(more.epsilon(1e-6) < most.epsilon(1e-6));
  }
}

TEST_CASE("P25: steps compose in any order, and close noise multipliers in large numbers cost next to nothing") {
  PldAccountant forward, backward;
  for (int k = 0; k < 40; ++k) {
    forward.add_steps({.sampling_rate = 0.02, .noise_multiplier = 1 + 0.01 * (k % 20)}, 7);
    backward.add_steps({.sampling_rate = 0.02, .noise_multiplier = 1 + 0.01 * (19 - k % 20)}, 7);
  }
  CHECK(forward.steps() == 280);
  CHECK(forward.epsilon(1e-6) == doctest::Approx(backward.epsilon(1e-6)).epsilon(1e-12));
  PldAccountant many, few;
  for (int k = 0; k < 600; ++k) many.add_steps({.sampling_rate = 0.01, .noise_multiplier = 1.5 + 1e-6 * k}, 1);
  few.add_steps({.sampling_rate = 0.01, .noise_multiplier = 1.5}, 600);
  const double of_many = many.epsilon(1e-6), of_few = few.epsilon(1e-6);
  CHECK(of_many <= of_few * (1 + grids));
  CHECK(of_many >= of_few * 0.995);
}

TEST_CASE("P25: no input is too large or too small, and every bound is at most that of Renyi") {
  test::Rng rng(test::seed(), 3);
  for (int k = 0; k < 20; ++k) {
    const StepMechanism step{.kind = StepMechanism::Kind(k % 2),
                             .sampling_rate = k % 7 ? std::exp(rng.uniform(-40, 0)) : 1,
                             .noise_multiplier = std::exp(rng.uniform(-12, 14)),
                             .relation = k % 3 ? NeighbouringRelation::zero_out : NeighbouringRelation::replace_one};
    const index_t steps = index_t(std::exp(rng.uniform(0, 27)));
    const double delta = std::exp(rng.uniform(-200, -0.01));
    PldAccountant a;
    a.add_steps(step, steps);
    INFO("q ", step.sampling_rate, " sigma ", step.noise_multiplier, " steps ", steps, " delta ", delta);
    double epsilon = -1;
    REQUIRE_NOTHROW(epsilon = a.epsilon(delta));
    CHECK(epsilon >= 0);
    if (step.kind == StepMechanism::Kind::poisson_gaussian && step.relation != NeighbouringRelation::replace_one) {
      dp::RdpAccountant rdp;
      rdp.add_steps(step.sampling_rate, step.noise_multiplier, steps);
      CHECK(epsilon <= rdp.epsilon(delta));
    }
    REQUIRE_NOTHROW((void)a.delta(rng.uniform(0, 30)));
    REQUIRE_NOTHROW((void)a.true_positive_rate(rng.uniform()));
  }
  PldAccountant nothing;
  nothing.add_steps({.sampling_rate = 0}, 10);
  nothing.add_steps({}, 0);
  CHECK(nothing.steps() == 10);
  CHECK(nothing.epsilon(1e-5) == 0);
  CHECK(nothing.delta(0) == 0);
  CHECK(nothing.true_positive_rate(0.3) == 0.3);
  CHECK(nothing.spent(1e-5).method == dp::AccountingMethod::nothing);
}

TEST_CASE("P26: noise, steps and rate of a plan are calibrated to its epsilon, from below and closely") {
  test::Rng rng(test::seed(), 4);
  for (int k = 0; k < 3; ++k) {
    dp::PlanOptions o{.epsilon = std::exp(rng.uniform(-1, 2)),
                      .delta = std::exp(rng.uniform(-16, -9)),
                      .sampling_rate = std::exp(rng.uniform(-5, -1)),
                      .steps = rng.integer(2, 2000),
                      .dataset_size = 10000};
    if (k == 2) o.relation = NeighbouringRelation::replace_one;
    const dp::Plan plan = dp::Plan::calibrate(o);
    CHECK(plan.epsilon() <= o.epsilon);
    CHECK(plan.epsilon() >= o.epsilon * (1 - 1e-5));
    CHECK(plan.delta_at(o.epsilon) <= o.delta * (1 + 1e-2));
    CHECK(plan.trade_off(0.1) <= 0.9);
    CHECK(plan.gdp_mu() > 0);
    // What was calibrated is what comes back.
    const double sigma = plan.noise_multiplier();
    const auto epsilon_of = [&](double rate, index_t steps) {
      dp::PlanOptions other = o;
      other.epsilon = 0, other.sampling_rate = rate, other.steps = steps;
      return dp::Plan::with_noise_multiplier(other, sigma).epsilon();
    };
    const index_t steps = dp::most_steps(o, sigma);
    CHECK(steps >= o.steps);
    CHECK(epsilon_of(o.sampling_rate, steps) <= o.epsilon);
    CHECK(epsilon_of(o.sampling_rate, steps + 1) > o.epsilon * (1 - 1e-7));
    const double rate = dp::largest_sampling_rate(o, sigma);
    CHECK(rate == doctest::Approx(o.sampling_rate).epsilon(1e-2));
    CHECK(epsilon_of(rate, o.steps) <= o.epsilon);
    CHECK(epsilon_of(std::min(1.0, rate * (1 + 1e-3)), o.steps) > o.epsilon * (1 - 1e-6));
  }
  dp::PlanOptions o{.epsilon = 1e-9, .delta = 1e-12, .sampling_rate = 0.5, .steps = 1, .dataset_size = 100};
  CHECK(test::refuses([&] { dp::most_steps(o, 0.5); }, "expected a target epsilon that one step keeps"));
  const auto tried = [](dp::PlanOptions p, double sigma) {
    const index_t steps = dp::most_steps(p, sigma);
    const auto epsilon_of = [&](index_t count) {
      dp::PlanOptions other = p;
      other.epsilon = 0, other.steps = count;
      return dp::Plan::with_noise_multiplier(other, sigma).epsilon();
    };
    CHECK(epsilon_of(steps) <= p.epsilon);
    return steps;
  };
  // Correlated noise: never fewer steps than bands, nor more than 2^20.
  dp::PlanOptions banded{.epsilon = 3, .delta = 1e-6, .sampling_rate = 0.2, .steps = 1000, .dataset_size = 10000};
  banded.sampling = {.kind = dp::SamplingKind::cyclic_poisson, .period = 8};
  banded.noise_source = {.kind = dp::NoiseSourceKind::banded, .bands = 8};
  const index_t of_bands = tried(banded, 2);
  CHECK(of_bands % 8 == 0);  // whole rounds cost as much as those that are cut off
  banded.steps = of_bands;
  CHECK(dp::largest_sampling_rate(banded, 2) >= 0.2 * (1 - 1e-6));
  CHECK(test::refuses([&] { dp::most_steps(banded, 0.05); }, "that 8 steps keep, as many as the noise has bands"));
  CHECK(tried(banded, 1e6) == dp::max_correlated_steps);
  banded.noise_source.bands = 9;
  CHECK(tried(banded, 20) >= 9);
  CHECK(test::refuses([&] { dp::largest_sampling_rate(banded, 20); }, "all steps are accounted as one Gaussian mechanism"));
  banded.noise_source = {.kind = dp::NoiseSourceKind::tree};
  CHECK(tried(banded, 20) >= 1);
  CHECK(test::refuses([&] { dp::largest_sampling_rate(banded, 20); }, "whatever the sampling rate is"));
  // A batch size that is given holds for some steps and some rates only.
  dp::PlanOptions cut{.epsilon = 8, .delta = 1e-6, .sampling_rate = 0.02, .steps = 1000, .dataset_size = 10000};
  cut.sampling = {.kind = dp::SamplingKind::truncated_poisson};
  CHECK(tried(cut, 1) > 1000);
  CHECK(dp::largest_sampling_rate(cut, 1) > 0.02);
  cut.sampling.batch_size = 280;
  const index_t of_size = tried(cut, 30);
  cut.steps = of_size + of_size / 100 + 2;
  CHECK(test::refuses([&] { dp::Plan::calibrate(cut); }, "to cost at most half of delta"));
  cut.steps = 100;
  const double cut_rate = dp::largest_sampling_rate(cut, 30);
  CHECK(cut_rate > 0.02);
  CHECK(cut_rate < 0.028);
  o.sampling = {.kind = dp::SamplingKind::full_batch}, o.sampling_rate = 0;
  CHECK(test::refuses([&] { dp::largest_sampling_rate(o, 2); }, "expected a kind of Poisson sampling, got full_batch"));
}

TEST_CASE("P25: a few rare large losses that make up the variance do not blow up the grid") {
  for (const auto& [sigma, steps, delta, looseness] :
       std::vector<std::tuple<double, index_t, double, double>>{{0.6, 20000, 1e-6, 1.02},
                                                                {0.5, 20000, 1e-6, 1.04},
                                                                {0.765, 1000000, 1e-15, 1.12},
                                                                {0.768, 1000000, 1e-15, 1.12}}) {
    PldAccountant a;
    a.add_steps({.sampling_rate = 1e-4, .noise_multiplier = sigma}, steps);
    CAPTURE(sigma);
    CHECK(a.epsilon(delta) >= a.least_epsilon(delta));
    CHECK(a.epsilon(delta) <= looseness * a.least_epsilon(delta));
    CHECK(a.rough_epsilon(delta) > 0);
  }
}

TEST_CASE("P25: deltas near the mass that a grid leaves out: no epsilon below the truth") {
  using enum dp::NeighbouringRelation;
  for (const dp::NeighbouringRelation relation : {add_or_remove_one, replace_one})
    for (const double delta : {1e-11, 1e-12, 1e-13, 2e-14, 1e-15}) {
      CAPTURE(delta);
      PldAccountant a;
      a.add_steps({.sampling_rate = 1e-4, .noise_multiplier = 0.959, .relation = relation}, 10);
      const double epsilon = a.epsilon(delta);
      CHECK(epsilon >= a.least_epsilon(delta) * (1 - 1e-9));
      if (std::isfinite(epsilon)) CHECK(a.least_delta(epsilon) <= delta * (1 + 1e-6));
    }
}

TEST_CASE("bad input: the accountant") {
  PldAccountant a;
  CHECK(test::refuses([&] { a.add_steps({}, -1); }, "number of steps >= 0, got -1"));
  CHECK(test::refuses([&] { a.add_steps({}, index_t(1) << 61); }, "fewer than 2^60 steps"));
  CHECK(test::refuses([&] { a.add_steps({.sampling_rate = -0.1}, 1); }, "sampling probability in [0, 1]"));
  for (double v : {0.0, 1.0, -1.0, std::nan("")}) {
    CHECK(test::refuses([&] { (void)a.epsilon(v); }, "delta in (0, 1)"));
    CHECK(test::refuses([&] { (void)a.least_epsilon(v); }, "delta in (0, 1)"));
  }
  for (double v : {-1.0, double(INFINITY), std::nan("")}) {
    CHECK(test::refuses([&] { (void)a.delta(v); }, "finite epsilon >= 0"));
    CHECK(test::refuses([&] { (void)a.least_delta(v); }, "finite epsilon >= 0"));
  }
  CHECK(test::refuses([&] { (void)a.true_positive_rate(1.5); }, "false positive rate in [0, 1]"));
}
