// SPDX-License-Identifier: Apache-2.0
// P23: noised sums are on a public grid, and the trailing bits of a double no longer say whether a record is in the sum.
#include <doctest/doctest.h>
#include <cmath>
#include <vector>

#include "dpmp/dp/adaptive_clip.hpp"
#include "dpmp/dp/ledger.hpp"
#include "support/random.hpp"

using namespace dpmp;

namespace {
bool on_grid(double x, double grid) { return x / grid == std::nearbyint(x / grid); }
dp::NoiseStream stream_of(test::Rng& rng) {
  dp::NoiseStream stream{{}, 3};
  for (auto& word : stream.key.words) word = std::uint32_t(rng.bits());
  return stream;
}
}  // namespace

TEST_CASE("P23: every noised sum is the multiple of the grid next to sum plus noise, at every scale") {
  test::Rng rng;
  ThreadTeam team(2);
  const std::size_t n = 3000;
  for (int k = 0; k < 60; ++k) {
    const double deviation = std::exp2(rng.uniform(-95, 100)), grid = dp::noise_grid(deviation);
    CAPTURE(deviation);
    CHECK(grid <= 0x1p-20 * deviation);
    CHECK(grid > 0x1p-21 * deviation);
    CHECK(grid == std::exp2(std::round(std::log2(grid))));
    const dp::NoiseStream stream = stream_of(rng);
    // From sums far below the noise to a hundred million times above it.
    const double size = deviation * std::exp2(rng.uniform(-40, 27));
    std::vector<double> sum(n), off_grid(n);
    for (std::size_t j = 0; j < n; ++j) off_grid[j] = sum[j] = j % 7 == 0 ? 0 : rng.normal(size);
    dp::add_gaussian_noise(team, sum, deviation, stream, 4);
    run_rows(0, index_t(n + 127) / 128,
             dp::detail::GaussianChunks{stream.key, dp::noise_nonce(3, 4), off_grid.data(), index_t(n), deviation});
    bool all_on = true, all_next = true;
    for (std::size_t j = 0; j < n; ++j) {
      all_on = all_on && on_grid(sum[j], grid);
      // A fused multiply-add before the rounding may tip a tie.
      all_next = all_next && std::fabs(sum[j] - off_grid[j]) <= 0.5 * grid + 0x1p-52 * std::fabs(off_grid[j]);
    }
    CHECK(all_on);
    CHECK(all_next);
  }
}

TEST_CASE("P23: rounding to the grid is to the nearest multiple, ties to even, and no noise means no grid") {
  const double shift = dp::detail::grid_shift(1.5);  // grid 2^-20
  for (const auto& [x, units] : {std::pair(0.49, 0.0),
                                 {0.5, 0.0},
                                 {0.51, 1.0},
                                 {1.5, 2.0},
                                 {2.5, 2.0},
                                 {-0.5, 0.0},
                                 {-0.51, -1.0},
                                 {-1.5, -2.0},
                                 {1e9 + 0.4, 1e9},
                                 {-1e9 - 0.6, -1e9 - 1}})
    CHECK(dp::detail::on_grid(x * 0x1p-20, shift) == units * 0x1p-20);
  ThreadTeam team(1);
  std::vector<double> sum{0x1.23456789abcdep-3, -0x1p-60, 7};
  const std::vector<double> before = sum;
  dp::add_gaussian_noise(team, sum, 0, {}, 0);
  CHECK(sum == before);
}

TEST_CASE("P23: the noisy count of adaptive clipping is on a grid too") {
  test::Rng rng;
  const dp::AdaptiveThreshold state({.count_noise = 3}, 64);
  for (double count : {-31.5, 0.0, 0.5, 20.0})
    for (int k = 0; k < 50; ++k) {
      const double fraction = state.noisy_fraction(count, stream_of(rng));
      CHECK(on_grid((fraction - 0.5) * 64, dp::noise_grid(3)));  // the division by 64 is exact
    }
}

// Mironov's attack on 64 coordinates of noise 1, where a record contributes 1/8 to each: with the record, the double nearest
// to 1/8 + n is a multiple of 2^-56 whatever n is; without it, n itself has finer bits where |n| < 1/16.
TEST_CASE("P23, A6: trailing bits tell membership in nine runs of ten without the grid, and nothing on it") {
  test::Rng rng;
  ThreadTeam team(1);
  const std::size_t coordinates = 64;
  int right_off_grid = 0, right_on_grid = 0;
  for (int run = 0; run < 1000; ++run) {
    const bool member = run % 2;
    const dp::NoiseStream stream = stream_of(rng);
    std::vector<double> plain(coordinates, member ? 0.125 : 0.0), released = plain;
    run_rows(0, 1, dp::detail::GaussianChunks{stream.key, dp::noise_nonce(3, 0), plain.data(), 64, 1.0});
    dp::add_gaussian_noise(team, released, 1, stream, 0);
    const auto guess = [](const std::vector<double>& x) {
      bool coarse = true;
      for (double v : x) coarse = coarse && on_grid(v, 0x1p-56);
      return coarse;
    };
    right_off_grid += guess(plain) == member;
    right_on_grid += guess(released) == member;
  }
  MESSAGE("told rightly: " << right_off_grid << " of 1000 runs without the grid, " << right_on_grid << " on it");
  CHECK(right_off_grid > 850);
  CHECK(right_on_grid == 500);  // the guess is the same for every run
}
