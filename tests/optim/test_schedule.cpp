// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <cmath>

#include "dpmp/optim/schedule.hpp"
#include "support/errors.hpp"

using namespace dpmp;
using optim::LearningRate;

TEST_CASE("a constant rate is the same at every step") {
  const LearningRate rate = LearningRate::constant(0.3);
  for (index_t step : {0, 1, 7, 1000000}) CHECK(rate.at(step) == doctest::Approx(0.3).epsilon(1e-15));
  CHECK(LearningRate::constant(0).at(3) == 0);
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
}
