// SPDX-License-Identifier: Apache-2.0
// Operands chosen to make a clipped contribution exceed its threshold: generators of rows, non-finite plants, and stores as
// the library makes them.
#pragma once
#include <cmath>
#include <limits>

#include "dpmp/tensor/elementwise.hpp"
#include "support/random.hpp"

namespace test {
using dpmp::index_t;

/// a [T, d] and b [T, p] of one sample.
struct AdversarialRows {
  index_t tokens = 0, d = 0, p = 0;
  std::vector<double> a = std::vector<double>(std::size_t(tokens * d)), b = std::vector<double>(std::size_t(tokens * p));
  double& at_a(index_t t, index_t k) { return a[std::size_t(t * d + k)]; }
  double& at_b(index_t t, index_t k) { return b[std::size_t(t * p + k)]; }
  void scale_token(index_t t, double of_a, double of_b) {
    for (index_t k = 0; k < d; ++k) at_a(t, k) *= of_a;
    for (index_t k = 0; k < p; ++k) at_b(t, k) *= of_b;
  }
  void scale(double of_a, double of_b) {
    for (index_t t = 0; t < tokens; ++t) scale_token(t, of_a, of_b);
  }
  /// Token `to` becomes a copy of `from`, its b times `factor`.
  void copy_token(index_t from, index_t to, double factor = 1) {
    for (index_t k = 0; k < d; ++k) at_a(to, k) = at_a(from, k);
    for (index_t k = 0; k < p; ++k) at_b(to, k) = factor * at_b(from, k);
  }
};

/// 10^x, x uniform.
inline double log_uniform(Rng& rng, double low, double high) { return std::pow(10.0, rng.uniform(low, high)); }

namespace adversary {
inline void random_rows(Rng& rng, AdversarialRows& x) {
  for (double& v : x.a) v = rng.normal();
  for (double& v : x.b) v = rng.normal();
}
inline void equal_tokens(Rng& rng, AdversarialRows& x) {
  random_rows(rng, x);
  for (index_t t = 1; t < x.tokens; ++t) x.copy_token(0, t);
}
/// Pairs of tokens cancel up to a relative remainder: S^2 / |G|^2 is up to 1e8 in FP32.
inline void cancelling(Rng& rng, AdversarialRows& x) {
  equal_tokens(rng, x);
  const double remainder = log_uniform(rng, -4, -1);
  for (double& v : x.a) v *= 1 + remainder * rng.normal();
  for (index_t t = 1; t < x.tokens; t += 2) x.scale_token(t, 1, -1);
}
/// Pairs cancel exactly, in every dtype; one small token is left: S^2 / |G|^2 is up to 1e8 T^2.
inline void cancelling_exactly(Rng& rng, AdversarialRows& x) {
  random_rows(rng, x);
  for (index_t t = 1; t < x.tokens; t += 2) x.copy_token(t - 1, t, -1);
  if (x.tokens % 2 == 0) x.scale_token(x.tokens - 2, 0, 1);
  x.scale_token(x.tokens - 1, log_uniform(rng, -4, 0), 1);
}
inline void one_huge_token(Rng& rng, AdversarialRows& x) {
  random_rows(rng, x);
  x.scale_token(rng.integer(0, x.tokens - 1), log_uniform(rng, 1, 4), log_uniform(rng, 0, 4));
}
inline void huge(Rng& rng, AdversarialRows& x) {
  random_rows(rng, x);
  x.scale(log_uniform(rng, 4, 16), log_uniform(rng, 4, 16));
}
/// Every element near the largest f16.
inline void near_f16_overflow(Rng& rng, AdversarialRows& x) {
  for (double& v : x.a) v = 65504 * rng.uniform(-1, 1);
  for (double& v : x.b) v = 65504 * rng.uniform(-1, 1);
}
/// |a| |b| within a few powers of ten of the largest FP32 number, below it and above.
inline void near_f32_overflow(Rng& rng, AdversarialRows& x) {
  random_rows(rng, x);
  const double product = log_uniform(rng, 35, 41), a = log_uniform(rng, 4, 36);
  x.scale(a, product / a);
}
/// Products whose partial sums overflow in one order of summation and not in another.
inline void overflowing_chain(Rng& rng, AdversarialRows& x) {
  for (double& v : x.a) v = std::ldexp(1 + 0.25 * rng.uniform(), 64);
  for (index_t t = 0; t < x.tokens; ++t)
    for (index_t k = 0; k < x.p; ++k) x.at_b(t, k) = std::ldexp(t % 4 < 2 ? 1 : -1, 62);
}
inline void denormal(Rng& rng, AdversarialRows& x) {
  random_rows(rng, x);
  x.scale(log_uniform(rng, 0, 30), 0x1p-130);
}
inline void nearly_denormal(Rng& rng, AdversarialRows& x) {
  random_rows(rng, x);
  x.scale(log_uniform(rng, -20, 30), 0x1p-126);
}
/// Products below the smallest normal number; sums of squares far below.
inline void tiny(Rng& rng, AdversarialRows& x) {
  random_rows(rng, x);
  x.scale(log_uniform(rng, -30, -3), log_uniform(rng, -30, -3));
}
inline void f16_denormal(Rng& rng, AdversarialRows& x) {
  random_rows(rng, x);
  x.scale(log_uniform(rng, 0, 4), log_uniform(rng, -8, -5));
}
/// FP32 squares of b underflow to 0 although the gradient is far above C.
inline void underflowing_squares(Rng& rng, AdversarialRows& x) {
  for (double& v : x.a) v = 5e17 * (1 + 0.1 * rng.normal());
  for (double& v : x.b) v = 1e-23 * (1 + 0.1 * rng.normal());
}
inline void sparse(Rng& rng, AdversarialRows& x) {
  random_rows(rng, x);
  for (double& v : x.a) v *= rng.integer(0, 9) == 0;
  for (double& v : x.b) v *= rng.integer(0, 9) == 0;
}
inline void zero_rows(Rng& rng, AdversarialRows& x) {
  random_rows(rng, x);
  for (index_t t = 0; t < x.tokens; ++t) x.scale_token(t, double(rng.integer(0, 2) != 0), double(rng.integer(0, 2) != 0));
}
inline void all_zero(Rng&, AdversarialRows&) {}
inline void mixed_scales(Rng& rng, AdversarialRows& x) {
  random_rows(rng, x);
  for (index_t t = 0; t < x.tokens; ++t) x.scale_token(t, log_uniform(rng, -8, 8), log_uniform(rng, -8, 8));
}
}  // namespace adversary

struct Adversary {
  const char* name;
  void (*fill)(Rng&, AdversarialRows&);
};
inline constexpr Adversary adversaries[] = {{"random", adversary::random_rows},
                                            {"equal tokens", adversary::equal_tokens},
                                            {"cancelling", adversary::cancelling},
                                            {"cancelling exactly", adversary::cancelling_exactly},
                                            {"one huge token", adversary::one_huge_token},
                                            {"huge", adversary::huge},
                                            {"near f16 overflow", adversary::near_f16_overflow},
                                            {"near f32 overflow", adversary::near_f32_overflow},
                                            {"overflowing chain", adversary::overflowing_chain},
                                            {"denormal", adversary::denormal},
                                            {"nearly denormal", adversary::nearly_denormal},
                                            {"tiny", adversary::tiny},
                                            {"f16 denormal", adversary::f16_denormal},
                                            {"underflowing squares", adversary::underflowing_squares},
                                            {"sparse", adversary::sparse},
                                            {"zero rows", adversary::zero_rows},
                                            {"all zero", adversary::all_zero},
                                            {"mixed scales", adversary::mixed_scales}};

/// Puts Inf or NaN into a, b or both: alone, as Inf - Inf over two tokens, or beside a zero.
inline void plant_non_finite(Rng& rng, AdversarialRows& x) {
  constexpr double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  const double bad[] = {inf, -inf, nan};
  const index_t t = rng.integer(0, x.tokens - 1), k = rng.integer(0, x.d - 1), r = rng.integer(0, x.p - 1);
  switch (rng.integer(0, 4)) {
    case 0: x.at_a(t, k) = bad[rng.integer(0, 2)]; return;
    case 1: x.at_b(t, r) = bad[rng.integer(0, 2)]; return;
    case 2:
      x.at_a(t, k) = bad[rng.integer(0, 2)];
      x.at_b(rng.integer(0, x.tokens - 1), r) = bad[rng.integer(0, 2)];
      return;
    case 3:  // Inf - Inf
      x.at_a(t, k) = inf;
      x.copy_token(t, rng.integer(0, x.tokens - 1), -1);
      return;
    default:  // 0 * Inf
      x.scale_token(t, 1, 0);
      x.at_a(t, k) = inf;
  }
}

/// Values through a store of the library, which flushes bf16 denormals. Beyond FP32 they are Inf.
inline dpmp::Tensor stored(dpmp::Context& ctx, const dpmp::Shape& shape, dpmp::DType dtype,
                           const std::vector<double>& values) {
  DPMP_CHECK(index_t(values.size()) == shape.numel(), "expected ", shape.numel(), " values, got ", values.size());
  constexpr double largest = std::numeric_limits<float>::max(), infinity = std::numeric_limits<double>::infinity();
  std::vector<double> within = values;
  for (double& v : within)
    if (std::fabs(v) > largest) v = v > 0 ? infinity : -infinity;
  return cast(ctx, dpmp::Tensor::from(ctx, shape, dpmp::DType::f32, within), dtype);
}
}  // namespace test
