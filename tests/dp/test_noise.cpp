// SPDX-License-Identifier: Apache-2.0
// The law of the noise, its tails, and that no two draws share key stream.
#include <doctest/doctest.h>
#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "dpmp/dp/entropy.hpp"
#include "dpmp/dp/ledger.hpp"
#include "dpmp/dp/noise.hpp"
#include "support/noise.hpp"
#include "support/random.hpp"

using namespace dpmp;

namespace {
Key256 test_key(std::uint64_t stream) {
  test::Rng rng(test::seed(), stream);
  Key256 key;
  for (auto& w : key.words) w = std::uint32_t(rng.bits());
  return key;
}
std::vector<double> normals(std::size_t n, const dp::NoiseStream& stream, index_t parameter, int threads = 1) {
  ThreadTeam team(threads);
  std::vector<double> z(n);
  dp::add_gaussian_noise(team, z, 1.0, stream, parameter);
  return z;
}
/// The same before it is rounded to the grid.
std::vector<double> normals_off_grid(std::size_t n, const dp::NoiseStream& stream, index_t parameter) {
  std::vector<double> z(n);
  run_rows(0, index_t(n + 127) / 128,
           dp::detail::GaussianChunks{stream.key, dp::noise_nonce(stream.step, parameter), z.data(), index_t(n), 1.0});
  return z;
}
/// Kolmogorov and Smirnov's statistic sqrt(n) sup |F_n - Phi|.
double kolmogorov_smirnov(std::vector<double> z) {
  std::sort(z.begin(), z.end());
  const double n = double(z.size());
  double largest = 0;
  for (std::size_t i = 0; i < z.size(); ++i) {
    const double phi = 0.5 * std::erfc(-z[i] / std::sqrt(2.0));
    largest = std::max({largest, std::fabs(double(i) / n - phi), std::fabs(double(i + 1) / n - phi)});
  }
  return std::sqrt(n) * largest;
}
}  // namespace

TEST_CASE("P3: the noise has the standard deviation asked for and is added to the sum") {
  const std::size_t n = 1000000;
  const double std_asked = 0.37;
  ThreadTeam team(2);
  std::vector<double> sum(n, 5.0);
  dp::add_gaussian_noise(team, sum, std_asked, {test_key(1), 3}, 2);
  double mean = 0, squares = 0, lagged = 0;
  for (std::size_t i = 0; i < n; ++i) {
    mean += (sum[i] - 5) / double(n);
    squares += (sum[i] - 5) * (sum[i] - 5) / double(n);
    if (i) lagged += (sum[i] - 5) * (sum[i - 1] - 5) / double(n);
  }
  const double se = 1 / std::sqrt(double(n));
  CHECK(std::fabs(std::sqrt(squares) / std_asked - 1) < 4 * se / std::sqrt(2.0));
  CHECK(std::fabs(mean) < 4.5 * se * std_asked);
  CHECK(std::fabs(lagged) < 4.5 * se * std_asked * std_asked);
}

TEST_CASE("P3: Kolmogorov-Smirnov test of normality, also of either half of Box-Muller and of their pair") {
  const std::vector<double> z = normals(400000, {test_key(2), 0}, 0);
  // P[statistic > 2.5] = 7e-6
  CHECK(kolmogorov_smirnov(z) < 2.5);
  std::vector<double> cosines, sines, mixed;
  for (std::size_t i = 0; i < z.size(); i += 2) {
    cosines.push_back(z[i]);
    sines.push_back(z[i + 1]);
    mixed.push_back((z[i] + z[i + 1]) / std::sqrt(2.0));
  }
  CHECK(kolmogorov_smirnov(cosines) < 2.5);
  CHECK(kolmogorov_smirnov(sines) < 2.5);
  CHECK(kolmogorov_smirnov(mixed) < 2.5);
}

TEST_CASE("P22: tails have the frequencies of the normal law") {
  const std::size_t n = 8000000;
  const std::vector<double> z = normals(n, {test_key(3), 9}, 1, 2);
  for (double t : {2.0, 3.0, 4.0, 4.5, 5.0}) {
    const double expected = double(n) * std::erfc(t / std::sqrt(2.0));
    const auto count = double(std::count_if(z.begin(), z.end(), [&](double x) { return std::fabs(x) > t; }));
    INFO("threshold ", t, " count ", count, " expected ", expected);
    CHECK(std::fabs(count - expected) < 5 * std::sqrt(expected) + 2);
  }
}

TEST_CASE("P22: extreme uniforms reach beyond 6.5 sigma and stay finite") {
  const std::uint64_t all = ~std::uint64_t(0);
  double most = 0;
  for (std::uint64_t r : {std::uint64_t(0), std::uint64_t(1), all, all - 1, std::uint64_t(1) << 63})
    for (std::uint64_t a :
         {std::uint64_t(0), all, std::uint64_t(1) << 61, std::uint64_t(1) << 62, std::uint64_t(1) << 63, all >> 2}) {
      const std::uint64_t radius[2] = {r, r}, angle[2] = {a, a};
      double x[2], y[2];
      dp::detail::box_muller<2>(radius, angle, x, y);
      CHECK(std::isfinite(x[0]));
      CHECK(std::isfinite(y[0]));
      most = std::max({most, std::fabs(x[0]), std::fabs(y[0])});
    }
  CHECK(most == doctest::Approx(std::sqrt(2 * 65 * std::log(2.0))).epsilon(1e-12));
}

TEST_CASE("P22: Box-Muller agrees with long double at every scale of the radius, in every quadrant") {
  test::Rng rng(test::seed(), 7);
  bool seen[4] = {};
  for (int k = 0; k < 20000; ++k) {
    const std::uint64_t r = rng.bits() >> rng.integer(0, 63), a = rng.bits();
    const std::uint64_t flipped = k % 2 ? ~r : r;  // near 1 as well
    const std::uint64_t radius[2] = {flipped, flipped}, angle[2] = {a, a};
    double x[2], y[2];
    dp::detail::box_muller<2>(radius, angle, x, y);
    const test::NormalPair want = test::normal_pair(flipped, a);
    const double bound = 0x1p-48 * double(want.length);
    CHECK(std::fabs(double(x[0] - want.cosine)) <= bound);
    CHECK(std::fabs(double(y[0] - want.sine)) <= bound);
    seen[a >> 62] = true;
  }
  CHECK((seen[0] && seen[1] && seen[2] && seen[3]));
}

TEST_CASE("P21: noise is a function of (key, step, parameter, element), whatever the threads, the length and the split") {
  const dp::NoiseStream stream{test_key(4), 11};
  const std::vector<double> long_run = normals(70001, stream, 5, 1);
  CHECK(normals(70001, stream, 5, 2) == long_run);
  CHECK(normals(70001, stream, 5, 7) == long_run);
  for (std::size_t n : {0u, 1u, 7u, 127u, 128u, 129u, 5000u}) {
    const std::vector<double> prefix = normals(n, stream, 5, 3);
    CHECK(std::equal(prefix.begin(), prefix.end(), long_run.begin()));
  }
}

TEST_CASE("P21: every element gets one normal, its own: a pair of a block that no other element has") {
  const Key256 key = test_key(10);
  ThreadTeam team(2);
  for (std::size_t n : {1u, 2u, 31u, 33u, 127u, 128u, 129u, 255u, 256u, 6147u}) {
    CAPTURE(n);
    const std::vector<double> want = test::normals_by_hand(key, dp::noise_nonce(12, 7), n);
    std::vector<double> sum(n + 2, 0.0);
    dp::add_gaussian_noise(team, {sum.data(), n}, 1.0, {key, 12}, 7);
    const std::vector<double> fine = normals_off_grid(n, {key, 12}, 7);
    for (std::size_t j = 0; j < n; ++j) {
      CHECK(std::fabs(fine[j] - want[j]) <= test::normal_error);
      CHECK(sum[j] == std::nearbyint(fine[j] * 0x1p20) * 0x1p-20);
    }
    CHECK((sum[n] == 0 && sum[n + 1] == 0));
    CHECK(std::set<double>(fine.begin(), fine.end()).size() == n);
    CHECK(dp::noised(0, 1, {key, 12}, 7) == sum[0]);
  }
}

TEST_CASE("P21: noise that a kernel draws where it uses it is that of add_gaussian_noise, by chunks and by blocks") {
  const dp::NoiseStream stream{test_key(11), 12};
  const double deviation = 0.375, grid = dp::noise_grid(deviation);
  const dp::NoiseOfStep step(stream.step, deviation);
  const dp::ParameterNoise noise(stream.key, &step, 7);
  ThreadTeam team(1);
  for (const index_t n : {1, 2, 127, 128, 129, 300}) {
    CAPTURE(n);
    std::vector<double> want(std::size_t(n), 0.25), chunks = want, blocks = want;
    dp::add_gaussian_noise(team, want, deviation, stream, 7);
    CHECK(dp::noise_chunks(n) == (n + dp::noise_chunk - 1) / dp::noise_chunk);
    for (index_t c = 0; c < dp::noise_chunks(n); ++c) {
      const index_t begin = c * dp::noise_chunk;
      noise.add_to_chunk(c, chunks.data() + begin, std::min(n - begin, dp::noise_chunk));
    }
    CHECK(chunks == want);
    // As threads of a GPU draw it: every element once. The last bit of a z may differ, and with it a rounding to the grid.
    std::vector<int> drawn(std::size_t(n), 0);
    for (index_t b = 0; b < dp::NoiseBlock::count(n); ++b) {
      const dp::NoiseBlock block(noise, b), silent(dp::ParameterNoise(), b);
      index_t last = -1;
      for (int k = 0; k < dp::NoiseBlock::pairs; ++k) {
        const index_t first = block.element(k);
        CHECK((first > last && silent.element(k) == first));
        last = first;
        double sums[2] = {0.25, 0.25}, still[2] = {0.25, 0.5};
        block.add(k, sums);
        silent.add(k, still);
        CHECK((still[0] == 0.25 && still[1] == 0.5));
        for (index_t j = first; j < std::min(n, first + 2); ++j)
          blocks[std::size_t(j)] = sums[j - first], ++drawn[std::size_t(j)];
      }
    }
    CHECK(drawn == std::vector<int>(std::size_t(n), 1));
    for (std::size_t j = 0; j < std::size_t(n); ++j) CHECK(std::fabs(blocks[j] - want[j]) <= grid);
  }
  CHECK_THROWS_AS(dp::NoiseOfStep(dp::max_steps, 1), Error);
  CHECK_THROWS_AS(dp::NoiseOfStep(0, -1), Error);
  CHECK_THROWS_AS(dp::ParameterNoise(stream.key, &step, dp::max_parameters), Error);
}

TEST_CASE("P21: instruction sets agree to rounding") {
  const Key256 key = test_key(5);
  std::vector<double> reference(1280), other(1280);
  run_rows(0, 10, dp::detail::GaussianChunks{key, 3, reference.data(), 1280, 1.0}, Isa::baseline);
  for (Isa isa : {Isa::avx2, Isa::avx512}) {
    if (isa > best_isa()) continue;
    std::fill(other.begin(), other.end(), 0.0);
    run_rows(0, 10, dp::detail::GaussianChunks{key, 3, other.data(), 1280, 1.0}, isa);
    for (std::size_t k = 0; k < other.size(); ++k) CHECK(std::fabs(other[k] - reference[k]) <= 0x1p-46);
  }
}

TEST_CASE("P21: no value is drawn twice over steps, parameters, streams and run nonces") {
  const Key256 root = test_key(6);
  std::set<double> values;
  std::size_t drawn = 0;
  for (std::uint64_t run : {0u, 1u})
    for (auto s : {dp::Stream::noise, dp::Stream::auxiliary_noise, dp::Stream::sampler})
      for (index_t step : {index_t(0), index_t(1), index_t(2), dp::max_steps - 1})
        for (index_t parameter : {index_t(0), index_t(1), dp::max_parameters - 1}) {
          const auto z = normals_off_grid(300, {dp::StreamKeys::repeat(root, run).key(s), step}, parameter);
          values.insert(z.begin(), z.end());
          drawn += z.size();
        }
  CHECK(values.size() == drawn);
}

TEST_CASE("P21: the counter layout is injective at its edges, and subkeys differ from each other and from the root") {
  std::set<std::uint64_t> nonces;
  const index_t s = dp::max_steps - 1, p = dp::max_parameters - 1;
  for (index_t step : {index_t(0), index_t(1), s - 1, s})
    for (index_t parameter : {index_t(0), index_t(1), p - 1, p}) nonces.insert(dp::noise_nonce(step, parameter));
  CHECK(nonces.size() == 16);
  std::set<std::array<std::uint32_t, 8>> keys;
  const Key256 root = test_key(8);
  keys.insert(root.words);
  for (std::uint64_t run : {0ull, 1ull, ~0ull})
    for (std::uint32_t stream = 1; stream <= 6; ++stream)
      keys.insert(dp::StreamKeys::repeat(root, run).key(dp::Stream(stream)).words);
  CHECK(keys.size() == 19);
}

TEST_CASE("P21: keys come from the operating system, and a failing source is an error") {
  CHECK_FALSE(dp::random_key() == dp::random_key());
  std::uint32_t seen = 0;
  for (int k = 0; k < 16; ++k)
    for (std::uint32_t w : dp::random_key().words) seen |= w;
  CHECK(seen == 0xffffffffu);  // every bit position is used
  CHECK_THROWS_WITH_AS(dp::random_key([](void*, std::size_t) { return -1; }), doctest::Contains("entropy"), Error);
  CHECK_THROWS_WITH_AS(dp::random_nonce([](void*, std::size_t) { return -1; }), doctest::Contains("entropy"), Error);
}

TEST_CASE("P27: a failed step stays accounted, and its retry draws other noise") {
  dp::StepLedger ledger(3, dp::StreamKeys(test_key(9)));
  std::vector<double> lost;
  try {
    dp::StepTicket ticket = ledger.begin_step();
    lost = normals(100, ticket.noise(), 0);
    throw Error("the device is gone");
  } catch (const Error&) {
  }
  CHECK(ledger.steps() == 1);
  dp::StepTicket retry = ledger.begin_step();
  CHECK(retry.step() == 1);
  CHECK(normals(100, retry.noise(), 0) != lost);
  CHECK(ledger.steps() == 2);
  ledger.begin_step();
  CHECK_THROWS_AS(ledger.begin_step(), Error);
  CHECK(ledger.steps() == 3);
  dp::StepLedger open(3, dp::StreamKeys(test_key(9)), 3, dp::BeyondPlan::account);
  CHECK(open.begin_step().step() == 3);
  CHECK(open.steps() == 4);
}
