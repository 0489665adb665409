// SPDX-License-Identifier: Apache-2.0
// Correlated noise: what is added is C^-1 z of matrices written down here, its sums have the covariance of those, and the
// sensitivity is that of every pattern of participation there is.
#include <doctest/doctest.h>
#include <bit>
#include <cmath>
#include <vector>

#include "dpmp/dp/correlated_noise.hpp"
#include "support/errors.hpp"
#include "support/noise.hpp"
#include "support/random.hpp"

using namespace dpmp;
using dp::NoiseMatrix;
using dp::NoiseSourceKind;
using dp::NoiseSourceOptions;

namespace {
using Matrix = std::vector<std::vector<long double>>;
using Steps = std::vector<std::size_t>;

/// binomial(2 k, k) / 4^k: the Taylor coefficients of (1 - x)^(-1/2), whose square is that of the prefix sums.
long double root_coefficient(std::size_t k) {
  long double c = 1;
  for (std::size_t i = 1; i <= k; ++i) c *= (long double)(k + i) / (long double)(4 * i);
  return c;
}
/// C from its definition.
Matrix matrix_of(const NoiseSourceOptions& o, std::size_t steps) {
  Matrix C(steps, std::vector<long double>(steps));
  if (o.kind == NoiseSourceKind::tree) {
    for (std::size_t t = 0; t < steps; ++t) {
      // The longest block of a power of two steps that ends with step t and begins at a multiple of its length.
      std::size_t length = 1;
      while ((t + 1) % (2 * length) == 0) length *= 2;
      for (std::size_t k = 0; k < length; ++k) C[t][t - k] = 1;
    }
    return C;
  }
  long double square = 0;
  for (std::size_t k = 0; k < std::size_t(o.bands); ++k) square += root_coefficient(k) * root_coefficient(k);
  for (std::size_t t = 0; t < steps; ++t)
    for (std::size_t k = 0; k < std::size_t(o.bands) && k <= t; ++k) C[t][t - k] = root_coefficient(k) / std::sqrt(square);
  return C;
}
/// x with C x = z, row by row.
std::vector<long double> solved(const Matrix& C, const std::vector<long double>& z) {
  std::vector<long double> x;
  for (std::size_t t = 0; t < z.size(); ++t) {
    long double rest = z[t];
    for (std::size_t k = 0; k < t; ++k) rest -= C[t][k] * x[k];
    x.push_back(rest / C[t][t]);
  }
  return x;
}
/// Columns of C^-1.
Matrix inverse_columns(const Matrix& C) {
  Matrix columns;
  for (std::size_t k = 0; k < C.size(); ++k) {
    std::vector<long double> unit(C.size());
    unit[k] = 1;
    columns.push_back(solved(C, unit));
  }
  return columns;
}
/// The lengths of the rows of A C^-1, A the prefix sums: standard deviations of the noise in the sum of steps 0 .. t.
std::vector<double> prefix_deviations(const Matrix& C) {
  const Matrix inverse = inverse_columns(C);
  std::vector<double> lengths;
  for (std::size_t t = 0; t < C.size(); ++t) {
    long double square = 0;
    for (std::size_t k = 0; k <= t; ++k) {
      long double sum = 0;
      for (std::size_t s = 0; s <= t; ++s) sum += inverse[k][s];
      square += sum * sum;
    }
    lengths.push_back(double(std::sqrt(square)));
  }
  return lengths;
}
double length_of_sum(const Matrix& C, const Steps& columns) {
  long double square = 0;
  for (const auto& row : C) {
    long double sum = 0;
    for (const std::size_t k : columns) sum += row[k];
    square += sum * sum;
  }
  return double(std::sqrt(square));
}
dp::NoiseStream stream_of(std::uint64_t stream) {
  test::Rng rng(test::seed(), stream);
  dp::NoiseStream s;
  for (auto& word : s.key.words) word = std::uint32_t(rng.bits());
  return s;
}
const NoiseSourceOptions sources[] = {{NoiseSourceKind::banded, 1},
                                      {NoiseSourceKind::banded, 2},
                                      {NoiseSourceKind::banded, 5},
                                      {NoiseSourceKind::banded, 11},
                                      {NoiseSourceKind::tree, 0}};
constexpr std::size_t steps = 11;
}  // namespace

TEST_CASE("the entries of the matrices are those of their definitions") {
  for (const NoiseSourceOptions& o : sources) {
    const NoiseMatrix matrix(o);
    const Matrix C = matrix_of(o, 40);
    for (index_t t = 0; t < 40; ++t)
      for (index_t k = 0; k < 40; ++k)
        CHECK(std::fabs(matrix.entry(t, k) - double(C[std::size_t(t)][std::size_t(k)])) <= 1e-15 * double(o.bands) + 1e-300);
  }
}

TEST_CASE("P23: what is added in each step is C^-1 z, solved in long double from normals worked out by hand, on the grid") {
  for (const NoiseSourceOptions& o : sources)
    for (const std::size_t n : {1, 127, 128, 300}) {
      CAPTURE(name_of(o.kind));
      CAPTURE(o.bands);
      CAPTURE(n);
      test::Rng rng(test::seed(), 5 + n);
      dp::NoiseStream stream = stream_of(17);
      ThreadTeam team(2);
      dp::CorrelatedNoise noise(o);
      const double deviation = 3.7, grid = dp::noise_grid(deviation);
      const index_t parameter = 6;
      Matrix z(n);
      for (std::size_t t = 0; t < steps; ++t) {
        const auto drawn = test::normals_by_hand(stream.key, dp::noise_nonce(index_t(t), parameter), n);
        for (std::size_t j = 0; j < n; ++j) z[j].push_back(drawn[j]);
      }
      const Matrix C = matrix_of(o, steps);
      std::vector<std::vector<double>> added(n);
      bool on_grid = true;
      for (std::size_t t = 0; t < steps; ++t) {
        stream.step = index_t(t);
        std::vector<double> sum(n), before;
        for (double& s : sum) s = rng.normal(20);
        before = sum;
        noise.add(team, sum, deviation, stream, parameter);
        for (std::size_t j = 0; j < n; ++j) {
          added[j].push_back(sum[j] - before[j]);
          on_grid = on_grid && sum[j] / grid == std::nearbyint(sum[j] / grid);
        }
      }
      CHECK(on_grid);
      double worst = 0;
      for (std::size_t j = 0; j < n; ++j) {
        const std::vector<long double> wanted = solved(C, z[j]);
        for (std::size_t t = 0; t < steps; ++t)
          worst = std::max(worst, std::fabs(added[j][t] - double(deviation * wanted[t])));
      }
      // Half a unit of the grid, and normals that differ by 2^-44 at most in a sum of few of them.
      CHECK(worst <= 0.5 * grid + 100 * deviation * test::normal_error);
      CHECK(worst > 0.1 * grid);
    }
}

TEST_CASE("P20: noise that is taken up at any step has the bits of noise that was never left, on any number of threads") {
  for (const NoiseSourceOptions& o : sources) {
    CAPTURE(name_of(o.kind));
    CAPTURE(o.bands);
    dp::NoiseStream stream = stream_of(18);
    ThreadTeam one(1), two(2);
    const std::size_t n = 9000;  // worth a fork
    std::vector<std::vector<double>> whole;
    dp::CorrelatedNoise all(o);
    for (std::size_t t = 0; t < steps; ++t) {
      stream.step = index_t(t);
      all.add(one, whole.emplace_back(n), 1.5, stream, 2);
    }
    for (std::size_t first = 0; first < steps; ++first) {
      dp::CorrelatedNoise later(o);
      for (std::size_t t = first; t < steps; t += 1 + t % 2) {  // some steps are left out
        stream.step = index_t(t);
        std::vector<double> sum(n);
        later.add(two, sum, 1.5, stream, 2);
        CHECK(sum == whole[t]);
      }
    }
  }
}

TEST_CASE("the noise in sums of steps has the covariance of A C^-1: empirical moments of 40000 elements") {
  for (const NoiseSourceOptions& o : {NoiseSourceOptions{NoiseSourceKind::banded, 4}, {NoiseSourceKind::tree, 0}}) {
    constexpr std::size_t n = 40000, T = 7;
    dp::CorrelatedNoise noise(o);
    dp::NoiseStream stream = stream_of(19);
    ThreadTeam team(2);
    std::vector<std::vector<double>> prefix(T, std::vector<double>(n));
    for (std::size_t t = 0; t < T; ++t) {
      stream.step = index_t(t);
      if (t > 0) prefix[t] = prefix[t - 1];
      std::vector<double> sum(n);
      noise.add(team, sum, 2, stream, 0);
      for (std::size_t j = 0; j < n; ++j) prefix[t][j] += sum[j];
    }
    const Matrix inverse = inverse_columns(matrix_of(o, T));
    for (std::size_t s = 0; s < T; ++s)
      for (std::size_t t = 0; t <= s; ++t) {
        const auto covariance = [&](std::size_t a, std::size_t b) {
          long double sum = 0;
          for (std::size_t k = 0; k < T; ++k) {
            long double of_a = 0, of_b = 0;
            for (std::size_t r = 0; r <= a; ++r) of_a += inverse[k][r];
            for (std::size_t r = 0; r <= b; ++r) of_b += inverse[k][r];
            sum += of_a * of_b;
          }
          return double(4 * sum);
        };
        double measured = 0;
        for (std::size_t j = 0; j < n; ++j) measured += prefix[s][j] * prefix[t][j] / double(n);
        // Wick: the variance of a product of two Gaussians is v_s v_t + c^2.
        const double c = covariance(s, t), spread = std::sqrt((covariance(s, s) * covariance(t, t) + c * c) / double(n));
        CHECK(std::fabs(measured - c) < 6 * spread);
      }
  }
}

TEST_CASE("the relative deviation of a step is the length of the row of C^-1") {
  for (const NoiseSourceOptions& o : sources) {
    dp::CorrelatedNoise noise(o), again(o);
    const Matrix inverse = inverse_columns(matrix_of(o, 20));
    for (std::size_t t = 0; t < 20; ++t) {
      long double square = 0;
      for (std::size_t k = 0; k <= t; ++k) square += inverse[k][t] * inverse[k][t];
      CHECK(noise.relative_deviation(index_t(t)) == doctest::Approx(double(std::sqrt(square))).epsilon(1e-13));
      // In any order.
      if (t % 3 == 2)
        for (const index_t s : {index_t(t), index_t(0), index_t(t / 2)})
          CHECK(again.relative_deviation(s) == noise.relative_deviation(s));
    }
  }
}

TEST_CASE("P2: the sensitivity is the largest of all patterns of participation, and columns apart do not add up") {
  for (const NoiseSourceOptions& o : sources)
    for (std::size_t T = 1; T <= steps; ++T) {
      if (std::size_t(o.bands) > T) continue;
      const NoiseMatrix matrix(o);
      const Matrix C = matrix_of(o, T);
      for (std::size_t separation = 1; separation <= T + 1; ++separation) {
        CAPTURE(name_of(o.kind));
        CAPTURE(o.bands);
        CAPTURE(T);
        CAPTURE(separation);
        double largest = 0;
        for (std::size_t first = 0; first < std::min(separation, T); ++first) {
          Steps possible;
          for (std::size_t t = first; t < T; t += separation) possible.push_back(t);
          for (std::size_t pattern = 0; pattern < std::size_t(1) << possible.size(); ++pattern) {
            Steps taken;
            for (std::size_t k = 0; k < possible.size(); ++k)
              if (pattern >> k & 1) taken.push_back(possible[k]);
            largest = std::max(largest, length_of_sum(C, taken));
          }
        }
        const double stated = matrix.sensitivity(index_t(T), index_t(separation));
        CHECK(stated >= largest);
        CHECK(stated <= largest * (1 + 1e-8));
        if (separation >= T) CHECK(stated == doctest::Approx(matrix.column_norm(index_t(T))).epsilon(1e-12));
        if (matrix.columns_are_apart(index_t(separation))) {
          const double rounds = double((T + separation - 1) / separation);
          CHECK(stated <= matrix.column_norm(index_t(T)) * std::sqrt(rounds) * (1 + 1e-8));
          for (std::size_t a = 0; a < T; ++a)
            for (std::size_t b = a + separation; b < T; b += separation)
              for (std::size_t t = 0; t < T; ++t) CHECK((C[t][a] == 0 || C[t][b] == 0));
        }
      }
    }
}

TEST_CASE("P2: gradients of any direction and length up to 1 change C G by no more than the sensitivity") {
  test::Rng rng;
  for (const NoiseSourceOptions& o : sources) {
    const Matrix C = matrix_of(o, steps);
    for (int trial = 0; trial < 300; ++trial) {
      const std::size_t separation = std::size_t(rng.integer(1, 4)), first = std::size_t(rng.integer(0, 3));
      constexpr std::size_t dimensions = 3;
      double square = 0;
      std::vector<std::vector<double>> change(steps, std::vector<double>(dimensions));
      for (std::size_t t = first % separation; t < steps; t += separation) {
        double length = 0;
        for (double& x : change[t]) x = rng.normal(), length += x * x;
        const double wanted = rng.uniform() < 0.5 ? 1 : rng.uniform();
        for (double& x : change[t]) x *= wanted / std::sqrt(length);
      }
      for (std::size_t t = 0; t < steps; ++t)
        for (std::size_t d = 0; d < dimensions; ++d) {
          double sum = 0;
          for (std::size_t k = 0; k <= t; ++k) sum += double(C[t][k]) * change[k][d];
          square += sum * sum;
        }
      CHECK(std::sqrt(square) <= NoiseMatrix(o).sensitivity(index_t(steps), index_t(separation)));
    }
  }
}

TEST_CASE("the sensitivity of many steps is the one of its definition: every first step, every row") {
  test::Rng rng(test::seed(), 9);
  for (int k = 0; k < 60; ++k) {
    const NoiseSourceOptions o{k % 2 ? NoiseSourceKind::tree : NoiseSourceKind::banded, k % 2 ? 0 : rng.integer(1, 40)};
    const index_t T = rng.integer(std::max<index_t>(o.bands, 1), 300), separation = rng.integer(1, k % 3 ? 20 : 400);
    const NoiseMatrix matrix(o);
    double largest = 0;
    for (index_t first = 0; first < std::min(separation, T); ++first) {
      double square = 0;
      for (index_t row = 0; row < T; ++row) {
        double sum = 0;
        for (index_t column = first; column < T; column += separation) sum += matrix.entry(row, column);
        square += sum * sum;
      }
      largest = std::max(largest, square);
    }
    CAPTURE(name_of(o.kind));
    CAPTURE(o.bands);
    CAPTURE(T);
    CAPTURE(separation);
    const double stated = matrix.sensitivity(T, separation);
    CHECK(stated >= std::sqrt(largest));
    CHECK(stated <= std::sqrt(largest) * (1 + 1e-8));
  }
}

TEST_CASE("at the same privacy sums of steps have less noise than with independent noise, and a tree's are logarithmic") {
  constexpr std::size_t T = 64;
  // Records that take part every 16 steps: bands as wide as that cost nothing, their columns are apart.
  const NoiseSourceOptions banded{NoiseSourceKind::banded, 16};
  const std::vector<double> of_bands = prefix_deviations(matrix_of(banded, T));
  double bands_square = 0, independent_square = 0;
  for (std::size_t t = 0; t < T; ++t) bands_square += of_bands[t] * of_bands[t], independent_square += double(t + 1);
  const double ratio = NoiseMatrix(banded).sensitivity(T, 16) / NoiseMatrix({}).sensitivity(T, 16);
  CHECK(ratio == doctest::Approx(1).epsilon(1e-8));
  MESSAGE("root mean square of prefix sums' noise, 16 bands against independent: "
          << std::sqrt(bands_square / independent_square) * ratio);
  CHECK(std::sqrt(bands_square / independent_square) * ratio < 0.6);
  // Records that take part once: the tree's last sum of 2^k steps has the noise of one node.
  constexpr std::size_t L = 256;
  const std::vector<double> of_tree = prefix_deviations(matrix_of({NoiseSourceKind::tree, 0}, L));
  const double cost = NoiseMatrix({NoiseSourceKind::tree, 0}).sensitivity(L, L);
  CHECK(cost == doctest::Approx(3).epsilon(1e-8));  // 9 nodes above the first step
  double tree_square = 0, square = 0;
  for (std::size_t t = 0; t < L; ++t) {
    CHECK(of_tree[t] == doctest::Approx(std::sqrt(double(std::popcount(t + 1)))));
    tree_square += of_tree[t] * of_tree[t], square += double(t + 1);
  }
  MESSAGE("the same of a tree over 256 steps: " << std::sqrt(tree_square / square) * cost);
  CHECK(std::sqrt(tree_square / square) * cost < 0.6);
}

TEST_CASE("bad input: correlated noise refuses steps again, other keys, other lengths and settings without a meaning") {
  using enum NoiseSourceKind;
  CHECK(test::refuses([] { dp::check_noise_source({banded, 0}, 10); }, "1 to 10 bands"));
  CHECK(test::refuses([] { dp::check_noise_source({banded, 11}, 10); }, "1 to 10 bands"));
  CHECK(test::refuses([] { dp::check_noise_source({tree, 3}, 10); }, "no bands for tree"));
  CHECK(test::refuses([] { dp::check_noise_source({independent, 1}, 10); }, "no bands for independent"));
  CHECK(test::refuses([] { dp::check_noise_source({tree, 0}, dp::max_correlated_steps + 1); }, "at most 2^20 steps"));
  dp::check_noise_source({}, dp::max_correlated_steps + 1);
  CHECK(test::refuses([] { dp::CorrelatedNoise noise{NoiseSourceOptions{}}; }, "correlated steps"));
  for (const NoiseSourceOptions& o : {NoiseSourceOptions{banded, 3}, {tree, 0}}) {
    dp::CorrelatedNoise noise(o);
    ThreadTeam team(1);
    dp::NoiseStream stream = stream_of(20);
    std::vector<double> sum(10), longer(11);
    noise.add(team, sum, 1, stream, 0);
    CHECK(test::refuses([&] { noise.add(team, sum, 1, stream, 0); }, "cancels in their difference"));
    stream.step = 1;
    if (o.kind == banded) CHECK(test::refuses([&] { noise.add(team, longer, 1, stream, 0); }, "as many elements"));
    CHECK(test::refuses([&] { noise.add(team, sum, NAN, stream, 0); }, "standard deviation"));
    dp::NoiseStream other = stream_of(21);
    other.step = 1;
    CHECK(test::refuses([&] { noise.add(team, sum, 1, other, 0); }, "the key of the earlier steps"));
    noise.add(team, sum, 1, stream, 0);
  }
}
