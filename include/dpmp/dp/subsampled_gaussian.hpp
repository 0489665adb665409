// SPDX-License-Identifier: Apache-2.0
// Renyi divergence of one step: the Gaussian mechanism on a Poisson sample, sensitivity 1, noise sigma, neighbours that add,
// remove or zero out one record. Mironov, Talwar, Zhang, "Renyi Differential Privacy of the Sampled Gaussian Mechanism"
// (2019): D_a = log A(a) / (a - 1),  A(a) = E_{z ~ N(0, sigma^2)} [((1 - q) + q exp((2 z - 1) / (2 sigma^2)))^a]. Every
// value is rounded up by a bound on its own rounding error: an accountant may be late, never early.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
inline constexpr double infinity = std::numeric_limits<double>::infinity();
}  // namespace detail

/// D_order of one step. q: sampling probability in [0, 1]; sigma > 0: noise over sensitivity; order > 1.
/// Natural logarithm; an upper bound of the exact value, close to rounding error. Throws on values outside of these ranges.
double subsampled_gaussian_rdp(double q, double sigma, double order);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
/// Sum of weight * exp(log_term) for terms of any size, with a bound on its rounding error.
class ScaledSum {
 public:
  /// log_error: absolute error of log_term; |weight| <= 1.
  void add(double log_term, double log_error, double weight = 1) {
    if (log_term > scale_) {
      const double shrink = std::exp(scale_ - log_term);
      sum_ *= shrink;
      error_ *= shrink;
      scale_ = log_term;
    }
    const double term = std::exp(log_term - scale_);
    sum_ += weight * term;
    error_ += term * (log_error + 0x1p-51);
  }
  /// An upper bound of the logarithm of the exact sum; -infinity for the empty sum.
  double log_upper() const { return scale_ == -infinity ? scale_ : scale_ + std::log(sum_ + error_); }

 private:
  double scale_ = -infinity, sum_ = 0, error_ = 0;
};

/// log(exp(x) - 1) for x > 0.
inline double log_expm1(double x) { return x > 30 ? x + std::log1p(-std::exp(-x)) : std::log(std::expm1(x)); }

/// log(erfc(x) / 2) without underflow: the asymptotic series where erfc is small (truncation below 2^-53 from x = 10 on).
inline double log_half_erfc(double x) {
  if (x < 10) return std::log(0.5 * std::erfc(x));
  double term = 1, sum = 1;
  for (int k = 1; k <= 12; ++k) {
    term *= -(2 * k - 1) / (2 * x * x);
    sum += term;
  }
  return -x * x + std::log(sum / (2 * x * 1.7724538509055160273));
}

/// log A of an integer order >= 1. The binomial sum of A minus that of 1 = ((1 - q) + q)^order: only positive terms are
/// left, k = 2 .. order, so a tiny q loses no digits.
inline double log_moment_integer(double q, double sigma, index_t order) {
  ScaledSum sum;
  const double log_q = std::log(q), log_p = std::log1p(-q);
  double log_binomial = 0;
  for (index_t k = 1; k <= order; ++k) {
    log_binomial += std::log(double(order - k + 1)) - std::log(double(k));
    if (k == 1) continue;
    const double x = double(k) * double(k - 1) / (2 * sigma * sigma);
    const double a = double(k) * log_q, b = double(order - k) * log_p, c = log_expm1(x);
    const double magnitude = double(k) * std::log(double(order) + 1) + std::fabs(a) + std::fabs(b) + std::fabs(c);
    sum.add(log_binomial + a + b + c, 0x1p-51 * (magnitude + 4));
  }
  const double x = sum.log_upper();
  return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x)));
}

/// log A of a fractional order > 1 by the two series of section 3.3, split at z0 where both parts of the mixture are equal.
/// From i = ceil(order) on the terms alternate, and their magnitudes are moments of a positive measure on [0, 1]: |C(a, i)|
/// by the Beta integral, the rest as an integral of ratio^i. So the alternating tail is summed by the algorithm of Cohen,
/// Rodriguez Villegas and Zagier (2000), whose error is at most (3 + sqrt 8)^-n of the tail; the plain series needs
/// thousands of terms near order 1.
inline double log_moment_fractional(double q, double sigma, double order) {
  const double log_q = std::log(q), log_p = std::log1p(-q), z0 = sigma * sigma * (log_p - log_q) + 0.5;
  const double root = std::sqrt(2.0) * sigma;
  const index_t head = index_t(order) + 1, tail = 24;
  ScaledSum sum;
  double log_binomial = 0, binomial_error = 0;
  const auto add_pair = [&](index_t i, double weight) {
    const double k = double(i), j = order - k;
    const double below[] = {k * log_q, j * log_p, (k * k - k) / (2 * sigma * sigma), log_half_erfc((k - z0) / root)};
    const double above[] = {j * log_q, k * log_p, (j * j - j) / (2 * sigma * sigma), log_half_erfc((z0 - j) / root)};
    for (const auto& part : {below, above}) {
      double log_term = log_binomial, magnitude = binomial_error + 4;
      for (int n = 0; n < 4; ++n) {
        log_term += part[n];
        magnitude += 2 * std::fabs(part[n]);
      }
      sum.add(log_term, 0x1p-51 * magnitude, weight);
    }
    const double grow = std::log(std::fabs(order - k)), fall = std::log(k + 1);
    log_binomial += grow - fall;
    binomial_error += std::fabs(grow) + fall + std::fabs(log_binomial);
  };
  for (index_t i = 0; i < head; ++i) add_pair(i, 1);
  double d = std::pow(3 + std::sqrt(8.0), double(tail));
  d = (d + 1 / d) / 2;
  double b = -1, c = -d;
  for (index_t k = 0; k < tail; ++k) {
    c = b - c;
    add_pair(head + k, c / d);
    b *= double(k + tail) * double(k - tail) / ((double(k) + 0.5) * double(k + 1));
  }
  return std::max(sum.log_upper(), 0.0);
}

/// Where sigma is so small that terms overflow, a difference of infinities is no number; infinity is an upper bound.
inline double divergence_of(double log_moment, double order) {
  const double divergence = log_moment / (order - 1);
  return divergence >= 0 ? divergence : infinity;
}

inline void check_sampled_gaussian(double q, double sigma) {
  DPMP_CHECK(q >= 0 && q <= 1, "expected a sampling probability in [0, 1], got ", q);
  DPMP_CHECK(sigma > 0 && std::isfinite(sigma), "expected a finite noise multiplier > 0, got ", sigma);
}
}  // namespace detail

DPMP_KEPT_BODY inline double subsampled_gaussian_rdp(double q, double sigma, double order) {
  detail::check_sampled_gaussian(q, sigma);
  DPMP_CHECK(order > 1 && std::isfinite(order), "expected a finite Renyi order > 1, got ", order);
  if (q == 0) return 0;
  if (q == 1) return order / (2 * sigma * sigma);
  const double floor = std::floor(order);
  if (order == floor) return detail::divergence_of(detail::log_moment_integer(q, sigma, index_t(order)), order);
  // log A is convex in the order, so the line between its integer neighbours (log A(1) = 0) is an upper bound too; it wins
  // where A - 1 is so small that the series, which computes A itself, has no digits left.
  const double lower = floor == 1 ? 0 : detail::log_moment_integer(q, sigma, index_t(floor));
  const double upper = detail::log_moment_integer(q, sigma, index_t(floor) + 1);
  const double line = lower + (order - floor) * (upper - lower);
  return detail::divergence_of(std::min(line, detail::log_moment_fractional(q, sigma, order)), order);
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
