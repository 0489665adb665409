// SPDX-License-Identifier: Apache-2.0
// bf16 and f16 against a double-precision oracle that knows nothing but the definition of the formats: decode by ldexp,
// encode by looking for the nearest of all values.
#include <doctest/doctest.h>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "dpmp/core/low_precision.hpp"
#include "support/random.hpp"

using namespace dpmp;

namespace {
/// A binary format of 1 sign bit, `exponent` bits and `mantissa` bits.
struct Format {
  int exponent, mantissa;
  int bias() const { return (1 << (exponent - 1)) - 1; }
  int infinity() const { return ((1 << exponent) - 1) << mantissa; }
  double decode(int bits) const {
    const int magnitude = bits & 0x7fff, e = magnitude >> mantissa, m = magnitude & ((1 << mantissa) - 1);
    double value = 0;
    if (magnitude > infinity())
      value = std::numeric_limits<double>::quiet_NaN();
    else if (magnitude == infinity())
      value = std::numeric_limits<double>::infinity();
    else
      value = e == 0 ? std::ldexp(m, 1 - bias() - mantissa) : std::ldexp(m + (1 << mantissa), e - bias() - mantissa);
    return bits & 0x8000 ? -value : value;
  }
  /// The nearest pattern, of two equally near the even one; from half a step beyond the largest value on, infinity.
  int encode(double x) const {
    const int sign = std::signbit(x) ? 0x8000 : 0;
    const double magnitude = std::fabs(x);
    // Infinity stands where the next value would.
    auto value = [&](int bits) { return bits == infinity() ? std::ldexp(1.0, bias() + 1) : decode(bits); };
    int low = 0, high = infinity();
    if (magnitude >= value(high)) return sign | high;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (value(middle) <= magnitude ? low : high) = middle;
    }
    const double below = magnitude - value(low), above = value(high) - magnitude;
    if (below != above) return sign | (below < above ? low : high);
    return sign | (low % 2 == 0 ? low : high);
  }
};

template <class T>
constexpr Format format_of = std::is_same_v<T, bf16> ? Format{8, 7} : Format{5, 10};

float float_from(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
template <class T>
int stored(float x) {
  return from_float<T>(x).bits;
}
}  // namespace

TEST_CASE_TEMPLATE("low precision: all 65,536 patterns widen exactly and come back", T, bf16, f16) {
  const Format format = format_of<T>;
  int wrong = 0;
  for (int bits = 0; bits < 0x10000; ++bits) {
    const float wide = to_float(T{std::uint16_t(bits)});
    const double expected = format.decode(bits);
    const int back = stored<T>(wide);
    if (std::isnan(expected)) {
      // NaN stays NaN of the same sign; the payload keeps its bits and becomes quiet.
      const int quiet = bits | 1 << (format.mantissa - 1);
      wrong += !std::isnan(wide) || !std::isnan(to_float(T{std::uint16_t(back)})) || back != quiet;
    } else {
      wrong += double(wide) != expected || std::signbit(wide) != std::signbit(expected) || back != bits;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE_TEMPLATE("low precision: ties go to even, and one float beside a tie to the nearer value", T, bf16, f16) {
  const Format format = format_of<T>;
  int wrong = 0;
  for (int sign : {0, 0x8000})
    for (int bits = 0; bits < format.infinity(); ++bits) {
      const double low = format.decode(bits);
      const double high = bits + 1 == format.infinity() ? std::ldexp(1.0, format.bias() + 1) : format.decode(bits + 1);
      const double tie = (low + high) / 2;
      const auto middle = float(sign ? -tie : tie);
      REQUIRE(double(middle) == (sign ? -tie : tie));
      const float far = middle * 2, near = 0;
      wrong += stored<T>(middle) != (sign | (bits % 2 == 0 ? bits : bits + 1));
      wrong += stored<T>(std::nextafter(middle, near)) != (sign | bits);
      wrong += stored<T>(std::nextafter(middle, far)) != (sign | (bits + 1));
    }
  CHECK(wrong == 0);
}

TEST_CASE_TEMPLATE("low precision: random floats round like the oracle", T, bf16, f16) {
  const Format format = format_of<T>;
  test::Rng rng(test::seed());
  for (int k = 0; k < 1'000'000; ++k) {
    // Half of them any pattern, half of them in the range of binary16.
    const std::uint64_t bits = rng.bits();
    const float x =
        k % 2 ? float_from(std::uint32_t(bits)) : std::ldexp(float(rng.uniform(-2, 2)), int(rng.integer(-27, 16)));
    if (std::isnan(x)) {
      CHECK(std::isnan(to_float(from_float<T>(x))));
    } else if (stored<T>(x) != format.encode(x)) {
      CAPTURE(x);
      CHECK(stored<T>(x) == format.encode(x));
    }
  }
}

TEST_CASE_TEMPLATE("low precision: edges of the range", T, bf16, f16) {
  const Format format = format_of<T>;
  constexpr float infinity = std::numeric_limits<float>::infinity();
  CHECK(stored<T>(0.0f) == 0);
  CHECK(stored<T>(-0.0f) == 0x8000);
  CHECK(stored<T>(infinity) == format.infinity());
  CHECK(stored<T>(-infinity) == (0x8000 | format.infinity()));
  CHECK(stored<T>(std::numeric_limits<float>::max()) == format.infinity());
  CHECK(stored<T>(std::numeric_limits<float>::denorm_min()) == 0);
  CHECK(stored<T>(-std::numeric_limits<float>::denorm_min()) == 0x8000);
  // A signalling NaN whose payload lies in the bits cut off must not become infinity.
  CHECK(std::isnan(to_float(from_float<T>(float_from(0x7f800001u)))));
  CHECK(std::isnan(to_float(from_float<T>(float_from(0xff800001u)))));
}

TEST_CASE("low precision: f32 and f64 pass through") {
  CHECK(from_float<float>(0.1f) == 0.1f);
  CHECK(to_float(0.1f) == 0.1f);
  CHECK(from_float<double>(0.1) == 0.1);
  CHECK(to_float(0.1) == 0.1);
}
