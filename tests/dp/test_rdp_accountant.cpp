// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "dp/references.hpp"
#include "dpmp/dp/calibration.hpp"
#include "support/random.hpp"

using namespace dpmp;

namespace {
dp::RdpAccountant accountant_of(const nlohmann::json& setting, std::vector<double> orders = dp::default_orders()) {
  dp::RdpAccountant accountant(std::move(orders));
  for (const auto& s : setting["segments"]) accountant.add_steps(s["q"], s["sigma"], s["steps"]);
  return accountant;
}
double epsilon_of(double q, double sigma, index_t steps, double delta) {
  dp::RdpAccountant accountant;
  accountant.add_steps(q, sigma, steps);
  return accountant.epsilon(delta);
}
/// log A by Simpson's rule over z: slow, independent of both series.
double log_moment_quadrature(double q, double sigma, double order) {
  // The integrand is a mixture of normals centred in [0, order] of standard deviation sigma.
  const double low = -12 * sigma, high = order + 12 * sigma;
  const int n = 200000;
  const double h = (high - low) / n;
  const auto log_integrand = [&](double z) {
    const double shift = (2 * z - 1) / (2 * sigma * sigma), a = std::log1p(-q), b = std::log(q) + shift;
    const double top = std::max(a, b), mixture = top + std::log(std::exp(a - top) + std::exp(b - top));
    return order * mixture - z * z / (2 * sigma * sigma) - std::log(sigma * std::sqrt(2 * 3.14159265358979323846));
  };
  double top = -1e300, sum = 0;
  for (int k = 0; k <= n; ++k) top = std::max(top, log_integrand(low + k * h));
  for (int k = 0; k <= n; ++k) sum += (k == 0 || k == n ? 1 : k % 2 ? 4 : 2) * std::exp(log_integrand(low + k * h) - top);
  return top + std::log(sum * h / 3);
}
}  // namespace

TEST_CASE("P25: divergences of one step equal the reference curves to 1e-6") {
  for (const auto& r : test::accountant_references()["rdp_curve"]) {
    const double q = r["q"], sigma = r["sigma"], order = r["alpha"], expected = r["rdp_opacus"];
    INFO("q ", q, " sigma ", sigma, " order ", order);
    CHECK(std::fabs(dp::subsampled_gaussian_rdp(q, sigma, order) / expected - 1) < 1e-6);
  }
}

TEST_CASE("P25: divergences equal a quadrature of the definition, at random q, sigma and order") {
  test::Rng rng(test::seed(), 1);
  for (int k = 0; k < 60; ++k) {
    const double q = std::exp(rng.uniform(-7, -0.01)), sigma = std::exp(rng.uniform(-1, 2));
    const double order = k % 3 ? 1.01 + std::exp(rng.uniform(-3, 4)) : double(rng.integer(2, 64));
    const double expected = log_moment_quadrature(q, sigma, order) / (order - 1);
    const double computed = dp::subsampled_gaussian_rdp(q, sigma, order);
    INFO("q ", q, " sigma ", sigma, " order ", order, " expected ", expected);
    // Simpson's sum of A ~ 1 over 2e5 terms has an absolute error of about 1e-13.
    CHECK(std::fabs(computed - expected) < 1e-9 * expected + 2e-12 / (order - 1));
  }
}

TEST_CASE("P25: exact cases: q = 1 is the Gaussian mechanism, q = 0 is free, tiny q keeps its digits") {
  for (double order : {1.01, 1.5, 2.0, 10.9, 64.0, 1024.0}) {
    CHECK(dp::subsampled_gaussian_rdp(1, 2.5, order) == doctest::Approx(order / 12.5).epsilon(1e-15));
    CHECK(dp::subsampled_gaussian_rdp(0, 2.5, order) == 0);
    CHECK(dp::subsampled_gaussian_rdp(1 - 1e-9, 2.5, order) == doctest::Approx(order / 12.5).epsilon(1e-6));
  }
  // Order 2: A - 1 = q^2 (exp(1 / sigma^2) - 1).
  for (double q : {1e-3, 1e-8, 1e-12})
    CHECK(dp::subsampled_gaussian_rdp(q, 1.5, 2) == doctest::Approx(q * q * std::expm1(1 / 2.25)).epsilon(1e-6));
  // Fractional orders of a tiny q: no digits from the series, the line between integers bounds it.
  const double tiny = dp::subsampled_gaussian_rdp(1e-12, 1.5, 1.5);
  CHECK(tiny > 0);
  CHECK(tiny <= dp::subsampled_gaussian_rdp(1e-12, 1.5, 2) * (1 + 1e-9));
}

TEST_CASE("P25: divergences grow with the order and do not jump between the two formulas") {
  for (double q : {0.001, 0.02, 0.5})
    for (double sigma : {0.4, 1.0, 5.0}) {
      double last = 0;
      for (double order = 1.0625; order < 20; order += 0.0625) {
        const double r = dp::subsampled_gaussian_rdp(q, sigma, order);
        CHECK(r >= last * (1 - 1e-9));
        last = r;
      }
      const double below = dp::subsampled_gaussian_rdp(q, sigma, 5 - 1e-9), at = dp::subsampled_gaussian_rdp(q, sigma, 5);
      CHECK(below == doctest::Approx(at).epsilon(1e-6));
    }
}

TEST_CASE("P25: epsilons equal the references on their order grid") {
  for (const auto& s : test::accountant_references()["settings"]) {
    const dp::PrivacySpent spent = accountant_of(s, dp::opacus_orders()).spent(s["delta"]);
    INFO(s["id"].get<std::string>(), " epsilon ", spent.epsilon);
    CHECK(std::fabs(spent.epsilon / s["rdp"]["eps"].get<double>() - 1) < 1e-6);
    CHECK(spent.order == doctest::Approx(s["rdp"]["alpha"].get<double>()));
  }
}

TEST_CASE("P25: the default grid is never above the reference grid and never below the true epsilon") {
  const std::vector<double> all = dp::default_orders();
  for (double a : dp::opacus_orders()) CHECK(std::find(all.begin(), all.end(), a) != all.end());
  for (const auto& s : test::accountant_references()["settings"]) {
    const double delta = s["delta"], epsilon = accountant_of(s).epsilon(delta);
    INFO(s["id"].get<std::string>(), " epsilon ", epsilon);
    CHECK(epsilon <= accountant_of(s, dp::opacus_orders()).epsilon(delta));
    CHECK(epsilon >= s["prv"]["lower"].get<double>());
    if (!s["exact"].is_null()) CHECK(epsilon >= s["exact"]["eps"].get<double>());
  }
}

TEST_CASE("P25: epsilon is monotone in q, steps, 1/sigma and 1/delta") {
  test::Rng rng(test::seed(), 2);
  for (int k = 0; k < 40; ++k) {
    const double q = std::exp(rng.uniform(-7, -0.3)), sigma = std::exp(rng.uniform(-0.8, 1.5)),
                 delta = std::exp(rng.uniform(-16, -5));
    const index_t steps = rng.integer(1, 5000);
    const double base = epsilon_of(q, sigma, steps, delta) * (1 - 1e-9);
    INFO("q ", q, " sigma ", sigma, " steps ", steps, " delta ", delta);
    CHECK(epsilon_of(std::min(1.0, q * rng.uniform(1, 1.3)), sigma, steps, delta) >= base);
    CHECK(epsilon_of(q, sigma * rng.uniform(0.8, 1), steps, delta) >= base);
    CHECK(epsilon_of(q, sigma, steps + rng.integer(0, 50), delta) >= base);
    CHECK(epsilon_of(q, sigma, steps, delta * rng.uniform(0.5, 1)) >= base);
  }
}

TEST_CASE("P25: a schedule composes to the sum of its steps, in any order") {
  dp::RdpAccountant forward, backward, single;
  forward.add_steps(0.01, 1.0, 300);
  forward.add_steps(0.02, 1.3, 200);
  for (int k = 0; k < 200; ++k) backward.add_steps(0.02, 1.3, 1);
  for (int k = 0; k < 300; ++k) backward.add_steps(0.01, 1.0, 1);
  single.add_steps(0.01, 1.0, 300);
  CHECK(forward.steps() == 500);
  CHECK(backward.steps() == 500);
  for (std::size_t k = 0; k < forward.orders().size(); ++k) {
    const double a = forward.orders()[k];
    const double sum = 300 * dp::subsampled_gaussian_rdp(0.01, 1.0, a) + 200 * dp::subsampled_gaussian_rdp(0.02, 1.3, a);
    CHECK(forward.rdp()[k] == doctest::Approx(sum).epsilon(1e-14));
  }
  CHECK(forward.epsilon(1e-5) == doctest::Approx(backward.epsilon(1e-5)).epsilon(1e-14));
  CHECK(forward.epsilon(1e-5) > single.epsilon(1e-5));
}

TEST_CASE("P25: the search over orders finds the least epsilon of all of them, wherever it begins") {
  test::Rng rng(test::seed(), 4);
  for (int k = 0; k < 60; ++k) {
    // From one step to a billion, from no noise to speak of to a great deal of it.
    dp::RdpAccountant accountant;
    for (index_t pieces = rng.integer(1, 3); pieces > 0; --pieces)
      accountant.add_steps(std::exp(rng.uniform(-12, 0)), std::exp(rng.uniform(-2, 4)),
                           index_t(std::exp(rng.uniform(0, k % 2 ? 5 : 20))));
    const double delta = std::exp(rng.uniform(-30, -1));
    const dp::PrivacySpent all = dp::rdp_to_epsilon(accountant.orders(), accountant.rdp(), delta);
    for (const double near_order : {8.0, 1.001, 2000.0, std::exp(rng.uniform(0.1, 7))}) {
      const dp::PrivacySpent found = accountant.spent(delta, near_order);
      INFO("delta ", delta, " from ", near_order, ": ", found.epsilon, " at ", found.order, ", least ", all.epsilon, " at ",
           all.order);
      // Divergences are rounded up by bounds of their errors, which may move the minimum between orders that are as good.
      CHECK(found.epsilon >= all.epsilon);
      CHECK(found.epsilon <= all.epsilon * (1 + 1e-9));
    }
  }
}

TEST_CASE("P25: orders are sorted, and copies of an accountant go on by themselves") {
  dp::RdpAccountant accountant({8, 2, 4, 2});
  CHECK(accountant.orders() == std::vector<double>{2, 4, 8});
  accountant.add_steps(0.1, 1.5, 10);
  dp::RdpAccountant copy = accountant;
  const double before = accountant.epsilon(1e-5);
  copy.add_steps(0.1, 1.5, 10);
  copy.add_steps(0.2, 1.5, 1);
  CHECK(copy.epsilon(1e-5) > before);
  CHECK(accountant.epsilon(1e-5) == before);
  CHECK(copy.steps() == 21);
  CHECK(accountant.steps() == 10);
  for (double bad : {-0.5, 1.5, std::nan("")}) CHECK_THROWS_AS(copy.add_steps(bad, 1, 1), Error);
  for (double bad : {0.0, -1.0, std::nan("")}) CHECK_THROWS_AS(copy.add_steps(0.1, bad, 1), Error);
  CHECK(copy.steps() == 21);
}

TEST_CASE("P25: nothing done costs nothing; a huge delta clamps at 0") {
  dp::RdpAccountant accountant;
  CHECK(accountant.epsilon(1e-5) == 0);
  accountant.add_steps(0.1, 1, 0);
  accountant.add_steps(0, 1, 100);
  CHECK(accountant.epsilon(1e-5) == 0);
  CHECK(accountant.steps() == 100);
  accountant.add_steps(0.001, 20, 1);
  CHECK(accountant.epsilon(0.9) == 0);
}

TEST_CASE("P26: calibration meets the target, from below and within 1e-3, and finds the reference multipliers") {
  for (const auto& c : test::accountant_references()["calibration"]) {
    const double target = c["target_eps"], delta = c["delta"], q = c["q"];
    const index_t steps = c["steps"];
    const double sigma = dp::calibrate_noise_multiplier(target, delta, q, steps, dp::opacus_orders());
    CHECK(sigma == doctest::Approx(c["sigma_rdp_exact_opacus_orders"].get<double>()).epsilon(1e-6));
    const double finer = dp::calibrate_noise_multiplier(target, delta, q, steps);
    CHECK(finer <= sigma);
    CHECK(finer >= c["sigma_pld_exact"].get<double>());
  }
  test::Rng rng(test::seed(), 3);
  for (int k = 0; k < 12; ++k) {
    const double target = std::exp(rng.uniform(-2, 4)), delta = std::exp(rng.uniform(-14, -5)),
                 q = std::exp(rng.uniform(-6, 0));
    const index_t steps = rng.integer(1, 3000);
    const double epsilon = epsilon_of(q, dp::calibrate_noise_multiplier(target, delta, q, steps), steps, delta);
    INFO("target ", target, " delta ", delta, " q ", q, " steps ", steps, " epsilon ", epsilon);
    CHECK(epsilon <= target);
    CHECK(epsilon >= target - 1e-3);
  }
}

TEST_CASE("P26: a target that no noise can meet is an error that says the least epsilon") {
  CHECK_THROWS_WITH_AS(dp::calibrate_noise_multiplier(1e-4, 1e-6, 0.01, 10), doctest::Contains("stays at or above"), Error);
}

TEST_CASE("P25: a noise multiplier of any size has a divergence, an infinite one where it overflows, and never NaN") {
  test::Rng rng(test::seed(), 4);
  for (int k = 0; k < 3000; ++k) {
    const double sigma = std::ldexp(rng.uniform(1, 2), int(rng.integer(-1074, 1022)));
    const double q = k % 10 == 0 ? 1 : std::ldexp(rng.uniform(0.5, 1), int(rng.integer(-1000, 0)));
    const double order = k % 2 ? double(rng.integer(2, 1024)) : rng.uniform(1.01, 100);
    const double divergence = dp::subsampled_gaussian_rdp(q, sigma, order);
    INFO("q ", q, " sigma ", sigma, " order ", order, " divergence ", divergence);
    CHECK(divergence >= 0);  // not NaN
    // The mixture is at least q times the shifted Gaussian: A >= q^a exp((a^2 - a) / (2 sigma^2)).
    const double least = order / (2 * sigma * sigma), drawn = order * std::log(q) / (order - 1);
    if (least + drawn > 0) CHECK(divergence >= (least + drawn) * (1 - 1e-12));
    const double epsilon = epsilon_of(q, sigma, 1, 1e-5);
    CHECK(epsilon >= 0);
    if (sigma < 0x1p-520 && q > 0x1p-100) CHECK(std::isinf(epsilon));
  }
}
