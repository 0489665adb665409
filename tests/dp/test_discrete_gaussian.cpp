// SPDX-License-Identifier: Apache-2.0
// The exact sampler of the discrete Gaussian against its probabilities, and the accounting of what it is added to.
#include <doctest/doctest.h>
#include <cmath>
#include <vector>

#include "dpmp/dp/discrete_gaussian.hpp"
#include "dpmp/dp/subsampled_gaussian.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;

namespace {
dp::NoiseStream stream_of(test::Rng& rng, index_t step = 0) {
  dp::NoiseStream s{{}, step};
  for (auto& word : s.key.words) word = std::uint32_t(rng.bits());
  return s;
}
/// Probabilities of -reach .. reach, and of all that is further out (at the end).
std::vector<double> probabilities(double sigma, index_t reach) {
  const auto weight = [&](index_t x) { return std::exp(-0.5 * double(x) * double(x) / (sigma * sigma)); };
  double all = 0, inside = 0;
  for (auto x = index_t(-60 * sigma - 1); x <= index_t(60 * sigma + 1); ++x) all += weight(x);
  std::vector<double> p;
  for (index_t x = -reach; x <= reach; ++x) p.push_back(weight(x) / all), inside += weight(x) / all;
  p.push_back(std::max(0.0, 1 - inside));
  return p;
}
/// Where chi^2 of so many degrees of freedom is exceeded about once in 10^9 draws (Wilson, Hilferty 1931; 6 deviations).
double chi_square_limit(double freedom) {
  const double a = 2 / (9 * freedom);
  return freedom * std::pow(1 - a + 6 * std::sqrt(a), 3);
}
std::vector<std::int64_t> samples(index_t sigma, std::size_t n, std::uint64_t stream) {
  test::Rng rng(test::seed(), stream);
  ThreadTeam team(2);
  std::vector<std::int64_t> x(n);
  dp::add_discrete_gaussian(team, x, sigma, stream_of(rng, 5), 3);
  return x;
}
}  // namespace

TEST_CASE("P22: samples have the probabilities of the discrete Gaussian: chi-square over every integer near 0") {
  for (const index_t sigma : {1, 2, 3, 7}) {
    CAPTURE(sigma);
    constexpr std::size_t n = 100000;
    const auto reach = index_t(3.5 * double(sigma));
    const std::vector<double> p = probabilities(double(sigma), reach);
    std::vector<double> counts(p.size());
    for (const std::int64_t x : samples(sigma, n, std::uint64_t(sigma)))
      counts[x < -reach || x > reach ? p.size() - 1 : std::size_t(x + reach)] += 1;
    double chi = 0;
    for (std::size_t k = 0; k < p.size(); ++k) {
      const double expected = double(n) * p[k];
      REQUIRE(expected > 5);
      chi += (counts[k] - expected) * (counts[k] - expected) / expected;
    }
    CHECK(chi < chi_square_limit(double(p.size() - 1)));
  }
}

TEST_CASE("P22: at the scale of a run samples have the moments and the spread of a Gaussian") {
  for (const index_t sigma : {index_t(1) << 20, index_t(1) << 40}) {
    CAPTURE(sigma);
    constexpr std::size_t n = 40000, bins = 40;
    const double s = double(sigma);
    double mean = 0, square = 0, fourth = 0;
    std::vector<double> counts(bins);
    std::size_t odd = 0;
    for (const std::int64_t x : samples(sigma, n, 50)) {
      const double u = double(x) / s;
      mean += u / n, square += u * u / n, fourth += u * u * u * u / n;
      // Of equal probability under the continuous Gaussian, from which the discrete one is below e^(-2 pi^2 sigma^2) away.
      counts[std::min(bins - 1, std::size_t(0.5 * std::erfc(-u / std::sqrt(2.0)) * double(bins)))] += 1;
      odd += x & 1;
    }
    CHECK(std::fabs(mean) < 6 / std::sqrt(double(n)));
    CHECK(std::fabs(square - 1) < 6 * std::sqrt(2.0 / n));
    CHECK(std::fabs(fourth - 3) < 6 * std::sqrt(96.0 / n));
    CHECK(std::fabs(double(odd) - 0.5 * n) < 6 * 0.5 * std::sqrt(double(n)));
    double chi = 0;
    for (const double c : counts) chi += (c - double(n) / bins) * (c - double(n) / bins) / (double(n) / bins);
    CHECK(chi < chi_square_limit(bins - 1));
  }
}

TEST_CASE("P22: events of probability exp(-ratio) have it, also for ratios of large integers and above 1") {
  test::Rng rng(test::seed(), 60);
  const dp::NoiseStream stream = stream_of(rng);
  index_t element = 0;
  using dp::detail::Wide;
  const Wide huge = Wide(1) << 80;
  for (const auto& [numerator, denominator] :
       {std::pair<Wide, Wide>{0, 5}, {1, 3}, {1, 1}, {7, 3}, {huge / 3, huge}, {huge + huge / 7, huge}}) {
    constexpr int n = 20000;
    int hits = 0;
    for (int k = 0; k < n; ++k) {
      dp::ElementBits bits(stream, 0, element++);
      hits += dp::detail::bernoulli_exp(numerator, denominator, bits);
    }
    const double p = std::exp(-double(numerator) / double(denominator));
    CHECK(std::fabs(hits - n * p) <= 6 * std::sqrt(n * p * (1 - p)));
  }
}

TEST_CASE("P22: uniform integers reach every value below their bound and none above it") {
  test::Rng rng(test::seed(), 61);
  dp::ElementBits bits(stream_of(rng), 0, 0);
  for (const std::size_t below : {1, 2, 3, 5, 8, 13}) {
    std::vector<int> counts(below);
    for (std::size_t k = 0; k < 2000 * below; ++k) ++counts[std::size_t(dp::detail::uniform_below(below, bits))];
    for (const int c : counts) CHECK(std::fabs(c - 2000) <= 6 * std::sqrt(2000.0));
  }
  const dp::detail::Wide wide = (dp::detail::Wide(1) << 100) + 1;
  bool high = false;
  for (int k = 0; k < 64; ++k) {
    const dp::detail::Wide x = dp::detail::uniform_below(wide, bits);
    CHECK(x < wide);
    high = high || x >> 99;
  }
  CHECK(high);
}

TEST_CASE("P21: samples are a function of key, step, parameter and element, whatever the threads; others share none") {
  test::Rng rng(test::seed(), 62);
  const dp::NoiseStream stream = stream_of(rng, 9);
  const auto draw = [](int threads, const dp::NoiseStream& s, index_t parameter, std::size_t n) {
    ThreadTeam team(threads);
    std::vector<std::int64_t> x(n, 1000);
    dp::add_discrete_gaussian(team, x, 1000000, s, parameter);
    return x;
  };
  const auto whole = draw(1, stream, 2, 600), part = draw(2, stream, 2, 500);
  CHECK(std::equal(part.begin(), part.end(), whole.begin()));
  dp::NoiseStream next = stream, other = stream;
  next.step = 10, other.key.words[0] ^= 1;
  for (const auto& different : {draw(1, next, 2, 600), draw(1, other, 2, 600), draw(1, stream, 3, 600)}) {
    int equal = 0;
    for (std::size_t j = 0; j < 600; ++j) equal += different[j] == whole[j];
    CHECK(equal <= 2);  // 600 pairs of values that are equal once in 3.5 million
  }
}

TEST_CASE("P25: Renyi divergences of integer orders, of whole shifts and of samples of them, are the continuous Gaussian's") {
  // D_a(N(m) || N(0)) and both directions of the pair ((1 - q) N(0) + q N(m), N(0)) on the integers, summed term by term.
  for (const double sigma : {0.7, 1.0, 2.5})
    for (const index_t shift : {1, 2, 5})
      for (const double q : {0.01, 0.3, 1.0})
        for (const int order : {2, 3, 8}) {
          CAPTURE(sigma);
          CAPTURE(shift);
          CAPTURE(q);
          CAPTURE(order);
          const long double s2 = 2.0L * sigma * sigma;
          long double all = 0, forwards = 0, backwards = 0;
          const index_t reach = index_t(60 * sigma) + shift * (order + 2);
          for (index_t x = -reach; x <= reach; ++x) {
            const auto y = (long double)(x), m = (long double)(shift);
            const long double base = std::exp(-y * y / s2), ratio = 1 - q + q * std::exp((2 * y * m - m * m) / s2);
            all += base;
            forwards += base * std::pow(ratio, (long double)(order));
            backwards += base * std::pow(ratio, 1 - (long double)(order));
          }
          const double divergence = double(std::log(forwards / all)) / (order - 1),
                       reverse = double(std::log(backwards / all)) / (order - 1);
          const double stated = dp::subsampled_gaussian_rdp(q, sigma / double(shift), order);
          CHECK(divergence == doctest::Approx(stated).epsilon(1e-9));
          CHECK(reverse <= stated * (1 + 1e-12));
        }
}

TEST_CASE("bad input: sigmas that are no integers of [1, 2^40], elements and steps outside of the counters") {
  test::Rng rng;
  ThreadTeam team(1);
  std::vector<std::int64_t> x(3);
  const dp::NoiseStream stream = stream_of(rng);
  for (const index_t bad : {index_t(0), index_t(-1), dp::max_discrete_sigma + 1})
    CHECK(test::refuses([&] { dp::add_discrete_gaussian(team, x, bad, stream, 0); }, "sigma in [1, 2^40]"));
  CHECK(test::refuses([&] { dp::add_discrete_gaussian(team, x, 1, stream, dp::max_parameters); }, "parameter index"));
  CHECK(test::refuses([&] { dp::ElementBits(stream, 0, index_t(1) << 47); }, "an element"));
}
