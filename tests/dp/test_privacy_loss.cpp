// SPDX-License-Identifier: Apache-2.0
// Privacy-loss distributions against their definitions: curves by quadrature, transforms and convolutions in long double,
// the closed form of composed Gaussians, and two-dimensional neighbours for replace_one.
#include <doctest/doctest.h>
#include <cmath>
#include <complex>
#include <map>
#include <numbers>

#include "dpmp/dp/fourier.hpp"
#include "dpmp/dp/gaussian_curve.hpp"
#include "dpmp/dp/privacy_loss.hpp"
#include "dpmp/dp/step_mechanism.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;
using dp::BoundSide;
using dp::NeighbouringRelation;
using dp::PrivacyLossDistribution;
using dp::StepMechanism;

namespace {
/// A mixture of normal distributions of variance 1: mean and weight.
using Mixture = std::vector<std::pair<double, double>>;
/// sup_S P(S) - e^epsilon Q(S) by the trapezoidal rule over the part where it is positive, which is one interval for the
/// pairs here. The integrand is smooth there, so that the rule errs by the square of the step at the two ends: below 1e-8.
long double hockey_stick(const Mixture& P, const Mixture& Q, long double epsilon) {
  const auto excess = [&](long double x) {
    const auto density = [&](const Mixture& m) {
      long double sum = 0;
      for (const auto& [mean, weight] : m) sum += weight * std::exp(-(x - mean) * (x - mean) / 2);
      return sum / std::sqrt(2 * std::numbers::pi_v<long double>);
    };
    return density(P) - std::exp(epsilon) * density(Q);
  };
  const long double step = 5e-4L;
  long double sum = 0;
  for (long double x = -20; x < 20; x += step) sum += std::max(0.0L, excess(x)) * step;
  return sum;
}
struct Pair {
  Mixture P, Q;
};
Pair pair_of(const StepMechanism& m) {
  const double q = m.sampling_rate, mu = 1 / m.noise_multiplier;
  if (m.relation == NeighbouringRelation::replace_one) return {{{0, 1 - q}, {mu / 2, q}}, {{0, 1 - q}, {-mu / 2, q}}};
  return {{{0, 1 - q}, {mu, q}}, {{0, 1}}};
}
StepMechanism random_step(test::Rng& rng, bool replaced) {
  StepMechanism m{.sampling_rate = std::exp(rng.uniform(-5, 0)), .noise_multiplier = std::exp(rng.uniform(-0.7, 1.5))};
  if (replaced) m.relation = NeighbouringRelation::replace_one;
  if (rng.integer(0, 5) == 0) m.sampling_rate = 1;
  return m;
}
/// The curve of (P, Q) at any epsilon.
dp::DeltaBounds curve_at(const dp::PrivacyCurve& c, double epsilon) {
  if (epsilon >= 0) return c.forward(epsilon);
  const dp::DeltaBounds b = c.backward(-epsilon);
  return {-std::expm1(epsilon) + std::exp(epsilon) * b.lower - 1e-15,
          -std::expm1(epsilon) + std::exp(epsilon) * b.upper + 1e-15};
}
}  // namespace

TEST_CASE("P25: the transform is the sum that it says, within its bound, forwards and back") {
  test::Rng rng(test::seed(), 1);
  for (std::size_t n = 4; n <= 512; n *= 2) {
    const dp::RealFourier fourier(n);
    std::vector<double> x(n);
    double size = 0, spectrum_size = 0;
    for (double& v : x) v = rng.integer(0, 3) ? rng.uniform(-1, 1) : rng.normal() * 1e-9, size += std::fabs(v);
    const dp::RealFourier::Spectrum s = fourier.forward(x);
    REQUIRE(s.re.size() == n / 2 + 1);
    for (std::size_t k = 0; k <= n / 2; ++k) {
      std::complex<long double> exact = 0;
      for (std::size_t j = 0; j < n; ++j)
        exact +=
            std::polar<long double>(1, -2 * std::numbers::pi_v<long double> * (long double)(j * k % n) / (long double)(n)) *
            (long double)(x[j]);
      CHECK(std::abs(exact - std::complex<long double>(s.re[k], s.im[k])) <= fourier.rounding() * size);
      spectrum_size += std::hypot(s.re[k], s.im[k]);
    }
    const std::vector<double> back = fourier.inverse(s);
    const double bound = fourier.rounding() * size + fourier.rounding() * 2 / double(n) * spectrum_size;
    for (std::size_t j = 0; j < n; ++j) CHECK(std::fabs(back[j] - x[j]) <= bound);
  }
  for (const std::size_t bad : {0, 1, 2, 3, 12}) CHECK(test::refuses([&] { dp::RealFourier f(bad); }, "power of two"));
}

TEST_CASE("P25: curves are those of their pairs, by quadrature, in both orders") {
  test::Rng rng(test::seed(), 2);
  for (int k = 0; k < 8; ++k) {
    const StepMechanism m = random_step(rng, k % 3 == 0);
    const Pair pair = pair_of(m);
    const dp::PrivacyCurve curve = dp::privacy_curve(m);
    const double epsilon = k % 4 ? std::exp(rng.uniform(-5, 1)) * m.sampling_rate : 0;
    CAPTURE(m.sampling_rate);
    CAPTURE(m.noise_multiplier);
    CAPTURE(epsilon);
    const dp::DeltaBounds there = curve.forward(epsilon), back = curve.backward(epsilon);
    const double exact = double(hockey_stick(pair.P, pair.Q, epsilon)),
                 exact_back = double(hockey_stick(pair.Q, pair.P, epsilon));
    CHECK(there.lower <= exact + 1e-7);
    CHECK(there.upper >= exact - 1e-7);
    CHECK(back.lower <= exact_back + 1e-7);
    CHECK(back.upper >= exact_back - 1e-7);
    CHECK(there.upper - there.lower <= 1e-10 * there.upper + 1e-300);
    CHECK(back.upper - back.lower <= 1e-8 * back.upper + 1e-14);
  }
}

TEST_CASE("P25: replace_one: no two contributions in a plane are told apart better than opposite ones on a line") {
  test::Rng rng(test::seed(), 3);
  for (int k = 0; k < 6; ++k) {
    const double q = rng.uniform(0.02, 0.9), sigma = rng.uniform(0.4, 1.5), a = 0.5 / sigma,
                 angle = rng.uniform(0, std::numbers::pi);
    const double epsilon = rng.uniform(0, 1.5), u = k % 2 ? a : a * rng.uniform(), v = k % 3 ? a : a * rng.uniform();
    const auto bell = [](double x, double y) { return std::exp(-(x * x + y * y) / 2) / (2 * std::numbers::pi); };
    double sum = 0;
    const double step = 0.02;
    for (double x = -8; x < 8; x += step)
      for (double y = -8; y < 8; y += step) {
        const double none = (1 - q) * bell(x, y);
        sum += std::max(0.0, none + q * bell(x - u, y) -
                                 std::exp(epsilon) * (none + q * bell(x - v * std::cos(angle), y - v * std::sin(angle))));
      }
    const dp::PrivacyCurve curve =
        dp::privacy_curve({.sampling_rate = q, .noise_multiplier = sigma, .relation = NeighbouringRelation::replace_one});
    CAPTURE(q);
    CAPTURE(sigma);
    CAPTURE(angle);
    // The kink of the integrand costs the square of the step.
    CHECK(sum * step * step <= curve.forward(epsilon).upper + 2e-4);
    const dp::PrivacyCurve difference = dp::privacy_curve(
        {.kind = StepMechanism::Kind::poisson_gaussian_difference, .sampling_rate = q, .noise_multiplier = sigma});
    CHECK(curve.forward(epsilon).lower <= difference.forward(epsilon).upper);
    CHECK(sum * step * step <= difference.backward(epsilon).upper + 2e-4);
  }
}

TEST_CASE("P25: connected dots are above the curve, lowered ones below it, at every epsilon and tilt") {
  test::Rng rng(test::seed(), 4);
  for (int k = 0; k < 24; ++k) {
    const StepMechanism m = random_step(rng, k % 3 == 0);
    dp::PrivacyCurve curve = dp::privacy_curve(m);
    if (k % 2) curve = curve.reversed();
    const double scale = m.sampling_rate / m.noise_multiplier;
    const dp::LossGrid grid{.interval = std::exp2(std::floor(std::log2(scale * rng.uniform(0.01, 0.3)))),
                            .tilt = k % 3 ? rng.uniform(0, 6) : 0,
                            .centre = scale * rng.uniform(-1, 1),
                            .spread = scale,
                            .resolution = k % 4 ? rng.uniform(0, 0.25) : 0,
                            .fall = k % 5 ? 0 : 0.1,
                            .tail = 1e-14};
    const PrivacyLossDistribution above(curve, BoundSide::pessimistic, grid), below(curve, BoundSide::optimistic, grid);
    for (int j = 0; j < 40; ++j) {
      const double epsilon = scale * rng.normal() * 4;
      const dp::DeltaBounds exact = curve_at(curve, epsilon);
      CHECK(above.delta(epsilon) >= exact.lower);
      CHECK(below.delta(epsilon) <= exact.upper);
    }
  }
}

TEST_CASE("P25: compositions are those of a direct convolution in long double, from above and from below") {
  test::Rng rng(test::seed(), 5);
  for (int k = 0; k < 8; ++k) {
    const BoundSide side = k % 2 ? BoundSide::pessimistic : BoundSide::optimistic;
    const double tilt = k % 3 ? rng.uniform(0, 8) : 0;
    const dp::LossGrid grid{.interval = 0x1p-5, .tilt = tilt, .tail = 1e-12};
    const PrivacyLossDistribution x(dp::privacy_curve({.sampling_rate = rng.uniform(0.1, 0.9), .noise_multiplier = 1.5}),
                                    side, grid);
    const PrivacyLossDistribution y(dp::privacy_curve({.noise_multiplier = rng.uniform(1, 3)}), side, grid);
    const index_t n = rng.integer(1, 4);
    const PrivacyLossDistribution::Part parts[] = {{&x, n}, {&y, 1}};
    const PrivacyLossDistribution composed = PrivacyLossDistribution::composition(parts);
    // Untilted masses by loss.
    using Masses = std::map<index_t, long double>;
    const auto masses = [&](const PrivacyLossDistribution& d) {
      Masses m;
      for (const dp::LossAtom& a : d.losses().atoms)
        m[a.index] = a.mass * std::exp((long double)(d.losses().log_scale) - (long double)(tilt)*a.index * 0x1p-5L);
      return m;
    };
    Masses all = masses(y);
    for (index_t j = 0; j < n; ++j) {
      Masses next;
      for (const auto& [i, p] : all)
        for (const auto& [l, r] : masses(x)) next[i + l] += p * r;
      all = next;
    }
    const double infinite = double(n) * x.losses().infinite + y.losses().infinite;
    for (int j = 0; j < 25; ++j) {
      const double epsilon = rng.uniform(-1, 6);
      long double exact = infinite;
      for (const auto& [i, p] : all)
        if (const long double loss = i * 0x1p-5L; loss > epsilon) exact -= p * std::expm1((long double)(epsilon)-loss);
      CAPTURE(epsilon);
      CAPTURE(tilt);
      const double delta = composed.delta(epsilon);
      // The bound of the error is of the size of the tilted masses: e^(log scale - tilt epsilon).
      const double room = 1e-11 * std::exp(composed.losses().log_scale - tilt * epsilon) + 1e-9 * double(exact);
      if (side == BoundSide::pessimistic) {
        CHECK(delta >= std::min(1.0L, exact) * (1 - 1e-14L));
        CHECK(delta <= double(exact) + room);
      } else {
        CHECK(delta <= exact * (1 + 1e-14L));
        CHECK(delta >= double(exact) - room);
      }
      // Epsilon is the inverse; of lower bounds one that has the delta or more, up to a step of the grid away.
      if (epsilon > 0 && delta > 1e-12 && delta < 1) {
        const double inverse = composed.epsilon(delta);
        if (side == BoundSide::pessimistic && std::isfinite(inverse)) CHECK(composed.delta(inverse) <= delta * (1 + 1e-8));
        if (side == BoundSide::optimistic && inverse > 0) CHECK(composed.delta(inverse) >= delta * (1 - 1e-8));
      }
    }
  }
}

TEST_CASE("P25: n Gaussian steps are one of sigma / sqrt n: bounds on both sides of it, for deltas down to 1e-80") {
  test::Rng rng(test::seed(), 6);
  for (int k = 0; k < 5; ++k) {
    const double sigma = std::exp(rng.uniform(1, 3));
    const index_t n = rng.integer(20, 2000);
    const double mu = std::sqrt(double(n)) / sigma, score = rng.uniform(1, 18), epsilon = mu * mu / 2 + mu * score;
    // Tilted by the lambda whose mean loss is epsilon: n (1/2 + lambda) / sigma^2.
    const double lambda = epsilon / (mu * mu) - 0.5;
    const dp::LossGrid grid{.interval = std::exp2(std::floor(std::log2(0.02 / sigma))), .tilt = lambda, .tail = 1e-200};
    const dp::PrivacyCurve curve = dp::privacy_curve({.noise_multiplier = sigma});
    const dp::DeltaBounds exact = dp::gaussian_delta(mu, epsilon);
    CAPTURE(epsilon);
    CAPTURE(exact.upper);
    const PrivacyLossDistribution above = PrivacyLossDistribution(curve, BoundSide::pessimistic, grid).composed(n);
    const PrivacyLossDistribution below = PrivacyLossDistribution(curve, BoundSide::optimistic, grid).composed(n);
    CHECK(above.delta(epsilon) >= exact.lower);
    CHECK(below.delta(epsilon) <= exact.upper);
    // The dots add r <= (interval sigma)^2 / 6 < 7e-5 of the variance mu^2 and half as much to the mean, because P and Q
    // stay densities of each other: r (score + mu) / 2 standard deviations, each worth a factor e^(score + 1) at most.
    // Lowering takes no more than three times as much off.
    CHECK(above.delta(epsilon) <= exact.upper * (1 + 7e-5 * (score + mu) * (score + 1)));
    CHECK(below.delta(epsilon) >= exact.lower * (1 - 2.1e-4 * (score + mu) * (score + 1)));
    // Neyman and Pearson: Phi(mu + Phi^-1(rate)).
    const double z = rng.uniform(-2, 1.5), rate = 0.5 * std::erfc(-z / std::numbers::sqrt2);
    const PrivacyLossDistribution plain =
        PrivacyLossDistribution(curve, BoundSide::pessimistic, {.interval = grid.interval}).composed(n);
    const double power = 0.5 * std::erfc(-(mu + z) / std::numbers::sqrt2);
    CHECK(plain.true_positive_rate(rate) >= power - 1e-15);
    CHECK(plain.true_positive_rate(rate) <= power + 1e-3);
  }
}

TEST_CASE("bad input: grids, parts and questions of privacy losses") {
  const dp::PrivacyCurve curve = dp::privacy_curve({.noise_multiplier = 2});
  const auto made = [&](const dp::LossGrid& g) { PrivacyLossDistribution(curve, BoundSide::pessimistic, g); };
  for (double v : {0.0, -0.5, 0.3, double(INFINITY), std::nan("")})
    CHECK(test::refuses([&] { made({.interval = v}); }, "power of two for the interval"));
  CHECK(test::refuses([&] { made({.tilt = -1}); }, "tilt >= 0"));
  CHECK(test::refuses([&] { made({.resolution = 0.3}); }, "resolution in [0, 1/4]"));
  CHECK(test::refuses([&] { made({.fall = 1}); }, "fall in [0, 1)"));
  CHECK(test::refuses([&] { made({.tail = 0}); }, "tail in (0, 1)"));
  const PrivacyLossDistribution x(curve, BoundSide::pessimistic), y(curve, BoundSide::optimistic);
  CHECK(test::refuses([&] { (void)x.composed(y); }, "parts of one side"));
  CHECK(test::refuses([&] { (void)x.composed(0); }, "count >= 1, got 0"));
  CHECK(test::refuses([&] { (void)PrivacyLossDistribution::composition({}); }, "at least one part"));
  CHECK(test::refuses([&] { (void)x.delta(INFINITY); }, "finite epsilon"));
  for (double v : {0.0, 1.0, std::nan("")}) CHECK(test::refuses([&] { (void)x.epsilon(v); }, "delta in (0, 1)"));
  CHECK(test::refuses([&] { (void)x.true_positive_rate(1.5); }, "false positive rate in [0, 1]"));
  CHECK(test::refuses([&] { (void)y.true_positive_rate(0.5); }, "expected a pessimistic distribution"));
  CHECK(test::refuses([] { (void)dp::privacy_curve({.sampling_rate = 2}); }, "sampling probability in [0, 1]"));
  CHECK(test::refuses([] { (void)dp::privacy_curve({.noise_multiplier = 0}); }, "noise multiplier > 0"));
  CHECK(test::refuses([] { (void)dp::privacy_curve({.kind = StepMechanism::Kind(9)}); }, "got the value 9"));
  CHECK(test::refuses([] { (void)dp::gaussian_delta(0, 1); }, "sensitivity over noise > 0"));
  CHECK(test::refuses([] { (void)dp::gaussian_mu(0, 0.1); }, "finite epsilon > 0"));
}
