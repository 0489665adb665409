// SPDX-License-Identifier: Apache-2.0
// Stored elements as the dtypes that dpmp computes with: exactly, or rounded once, to nearest, ties to even. A value goes to
// a 16-bit dtype without being rounded to FP32 first: rounding twice is not rounding to nearest, for instance of
// 1 + 2^-8 + 2^-30 to bf16 (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using
// rounding to odd", IEEE Transactions on Computers 57(4), 2008).
//
//   F64, F32, F16, BF16, F8_E4M3, F8_E5M2 --> f64, f32, bf16, f16
//   I8, I16, I32, I64, U8, U16, U32, U64, BOOL --> the same, and i32
//
// NaN stays NaN (which one is not kept, unless nothing is converted), infinities and signed zeros stay. A value has no
// counterpart where it is finite and would become infinite, where i32 does not have it, and where a BOOL is no 0 or 1.
#pragma once
#include <cmath>
#include <cstring>
#include <limits>

#include "dpmp/interop/stored_type.hpp"

namespace dpmp::inline DPMP_ABI::interop {
/// Whether stored elements of that type can be read as `dtype`.
bool converts(const StoredType& stored, DType dtype);

/// Writes elements `from` [n] as `to` [n] of dtype; both may be unaligned. Returns the index of the first value without a
/// counterpart (`to` then means nothing), or n. Throws unless converts(stored, dtype).
index_t convert(const StoredType& stored, const void* from, DType dtype, void* to, index_t n);
}  // namespace dpmp::inline DPMP_ABI::interop

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::interop {
namespace detail {
/// Sign, four bits of exponent with bias 7, three of mantissa; no infinities, one NaN of each sign (Micikevicius et al.,
/// "FP8 formats for deep learning", arXiv 2209.05433).
struct F8E4M3 {
  std::uint8_t bits;
};
/// The first byte of an f16, from the same paper.
struct F8E5M2 {
  std::uint8_t bits;
};
struct StoredBool {
  std::uint8_t bits;
};

template <class T>
T number(T x) {
  return x;
}
inline float number(bf16 x) { return to_float(x); }
inline float number(f16 x) { return to_float(x); }
inline float number(F8E5M2 x) { return to_float(f16{std::uint16_t(x.bits << 8)}); }
inline float number(F8E4M3 x) {
  const int exponent = x.bits >> 3 & 15, mantissa = x.bits & 7;
  const float magnitude = (x.bits & 0x7f) == 0x7f ? std::numeric_limits<float>::quiet_NaN()
                          : exponent == 0         ? std::ldexp(float(mantissa), -9)
                                                  : std::ldexp(float(8 + mantissa), exponent - 10);
  return x.bits & 0x80 ? -magnitude : magnitude;
}
inline std::uint8_t number(StoredBool x) { return x.bits; }

// Rounding to odd: of the two neighbours of a number that is not representable the one whose last bit is 1. Rounding the
// result to nearest in a format with two bits fewer gives what rounding the number itself gives.
inline double to_odd(std::uint64_t x) {
  int shift = 0;
  for (std::uint64_t rest = x; rest >> 53; rest >>= 1) ++shift;
  const std::uint64_t kept = x >> shift, lost = x - (kept << shift);
  return std::ldexp(double(kept | std::uint64_t(lost != 0)), shift);
}
inline double to_odd(std::int64_t x) { return x < 0 ? -to_odd(0 - std::uint64_t(x)) : to_odd(std::uint64_t(x)); }
inline float to_odd(double x) {
  float nearest = float(x);
  if (double(nearest) == x || std::isnan(x)) return nearest;
  if (std::abs(double(nearest)) > std::abs(x)) nearest = std::nextafter(nearest, 0.f);
  return dpmp::detail::float_of(dpmp::detail::bits_of(nearest) | 1u);
}

template <class To, class From>
To rounded(From x) {
  if constexpr (std::is_same_v<To, float> || std::is_same_v<To, double>) {
    return To(x);  // one instruction rounds once
  } else if constexpr (std::is_same_v<From, float>) {
    return from_float<To>(x);
  } else if constexpr (std::is_integral_v<From> && sizeof(From) == 8) {
    return from_float<To>(to_odd(to_odd(x)));
  } else {
    return from_float<To>(to_odd(double(x)));
  }
}

template <class From, class To>
index_t convert_elements(const void* from, void* to, index_t n) {
  for (index_t k = 0; k < n; ++k) {
    From stored;
    std::memcpy(&stored, static_cast<const char*>(from) + std::size_t(k) * sizeof stored, sizeof stored);
    const auto x = number(stored);
    if constexpr (std::is_same_v<From, StoredBool>)
      if (x > 1) return k;
    To result;
    if constexpr (std::is_same_v<To, std::int32_t>) {
      if (!std::in_range<std::int32_t>(x)) return k;
      result = To(x);
    } else {
      result = rounded<To>(x);
      if (std::isinf(to_float(result)) && !std::isinf(double(x))) return k;
    }
    std::memcpy(static_cast<char*>(to) + std::size_t(k) * sizeof result, &result, sizeof result);
  }
  return n;
}

/// Calls f(TypeTag<T>{}) with the type of stored elements that are numbers; false where they are none of those above.
template <class F>
bool dispatch_numbers(const StoredType& stored, F&& f) {
  const auto is = [&](const char* name) { return stored.name() == name; };
  if (is("F64")) return f(TypeTag<double>{});
  if (is("F32")) return f(TypeTag<float>{});
  if (is("BF16")) return f(TypeTag<bf16>{});
  if (is("F16")) return f(TypeTag<f16>{});
  if (is("F8_E4M3")) return f(TypeTag<F8E4M3>{});
  if (is("F8_E5M2")) return f(TypeTag<F8E5M2>{});
  if (is("I64")) return f(TypeTag<std::int64_t>{});
  if (is("I32")) return f(TypeTag<std::int32_t>{});
  if (is("I16")) return f(TypeTag<std::int16_t>{});
  if (is("I8")) return f(TypeTag<std::int8_t>{});
  if (is("U64")) return f(TypeTag<std::uint64_t>{});
  if (is("U32")) return f(TypeTag<std::uint32_t>{});
  if (is("U16")) return f(TypeTag<std::uint16_t>{});
  if (is("U8")) return f(TypeTag<std::uint8_t>{});
  if (is("BOOL")) return f(TypeTag<StoredBool>{});
  return false;
}
template <class T>
inline constexpr bool is_whole = std::is_integral_v<T> || std::is_same_v<T, StoredBool>;
}  // namespace detail

DPMP_KEPT_BODY inline bool converts(const StoredType& stored, DType dtype) {
  return detail::dispatch_numbers(
      stored, [&](auto tag) { return is_real(dtype) || detail::is_whole<typename decltype(tag)::type>; });
}

DPMP_KEPT_BODY inline index_t convert(const StoredType& stored, const void* from, DType dtype, void* to, index_t n) {
  DPMP_CHECK(converts(stored, dtype), "expected elements that can be read as ", dtype, ", got ", stored);
  if (stored == StoredType(dtype)) {
    if (n > 0) std::memcpy(to, from, std::size_t(n * size_of(dtype)));
    return n;
  }
  index_t done = 0;
  detail::dispatch_numbers(stored, [&](auto tag) {
    using From = typename decltype(tag)::type;
    switch (dtype) {
      case DType::f64: done = detail::convert_elements<From, double>(from, to, n); break;
      case DType::f32: done = detail::convert_elements<From, float>(from, to, n); break;
      case DType::bf16: done = detail::convert_elements<From, bf16>(from, to, n); break;
      case DType::f16: done = detail::convert_elements<From, f16>(from, to, n); break;
      case DType::i32:
        if constexpr (detail::is_whole<From>) done = detail::convert_elements<From, std::int32_t>(from, to, n);
    }
    return true;
  });
  return done;
}
}  // namespace dpmp::inline DPMP_ABI::interop
#endif
