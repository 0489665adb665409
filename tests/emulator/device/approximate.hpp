// SPDX-License-Identifier: Apache-2.0
// Functions that hardware only approximates: the .approx and .full forms of "Floating Point Instructions: div, rcp, sqrt,
// rsqrt, sin, cos, lg2, ex2, tanh" and of "Half Precision Floating Point Instructions: tanh, ex2".
//
// The model gives the exact value rounded once. Code may rely on no more than the error bound of the ISA, which is noted
// at each function; with EMU_APPROX_ERROR defined, results are moved by a pseudo-random part of it (the same for the same
// input, as on hardware), so that a test can show that it holds for every device the ISA allows.
#pragma once
#include "halves.hpp"

#ifdef EMU_APPROX_ERROR
/// In [-1, 1], from a mix of the input's bits.
static inline double error_fraction(float x, float y) {
  uint64_t h = ((uint64_t)bits_of(x) << 32 | bits_of(y)) * 0x9e3779b97f4a7c15ull;
  h = (h ^ h >> 32) * 0xd6e8feb86659fd93ull;
  return (double)(int64_t)(h ^ h >> 32) * 0x1p-63;
}
#else
EMU_INLINE double error_fraction(float, float) { return 0; }
#endif

/// A value that hardware knows up to a relative or an absolute error. Zero, Inf and NaN stay.
EMU_INLINE double disturbed(double exact, double relative, double absolute, float x) {
  const double e = error_fraction(x, 0);
  return e == 0 || exact == 0 || !is_finite(exact) ? exact : exact + e * (fabs(exact) * relative + absolute);
}
/// As an f32. The bounds hold for the rounded result, so the final rounding takes its part of them; absolute ones are for
/// results up to 1.
EMU_INLINE float approximated(double exact, double relative, double absolute, float x) {
  return (float)disturbed(exact, fmax(relative - 0x1p-24, 0), fmax(absolute - 0x1p-25, 0), x);
}
/// A value that hardware rounds up to `ulps` units in the last place away from the correctly rounded one.
EMU_INLINE float approximated_ulps(double exact, int ulps, float x, float y = 0) {
  const float nearest = (float)exact;
  const int steps = (int)lround(error_fraction(x, y) * ulps);  // neighbours of a float have neighbouring bits
  const float moved = float_of(bits_of(nearest) + (uint32_t)steps);
  return nearest == 0 || !is_finite(nearest) || !is_normal(moved) ? nearest : moved;
}

/// ex2.approx.f32: 2 ulp from the correctly rounded result. Softmax is full of it, so the plain model is the host's float
/// function (0.502 ulp), as for lg2.
static inline float ex2_approx(float x) {
#ifdef EMU_APPROX_ERROR
  return approximated_ulps(exp2((double)x), 2, x);
#else
  return exp2f(x);
#endif
}
/// lg2.approx.f32: absolute 2^-22 for x in (0.5, 2), else relative 2^-22.
static inline float lg2_approx(float x) {
#ifdef EMU_APPROX_ERROR
  const bool near_one = x > 0.5f && x < 2.f;
  return approximated(log2((double)x), near_one ? 0 : 0x1p-22, near_one ? 0x1p-22 : 0, x);
#else
  return log2f(x);
#endif
}
/// rsqrt.approx.f32: relative 2^-22.9.
static inline float rsqrt_approx(float x) { return approximated(1.0 / sqrt((double)x), 1.2776e-7, 0, x); }
/// sqrt.approx.f32: relative 2^-23.
static inline float sqrt_approx(float x) { return approximated(sqrt((double)x), 0x1p-23, 0, x); }
/// rcp.approx.f32: 1 ulp.
static inline float rcp_approx(float x) { return approximated_ulps(1.0 / (double)x, 1, x); }
/// sin.approx.f32, cos.approx.f32: absolute 2^-20.5 for |x| up to 2 pi, 2^-14.7 up to 100 pi. Beyond, the ISA promises
/// nothing; the model keeps the last bound.
EMU_INLINE double angle_error(float x) { return fabs((double)x) <= 6.283185307179586 ? 6.7434e-7 : 3.757e-5; }
static inline float sin_approx(float x) { return approximated(sin((double)x), 0, angle_error(x), x); }
static inline float cos_approx(float x) { return approximated(cos((double)x), 0, angle_error(x), x); }
/// tanh.approx.f32: relative 2^-11.
static inline float tanh_approx(float x) { return approximated(tanh((double)x), 0x1p-11, 0, x); }

/// div.full.f32: 2 ulp over the full range.
static inline float div_full(float a, float b) { return approximated_ulps((double)a / (double)b, 2, a, b); }
/// div.approx.f32 is a * (1/b): 2 ulp while |b| is in [2^-126, 2^126]; for larger |b| the result is a zero of the
/// quotient's sign, or NaN for infinite a.
static inline float div_approx(float a, float b) {
  const float size = magnitude(b);
  if (size > 0x1p126f && !is_infinite(b) && is_number(b)) return is_infinite(a) ? canonical_nan(a) : a * 0.f * b;
  return div_full(a, b);
}

/// ex2.approx of f16: relative 2^-9.9, of bf16: relative 2^-7. The exact value is rounded once to the format.
template <class Q>
static inline uint16_t half_exp2(uint16_t a) {
  const double x = Q::up(a);
  return Q::down(disturbed(exp2(x), Q::exp2_error - Q::rounding, 0, (float)x));
}
/// tanh.approx of f16: absolute 2^-10.987, of bf16: absolute 2^-8.
template <class Q>
static inline uint16_t half_tanh(uint16_t a) {
  const double x = Q::up(a);
  return Q::down(disturbed(tanh(x), 0, Q::tanh_error - Q::rounding / 2, (float)x));
}

// "Floating Point Instructions: rcp.approx.ftz.f64, rsqrt.approx.ftz.f64": the upper word of the result, from the upper word
// of the input; subnormals are flushed, NaN is 0x7fffffff00000000.
EMU_INLINE double upper_word(double x) {
  return double_of(is_notanumber(x) ? 0x7fffffff00000000ull : bits_of(x) & 0xffffffff00000000ull);
}
EMU_INLINE double flush_upper(double x) { return is_subnormal(x) ? copysign(0., x) : upper_word(x); }
static inline double rcp_gross(double x) { return flush_upper(1.0 / flush_upper(x)); }
static inline double rsqrt_gross(double x) { return flush_upper(1.0 / sqrt(flush_upper(x))); }
