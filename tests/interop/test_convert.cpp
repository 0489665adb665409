// SPDX-License-Identifier: Apache-2.0
// Stored elements become the dtypes that dpmp computes with, exactly or rounded once.
#include <doctest/doctest.h>
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "dpmp/interop/convert.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;
using interop::convert;
using interop::converts;
using interop::StoredType;

namespace {
// 64 bits of significand: exact for every stored number.
using Exact = long double;
static_assert(std::numeric_limits<Exact>::digits >= 64);

template <class To>
To value_of_bits(std::uint64_t bits) {
  To value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
template <class To>
std::uint64_t bits_of_value(To value) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

/// The nearest value of To, ties to the even one: non-negative finite values are in the order of their bits, so it is
/// between two neighbours found by bisection. Infinity, where x is half a last place beyond the largest finite one or more.
template <class To>
To nearest(Exact x) {
  constexpr int width = int(8 * sizeof(To)), exponent = sizeof(To) == 4            ? 8
                                                        : std::is_same_v<To, bf16> ? 8
                                                        : std::is_same_v<To, f16>  ? 5
                                                                                   : 11;
  const std::uint64_t infinity = ((std::uint64_t(1) << exponent) - 1) << (width - 1 - exponent);
  const auto exact = [&](std::uint64_t bits) -> Exact {
    // The number after the largest finite one, were the format to go on.
    if (bits == infinity)
      return 2 * Exact(to_float(value_of_bits<To>(infinity - (std::uint64_t(1) << (width - 1 - exponent)))));
    return to_float(value_of_bits<To>(bits));
  };
  const Exact magnitude = std::fabs(x);
  std::uint64_t low = 0, high = infinity;
  if (magnitude >= exact(infinity)) low = high;
  while (high - low > 1) {
    const std::uint64_t middle = (low + high) / 2;
    (exact(middle) <= magnitude ? low : high) = middle;
  }
  if (low != high && exact(low) != magnitude) {
    const Exact below = magnitude - exact(low), above = exact(high) - magnitude;
    low = below < above || (below == above && low % 2 == 0) ? low : high;
  }
  return value_of_bits<To>(low | std::uint64_t(std::signbit(x)) << (width - 1));
}

/// Converts `values`, stored as `type`, and compares with the oracle above. Values that only infinity is near are refused.
template <class To, class From>
int wrong(const char* type, DType dtype, const std::vector<From>& values) {
  int bad = 0;
  for (const From& value : values) {
    const To expected = nearest<To>(Exact(to_float(value)));
    To got{};
    const index_t done = convert(StoredType(type), &value, dtype, &got, 1);
    if (std::isinf(to_float(expected)) && std::isfinite(double(to_float(value))))
      bad += done != 0;
    else
      bad += done != 1 || bits_of_value(got) != bits_of_value(expected);
  }
  return bad;
}
template <class From>
int wrong_integers(const char* type, const std::vector<From>& values) {
  int bad = 0;
  const auto check = [&](DType dtype, auto tag) {
    using To = typename decltype(tag)::type;
    for (const From& value : values) {
      const To expected = nearest<To>(Exact(value));
      To got{};
      const index_t done = convert(StoredType(type), &value, dtype, &got, 1);
      bad += std::isinf(to_float(expected)) ? done != 0 : done != 1 || bits_of_value(got) != bits_of_value(expected);
    }
  };
  check(DType::f64, TypeTag<double>{});
  check(DType::f32, TypeTag<float>{});
  check(DType::bf16, TypeTag<bf16>{});
  check(DType::f16, TypeTag<f16>{});
  return bad;
}

/// Random doubles of all sizes that 16-bit formats tell apart, many of them at and next to the middle between two values.
std::vector<double> hard_doubles(test::Rng& rng, int bits) {
  std::vector<double> values{0.,
                             -0.,
                             1.,
                             0x1p-24,
                             0x1p-25,
                             0x1.8p-25,
                             0x1p-133,
                             0x1p-134,
                             0x1p-149,
                             0x1p-150,
                             65504,
                             65519.99,
                             65520,
                             -65520,
                             0x1.fefffffp127,
                             0x1.ffp127,
                             0x1p200,
                             -1e308,
                             5e-324,
                             0x1.fffffefffffffp127,
                             0x1.ffffffp127};
  for (int k = 0; k < 4000; ++k) {
    const int exponent = int(rng.integer(-152, 130));
    const double last = std::ldexp(1., exponent - bits);
    const double middle =
        std::ldexp(double(rng.integer(std::int64_t(1) << bits, (std::int64_t(2) << bits) - 1)), exponent - bits) + last / 2;
    const double off = std::ldexp(last, -int(rng.integer(2, 40)));
    const double value = rng.integer(0, 2) == 0 ? middle : rng.integer(0, 1) ? middle + off : middle - off;
    values.push_back(rng.integer(0, 1) ? value : -value);
    values.push_back(value * rng.uniform());
  }
  return values;
}
}  // namespace

TEST_CASE("convert: doubles are rounded once, to nearest even, never by way of FP32") {
  test::Rng rng;
  // To FP32 first: 1 + 2^-8, a tie, down to 1.
  CHECK(wrong<bf16>("F64", DType::bf16, std::vector<double>{1 + 0x1p-8 + 0x1p-30}) == 0);
  bf16 up{};
  const double one = 1 + 0x1p-8 + 0x1p-30;
  CHECK(convert(StoredType("F64"), &one, DType::bf16, &up, 1) == 1);
  CHECK(to_float(up) == 1 + 0x1p-7f);
  CHECK(wrong<bf16>("F64", DType::bf16, hard_doubles(rng, 7)) == 0);
  CHECK(wrong<f16>("F64", DType::f16, hard_doubles(rng, 10)) == 0);
  CHECK(wrong<float>("F64", DType::f32, hard_doubles(rng, 23)) == 0);
}

TEST_CASE("convert: floats and 16-bit floats, every bit pattern of the latter") {
  test::Rng rng;
  std::vector<float> floats;
  for (int bits : {7, 10})
    for (const double x : hard_doubles(rng, bits)) floats.push_back(float(x));
  CHECK(wrong<bf16>("F32", DType::bf16, floats) == 0);
  CHECK(wrong<f16>("F32", DType::f16, floats) == 0);
  CHECK(wrong<double>("F32", DType::f64, floats) == 0);
  std::vector<bf16> brains;
  std::vector<f16> halves;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    brains.push_back({std::uint16_t(bits)});
    halves.push_back({std::uint16_t(bits)});
  }
  const auto is_nan = [](auto x) { return std::isnan(to_float(x)); };
  std::erase_if(brains, is_nan);
  std::erase_if(halves, is_nan);
  CHECK(wrong<f16>("BF16", DType::f16, brains) == 0);
  CHECK(wrong<float>("BF16", DType::f32, brains) == 0);
  CHECK(wrong<double>("BF16", DType::f64, brains) == 0);
  CHECK(wrong<bf16>("F16", DType::bf16, halves) == 0);
  CHECK(wrong<float>("F16", DType::f32, halves) == 0);
  CHECK(wrong<double>("F16", DType::f64, halves) == 0);
}

TEST_CASE("convert: 8-bit floats have the values of their definition, in every dtype") {
  // Micikevicius et al. (arXiv 2209.05433), table 1.
  for (int bits = 0; bits < 256; ++bits) {
    CAPTURE(bits);
    const std::uint8_t byte = std::uint8_t(bits);
    const double sign = bits & 0x80 ? -1 : 1, nan = std::nan("");
    const int e4 = bits >> 3 & 15, m3 = bits & 7, e5 = bits >> 2 & 31, m2 = bits & 3;
    const double e4m3 = e4 == 15 && m3 == 7 ? nan
                        : e4 == 0           ? sign * m3 / 8 * std::pow(2., -6)
                                            : sign * (1 + m3 / 8.) * std::pow(2., e4 - 7);
    const double e5m2 = e5 == 31  ? (m2 == 0 ? sign * HUGE_VAL : nan)
                        : e5 == 0 ? sign * m2 / 4 * std::pow(2., -14)
                                  : sign * (1 + m2 / 4.) * std::pow(2., e5 - 15);
    for (const auto& [name, expected] : {std::pair("F8_E4M3", e4m3), std::pair("F8_E5M2", e5m2)}) {
      double f64 = 1;
      float f32 = 1;
      bf16 brain{};
      f16 half{};
      REQUIRE(convert(StoredType(name), &byte, DType::f64, &f64, 1) == 1);
      REQUIRE(convert(StoredType(name), &byte, DType::f32, &f32, 1) == 1);
      REQUIRE(convert(StoredType(name), &byte, DType::bf16, &brain, 1) == 1);
      REQUIRE(convert(StoredType(name), &byte, DType::f16, &half, 1) == 1);
      for (const double got : {f64, double(f32), double(to_float(brain)), double(to_float(half))}) {
        CHECK((std::isnan(expected) ? std::isnan(got) : got == expected));
        if (!std::isnan(expected)) CHECK(std::signbit(got) == std::signbit(expected));
      }
    }
  }
}

TEST_CASE("convert: integers of every size, exactly or rounded once") {
  test::Rng rng;
  std::vector<std::int64_t> i64{0, 1, -1, INT64_MIN, INT64_MAX, (1ll << 53) + 1, -(1ll << 53) - 1, 65519, 65520, -65520};
  std::vector<std::uint64_t> u64{0, UINT64_MAX, 1ull << 63, (1ull << 63) + 1, UINT64_MAX - 1024, UINT64_MAX - 1023};
  for (int k = 0; k < 4000; ++k) {
    const int width = int(rng.integer(1, 63));
    i64.push_back(std::int64_t(rng.bits() >> (64 - width)) * (rng.integer(0, 1) ? 1 : -1));
    u64.push_back(rng.bits() >> rng.integer(0, 63));
    // The middle between two values of 8, 11, 24 or 53 bits, and one more or less.
    const int kept = std::array{8, 11, 24, 53}[std::size_t(rng.integer(0, 3))];
    const int shift = int(rng.integer(1, 63 - kept));
    const std::uint64_t middle = (rng.bits() >> (64 - kept) | 1ull << (kept - 1)) << shift | 1ull << (shift - 1);
    for (const std::int64_t off : {-1, 0, 1}) {
      i64.push_back(std::int64_t(middle) + off);
      u64.push_back(middle + std::uint64_t(off));
    }
  }
  CHECK(wrong_integers("I64", i64) == 0);
  CHECK(wrong_integers("U64", u64) == 0);
  std::vector<std::int32_t> i32{INT32_MIN, INT32_MAX};
  std::vector<std::uint32_t> u32{UINT32_MAX};
  for (const std::int64_t x : i64) i32.push_back(std::int32_t(x)), u32.push_back(std::uint32_t(x));
  CHECK(wrong_integers("I32", i32) == 0);
  CHECK(wrong_integers("U32", u32) == 0);
  std::vector<std::int16_t> i16;
  std::vector<std::uint16_t> u16;
  std::vector<std::int8_t> i8;
  std::vector<std::uint8_t> u8;
  for (int k = 0; k < 65536; ++k) i16.push_back(std::int16_t(k)), u16.push_back(std::uint16_t(k));
  for (int k = 0; k < 256; ++k) i8.push_back(std::int8_t(k)), u8.push_back(std::uint8_t(k));
  CHECK(wrong_integers("I16", i16) == 0);
  CHECK(wrong_integers("U16", u16) == 0);
  CHECK(wrong_integers("I8", i8) == 0);
  CHECK(wrong_integers("U8", u8) == 0);
}

TEST_CASE("convert: i32 takes whole numbers that it has, and booleans are 0 or 1") {
  const auto as_i32 = [](const char* type, auto value) -> std::int64_t {
    std::int32_t got = -7;
    return convert(StoredType(type), &value, DType::i32, &got, 1) == 1 ? got : std::int64_t(1) << 40;
  };
  constexpr std::int64_t refused = std::int64_t(1) << 40;
  CHECK(as_i32("I64", std::int64_t(INT32_MIN)) == INT32_MIN);
  CHECK(as_i32("I64", std::int64_t(INT32_MIN) - 1) == refused);
  CHECK(as_i32("I64", std::int64_t(INT32_MAX)) == INT32_MAX);
  CHECK(as_i32("I64", std::int64_t(INT32_MAX) + 1) == refused);
  CHECK(as_i32("U64", UINT64_MAX) == refused);
  CHECK(as_i32("U32", std::uint32_t(1) << 31) == refused);
  CHECK(as_i32("U32", std::uint32_t(7)) == 7);
  CHECK(as_i32("I16", std::int16_t(-3)) == -3);
  CHECK(as_i32("U8", std::uint8_t(255)) == 255);
  CHECK(as_i32("BOOL", std::uint8_t(1)) == 1);
  CHECK(as_i32("BOOL", std::uint8_t(2)) == refused);
  const std::uint8_t booleans[] = {0, 1, 1, 255};
  float got[4] = {};
  CHECK(convert(StoredType("BOOL"), booleans, DType::f32, got, 3) == 3);
  CHECK(std::vector<float>(got, got + 3) == std::vector<float>{0, 1, 1});
  CHECK(convert(StoredType("BOOL"), booleans, DType::f32, got, 4) == 3);  // the index of the first bad one
}

TEST_CASE("convert: NaN and infinities stay, and what is not converted keeps every bit") {
  for (const char* type : {"F64", "F32", "BF16", "F16"})
    for (const DType to : {DType::f64, DType::f32, DType::bf16, DType::f16})
      for (const double x : {HUGE_VAL, -HUGE_VAL, std::nan("")}) {
        CAPTURE(type);
        CAPTURE(to);
        double stored = 0, back = 0;
        std::uint64_t got = 0;
        const DType from = *StoredType(type).native();
        REQUIRE(convert(StoredType("F64"), &x, from, &stored, 1) == 1);
        REQUIRE(convert(StoredType(type), &stored, to, &got, 1) == 1);
        REQUIRE(convert(StoredType(to), &got, DType::f64, &back, 1) == 1);
        CHECK((std::isnan(x) ? std::isnan(back) : back == x));
      }
  const std::uint32_t signalling = 0x7f800001;
  std::uint32_t same = 0;
  CHECK(convert(StoredType("F32"), &signalling, DType::f32, &same, 1) == 1);
  CHECK(same == signalling);
}

TEST_CASE("convert: what is no number, and floats for i32, are refused") {
  for (const char* type :
       {"F64", "F32", "BF16", "F16", "F8_E4M3", "F8_E5M2", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}) {
    const bool whole = std::string(type).find_first_of("IUO") != std::string::npos;
    for (const DType to : {DType::f64, DType::f32, DType::bf16, DType::f16, DType::i32})
      CHECK(converts(StoredType(type), to) == (whole || to != DType::i32));
  }
  for (const char* type : {"C64", "F4", "F6_E2M3", "F8_E8M0", "F8_E4M3FNUZ", "", "f32", "F32 ", "Q4"}) {
    CHECK_FALSE(converts(StoredType(type), DType::f32));
    char buffer[8] = {};
    CHECK(test::refuses([&] { convert(StoredType(type), buffer, DType::f32, buffer, 0); },
                        "elements that can be read as f32"));
  }
  const float one = 1;
  std::int32_t got = 0;
  CHECK(test::refuses([&] { convert(StoredType("F32"), &one, DType::i32, &got, 1); }, "can be read as i32, got f32"));
}
