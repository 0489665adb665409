// SPDX-License-Identifier: Apache-2.0
// Drawing a token from logits: frequencies are the probabilities, greedy and top-k take what they say, draws are keyed.
#include <doctest/doctest.h>
#include <algorithm>
#include <set>

#include "dpmp/nn/sampling.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;
using nn::sample;
using nn::Sampling;

TEST_CASE("frequencies are the softmax of logits over temperature, of the k most likely ones") {
  test::Rng rng;
  for (int trial = 0; trial < 8; ++trial) {
    std::vector<double> logits;
    for (int v = 0; v < 6; ++v) logits.push_back(rng.normal(1.5));
    logits.push_back(-INFINITY);
    const Sampling sampling{.temperature = rng.uniform(0.3, 2), .top_k = rng.integer(0, 7), .seed = rng.bits()};
    // By the definition: sorted, cut, normalised.
    std::vector<double> sorted = logits;
    std::sort(sorted.rbegin(), sorted.rend());
    const double least = sampling.top_k == 0 ? -INFINITY : sorted[std::size_t(sampling.top_k) - 1];
    double total = 0;
    std::vector<double> p;
    for (const double l : logits) total += p.emplace_back(l >= least ? std::exp(l / sampling.temperature) : 0);
    const int draws = 20000;
    std::vector<int> count(logits.size());
    for (int k = 0; k < draws; ++k)
      ++count[std::size_t(sample(logits, sampling, std::uint64_t(k % 100), std::uint64_t(k / 100)))];
    // A count is binomial: six standard deviations and a half are exceeded once in 10^10.
    for (std::size_t v = 0; v < p.size(); ++v) {
      const double expected = draws * p[v] / total;
      CHECK(std::abs(count[v] - expected) <= 6.5 * std::sqrt(expected * (1 - p[v] / total)) + (p[v] > 0 ? 1 : 0));
    }
  }
}

TEST_CASE("greedy takes the largest logit, the first of equal ones; top-k of equal ones has the first k") {
  const std::vector<double> logits{-1, 4, 0, 4, 4};
  for (std::uint64_t place = 0; place < 50; ++place) CHECK(sample(logits, {.temperature = 0, .seed = place}, 3, place) == 1);
  CHECK(sample(logits, {.temperature = 5, .top_k = 1}, 0, 0) == 1);
  std::set<std::int32_t> two;
  for (std::uint64_t place = 0; place < 200; ++place) two.insert(sample(logits, {.temperature = 9, .top_k = 2}, 0, place));
  CHECK(two == std::set<std::int32_t>{1, 3});
  CHECK(sample(std::vector<double>{-INFINITY, -1e300, -INFINITY}, {.temperature = 1e-300}, 0, 0) == 1);
}

TEST_CASE("a draw is a function of seed, sequence and place, and no two of them share one") {
  const std::vector<double> flat(1000, 0.0);
  const auto draw = [&](std::uint64_t seed, std::uint64_t sequence, std::uint64_t place) {
    return sample(flat, {.seed = seed}, sequence, place);
  };
  CHECK(draw(1, 2, 3) == draw(1, 2, 3));
  const auto equal = [&](auto other) {
    int same = 0;
    for (std::uint64_t k = 0; k < 100; ++k) same += draw(1, 2, k) == other(k);
    return same;
  };
  // Equal by chance: 0.1 expected of a hundred.
  CHECK(equal([&](std::uint64_t k) { return draw(2, 2, k); }) <= 5);
  CHECK(equal([&](std::uint64_t k) { return draw(1, 3, k); }) <= 5);
  CHECK(equal([&](std::uint64_t k) { return draw(1, 2, k + 1); }) <= 5);
}

TEST_CASE("bad input: logits of which nothing can be drawn") {
  const auto refused = [](std::vector<double> logits, const char* part) {
    return test::refuses([&] { sample(logits, {}, 0, 0); }, part);
  };
  CHECK(refused({0, NAN}, "expected logits below infinity, got nan for token 1 of 2"));
  CHECK(refused({INFINITY, 0, 1}, "got inf for token 0 of 3"));
  CHECK(refused({-INFINITY, -INFINITY}, "a finite logit"));
  CHECK(refused({}, "a finite logit"));
  CHECK(test::refuses([] { sample(std::vector<double>{1, 2}, {.top_k = 3}, 0, 0); }, "a top_k in [0, 2] (0: all), got 3"));
  CHECK(test::refuses([] { sample(std::vector<double>{1, 2}, {.top_k = -1}, 0, 0); }, "got -1"));
  CHECK(test::refuses([] { sample(std::vector<double>{1, 2}, {.temperature = INFINITY}, 0, 0); }, "a finite temperature"));
}
