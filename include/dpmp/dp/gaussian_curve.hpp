// SPDX-License-Identifier: Apache-2.0
// Hockey-stick divergences of Gaussians, with bounds on their rounding errors: the exact Gaussian mechanism (Balle, Wang,
// "Improving the Gaussian Mechanism for Differential Privacy", 2018, theorem 8) and its Poisson-sampled kinds.
#pragma once
#include "dpmp/dp/privacy_curve.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// Of N(mu, 1) and N(0, 1) at epsilon >= 0: Phi(mu / 2 - epsilon / mu) - e^epsilon Phi(-mu / 2 - epsilon / mu).
/// mu > 0: sensitivity over the standard deviation of the noise. Also of the two in the other order.
DeltaBounds gaussian_delta(double mu, double epsilon);

/// An epsilon >= 0 at which gaussian_delta is at most `delta` in (0, 1), to about 1e-14 the smallest one. mu >= 0.
double gaussian_epsilon(double mu, double delta);

/// The largest true positive rate of a test of N(0, 1) against N(mu, 1) at a false positive rate in (0, 1): Phi(mu +
/// Phi^-1(rate)). An upper bound.
double gaussian_true_positive_rate(double mu, double false_positive_rate);

/// The mu whose epsilon at `delta` is `epsilon` > 0.
double gaussian_mu(double epsilon, double delta);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
inline constexpr double unit_roundoff = 0x1p-53;

/// e^(x^2) erfc(x) for x >= -1. Source: Cody, "Rational Chebyshev Approximations for the Error Function" (1969), as in
/// CALERF of SPECFUN; relative error below 8 u, measured against 40 digits.
inline double scaled_erfc(double x) {
  const double y = std::fabs(x);
  if (y <= 0.46875) return std::exp(y * y) * std::erfc(x);
  double value;
  if (y <= 4) {
    constexpr double c[] = {5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1,
                            2.98635138197400131e2,  8.81952221241769090e2, 1.71204761263407058e3,
                            2.05107837782607147e3,  1.23033935479799725e3, 2.15311535474403846e-8};
    constexpr double d[] = {1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
                            3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3};
    double up = c[8] * y, down = y;
    for (int k = 0; k < 7; ++k) up = (up + c[k]) * y, down = (down + d[k]) * y;
    value = (up + c[7]) / (down + d[7]);
  } else {
    constexpr double p[] = {3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
                            1.60837851487422766e-2, 6.58749161529837803e-4, 1.63153871373020978e-2};
    constexpr double q[] = {2.56852019228982242e0, 1.87295284992346725e0, 5.27905102951428412e-1, 6.05183413124413191e-2,
                            2.33520497626869185e-3};
    const double z = 1 / (y * y);
    double up = p[5] * z, down = z;
    for (int k = 0; k < 4; ++k) up = (up + p[k]) * z, down = (down + q[k]) * z;
    value = (0.56418958354775628695 - z * (up + p[4]) / (down + q[4])) / y;
  }
  return x < 0 ? 2 * std::exp(y * y) - value : value;
}
/// Mills' ratio (1 - Phi(t)) / phi(t) for t >= -1.
inline double mills_ratio(double t) { return 1.25331413731550025121 * scaled_erfc(t * 0.70710678118654752440); }
inline double normal_density(double t) { return 0.39894228040143267794 * std::exp(-0.5 * t * t); }

struct WithError {
  double value, error;  // error: relative
};
/// Phi(h - m) - e^(2 m h) Phi(-h - m) for m >= 0, h > 0, where m has an absolute error and h none. With Mills' ratio R it is
/// phi(m - h) (R(m - h) - R(m + h)); for a small h the difference comes from R's derivatives, R' = t R - 1 and
/// R^(n + 1) = t R^(n) + n R^(n - 1).
inline WithError gaussian_gap(double m, double h, double m_error) {
  const double a = m - h, b = m + h, ratio_b = mills_ratio(b);
  constexpr double ratio_error = 12 * unit_roundoff;
  double value, error;
  if (a < -1) {
    const double all = 0.5 * std::erfc(a * 0.70710678118654752440), part = normal_density(a) * ratio_b;
    value = all - part;
    error = (4 * all + part * (16 + 2 * a * a)) * unit_roundoff / value;
    return {value, error + 2 * h * (part / value) * m_error};
  }
  double gap;
  if (h > 0.01) {
    const double ratio_a = mills_ratio(a);
    gap = ratio_a - ratio_b;
    error = ratio_error * (ratio_a + ratio_b) / gap;
  } else {
    const double ratio = mills_ratio(m), first = m * ratio - 1;
    const double second = m * first + ratio, third = m * second + 2 * first;
    double before = second, last = third, power = h * h * h / 6;
    gap = -first * h - last * power;
    for (int n = 3; n < 7; n += 2) {  // terms of h^5 and h^7
      const double fourth = m * last + n * before, fifth = m * fourth + (n + 1) * last;
      before = fourth, last = fifth;
      power *= h * h / ((n + 1) * (n + 2));
      gap -= last * power;
    }
    gap *= 2;
    // The third derivative is below 6 times the first in size; its cancellation costs m^2 more digits and h^2 fewer.
    error = (ratio_error * (m * ratio + 1) / -first) * (1 + 64 * h * h * (1 + m * m)) + 16 * unit_roundoff;
  }
  value = normal_density(a) * gap;
  error += (8 + 3 * a * a) * unit_roundoff + 2 * h * (ratio_b / gap) * m_error;
  return {value, error};
}
inline DeltaBounds within(double value, double error) {
  // Below the smallest normal number relative errors mean nothing.
  return {std::max(0.0, value * (1 - error) - 0x1p-1020), std::min(1.0, value * (1 + error) + 0x1p-1020)};
}
/// gaussian_delta where epsilon has an absolute error.
inline WithError gaussian_delta_near(double mu, double epsilon, double epsilon_error) {
  const double m = epsilon / mu;
  return gaussian_gap(m, mu / 2, (m * unit_roundoff) + epsilon_error / mu);
}

/// Of (1 - q) N(0) + q N(mu) and N(0) at epsilon: q times that of the Gaussians at log(1 + (e^epsilon - 1) / q).
inline DeltaBounds sampled_gaussian_forward(double q, double mu, double epsilon) {
  const double above = std::expm1(epsilon) / q;
  if (std::isinf(above)) {  // e^epsilon - 1 is e^epsilon
    const double amplified = epsilon - std::log(q);
    const WithError r = gaussian_delta_near(mu, amplified, 4 * unit_roundoff * amplified);
    return within(q * r.value, r.error + 4 * unit_roundoff);
  }
  const double amplified = std::log1p(above);
  const WithError r = gaussian_delta_near(mu, amplified, 4 * unit_roundoff * (amplified + above / (1 + above)));
  return within(q * r.value, r.error + 4 * unit_roundoff);
}
/// Of N(0) and (1 - q) N(0) + q N(mu) at epsilon: with y = 1 - (1 - e^-epsilon) / q it is y q e^epsilon times that of the
/// Gaussians at -log y, and 0 where y <= 0.
inline DeltaBounds sampled_gaussian_backward(double q, double mu, double epsilon) {
  const double below = -std::expm1(-epsilon) / q, y = 1 - below, y_error = 4 * unit_roundoff * (below + 1);
  if (y + y_error <= 0) return {0, 0};
  if (y <= 4 * y_error) {  // too close to the largest loss for digits: the curve falls
    const WithError r = gaussian_delta_near(mu, -std::log(8 * y_error), 0.25);
    return {0, within(8 * y_error * q * std::exp(epsilon) * r.value, r.error).upper};
  }
  const double log_y = below < 0.5 ? std::log1p(-below) : std::log(y);
  const double log_error = (below < 0.5 ? 8 * unit_roundoff * below : 2 * y_error / y) + 4 * unit_roundoff * -log_y;
  const WithError r = gaussian_delta_near(mu, -log_y, log_error);
  return within(y * q * std::exp(epsilon) * r.value, r.error + 2 * y_error / y + (8 + epsilon) * unit_roundoff);
}
/// Of (1 - q) N(0) + q N(a) and (1 - q) N(0) + q N(-a), a = mu / 2, in either order. The loss is epsilon where
/// a z = epsilon / 2 + asinh((1 - q) / q e^(a^2 / 2) sinh(epsilon / 2)); there the densities are in the proportion
/// e^epsilon, so that of P(z' > z) - e^epsilon Q(z' > z) two positive terms are left, q phi(z - a) (R(z - a) - R(z)) +
/// e^epsilon q phi(z + a) (R(z) - R(z + a)).
inline DeltaBounds sampled_gaussian_replaced(double q, double mu, double epsilon) {
  const double a = mu / 2, half = epsilon / 2;
  double az = half, az_error = 4 * unit_roundoff * half;
  if (q < 1 && epsilon > 0) {
    const double odds = std::log1p(-q) - std::log(q),
                 sinh = half > 20 ? half - std::numbers::ln2 : std::log(std::sinh(half));
    const double log_x = odds + a * a / 2 + sinh;
    const double log_error = 8 * unit_roundoff * (std::fabs(odds) + a * a + std::fabs(sinh) + 1);
    if (log_x > 30) {
      az += log_x + std::numbers::ln2;
      az_error += log_error + 0x1p-80;
    } else {
      const double x = std::asinh(std::exp(log_x));
      az += x;
      az_error += x * (log_error + 4 * unit_roundoff);
    }
  }
  const double z = az / a, z_error = (az_error + 4 * unit_roundoff * az) / a;
  const WithError first = gaussian_gap(z - a / 2, a / 2, z_error + unit_roundoff * z);
  const WithError second = gaussian_gap(z + a / 2, a / 2, z_error + unit_roundoff * (z + a));
  const double exponent = epsilon - az - a * a / 2;
  const double exponent_error = az_error + 4 * unit_roundoff * (epsilon + az + a * a);
  const DeltaBounds x = within(q * first.value, first.error + 4 * unit_roundoff);
  const DeltaBounds y = within(q * std::exp(exponent) * second.value, second.error + exponent_error + 8 * unit_roundoff);
  return {(x.lower + y.lower) * (1 - 2 * unit_roundoff), std::min(1.0, (x.upper + y.upper) * (1 + 2 * unit_roundoff))};
}
}  // namespace detail

DPMP_KEPT_BODY inline DeltaBounds gaussian_delta(double mu, double epsilon) {
  DPMP_CHECK(mu > 0 && std::isfinite(mu), "expected a finite sensitivity over noise > 0, got ", mu);
  DPMP_CHECK(epsilon >= 0 && std::isfinite(epsilon), "expected a finite epsilon >= 0, got ", epsilon);
  const detail::WithError r = detail::gaussian_delta_near(mu, epsilon, 0);
  return detail::within(r.value, r.error);
}

DPMP_KEPT_BODY inline double gaussian_epsilon(double mu, double delta) {
  DPMP_CHECK(mu >= 0 && delta > 0 && delta < 1, "expected mu >= 0 and delta in (0, 1), got ", mu, " and ", delta);
  if (mu == 0) return 0;
  if (gaussian_delta(mu, 0).upper <= delta) return 0;
  // Phi(mu / 2 - epsilon / mu) alone is below e^-(epsilon / mu - mu / 2)^2 / 2.
  double low = 0, high = mu * (mu / 2 + std::sqrt(-2 * std::log(delta)) + 1);
  if (!std::isfinite(high)) return std::numeric_limits<double>::infinity();
  while (high - low > 1e-15 * high) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) break;
    (gaussian_delta(mu, middle).upper <= delta ? high : low) = middle;
  }
  return high;
}

DPMP_KEPT_BODY inline double gaussian_true_positive_rate(double mu, double false_positive_rate) {
  DPMP_CHECK(mu > 0 && std::isfinite(mu), "expected a finite sensitivity over noise > 0, got ", mu);
  DPMP_CHECK(false_positive_rate > 0 && false_positive_rate < 1, "expected a false positive rate in (0, 1), got ",
             false_positive_rate);
  // The threshold whose rate is no less than asked for.
  double low = -40, high = 40;
  while (high - low > 1e-14) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) break;
    (0.5 * std::erfc(middle * 0.70710678118654752440) * (1 - 0x1p-48) >= false_positive_rate ? low : high) = middle;
  }
  return std::min(1.0, 0.5 * std::erfc((low - mu) * 0.70710678118654752440) * (1 + 1e-12));
}

DPMP_KEPT_BODY inline double gaussian_mu(double epsilon, double delta) {
  DPMP_CHECK(epsilon > 0 && std::isfinite(epsilon), "expected a finite epsilon > 0, got ", epsilon);
  double low = 0x1p-60, high = 0x1p60;
  while (high > low * (1 + 1e-12)) {
    const double middle = std::sqrt(low) * std::sqrt(high);
    (gaussian_epsilon(middle, delta) <= epsilon ? low : high) = middle;
  }
  return low;
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
