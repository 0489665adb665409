// SPDX-License-Identifier: Apache-2.0
// Elements of f32, f16 and bf16 matrices as doubles: read exactly, written with one rounding (nearest even).
#pragma once
#include <library_types.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace emu::blas {

inline std::size_t size_of(cudaDataType_t t) { return t == CUDA_R_32F ? 4 : t == CUDA_R_64F ? 8 : 2; }

inline double half_to_double(std::uint16_t h) {
  const int exponent = h >> 10 & 31, mantissa = h & 1023;
  double v = 0;
  if (exponent == 31) {
    v = mantissa ? NAN : INFINITY;
  } else {
    v = exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
  }
  return h & 0x8000 ? -v : v;
}

inline double load(const std::uint8_t* p, cudaDataType_t t, std::int64_t i) {
  float f = 0;
  if (t == CUDA_R_32F) {
    std::memcpy(&f, p + 4 * i, 4);
    return double(f);
  }
  std::uint16_t h = 0;
  std::memcpy(&h, p + 2 * i, 2);
  if (t == CUDA_R_16F) return half_to_double(h);
  const std::uint32_t bits = std::uint32_t(h) << 16;
  std::memcpy(&f, &bits, 4);
  return double(f);
}

/// 16-bit format with the given mantissa bits and smallest normal exponent; `overflow` is the least magnitude that rounds
/// to infinity.
inline std::uint16_t to_16_bits(double x, int mantissa, int least_exponent, double overflow, std::uint16_t infinity) {
  if (x != x) return 0x7fff;
  const std::uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const double a = std::fabs(x);
  if (a >= overflow) return sign | infinity;
  if (a == 0) return sign;
  int exponent = 0;
  std::frexp(a, &exponent);
  exponent = exponent - 1 < least_exponent ? least_exponent : exponent - 1;
  const double units = std::nearbyint(std::ldexp(a, mantissa - exponent));
  return std::uint16_t(sign | (int(units) + ((exponent - least_exponent) << mantissa)));
}

inline void store(std::uint8_t* p, cudaDataType_t t, std::int64_t i, double v) {
  if (t == CUDA_R_32F) {
    const auto f = float(v);
    std::memcpy(p + 4 * i, &f, 4);
    return;
  }
  const std::uint16_t h = t == CUDA_R_16BF ? to_16_bits(v, 7, -126, std::ldexp(2. - std::ldexp(1., -8), 127), 0x7f80)
                                           : to_16_bits(v, 10, -14, 65520., 0x7c00);
  std::memcpy(p + 2 * i, &h, 2);
}

}  // namespace emu::blas
