// SPDX-License-Identifier: Apache-2.0
// Shifts, fields, permutations ("Logic and Shift Instructions", "Integer Arithmetic Instructions: bfe, bfi, ...").
#pragma once
#include "registers.hpp"

/// shl: amounts of the width and more give 0 (C++ leaves them undefined).
template <class T>
EMU_INLINE T shift_left(T v, uint32_t n) {
  return n >= sizeof(T) * 8 ? 0 : (T)((std::make_unsigned_t<T>)v << n);
}

/// shr: amounts of the width and more leave 0 or copies of the sign.
template <class T>
EMU_INLINE T shift_right(T v, uint32_t n) {
  return n >= sizeof(T) * 8 ? (v < 0 ? (T)-1 : (T)0) : (T)(v >> n);
}

/// shf: upper word of the pair b:a shifted left, or lower word of it shifted right.
EMU_INLINE uint32_t funnel_shift(uint32_t a, uint32_t b, uint32_t n, bool left, bool clamp) {
  n = clamp ? (n < 32u ? n : 32u) : n & 31;
  const uint64_t pair = (uint64_t)b << 32 | a;
  return left ? (uint32_t)((pair << n) >> 32) : (uint32_t)(pair >> n);
}

/// bfi: `length` low bits of a placed at `position` of b; only bits 0..7 of position and length count.
template <class T>
EMU_INLINE T bit_insert(T a, T b, uint32_t position, uint32_t length) {
  position &= 255;
  length &= 255;
  if (!length || position >= sizeof(T) * 8) return b;
  const T field = (length >= sizeof(T) * 8 ? ~T(0) : ((T(1) << length) - 1)) << position;
  return (b & ~field) | ((a << position) & field);
}

/// bfe: a field, filled up with its highest bit for signed T; bits beyond the register count as that bit too.
template <class T>
EMU_INLINE T bit_extract(T a, uint32_t position, uint32_t length) {
  typedef std::make_unsigned_t<T> U;
  const uint32_t width = sizeof(T) * 8;
  position &= 255;
  length &= 255;
  if (!length) return 0;
  const uint32_t top = position + length - 1 < width - 1 ? position + length - 1 : width - 1;
  const U sign = std::is_signed<T>::value ? ((U)a >> top) & 1 : 0;
  if (position >= width) return (T)(sign ? ~(U)0 : 0);
  U field = (U)a >> position;
  const uint32_t kept = width - position < length ? width - position : length;
  if (kept < width) {
    const U mask = ((U)1 << kept) - 1;
    field = sign ? field | ~mask : field & mask;
  }
  return (T)field;
}

/// bmsk: `length` ones from `position` on; .clamp takes large values as they are, .wrap modulo 32.
EMU_INLINE uint32_t bit_mask(uint32_t position, uint32_t length, bool clamp) {
  if (clamp && position >= 32) return 0;
  const uint32_t from = position & 31, to = clamp && length >= 32 ? 32 : from + (length & 31);
  return (~0u << from) & (to >= 32 ? ~0u : ~(~0u << to));
}

/// bfind: position of the highest bit that differs from the sign, ~0 where there is none.
template <class T>
EMU_INLINE uint32_t find_leading(T value, bool from_top) {
  typedef std::make_unsigned_t<T> U;
  U v = (U)value;
  if (std::is_signed<T>::value && value < 0) v = ~v;
  if (!v) return ~0u;
  const uint32_t top = 63 - __builtin_clzll((uint64_t)v);
  return from_top ? sizeof(T) * 8 - 1 - top : top;
}

/// fns: position of the |n|-th set bit of m at or after (n > 0) or before (n < 0) `base`; n = 0 asks for base itself.
EMU_INLINE uint32_t nth_set_bit(uint32_t m, uint32_t base, int32_t n) {
  if (n == 0) return (m >> base & 1) ? base : ~0u;
  const int step = n > 0 ? 1 : -1;
  for (int i = (int)base; i >= 0 && i < 32; i += step)
    if (m >> i & 1 && (n -= step) == 0) return (uint32_t)i;
  return ~0u;
}

EMU_INLINE uint32_t reverse_bits32(uint32_t v) {
  v = (v >> 1 & 0x55555555u) | (v & 0x55555555u) << 1;
  v = (v >> 2 & 0x33333333u) | (v & 0x33333333u) << 2;
  v = (v >> 4 & 0x0f0f0f0fu) | (v & 0x0f0f0f0fu) << 4;
  return __builtin_bswap32(v);
}
EMU_INLINE uint64_t reverse_bits64(uint64_t v) {
  return (uint64_t)reverse_bits32((uint32_t)v) << 32 | reverse_bits32((uint32_t)(v >> 32));
}

/// lop3: bit 4a + 2b + c of TABLE for each position; the compiler reduces it to a few operations.
template <int TABLE>
EMU_INLINE uint32_t logic3(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t r = 0;
  if (TABLE & 1) r |= ~a & ~b & ~c;
  if (TABLE & 2) r |= ~a & ~b & c;
  if (TABLE & 4) r |= ~a & b & ~c;
  if (TABLE & 8) r |= ~a & b & c;
  if (TABLE & 16) r |= a & ~b & ~c;
  if (TABLE & 32) r |= a & ~b & c;
  if (TABLE & 64) r |= a & b & ~c;
  if (TABLE & 128) r |= a & b & c;
  return r;
}

/// prmt: each selector nibble picks one of the eight bytes of b:a; its bit 3 asks for copies of that byte's sign.
EMU_INLINE uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selectors) {
  const uint64_t bytes = (uint64_t)b << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; i++) {
    const uint32_t s = selectors >> 4 * i & 15;
    uint32_t byte = bytes >> 8 * (s & 7) & 255;
    if (s & 8) byte = byte & 128 ? 255 : 0;
    result |= byte << 8 * i;
  }
  return result;
}

// prmt modes: the ISA's table of selectors for each of the four values of c's low two bits.
EMU_INLINE uint32_t permute_f4e(uint32_t a, uint32_t b, uint32_t c) {
  const uint32_t table[4] = {0x3210, 0x4321, 0x5432, 0x6543};
  return permute_bytes(a, b, table[c & 3]);
}
EMU_INLINE uint32_t permute_b4e(uint32_t a, uint32_t b, uint32_t c) {
  const uint32_t table[4] = {0x5670, 0x6701, 0x7012, 0x0123};
  return permute_bytes(a, b, table[c & 3]);
}
EMU_INLINE uint32_t permute_rc8(uint32_t a, uint32_t b, uint32_t c) {
  const uint32_t table[4] = {0x0000, 0x1111, 0x2222, 0x3333};
  return permute_bytes(a, b, table[c & 3]);
}
EMU_INLINE uint32_t permute_ecl(uint32_t a, uint32_t b, uint32_t c) {
  const uint32_t table[4] = {0x3210, 0x3211, 0x3222, 0x3333};
  return permute_bytes(a, b, table[c & 3]);
}
EMU_INLINE uint32_t permute_ecr(uint32_t a, uint32_t b, uint32_t c) {
  const uint32_t table[4] = {0x0000, 0x1110, 0x2210, 0x3210};
  return permute_bytes(a, b, table[c & 3]);
}
EMU_INLINE uint32_t permute_rc16(uint32_t a, uint32_t b, uint32_t c) {
  const uint32_t table[4] = {0x1010, 0x3232, 0x1010, 0x3232};
  return permute_bytes(a, b, table[c & 3]);
}
