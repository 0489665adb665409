// SPDX-License-Identifier: Apache-2.0
// Many noise multipliers as mixtures of a few: the curves in between, compositions of such mixtures against direct ones, and
// schedules of thousands of values.
#include <doctest/doctest.h>
#include <algorithm>
#include <cmath>
#include <map>

#include "dpmp/dp/loss_composition.hpp"
#include "dpmp/dp/noise_chords.hpp"
#include "dpmp/dp/plan.hpp"
#include "dpmp/dp/privacy_loss.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;
using dp::BoundSide;
using dp::NeighbouringRelation;
using dp::StepMechanism;

namespace {
StepMechanism random_kind(test::Rng& rng) {
  StepMechanism m{.sampling_rate = std::exp(rng.uniform(-8, -0.02))};
  if (rng.integer(0, 1)) m.relation = NeighbouringRelation::replace_one;
  if (rng.integer(0, 3) == 0) m.kind = StepMechanism::Kind::poisson_gaussian_difference;
  return m;
}
}  // namespace

TEST_CASE("P25: a step between two others has at most the curve of the mixture that it is composed as") {
  test::Rng rng(test::seed(), 1);
  for (int k = 0; k < 60; ++k) {
    const StepMechanism kind = random_kind(rng);
    const double sigma = std::exp(rng.uniform(-2, 3)), width = k % 4 ? rng.uniform(0.001, 0.1) : rng.uniform(0.1, 0.9);
    dp::CountedSteps steps;
    for (int j = 0; j < 60; ++j) {
      steps.push_back({kind, rng.integer(1, 5)});
      steps.back().first.noise_multiplier = sigma * (1 + width * j / 59);
    }
    const std::vector<dp::CountedCurve> curves = dp::noise_chords(steps);
    CHECK(curves.size() < 60);
    std::size_t next = 0;
    index_t left = 0;
    for (const auto& s : steps) left += s.second;
    for (std::size_t c = 0; c < curves.size(); ++c) {
      const auto bounded = [&](const dp::PrivacyCurve& curve, double share) {
        for (int j = 0; j < 10; ++j) {
          const double epsilon = j == 0 ? 0 : std::exp(rng.uniform(-8, 2)) / sigma;
          const auto below = [&](const dp::DeltaBounds& here, const dp::DeltaBounds& x, const dp::DeltaBounds& y) {
            CHECK(here.lower <= ((1 - share) * x.upper + share * y.upper) * (1 + 1e-12));
          };
          const dp::PrivacyCurve &x = curves[c].curve, &y = curves[share > 0 ? c + 1 : c].curve;
          below(curve.forward(epsilon), x.forward(epsilon), y.forward(epsilon));
          below(curve.backward(epsilon), x.backward(epsilon), y.backward(epsilon));
        }
      };
      CAPTURE(kind.sampling_rate);
      CAPTURE(steps[next].first.noise_multiplier);
      bounded(dp::privacy_curve(steps[next].first), 0);
      CHECK(curves[c].count == steps[next].second);
      left -= steps[next++].second;
      for (const auto& [share, count] : curves[c].towards_next) {
        CHECK(share >= 0);
        CHECK(share <= 1);
        bounded(dp::privacy_curve(steps[next].first), share);
        CHECK(count == steps[next].second);
        left -= steps[next++].second;
      }
    }
    CHECK(left == 0);
  }
}

TEST_CASE("P25: allocations, of which nothing is proven, and few steps are not mixed") {
  dp::CountedSteps allocations, few;
  for (int j = 0; j < 40; ++j)
    allocations.push_back(
        {{StepMechanism::Kind::random_allocation_gaussian, 0.5, 1 + 0.001 * j, NeighbouringRelation::add_or_remove_one, 2},
         1});
  for (int j = 0; j < 32; ++j) few.push_back({{.sampling_rate = 0.1, .noise_multiplier = 1 + 0.001 * j}, 1});
  for (const dp::CountedSteps& steps : {allocations, few}) {
    const std::vector<dp::CountedCurve> curves = dp::noise_chords(steps);
    CHECK(curves.size() == steps.size());
    CHECK(std::all_of(curves.begin(), curves.end(), [](const auto& c) { return c.towards_next.empty(); }));
  }
}

TEST_CASE("P25: steps between two parts compose as a direct convolution of their mixtures does, from above") {
  test::Rng rng(test::seed(), 2);
  for (int k = 0; k < 12; ++k) {
    const double tilt = k % 3 ? rng.uniform(0, 6) : 0, sigma = rng.uniform(0.8, 2);
    const dp::LossGrid grid{.interval = 0x1p-4, .tilt = tilt, .tail = 1e-11};
    const auto losses = [&](double s) {
      return dp::connect_the_dots(dp::privacy_curve({.sampling_rate = 0.3, .noise_multiplier = s}), BoundSide::pessimistic,
                                  grid);
    };
    // Neighbours that are near, as in a schedule, and far, where the series of logarithms does not converge.
    const dp::LossMasses x = losses(sigma), y = losses(sigma * (k % 2 ? 1.02 : 3));
    const dp::LossShares shares{{rng.uniform(), 2}, {rng.uniform(), 1}, {0.0, 1}, {1.0, 1}};
    const dp::CountedLosses parts[] = {{&x, 1, &shares}, {&y, 1}};
    const dp::LossMasses composed = dp::compose_losses(parts);
    using Masses = std::map<index_t, long double>;
    const auto untilted = [&](const dp::LossMasses& m, long double weight) {
      Masses r;
      for (const dp::LossAtom& a : m.atoms)
        r[a.index] = weight * a.mass * std::exp((long double)(m.log_scale) - (long double)(tilt)*a.index * 0x1p-4L);
      return r;
    };
    Masses all{{0, 1}};
    long double infinite = 0;
    const auto then = [&](double share) {
      Masses mixture = untilted(x, 1 - (long double)(share)), next;
      for (const auto& [i, p] : untilted(y, share)) mixture[i] += p;
      for (const auto& [i, p] : all)
        for (const auto& [l, r] : mixture) next[i + l] += p * r;
      all = next;
      infinite += (1 - share) * x.infinite + share * y.infinite;
    };
    then(0), then(1);
    for (const auto& [share, count] : shares)
      for (index_t j = 0; j < count; ++j) then(share);
    const dp::PrivacyLossDistribution found(composed);
    for (int j = 0; j < 20; ++j) {
      const double epsilon = rng.uniform(-1, 6);
      long double exact = infinite;
      for (const auto& [i, p] : all)
        if (const long double loss = i * 0x1p-4L; loss > epsilon) exact -= p * std::expm1((long double)(epsilon)-loss);
      CAPTURE(epsilon);
      CAPTURE(tilt);
      CHECK(found.delta(epsilon) >= std::min(1.0L, exact) * (1 - 1e-14L));
      CHECK(found.delta(epsilon) <= double(exact) * (1 + 1e-9) + 1e-11 * std::exp(composed.log_scale - tilt * epsilon));
    }
  }
}

TEST_CASE("P25: a part that has nothing but an infinite loss is not forgotten, nor are the others next to it") {
  const dp::LossMasses some = dp::connect_the_dots(dp::privacy_curve({.sampling_rate = 0.1, .noise_multiplier = 1}),
                                                   BoundSide::pessimistic, {.interval = 0x1p-4, .tail = 1e-6});
  dp::LossMasses none = some;
  none.atoms.clear(), none.infinite = 0.25;
  const dp::LossShares shares{{0.5, 2}};
  for (const bool first : {false, true}) {
    const dp::CountedLosses parts[] = {{first ? &none : &some, 3, &shares}, {first ? &some : &none, 1}};
    const dp::LossMasses r = dp::compose_losses(parts);
    CHECK(r.atoms.empty());
    CHECK(r.infinite >= 0.25 + some.infinite);
    CHECK(r.infinite <= 1);
  }
  const dp::CountedLosses once[] = {{&some, 2}, {&none, 1}};
  CHECK(dp::compose_losses(once).infinite == doctest::Approx(0.25 + 2 * some.infinite));
  // From below a part of which nothing is known leaves nothing known.
  dp::LossMasses below = some, unknown = none;
  below.side = unknown.side = BoundSide::optimistic, unknown.infinite = 0;
  const dp::CountedLosses optimistic[] = {{&below, 2}, {&unknown, 1}};
  CHECK(dp::compose_losses(optimistic).infinite == 0);
  const dp::CountedLosses wrong[] = {{&some, 1}, {&some, 1, &shares}};
  CHECK(test::refuses([&] { (void)dp::compose_losses(wrong); }, "got them after the last one"));
}

TEST_CASE("P25: a schedule of many values has the epsilon of its steps one by one, from above and to 10^-3") {
  test::Rng rng(test::seed(), 3);
  for (int k = 0; k < 6; ++k) {
    StepMechanism step{.sampling_rate = std::exp(rng.uniform(-5, -2))};
    if (k % 3 == 2) step.relation = NeighbouringRelation::replace_one;
    const double sigma = std::exp(rng.uniform(-0.3, 1)), range = rng.uniform(1.05, 3),
                 delta = std::exp(rng.uniform(-20, -8));
    dp::PldAccountant many, coarse;
    // With up to 128 values the lower bound is that of each of them.
    for (int j = 0; j < 120; ++j) {
      step.noise_multiplier = sigma * std::pow(range, j / 119.0);
      many.add_steps(step, 20);
    }
    const double epsilon = many.epsilon(delta), least = many.least_epsilon(delta);
    CAPTURE(step.sampling_rate);
    CAPTURE(sigma);
    CAPTURE(range);
    CAPTURE(delta);
    CHECK(epsilon >= least);
    // What connecting the dots adds without a schedule, too, and what the mixtures do.
    step.noise_multiplier = sigma;
    coarse.add_steps(step, 2400);
    CHECK(epsilon / least <= coarse.epsilon(delta) / coarse.least_epsilon(delta) + 4e-3);
    // Ten thousand values on the same curve compose to nearly the same.
    dp::PldAccountant finer;
    for (int j = 0; j < 2400; ++j) {
      step.noise_multiplier = sigma * std::pow(range, j / 2399.0);
      finer.add_steps(step, 1);
    }
    CHECK(finer.epsilon(delta) == doctest::Approx(epsilon).epsilon(2e-2));
  }
}

TEST_CASE("P26: noise for a schedule of ten thousand values is calibrated in steps of few curves") {
  dp::PlanOptions o{.epsilon = 2, .delta = 1e-6, .sampling_rate = 0.01, .steps = 10000, .dataset_size = 50000};
  o.noise_schedule = dp::Schedule::linear(1, 0.5, 10000, 10000);
  const dp::Plan plan = dp::Plan::calibrate(o);
  CHECK(plan.epsilon() <= 2);
  CHECK(plan.epsilon() >= 2 * (1 - 1e-5));
  // Between the noise for the least and for the largest value of the schedule alone.
  o.noise_schedule = dp::Schedule::constant();
  const double same = dp::Plan::calibrate(o).noise_multiplier();
  CHECK(plan.noise_multiplier() > same);
  CHECK(plan.noise_multiplier() < 2 * same);
}
