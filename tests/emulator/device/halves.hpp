// SPDX-License-Identifier: Apache-2.0
// f16 and bf16 as bit patterns in uint16_t: conversions with one rounding, and arithmetic that is computed in double and
// rounded once ("Half Precision Floating-Point Instructions").
#pragma once
#include "rounding.hpp"

EMU_INLINE float half_to_float(uint16_t h) { return _cvtsh_ss(h); }
EMU_INLINE float bf16_to_float(uint16_t h) { return float_of((uint32_t)h << 16); }

/// f32 -> bf16. On bits, so that subnormals survive the CPU's flush mode.
template <int R>
static inline uint16_t float_to_bf16(float f) {
  const uint32_t u = bits_of(f);
  if (f != f) return 0x7fff;
  if (R == RN) return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
  const bool inexact = u & 0xffff, negative = u >> 31;
  uint32_t h = u >> 16;
  if (inexact && ((R == RP && !negative) || (R == RM && negative))) h++;  // a carry into the exponent is right, up to Inf
  return (uint16_t)h;
}

/// double -> small float of E exponent and M mantissa bits with one rounding; NaN becomes 0x7fff.
template <int E, int M, int R>
static inline uint16_t double_to_small(double x) {
  const uint64_t u = bits_of(x);
  const uint16_t sign = (uint16_t)((u >> 63) << (E + M));
  const int bias = (1 << (E - 1)) - 1;
  const uint16_t infinity = ((1 << E) - 1) << M;
  if (x != x) return 0x7fff;
  if (is_infinite(x)) return sign | infinity;
  if ((u << 1) == 0) return sign;
  const int exponent = (int)(u >> 52 & 2047) - 1023;
  const uint64_t mantissa = (u & ((1ull << 52) - 1)) | 1ull << 52;  // a subnormal double is below all rounding points
  const bool subnormal = exponent < 1 - bias;
  const int dropped = 52 - M + (subnormal ? 1 - bias - exponent : 0);
  uint64_t kept, rest, half;
  if (dropped > 60) {
    kept = 0, rest = 1, half = 2;  // anything below half of the smallest value
  } else {
    kept = mantissa >> dropped;
    rest = mantissa & ((1ull << dropped) - 1);
    half = 1ull << (dropped - 1);
  }
  const bool negative = sign != 0;
  const bool outward = (R == RP && !negative) || (R == RM && negative);
  kept += R == RN ? (rest > half || (rest == half && (kept & 1))) : (rest && outward);
  const uint64_t result = subnormal ? kept : kept + ((uint64_t)(exponent + bias - 1) << M);
  if (result >= infinity) return sign | (R == RN || outward ? infinity : infinity - 1);
  return sign | (uint16_t)result;
}
template <int R>
EMU_INLINE uint16_t double_to_half(double x) {
  return double_to_small<5, 10, R>(x);
}
template <int R>
EMU_INLINE uint16_t double_to_bf16(double x) {
  return double_to_small<8, 7, R>(x);
}
template <int R>
EMU_INLINE uint16_t float_to_half(float x) {
  return R == RN ? (x != x ? 0x7fff : _cvtss_sh(x, 0)) : double_to_half<R>(x);
}

/// 64-bit integer -> bf16 with one rounding: the sum of its exact parts, rounded to odd, keeps what double would lose.
template <int R, class T>
static inline uint16_t int_to_bf16(T value) {
  const uint64_t low = (uint64_t)value & 0xfff;  // the other 52 bits fit a double
  return double_to_bf16<R>(add_odd((double)(T)(value - (T)low), (double)low));
}

/// Formats as class arguments of the operations below.
/// The formats: conversions, half a unit in the last place of 1, and error bounds of ex2 (relative) and tanh (absolute).
struct Half {
  static constexpr double rounding = 0x1p-11, exp2_error = 1.0466e-3 /* 2^-9.9 */, tanh_error = 4.926e-4 /* 2^-10.987 */;
  static double up(uint16_t v) { return half_to_float(v); }
  static uint16_t down(double d) { return double_to_half<RN>(d); }
};
struct Bfloat16 {
  static constexpr double rounding = 0x1p-8, exp2_error = 0x1p-7, tanh_error = 0x1p-8;
  static double up(uint16_t v) { return bf16_to_float(v); }
  static uint16_t down(double d) { return double_to_bf16<RN>(d); }
};

template <class Q>
static inline uint16_t half_add(uint16_t a, uint16_t b) {
  return Q::down(add_odd(Q::up(a), Q::up(b)));
}
template <class Q>
static inline uint16_t half_sub(uint16_t a, uint16_t b) {
  return Q::down(add_odd(Q::up(a), -Q::up(b)));
}
template <class Q>
static inline uint16_t half_mul(uint16_t a, uint16_t b) {
  return Q::down(Q::up(a) * Q::up(b));  // exact in double
}
template <class Q>
static inline uint16_t half_fma(uint16_t a, uint16_t b, uint16_t c) {
  return Q::down(add_odd(Q::up(a) * Q::up(b), Q::up(c)));
}
template <class Q>
static inline uint16_t half_min(uint16_t a, uint16_t b) {
  const double x = Q::up(a), y = Q::up(b);
  if (x != x) return y != y ? 0x7fff : b;
  if (y != y) return a;
  if (x == y) return a >> 15 ? a : b;
  return x < y ? a : b;
}
template <class Q>
static inline uint16_t half_max(uint16_t a, uint16_t b) {
  const double x = Q::up(a), y = Q::up(b);
  if (x != x) return y != y ? 0x7fff : b;
  if (y != y) return a;
  if (x == y) return a >> 15 ? b : a;
  return x > y ? a : b;
}
template <class Q>
static inline uint16_t half_min_nan(uint16_t a, uint16_t b) {
  const double x = Q::up(a), y = Q::up(b);
  return x != x || y != y ? 0x7fff : half_min<Q>(a, b);
}
template <class Q>
static inline uint16_t half_max_nan(uint16_t a, uint16_t b) {
  const double x = Q::up(a), y = Q::up(b);
  return x != x || y != y ? 0x7fff : half_max<Q>(a, b);
}
/// .sat: clamp to [0, 1], NaN becomes +0.
template <class Q>
EMU_INLINE uint16_t half_saturate(uint16_t a) {
  return Q::down(saturate(Q::up(a)));
}
/// .relu: negative becomes +0, NaN the canonical NaN.
template <class Q>
EMU_INLINE uint16_t half_relu(uint16_t a) {
  const double x = Q::up(a);
  return x != x ? 0x7fff : x > 0 ? a : 0;
}
/// .ftz: subnormal becomes zero of the same sign.
template <class Q>
EMU_INLINE uint16_t half_flush(uint16_t a) {
  return (a & (std::is_same<Q, Half>::value ? 0x7c00 : 0x7f80)) ? a : a & 0x8000;
}

/// The operation on both halves of packed pairs.
template <class F>
EMU_INLINE uint32_t both_halves(F f, uint32_t a) {
  return f((uint16_t)a) | (uint32_t)f((uint16_t)(a >> 16)) << 16;
}
template <class F>
EMU_INLINE uint32_t both_halves(F f, uint32_t a, uint32_t b) {
  return f((uint16_t)a, (uint16_t)b) | (uint32_t)f((uint16_t)(a >> 16), (uint16_t)(b >> 16)) << 16;
}
template <class F>
EMU_INLINE uint32_t both_halves(F f, uint32_t a, uint32_t b, uint32_t c) {
  return f((uint16_t)a, (uint16_t)b, (uint16_t)c) |
         (uint32_t)f((uint16_t)(a >> 16), (uint16_t)(b >> 16), (uint16_t)(c >> 16)) << 16;
}
