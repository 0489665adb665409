// SPDX-License-Identifier: Apache-2.0
// exp, tanh, erf and sqrt of packs: branch-free polynomials in FP32 (minimax fits made for this file; stated errors are
// checked by tests over the whole range), the C library lane by lane in double, where exactness matters more than speed,
// and for log.
#pragma once
#include <cmath>

#include "dpmp/runtime/team_host.hpp"

namespace dpmp::inline DPMP_ABI {
template <class R, int W>
DPMP_HOST HostPack<R, W> abs(HostPack<R, W> x) {
  using P = HostPack<R, W>;
  return P::of_bits(x.bits() & (~typename P::Word{} >> 1));
}
template <class R, int W>
DPMP_HOST HostPack<R, W> copysign(HostPack<R, W> magnitude, HostPack<R, W> sign) {
  using P = HostPack<R, W>;
  const auto mask = ~typename P::Word{} >> 1;
  return P::of_bits((magnitude.bits() & mask) | (sign.bits() & ~mask));
}
template <class R, int W>
DPMP_HOST HostPack<R, W> max(HostPack<R, W> a, HostPack<R, W> b) {
  return select_less(a, b, b, a);
}

/// Relative error below 2^-22; denormal results and overflow to Inf as IEEE has them; NaN stays NaN.
template <int W>
DPMP_HOST HostPack<float, W> exp(HostPack<float, W> x) {
  using P = HostPack<float, W>;
  const P low = P::splat(-105.0f), high = P::splat(90.0f);
  x = select_less(x, low, low, x);
  x = select_less(high, x, high, x);
  // x = n ln 2 + r, |r| <= ln(2) / 2; adding 1.5 * 2^23 rounds to an integer that then sits in the low mantissa bits.
  const float magic = 12582912.0f;
  const P n = (x * 1.44269504f + magic) - magic;
  const P r = (x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
  P q = P::splat(0x1.6c69f2p-10f);
  q = multiply_add(q, r, 0x1.120b1cp-7f);
  q = multiply_add(q, r, 0x1.5555bap-5f);
  q = multiply_add(q, r, 0x1.5554dep-3f);
  q = multiply_add(q, r, 0x1p-1f);
  const P y = multiply_add(q * r, r, r) + 1.0f;
  // 2^n as two factors, so that each is a normal number from -150 to 130.
  const P half = n * 0.5f + magic, other = (n - (half - magic)) + magic;
  const P first = P::of_bits((half.bits() << 23) + 0x3f800000u), second = P::of_bits((other.bits() << 23) + 0x3f800000u);
  return (y * first) * second;
}

/// Absolute error below 2^-22, relative error below 2^-21 near 0.
template <int W>
DPMP_HOST HostPack<float, W> tanh(HostPack<float, W> x) {
  using P = HostPack<float, W>;
  const P t = abs(x), s = x * x;
  P q = P::splat(-0x1.76ac18p-8f);
  q = multiply_add(q, s, 0x1.5256d6p-6f);
  q = multiply_add(q, s, -0x1.b84448p-5f);
  q = multiply_add(q, s, 0x1.110768p-3f);
  q = multiply_add(q, s, -0x1.555534p-2f);
  const P small = multiply_add(q * s, x, x);
  const P large = 1.0f - 2.0f / (exp(t * 2.0f) + 1.0f);
  return select_less(t, P::splat(0.625f), small, copysign(large, x));
}

/// Absolute error below 2^-22.
template <int W>
DPMP_HOST HostPack<float, W> erf(HostPack<float, W> x) {
  using P = HostPack<float, W>;
  const P s = x * x, four = P::splat(4.0f), magnitude = abs(x), t = select_less(four, magnitude, four, magnitude);
  P q = P::splat(-0x1.3bb758p-11f);
  q = multiply_add(q, s, 0x1.47a766p-8f);
  q = multiply_add(q, s, -0x1.b69ee8p-6f);
  q = multiply_add(q, s, 0x1.ce1be0p-4f);
  q = multiply_add(q, s, -0x1.8126eep-2f);
  q = multiply_add(q, s, 0x1.06eba6p-3f);
  const P small = multiply_add(q, x, x);
  P l = P::splat(-0x1.63095cp-16f);  // log(erfc(t)) on [0.92, 4]
  l = multiply_add(l, t, 0x1.c85bf2p-12f);
  l = multiply_add(l, t, -0x1.1196d2p-8f);
  l = multiply_add(l, t, 0x1.9bb50cp-6f);
  l = multiply_add(l, t, -0x1.bb926cp-4f);
  l = multiply_add(l, t, -0x1.444470p-1f);
  l = multiply_add(l, t, -0x1.212844p+0f);
  l = multiply_add(l, t, 0x1.70d550p-13f);
  const P large = 1.0f - exp(l);
  return select_less(magnitude, P::splat(0.92f), small, copysign(large, x));
}

/// Relative error below 2^-21 for normal x; exactly 0 for 0. Newton's iteration for 1/sqrt(x), so that no call with errno
/// keeps the loop from being vectorised.
template <int W>
DPMP_HOST HostPack<float, W> sqrt(HostPack<float, W> x) {
  using P = HostPack<float, W>;
  P y = P::of_bits(0x5f375a86u - (x.bits() >> 1));
  const P h = x * 0.5f;
  for (int k = 0; k < 3; ++k) y = y * (1.5f - (h * y) * y);
  return x * y;
}

#define DPMP_LANEWISE(R, name) \
  template <int W> \
  DPMP_HOST HostPack<R, W> name(HostPack<R, W> x) { \
    for (int k = 0; k < W; ++k) x.v[k] = std::name(x.v[k]); \
    return x; \
  }
DPMP_LANEWISE(double, exp)
DPMP_LANEWISE(double, tanh)
DPMP_LANEWISE(double, erf)
DPMP_LANEWISE(double, sqrt)
DPMP_LANEWISE(double, log)
// The error is below one unit in the last place; negative, infinite and denormal numbers as IEEE 754 has them.
DPMP_LANEWISE(float, log)
#undef DPMP_LANEWISE
}  // namespace dpmp::inline DPMP_ABI
