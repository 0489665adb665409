// SPDX-License-Identifier: Apache-2.0
// The sampler draws what the accountant assumes: independent inclusions with probability q, batch sizes of any value.
#include <doctest/doctest.h>
#include <cmath>
#include <set>
#include <vector>

#include "dpmp/dp/poisson_sampler.hpp"
#include "support/random.hpp"

using namespace dpmp;

namespace {
Key256 test_key(std::uint64_t stream) {
  test::Rng rng(test::seed(), stream);
  Key256 key;
  for (auto& w : key.words) w = std::uint32_t(rng.bits());
  return key;
}
}  // namespace

TEST_CASE("P5, P6: inclusion frequencies, batch size variance and independence over records and steps") {
  const index_t N = 200, T = 100000;
  const double q = 0.07;
  const dp::PoissonSampler sampler(test_key(1), N, q);
  std::vector<double> hits(std::size_t(N), 0), with_next(std::size_t(N), 0), with_last(std::size_t(N), 0);
  std::vector<char> previous(std::size_t(N), 0), now(std::size_t(N), 0);
  std::vector<index_t> draw;
  double sizes = 0, squares = 0;
  for (index_t t = 0; t < T; ++t) {
    sampler.draw(t, draw);
    std::fill(now.begin(), now.end(), char(0));
    for (std::size_t k = 0; k < draw.size(); ++k) {
      REQUIRE((draw[k] >= 0 && draw[k] < N));
      if (k) REQUIRE(draw[k] > draw[k - 1]);  // ascending, so no duplicates
      now[std::size_t(draw[k])] = 1;
    }
    const double n = double(draw.size()), centred = n - double(N) * q;
    sizes += n;
    squares += centred * centred;
    for (std::size_t i = 0; i < std::size_t(N); ++i) {
      hits[i] += now[i];
      with_next[i] += now[i] & now[(i + 1) % std::size_t(N)];
      with_last[i] += now[i] & previous[i];
    }
    previous = now;
  }
  const double n = double(N), t = double(T), variance = n * q * (1 - q);
  // Standard errors: of the mean of T sizes, and of their variance (fourth moment of the binomial about 3 variance^2).
  CHECK(std::fabs(sizes / t - n * q) < 5 * std::sqrt(variance / t));
  CHECK(std::fabs(squares / t - variance) < 5 * variance * std::sqrt(2.2 / t));
  // Chi-square statistics of N cells, mean N and standard deviation about sqrt(2 N).
  const auto chi_square = [&](const std::vector<double>& counts, double p) {
    double sum = 0;
    for (double c : counts) sum += (c - t * p) * (c - t * p) / (t * p * (1 - p));
    return sum;
  };
  CHECK(std::fabs(chi_square(hits, q) - n) < 6 * std::sqrt(2 * n));
  // Neighbouring pairs overlap, so their counts are correlated by about q: a little more spread.
  CHECK(std::fabs(chi_square(with_next, q * q) - n) < 8 * std::sqrt(2 * n));
  CHECK(std::fabs(chi_square(with_last, q * q) - n) < 8 * std::sqrt(2 * n));
}

TEST_CASE("P5: the probability really used is at most the one accounted, by less than 2^-64") {
  test::Rng rng(test::seed(), 2);
  for (int k = 0; k < 10000; ++k) {
    const double q = std::exp(rng.uniform(-60, 0));
    if (q >= 1) continue;
    const dp::PoissonSampler sampler(test_key(2), 1, q);
    const long double used = (long double)(sampler.threshold()) * 0x1p-64L;  // 64 bits fit a long double of x86 exactly
    REQUIRE(used <= (long double)q);
    REQUIRE((long double)q - used < 0x1p-64L);
    REQUIRE(sampler.probability() == q);
  }
  CHECK(dp::PoissonSampler(test_key(2), 1, 0.5).threshold() == std::uint64_t(1) << 63);
  CHECK(dp::PoissonSampler(test_key(2), 1, 1 - 0x1p-53).threshold() == ~std::uint64_t(0) - 2047);
}

TEST_CASE("P6: inclusion follows the 64-bit uniform of the record's place in the key stream") {
  const Key256 key = test_key(3);
  const dp::PoissonSampler sampler(key, 1000, 0.3);
  std::vector<index_t> draw, expected;
  sampler.draw(17, draw);
  for (index_t i = 0; i < 1000; ++i) {
    const ChaChaBlock block = chacha20_block(key, std::uint64_t(i / 8), 17);
    const std::size_t at = 2 * std::size_t(i % 8);
    if (((std::uint64_t(block[at + 1]) << 32) | block[at]) < sampler.threshold()) expected.push_back(i);
  }
  CHECK(draw == expected);
}

TEST_CASE("P20: draws are random access by step; a larger dataset does not change the fate of the first records") {
  const Key256 key = test_key(4);
  const dp::PoissonSampler sampler(key, 777, 0.2), larger(key, 778, 0.2);
  std::vector<index_t> first, again, more;
  sampler.draw(5, first);
  sampler.draw(4, again);
  CHECK(again != first);
  sampler.draw(5, again);
  CHECK(again == first);
  larger.draw(5, more);
  if (!more.empty() && more.back() == 777) more.pop_back();
  CHECK(more == first);
}

TEST_CASE("P7: empty draws happen; probability 1 draws everything") {
  std::vector<index_t> draw{1, 2, 3};
  dp::PoissonSampler(test_key(5), 100, 1e-15).draw(0, draw);
  CHECK(draw.empty());
  dp::PoissonSampler(test_key(5), 300, 1).draw(0, draw);
  REQUIRE(draw.size() == 300);
  for (index_t i = 0; i < 300; ++i) CHECK(draw[std::size_t(i)] == i);
}
