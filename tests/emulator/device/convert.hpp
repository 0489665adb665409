// SPDX-License-Identifier: Apache-2.0
// cvt to integers and to tf32 ("Data Movement and Conversion Instructions: cvt").
#pragma once
#include "floats.hpp"

/// A double that is an integer already -> T, clamped to its range.
template <class T>
static inline T clamped_int(double d) {
  const bool is_signed = std::is_signed<T>::value;
  const T highest = is_signed ? (T)(((uint64_t)1 << (sizeof(T) * 8 - 1)) - 1) : (T) ~(T)0;
  const T lowest = is_signed ? (T)((uint64_t)1 << (sizeof(T) * 8 - 1)) : 0;
  const double low = is_signed ? -ldexp(1., sizeof(T) * 8 - 1) : 0.;
  const double high = ldexp(1., sizeof(T) * 8 - (is_signed ? 1 : 0));
  return d <= low ? lowest : d >= high ? highest : (T)d;
}

/// From f16, bf16 or f32: NaN becomes 0, but the middle of the range (only the top bit set) for 64-bit integers.
template <class T>
static inline T float_to_int(double d) {
  if (d != d) return sizeof(T) == 8 ? (T)0x8000000000000000ull : 0;
  return clamped_int<T>(d);
}

/// From f64: NaN has only the top bit set in every type.
template <class T>
static inline T double_to_int(double d) {
  if (d != d) return (T)((uint64_t)1 << (sizeof(T) * 8 - 1));
  return clamped_int<T>(d);
}

/// cvt.sat between integers.
template <class D, class S>
EMU_INLINE D saturate_int(S x) {
  const int bits = sizeof(D) * 8;
  const __int128 highest = std::is_signed<D>::value ? ((__int128)1 << (bits - 1)) - 1 : ((__int128)1 << bits) - 1;
  const __int128 lowest = std::is_signed<D>::value ? -highest - 1 : 0, v = x;
  return (D)(v > highest ? highest : v < lowest ? lowest : v);
}

// f32 -> tf32: 8 exponent and 10 mantissa bits in the upper 19 bits of the word; the rest is zero.
EMU_INLINE bool has_full_exponent(uint32_t u) { return (u & 0x7f800000u) == 0x7f800000u; }
/// Nearest, ties away from zero.
EMU_INLINE uint32_t tf32_rna(float f) {
  const uint32_t u = bits_of(f);
  if (is_notanumber(f)) return 0x7fffffffu;
  return has_full_exponent(u) ? u : (u + 0x1000u) & 0xffffe000u;
}
/// Nearest, ties to even.
EMU_INLINE uint32_t tf32_rn(float f) {
  const uint32_t u = bits_of(f);
  if (is_notanumber(f)) return 0x7fffffffu;
  return has_full_exponent(u) ? u : (u + 0xfffu + (u >> 13 & 1)) & 0xffffe000u;
}
/// Towards zero.
EMU_INLINE uint32_t tf32_rz(float f) { return is_notanumber(f) ? 0x7fffffffu : bits_of(f) & 0xffffe000u; }
