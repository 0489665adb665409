// SPDX-License-Identifier: Apache-2.0
// exp, tanh, erf, sqrt and log of packs: the errors stated in runtime/math.hpp, over the whole range, with every instruction
// set.
#include <doctest/doctest.h>
#include <cmath>
#include <limits>
#include <vector>

#include "support/isa.hpp"
#include "support/random.hpp"

using namespace dpmp;

namespace {
struct Exp {
  template <class P>
  static DPMP_HOST P of(P x) {
    return exp(x);
  }
};
struct Tanh {
  template <class P>
  static DPMP_HOST P of(P x) {
    return tanh(x);
  }
};
struct Erf {
  template <class P>
  static DPMP_HOST P of(P x) {
    return erf(x);
  }
};
struct Sqrt {
  template <class P>
  static DPMP_HOST P of(P x) {
    return sqrt(x);
  }
};
struct Log {
  template <class P>
  static DPMP_HOST P of(P x) {
    return log(x);
  }
};
template <class F, class R>
struct Map {
  using Real = R;
  const R* input;
  R* output;
  template <class Span>
  DPMP_HOST void operator()(const Span& at) const {
    at.store(output, F::of(at.load(input)));
  }
};
template <class F, class R>
std::vector<R> map(const std::vector<R>& x, Isa isa) {
  std::vector<R> y(x.size());
  test::run_elements(index_t(x.size()), Map<F, R>{x.data(), y.data()}, isa);
  return y;
}

constexpr float inf = std::numeric_limits<float>::infinity(), not_a_number = std::numeric_limits<float>::quiet_NaN();

/// Random bit patterns (every exponent, no NaN), uniform values in [-range, range], and what lies at the edges.
std::vector<float> arguments(float range) {
  test::Rng rng;
  std::vector<float> x = {
      0, -0.0f, inf, -inf, 1, -1, 0x1p-126f, -0x1p-126f, 0x1p-149f, 0x1.fffffep127f, -0x1.fffffep127f, range, -range};
  while (x.size() < 200000) {
    const std::uint64_t word = rng.bits();
    const float any = detail::float_of(std::uint32_t(word));
    if (!std::isnan(any)) x.push_back(any);
    x.push_back(float(rng.uniform(-range, range)));
    x.push_back(float(std::ldexp(rng.uniform(-1, 1), int(rng.integer(-30, 7)))));
  }
  return x;
}

/// The largest of error(x, result) over all arguments and instruction sets; a NaN error counts as infinite.
template <class F, class Error>
double worst(const std::vector<float>& x, Error error) {
  double largest = 0;
  for (const Isa isa : test::isas()) {
    const auto y = map<F>(x, isa);
    for (std::size_t k = 0; k < x.size(); ++k) {
      const double e = error(x[k], y[k]);
      if (!(e <= largest)) largest = std::isnan(e) ? double(inf) : e;
    }
  }
  return largest;
}
}  // namespace

TEST_CASE("exp: relative error below 2^-22, denormal results to a unit of the last place, Inf beyond the largest float") {
  const double largest = std::numeric_limits<float>::max();
  const double error = worst<Exp>(arguments(110), [&](float x, float y) {
    const double expected = std::exp(double(x));
    if (expected > largest * (1 + 0x1p-22)) return y == inf ? 0 : 1.0;
    if (y == inf) return expected > largest * (1 - 0x1p-22) ? 0 : 1.0;
    // 2^-149 for results that are denormal or rounded to 0.
    return std::max(0.0, std::fabs(double(y) - expected) - (expected < 0x1p-126 ? 0x1p-149 : 0)) /
           std::max(expected, 0x1p-149);
  });
  CHECK(error < 0x1p-22);
  for (const Isa isa : test::isas()) {
    CHECK(map<Exp>(std::vector<float>{0, -0.0f, -inf, inf}, isa) == std::vector<float>{1, 1, 0, inf});
    CHECK(std::isnan(map<Exp>(std::vector<float>{not_a_number}, isa)[0]));
  }
}

TEST_CASE("tanh: absolute error below 2^-22, relative error below 2^-21 near 0") {
  const auto x = arguments(12);
  CHECK(worst<Tanh>(x, [](float t, float y) { return std::fabs(double(y) - std::tanh(double(t))); }) < 0x1p-22);
  const double relative = worst<Tanh>(x, [](float t, float y) {
    // Below 2^-100 the squares underflow and tanh(x) = x.
    return std::fabs(t) > 1 || t == 0 ? 0 : std::fabs(double(y) / std::tanh(double(t)) - 1);
  });
  CHECK(relative < 0x1p-21);
  CHECK(worst<Tanh>(x, [](float, float y) { return double(std::fabs(y)); }) <= 1);
  for (const Isa isa : test::isas()) {
    CHECK(map<Tanh>(std::vector<float>{0, inf, -inf}, isa) == std::vector<float>{0, 1, -1});
    CHECK(std::isnan(map<Tanh>(std::vector<float>{not_a_number}, isa)[0]));
  }
}

TEST_CASE("erf: absolute error below 2^-22, never beyond 1") {
  const auto x = arguments(5);
  CHECK(worst<Erf>(x, [](float t, float y) { return std::fabs(double(y) - std::erf(double(t))); }) < 0x1p-22);
  CHECK(worst<Erf>(x, [](float, float y) { return double(std::fabs(y)); }) <= 1);
  for (const Isa isa : test::isas()) {
    CHECK(map<Erf>(std::vector<float>{0, inf, -inf}, isa) == std::vector<float>{0, 1, -1});
    CHECK(std::isnan(map<Erf>(std::vector<float>{not_a_number}, isa)[0]));
  }
}

TEST_CASE("sqrt: relative error below 2^-21 for normal numbers, exactly 0 for 0") {
  const double error = worst<Sqrt>(arguments(100), [](float x, float y) {
    if (x == 0) return y == 0 ? 0 : 1.0;
    return x < 0x1p-126f || x == inf ? 0 : std::fabs(double(y) / std::sqrt(double(x)) - 1);
  });
  CHECK(error < 0x1p-21);
}

TEST_CASE("log: below one unit in the last place for every positive number; -Inf for 0, NaN below") {
  const double error = worst<Log>(arguments(100), [](float x, float y) {
    if (x < 0) return std::isnan(y) ? 0 : double(inf);
    if (x == 0 || x == inf) return y == (x == 0 ? -inf : inf) ? 0 : double(inf);
    const double expected = std::log(double(x));
    return expected == 0 ? std::fabs(double(y)) : std::fabs(double(y) / expected - 1);
  });
  CHECK(error < 0x1p-23);
  for (const Isa isa : test::isas()) CHECK(std::isnan(map<Log>(std::vector<float>{not_a_number}, isa)[0]));
}

TEST_CASE("in double the functions are the C library's") {
  test::Rng rng;
  std::vector<double> x(1001);
  for (double& v : x) v = rng.normal(3);
  const auto same = [&](const std::vector<double>& y, double (*f)(double)) {
    for (std::size_t k = 0; k < x.size(); ++k) {
      const double expected = f(x[k]);
      if (y[k] != expected && !(std::isnan(y[k]) && std::isnan(expected))) return false;
    }
    return true;
  };
  CHECK(same(map<Exp>(x, Isa::baseline), std::exp));
  CHECK(same(map<Tanh>(x, Isa::baseline), std::tanh));
  CHECK(same(map<Erf>(x, Isa::baseline), std::erf));
  CHECK(same(map<Sqrt>(x, Isa::baseline), std::sqrt));
  CHECK(same(map<Log>(x, Isa::baseline), std::log));
}
