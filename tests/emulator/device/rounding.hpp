// SPDX-License-Identifier: Apache-2.0
// Rounding modes (.rn .rz .rm .rp). Directed arithmetic is done by the CPU in that mode, which is exact by IEEE 754;
// conversions compare the nearest result with the exact value and step once.
#pragma once
#include <immintrin.h>

#include "floats.hpp"

enum RoundingMode { RN, RZ, RM, RP };

/// The CPU's rounding mode for the life of the object.
template <int R>
class CpuRounding {
 public:
  CpuRounding() : saved_(_mm_getcsr()) {
    constexpr unsigned mode = R == RN ? 0u : R == RM ? 1u : R == RP ? 2u : 3u;
    _mm_setcsr((saved_ & ~0x6000u) | mode << 13);
  }
  ~CpuRounding() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
};

/// Keeps a value where it is: the compiler knows nothing of rounding modes and may move arithmetic across their change.
template <class F>
EMU_INLINE F pinned(F x) {
  asm volatile("" : "+x"(x));
  return x;
}

template <int R, class F>
static inline F add_rounded(F a, F b) {
  if (R == RN) return a + b;
  CpuRounding<R> mode;
  return pinned(pinned(a) + pinned(b));
}
template <int R, class F>
static inline F mul_rounded(F a, F b) {
  if (R == RN) return a * b;
  CpuRounding<R> mode;
  return pinned(pinned(a) * pinned(b));
}
template <int R, class F>
static inline F div_rounded(F a, F b) {
  if (R == RN) return a / b;
  CpuRounding<R> mode;
  return pinned(pinned(a) / pinned(b));
}
EMU_INLINE float fused(float a, float b, float c) { return fmaf(a, b, c); }
EMU_INLINE double fused(double a, double b, double c) { return fma(a, b, c); }
template <int R, class F>
static inline F fma_rounded(F a, F b, F c) {
  if (R == RN) return fused(a, b, c);
  CpuRounding<R> mode;
  return pinned(fused(pinned(a), pinned(b), pinned(c)));
}
EMU_INLINE float root(float a) { return sqrtf(a); }
EMU_INLINE double root(double a) { return sqrt(a); }
template <int R, class F>
static inline F sqrt_rounded(F a) {
  if (R == RN) return root(a);
  CpuRounding<R> mode;
  return pinned(root(pinned(a)));
}

EMU_INLINE float next(float x, float to) { return nextafterf(x, to); }
EMU_INLINE double next(double x, double to) { return nextafter(x, to); }

/// Wide -> F with one rounding; Wide holds the exact value.
template <class F, int R, class Wide>
static inline F narrowed(Wide x) {
  const F nearest = (F)x;
  if (R == RN || nearest != nearest || (Wide)nearest == x) return nearest;
  const bool above = (Wide)nearest > x;
  const F infinity = (F)INFINITY;
  if (R == RM) return above ? next(nearest, -infinity) : nearest;
  if (R == RP) return above ? nearest : next(nearest, infinity);
  const bool away = x > 0 ? above : !above;  // RZ: the nearest lies farther from zero than x
  return away ? next(nearest, (F)0) : nearest;
}
template <int R, class Wide>
static inline float to_float(Wide x) {
  return narrowed<float, R>(x);
}
template <int R, class Wide>
static inline double to_double(Wide x) {
  return narrowed<double, R>(x);
}

/// a + b rounded to odd: the last bit is set where the sum is inexact, so that one more rounding to a format with at
/// least two bits less gives the correctly rounded sum (Boldo and Melquiond, "Emulation of FMA and correctly rounded
/// sums: proved algorithms using rounding to odd", 2008).
static inline double add_odd(double a, double b) {
  const double sum = a + b;
  if (!(fabs(sum) < 1e308)) return sum;
  const double t = sum - a;
  const double error = (a - (sum - t)) + (b - t);  // exact: Knuth's two-sum
  if (error == 0 || (bits_of(sum) & 1)) return sum;
  if (sum == 0) return error;
  const bool outward = (error > 0) == (sum > 0);
  return double_of(outward ? bits_of(sum) + 1 : bits_of(sum) - 1);
}
