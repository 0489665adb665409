// SPDX-License-Identifier: Apache-2.0
// Integer arithmetic where C++ and PTX differ ("Integer Arithmetic Instructions", "SIMD Video Instructions").
#pragma once
#include "registers.hpp"

/// x / 0 is all ones, the most negative value / -1 wraps.
template <class T>
EMU_INLINE T div_int(T a, T b) {
  if (b == 0) return (T) ~(T)0;
  if (std::is_signed<T>::value && b == (T)-1) return (T)(0 - (std::make_unsigned_t<T>)a);
  return a / b;
}

/// x % 0 is x.
template <class T>
EMU_INLINE T rem_int(T a, T b) {
  if (b == 0) return a;
  if (std::is_signed<T>::value && b == (T)-1) return 0;
  return a % b;
}

/// a + b or a - b, clamped to the range of the signed type T.
template <class T>
EMU_INLINE T add_saturated(T a, T b, int subtract) {
  const __int128 exact = subtract ? (__int128)a - b : (__int128)a + b;
  const __int128 highest = ((__int128)1 << (sizeof(T) * 8 - 1)) - 1, lowest = -highest - 1;
  return (T)(exact > highest ? highest : exact < lowest ? lowest : exact);
}

/// dp4a: c + sum of the products of four bytes, signed or not.
template <class A, class B>
EMU_INLINE uint32_t dot4(uint32_t a, uint32_t b, uint32_t c) {
  for (int i = 0; i < 4; i++) c += (uint32_t)((int32_t)(A)(a >> 8 * i) * (int32_t)(B)(b >> 8 * i));
  return c;
}

/// dp2a: c + sum of the products of two halfwords of a and two bytes of b.
template <class A, class B>
EMU_INLINE uint32_t dot2(uint32_t a, uint32_t b, uint32_t c, int high) {
  for (int i = 0; i < 2; i++) c += (uint32_t)((int32_t)(A)(a >> 16 * i) * (int32_t)(B)(b >> (8 * i + 16 * high)));
  return c;
}

/// Video SIMD on N unsigned parts: |x-y|, x+y, x-y, rounded average, min, max; added up into c where `accumulate`.
template <int N, int OPERATION>
EMU_INLINE uint32_t video_simd(uint32_t a, uint32_t b, uint32_t c, bool accumulate) {
  const int width = 32 / N;
  const uint32_t mask = (1u << width) - 1;
  uint32_t result = 0;
  for (int i = 0; i < N; i++) {
    const uint32_t x = a >> width * i & mask, y = b >> width * i & mask;
    uint32_t v = 0;
    switch (OPERATION) {
      case 0: v = x > y ? x - y : y - x; break;
      case 1: v = x + y; break;
      case 2: v = x - y; break;
      case 3: v = (x + y + 1) >> 1; break;
      case 4: v = x < y ? x : y; break;
      default: v = x > y ? x : y;
    }
    if (accumulate)
      c += v;
    else
      result |= (v & mask) << width * i;
  }
  return accumulate ? c : result;
}
