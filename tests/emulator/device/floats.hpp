// SPDX-License-Identifier: Apache-2.0
// f32 and f64: bits, classes, flushing, saturation, minimum and maximum ("Floating-Point Instructions").
// Classes and flushes look at bits, not values: a kernel may run with the CPU's flush mode on (EK_FTZ).
#pragma once
#include "registers.hpp"

EMU_INLINE uint32_t bits_of(float f) { return reg_as<uint32_t>(f); }
EMU_INLINE uint64_t bits_of(double f) { return reg_as<uint64_t>(f); }
EMU_INLINE float float_of(uint32_t u) { return reg_as<float>(u); }
EMU_INLINE double double_of(uint64_t u) { return reg_as<double>(u); }

/// The NaN that PTX operations produce ("0x7fffffff").
EMU_INLINE float canonical_nan(float) { return float_of(0x7fffffffu); }
EMU_INLINE double canonical_nan(double) { return double_of(0x7fffffffffffffffull); }

/// Subnormal -> zero of the same sign.
EMU_INLINE float flush(float x) {
  const uint32_t u = bits_of(x);
  return (u & 0x7f800000u) ? x : float_of(u & 0x80000000u);
}

/// .sat: clamp to [0, 1]; NaN becomes +0.
template <class F>
EMU_INLINE F saturate(F x) {
  return x > 0 ? (x < 1 ? x : 1) : 0;
}

EMU_INLINE float magnitude(float x) { return float_of(bits_of(x) & 0x7fffffffu); }

/// .xorsign: the value with the sign of the product of a and b.
EMU_INLINE float with_xor_sign(float value, float a, float b) {
  return float_of((bits_of(value) & 0x7fffffffu) | ((bits_of(a) ^ bits_of(b)) & 0x80000000u));
}

/// The smaller number; a number wins over NaN, -0 is smaller than +0.
template <class F>
EMU_INLINE F min_num(F a, F b) {
  if (a != a) return b != b ? canonical_nan(a) : b;
  if (b != b) return a;
  if (a == b) return __builtin_signbit(a) ? a : b;
  return a < b ? a : b;
}
template <class F>
EMU_INLINE F max_num(F a, F b) {
  if (a != a) return b != b ? canonical_nan(a) : b;
  if (b != b) return a;
  if (a == b) return __builtin_signbit(a) ? b : a;
  return a > b ? a : b;
}

/// .NaN: NaN wins.
template <class F>
EMU_INLINE F min_nan(F a, F b) {
  return a != a || b != b ? canonical_nan(a) : min_num(a, b);
}
template <class F>
EMU_INLINE F max_nan(F a, F b) {
  return a != a || b != b ? canonical_nan(a) : max_num(a, b);
}

// testp, from exponent and mantissa bits
template <class F>
struct FloatLayout;
template <>
struct FloatLayout<float> {
  typedef uint32_t Bits;
  static constexpr uint32_t exponent = 0x7f800000u, magnitude = 0x7fffffffu;
};
template <>
struct FloatLayout<double> {
  typedef uint64_t Bits;
  static constexpr uint64_t exponent = 0x7ff0000000000000ull, magnitude = 0x7fffffffffffffffull;
};
template <class F>
EMU_INLINE typename FloatLayout<F>::Bits magnitude_bits(F x) {
  return bits_of(x) & FloatLayout<F>::magnitude;
}
template <class F>
EMU_INLINE bool is_finite(F x) {
  return magnitude_bits(x) < FloatLayout<F>::exponent;
}
template <class F>
EMU_INLINE bool is_infinite(F x) {
  return magnitude_bits(x) == FloatLayout<F>::exponent;
}
template <class F>
EMU_INLINE bool is_notanumber(F x) {
  return magnitude_bits(x) > FloatLayout<F>::exponent;
}
template <class F>
EMU_INLINE bool is_number(F x) {
  return !is_notanumber(x);
}
template <class F>
EMU_INLINE bool is_normal(F x) {
  return is_finite(x) && (bits_of(x) & FloatLayout<F>::exponent) != 0;
}
template <class F>
EMU_INLINE bool is_subnormal(F x) {
  return magnitude_bits(x) != 0 && (bits_of(x) & FloatLayout<F>::exponent) == 0;
}
