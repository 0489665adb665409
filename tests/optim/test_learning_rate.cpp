// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <cmath>

#include "dpmp/optim/learning_rate.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;
using optim::LearningRate;

TEST_CASE("a constant rate is the same at every step") {
  const LearningRate rate = LearningRate::constant(0.3);
  for (index_t step : {0, 1, 7, 1000000}) CHECK(rate.at(step) == doctest::Approx(0.3).epsilon(1e-15));
  CHECK(LearningRate::constant(0).at(3) == 0);
  const LearningRate rising = LearningRate::constant(0.3, 4);
  for (index_t step = 0; step < 9; ++step)
    CHECK(rising.at(step) == doctest::Approx(0.3 * std::min(1., double(step + 1) / 4)).epsilon(1e-15));
}

TEST_CASE("cosine with warm-up: the values at its edges, and up, then down") {
  const index_t warm_up = 10, total = 110;
  const LearningRate rate = LearningRate::cosine(2, warm_up, total, 0.5);
  CHECK(rate.at(0) == doctest::Approx(0.2));
  CHECK(rate.at(warm_up - 1) == doctest::Approx(2));
  CHECK(rate.at(warm_up) == doctest::Approx(2));
  CHECK(rate.at(60) == doctest::Approx(1.25));                                              // half-way: the middle of both
  CHECK(rate.at(35) == doctest::Approx(0.5 + 0.75 * (1 + std::sqrt(0.5))).epsilon(1e-12));  // a quarter
  CHECK(rate.at(total) == doctest::Approx(0.5));
  for (index_t beyond : {1, 50, 100, 1037}) CHECK(rate.at(total + beyond) == doctest::Approx(0.5).epsilon(1e-12));
  for (index_t step = 1; step < warm_up; ++step) CHECK(rate.at(step) > rate.at(step - 1));
  for (index_t step = warm_up + 1; step <= total; ++step) CHECK(rate.at(step) < rate.at(step - 1));
  for (index_t step = 0; step < 2 * total; ++step) CHECK((rate.at(step) > 0 && rate.at(step) <= 2));
}

TEST_CASE("cosine: no warm-up, nothing but warm-up, and a single step") {
  CHECK(LearningRate::cosine(3, 0, 8).at(0) == 3);
  CHECK(LearningRate::cosine(3, 0, 8).at(8) == doctest::Approx(0));
  CHECK(LearningRate::cosine(3, 4, 4).at(3) == 3);
  CHECK(LearningRate::cosine(3, 1, 1).at(0) == 3);
}

TEST_CASE("schedules refuse rates and lengths that mean nothing") {
  for (double bad : {-1.0, double(NAN), double(INFINITY)}) {
    CHECK(test::refuses([&] { LearningRate::constant(bad); }, "learning rates"));
    CHECK(test::refuses([&] { LearningRate::cosine(1, 0, 1, bad); }, "learning rates"));
  }
  CHECK(test::refuses([] { LearningRate::cosine(1, -1, 5); }, "warm_up"));
  CHECK(test::refuses([] { LearningRate::cosine(1, 6, 5); }, "warm_up"));
  CHECK(test::refuses([] { LearningRate::cosine(1, 0, 0); }, "warm_up"));
  CHECK(test::refuses([] { LearningRate::linear(1, 6, 5); }, "warm_up"));
  CHECK(test::refuses([] { LearningRate::inverse_square_root(1, -1); }, "warm_up"));
  CHECK(test::refuses([] { LearningRate::inverse_square_root(-1, 2); }, "learning rates"));
  CHECK(test::refuses([] { LearningRate(LearningRate::Function()); }, "empty function"));
}

TEST_CASE("linear and inverse square root: by their formulas, and without a jump after the warm-up") {
  test::Rng rng;
  for (int trial = 0; trial < 20; ++trial) {
    const double peak = rng.uniform(0.1, 3), final = rng.uniform(0, peak);
    const index_t warm_up = rng.integer(0, 20), total = warm_up + rng.integer(1, 100);
    const LearningRate line = LearningRate::linear(peak, warm_up, total, final),
                       root = LearningRate::inverse_square_root(peak, warm_up);
    for (index_t step = 0; step < 2 * total; ++step) {
      const double rising = peak * double(step + 1) / double(std::max<index_t>(1, warm_up)),
                   along = std::min(1., double(step - warm_up) / double(total - warm_up));
      CHECK(line.at(step) == doctest::Approx(step < warm_up ? rising : peak + along * (final - peak)).epsilon(1e-13));
      CHECK(root.at(step) ==
            doctest::Approx(step < warm_up ? rising
                                           : peak * std::sqrt(double(std::max<index_t>(1, warm_up)) / double(step + 1)))
                .epsilon(1e-13));
    }
    if (warm_up > 0) CHECK(root.at(warm_up - 1) == doctest::Approx(peak).epsilon(1e-15));
  }
}

TEST_CASE("any function of the step is a learning rate; one that gives no rate is refused where it does") {
  const LearningRate halves = [](index_t step) { return std::ldexp(1., -int(step)); };
  for (index_t step = 0; step < 20; ++step) CHECK(halves.at(step) == std::ldexp(1., -int(step)));
  const LearningRate sinks([](index_t step) { return 1 - double(step); }, "sinking");
  CHECK(sinks.at(1) == 0);
  CHECK(test::refuses([&] { sinks.at(2); }, "a finite learning rate >= 0 at step 2, got -1 from sinking"));
  CHECK(test::refuses([&] { LearningRate([](index_t) { return double(NAN); }).at(0); }, "at step 0, got nan"));
  const LearningRate copy = halves, whole = [](int) { return 2; };  // what converts is converted
  CHECK(copy.at(3) == 0.125);
  CHECK(whole.at(5) == 2);
}

TEST_CASE("fingerprints: equal for equal rates and names, another one for a single rate that differs") {
  constexpr index_t steps = 10000;
  const auto print = [](const LearningRate& rate) { return rate.fingerprint(steps); };
  CHECK(print(LearningRate::cosine(1, 5, 100)) == print(LearningRate::cosine(1, 5, 100)));
  CHECK(print(LearningRate::cosine(1, 5, 100)) != print(LearningRate::cosine(1, 5, 100, 1e-300)));
  CHECK(print(LearningRate::constant(1)) != print(LearningRate::constant(std::nextafter(1, 2))));
  CHECK(print(LearningRate::linear(1, 5, 100)) != print(LearningRate::cosine(1, 5, 100)));
  test::Rng rng(test::seed(), 1);
  const auto one_less = [](index_t odd) { return LearningRate([odd](index_t step) { return step == odd ? 0.5 : 1; }); };
  CHECK(print(one_less(steps)) == print(one_less(steps + 7)));
  for (const index_t odd : {index_t(0), index_t(4095), index_t(4096), steps - 1, rng.integer(1, steps - 1)})
    CHECK(print(one_less(odd)) != print(one_less(steps)));
  CHECK(LearningRate::constant(1).fingerprint(3) != LearningRate::constant(1).fingerprint(4));
  CHECK(print(LearningRate([](index_t) { return 1; }, "mine")).starts_with("mine, rates of 10000 steps "));
}
