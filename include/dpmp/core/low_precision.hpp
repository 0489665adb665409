// SPDX-License-Identifier: Apache-2.0
// bf16 and f16 as storage: no arithmetic, only exact widening and round-to-nearest-even narrowing.
// Formats: bfloat16 (1-8-7) and IEEE 754 binary16 (1-5-10). Arithmetic happens in FP32 (compute_t).
#pragma once
#include <bit>
#include <cstring>
#include <type_traits>

#include "dpmp/core/config.hpp"

namespace dpmp::inline DPMP_ABI {
/// bfloat16 bits. Unit roundoff 2^-8.
struct bf16 {
  std::uint16_t bits;
};
/// IEEE binary16 bits. Unit roundoff 2^-11, largest finite value 65504.
struct f16 {
  std::uint16_t bits;
};

/// The type a stored element is computed in: FP32 for everything but double, which stays double (references, gradient
/// checks).
template <class T>
using compute_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

namespace detail {
DPMP_HD std::uint32_t bits_of(float x) {
  std::uint32_t u;
  memcpy(&u, &x, 4);
  return u;
}
DPMP_HD float float_of(std::uint32_t u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}
}  // namespace detail

DPMP_HD float to_float(float x) { return x; }
DPMP_HD double to_float(double x) { return x; }
DPMP_HD float to_float(bf16 x) { return detail::float_of(std::uint32_t(x.bits) << 16); }
DPMP_HD float to_float(f16 x) {
  const std::uint32_t sign = std::uint32_t(x.bits & 0x8000u) << 16, magnitude = x.bits & 0x7fffu;
  // Subnormals: magnitude * 2^-24 is exact in FP32. Others: shift the mantissa, re-bias the exponent by 112 (Inf/NaN by
  // 224).
  const float subnormal = float(magnitude) * 0x1p-24f;
  const std::uint32_t normal = (magnitude << 13) + (magnitude >= 0x7c00u ? 224u << 23 : 112u << 23);
  return detail::float_of(sign | (magnitude < 0x400u ? detail::bits_of(subnormal) : normal));
}

/// Rounds to nearest, ties to even; NaN stays NaN.
template <class T>
DPMP_HD T from_float(compute_t<T> x);
template <>
DPMP_HD float from_float<float>(float x) {
  return x;
}
template <>
DPMP_HD double from_float<double>(double x) {
  return x;
}
template <>
DPMP_HD bf16 from_float<bf16>(float x) {
  const std::uint32_t u = detail::bits_of(x);
  const std::uint32_t nearest = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16, quiet = (u >> 16) | 0x40u;
  return {std::uint16_t((u & 0x7fffffffu) > 0x7f800000u ? quiet : nearest)};
}
template <>
DPMP_HD f16 from_float<f16>(float x) {
  const std::uint32_t u = detail::bits_of(x), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
  // Normal results: re-bias and round at bit 13; a carry runs into the exponent and, past 65520, into Inf as it must.
  const std::uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // Subnormal results: adding 0.5 lines the mantissa up so that the FP32 adder itself rounds to a multiple of 2^-24.
  const std::uint32_t subnormal = detail::bits_of(detail::float_of(magnitude) + 0.5f) - 0x3f000000u;
  std::uint32_t r = magnitude < 0x38800000u ? subnormal : normal;
  if (magnitude >= 0x47800000u) r = 0x7c00u;                                // >= 65536: Inf
  if (magnitude > 0x7f800000u) r = 0x7e00u | ((magnitude >> 13) & 0x3ffu);  // NaN, quiet
  return {std::uint16_t(sign | r)};
}
}  // namespace dpmp::inline DPMP_ABI
