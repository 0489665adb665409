// SPDX-License-Identifier: Apache-2.0
// The activations and their derivatives against double-precision formulas, with every instruction set.
#include <doctest/doctest.h>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "dpmp/kernels/activations.hpp"
#include "support/isa.hpp"
#include "support/random.hpp"

using namespace dpmp;
using namespace dpmp::kernels;

namespace {
/// value and derivative at x, by the C library in double.
struct Truth {
  double (*value)(double);
  double (*derivative)(double);
};
double sigmoid_of(double x) { return 1 / (1 + std::exp(-x)); }
double phi(double x) { return std::erfc(-x / std::sqrt(2.0)) / 2; }
double inner(double x) { return std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x); }

template <class A>
Truth truth();
template <>
Truth truth<Relu>() {
  return {[](double x) { return x > 0 ? x : 0; }, [](double x) { return x > 0 ? 1.0 : 0.0; }};
}
template <>
Truth truth<kernels::Tanh>() {
  return {[](double x) { return std::tanh(x); }, [](double x) { return 1 - std::tanh(x) * std::tanh(x); }};
}
template <>
Truth truth<Sigmoid>() {
  return {sigmoid_of, [](double x) { return sigmoid_of(x) * sigmoid_of(-x); }};
}
template <>
Truth truth<GeluErf>() {
  return {[](double x) { return x * phi(x); },
          [](double x) { return phi(x) + x * std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0)); }};
}
template <>
Truth truth<GeluTanh>() {
  return {[](double x) { return x / 2 * (1 + std::tanh(inner(x))); },
          [](double x) {
            const double y = std::tanh(inner(x));
            return (1 + y) / 2 + x / 2 * (1 - y * y) * std::sqrt(2 / std::acos(-1.0)) * (1 + 3 * 0.044715 * x * x);
          }};
}

template <class A>
struct Results {
  std::vector<float> value, derivative;
  Results(const std::vector<float>& x, Isa isa) : value(x.size()), derivative(x.size()) {
    const std::vector<float> ones(x.size(), 1);
    test::run_elements(index_t(x.size()), ActivationForward<A, float>{x.data(), value.data()}, isa);
    test::run_elements(index_t(x.size()), ActivationBackward<A, float>{x.data(), ones.data(), derivative.data()}, isa);
  }
};

/// Largest error, as a share of 2^-22 (1 + |x|): the functions below are off by 2^-22 and multiplied by x at most.
struct Shares {
  double value = 0, derivative = 0;
};
template <class A>
Shares shares(double range) {
  test::Rng rng;
  std::vector<float> x = {0};
  while (x.size() < 100000) x.push_back(float(rng.uniform(-range, range)));
  Shares worst;
  for (const Isa isa : test::isas()) {
    const Results<A> found(x, isa);
    for (std::size_t k = 0; k < x.size(); ++k) {
      const double limit = 0x1p-22 * (1 + std::fabs(double(x[k])));
      const double v = std::fabs(double(found.value[k]) - truth<A>().value(double(x[k]))) / limit;
      const double d = std::fabs(double(found.derivative[k]) - truth<A>().derivative(double(x[k]))) / limit;
      worst = {std::isnan(v) ? INFINITY : std::max(worst.value, v),
               std::isnan(d) ? INFINITY : std::max(worst.derivative, d)};
    }
  }
  return worst;
}
}  // namespace

namespace {
/// Elements whose bits are others where the array is shorter: in the packs at its end instead of whole ones.
template <class A, class T>
int moved_bits(Context& ctx, const std::vector<T>& x, const std::vector<T>& g) {
  const auto run = [&](index_t first, index_t count) {
    std::vector<T> y(std::size_t(2 * count));
    launch_library_elements(ctx, count, ActivationForward<A, T>{x.data() + first, y.data()});
    launch_library_elements(ctx, count, ActivationBackward<A, T>{x.data() + first, g.data() + first, y.data() + count});
    return y;
  };
  const index_t n = index_t(x.size());
  const std::vector<T> all = run(0, n);
  int moved = 0;
  for (index_t count : {1, 3, 7})
    for (index_t first = 0; first + count <= n; ++first) {
      const std::vector<T> some = run(first, count);
      for (index_t k = 0; k < count; ++k) {
        moved += std::memcmp(&some[std::size_t(k)], &all[std::size_t(first + k)], sizeof(T)) != 0;
        moved += std::memcmp(&some[std::size_t(count + k)], &all[std::size_t(n + first + k)], sizeof(T)) != 0;
      }
    }
  return moved;
}
template <class T>
void check_places(Context& ctx, test::Rng& rng) {
  std::vector<T> x, g;
  for (int k = 0; k < 96; ++k) {
    x.push_back(from_float<T>(float(rng.normal())));
    g.push_back(from_float<T>(float(rng.normal())));
  }
  CHECK(moved_bits<Relu>(ctx, x, g) == 0);
  CHECK(moved_bits<kernels::Tanh>(ctx, x, g) == 0);
  CHECK(moved_bits<Sigmoid>(ctx, x, g) == 0);
  CHECK(moved_bits<Silu>(ctx, x, g) == 0);
  CHECK(moved_bits<GeluErf>(ctx, x, g) == 0);
  CHECK(moved_bits<GeluTanh>(ctx, x, g) == 0);
}
}  // namespace

TEST_CASE("P34: an activation has the same bits in a whole pack and at an array's end") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 3);
  check_places<float>(ctx, rng);
  check_places<bf16>(ctx, rng);
  check_places<f16>(ctx, rng);
}

TEST_CASE_TEMPLATE("activations and derivatives have the error of the functions they are made of", A, Relu, kernels::Tanh,
                   Sigmoid, GeluErf, GeluTanh) {
  for (const double range : {0.01, 1.0, 12.0, 100.0}) {
    CAPTURE(range);
    const Shares worst = shares<A>(range);
    CHECK(worst.value <= 1);
    // gelu_tanh: 1 - y^2 doubles tanh's error, and the inner function's slope (at most 4 where 1 - y^2 is not 0) multiplies
    // it.
    CHECK(worst.derivative <= (std::is_same_v<A, GeluTanh> ? 4 : 2));
  }
}

TEST_CASE_TEMPLATE("activations pass NaN on and are finite for everything finite", A, Relu, kernels::Tanh, Sigmoid, GeluErf,
                   GeluTanh) {
  std::vector<float> x;
  for (int exponent = -149; exponent < 128; ++exponent)
    for (const float sign : {1.0f, -1.0f}) x.push_back(sign * std::ldexp(1.0f, exponent));
  for (const Isa isa : test::isas()) {
    const Results<A> found(x, isa);
    int infinite = 0;
    for (std::size_t k = 0; k < x.size(); ++k)
      infinite += !std::isfinite(found.value[k]) || !std::isfinite(found.derivative[k]);
    CHECK(infinite == 0);
    const Results<A> broken({std::numeric_limits<float>::quiet_NaN()}, isa);
    CHECK(std::isnan(broken.value[0]));
    CHECK(std::isnan(broken.derivative[0]));
  }
}

namespace {
/// Value and derivative far out on either side: the limits, which infinite arguments have too.
struct Limits {
  double value_below, value_above, slope_below, slope_above;
};
template <class A>
Limits limits() {
  const double infinity = std::numeric_limits<double>::infinity();
  if (std::is_same_v<A, Sigmoid>) return {0, 1, 0, 0};
  if (std::is_same_v<A, kernels::Tanh>) return {-1, 1, 0, 0};
  return {0, infinity, 0, 1};
}
}  // namespace

TEST_CASE_TEMPLATE("activations and derivatives have their limits at infinity, in every dtype", A, Relu, kernels::Tanh,
                   Sigmoid, Silu, GeluErf, GeluTanh) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const Isa isa : test::isas())
    for (const std::size_t n : {2u, 64u}) {  // in an array's last pack and in whole ones
      std::vector<float> x(n, infinity);
      for (std::size_t k = 0; k < n; k += 2) x[k] = -infinity;
      const Results<A> found(x, isa);
      for (std::size_t k = 0; k < n; ++k) {
        CHECK(double(found.value[k]) == (k % 2 ? limits<A>().value_above : limits<A>().value_below));
        CHECK(double(found.derivative[k]) == (k % 2 ? limits<A>().slope_above : limits<A>().slope_below));
      }
    }
  const double wide[] = {-HUGE_VAL, HUGE_VAL}, ones[] = {1, 1};
  double value[2], slope[2];
  Context ctx(Device::cpu(), 1);
  launch_library_elements(ctx, 2, ActivationForward<A, double>{wide, value});
  launch_library_elements(ctx, 2, ActivationBackward<A, double>{wide, ones, slope});
  CHECK(value[0] == limits<A>().value_below);
  CHECK(value[1] == limits<A>().value_above);
  CHECK(slope[0] == limits<A>().slope_below);
  CHECK(slope[1] == limits<A>().slope_above);
}
