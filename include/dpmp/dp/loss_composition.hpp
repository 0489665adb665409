// SPDX-License-Identifier: Apache-2.0
// Composition of privacy losses by FFT, with bounds on what the transform rounds and what its finite window leaves out.
#pragma once
#include <span>

#include "dpmp/dp/connect_dots.hpp"

namespace dpmp::inline DPMP_ABI::dp {
struct CountedLosses {
  const LossMasses* losses = nullptr;
  index_t count = 1;  // >= 1
};
/// The losses of all parts together, each count times: independent, so that they add up. Sides, intervals and tilts are the
/// same. Where there are many parts, neighbours are composed first, whose windows are smaller. Throws where a window has
/// more than 2^24 losses.
LossMasses compose_losses(std::span<const CountedLosses> parts);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "dpmp/dp/fourier.hpp"

namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
/// The losses that a composition is computed for, and how much tilted mass is outside.
struct LossWindow {
  double low = 0, high = 0;              // losses over the interval
  double below = 0, above = 0, top = 0;  // masses outside; all of `above` has at least the loss `top`
  double size() const { return high - low + 1; }
};

inline double mean_loss(const LossMasses& m) {
  double sum = 0, mass = 0;
  for (const LossAtom& a : m.atoms) sum += a.mass * double(a.index), mass += a.mass;
  return sum / mass * m.interval;
}
/// An upper bound of log sum mass e^(theta (loss - mean)).
inline double log_moment(const LossMasses& m, double theta, double mean) {
  double sum = 0;
  for (const LossAtom& a : m.atoms) sum += a.mass * std::exp(theta * (double(a.index) * m.interval - mean));
  return std::log(sum) + 1e-12;
}

inline LossWindow loss_window(std::span<const CountedLosses> parts) {
  constexpr double outside = 1e-13;
  const double interval = parts[0].losses->interval;
  double mean = 0, variance = 0, smallest = 0, largest = 0;
  std::vector<double> means;
  for (const CountedLosses& p : parts) {
    const double m = mean_loss(*p.losses), count = double(p.count);
    double square = 0;
    for (const LossAtom& a : p.losses->atoms) square += a.mass * std::pow(double(a.index) * interval - m, 2);
    means.push_back(m);
    mean += count * m, variance += count * square;
    smallest += count * double(p.losses->atoms.front().index), largest += count * double(p.losses->atoms.back().index);
  }
  // Chernoff: P[sum >= mean + b] <= e^(log moment(theta) - theta b) for every theta > 0, and so below. The distance has one
  // minimum over theta, near sqrt(-2 log(outside) / variance) for sums that are nearly normal, and far below where a few
  // large losses are rare and make up the variance.
  double below = mean - smallest * interval, above = largest * interval - mean;
  LossWindow w;
  const double normal = std::sqrt(-2 * std::log(outside)) / std::sqrt(variance);
  if (std::isfinite(normal))
    for (const int side : {-1, 1}) {
      double& known = side < 0 ? below : above;
      double last = std::numeric_limits<double>::infinity();
      for (double theta = 1.2 * normal; theta > 1e-6 * normal; theta *= 0.7) {
        double moment = 0;
        for (std::size_t k = 0; k < parts.size(); ++k)
          moment += double(parts[k].count) * log_moment(*parts[k].losses, side * theta, means[k]);
        const double distance = (moment - std::log(outside)) / theta;
        if (distance > last) break;
        if (std::isfinite(distance)) last = distance;
      }
      if (!(last < known)) continue;
      known = last;
      (side < 0 ? w.below : w.above) = outside;
    }
  w.top = mean + above;
  w.low = std::floor((mean - below) / interval) - 1;
  w.high = std::ceil((mean + above) / interval) + 1;
  return w;
}

/// A complex number within `error` of what it stands for.
struct BoundedComplex {
  double re = 1, im = 0, error = 0;

  double size() const { return std::sqrt(re * re + im * im); }
  friend BoundedComplex operator*(const BoundedComplex& x, const BoundedComplex& y) {
    const double a = x.size(), b = y.size();
    const double off = (a * y.error + b * x.error + x.error * y.error + 0x1p-51 * (a * b)) * (1 + 0x1p-48);
    return {x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re, off + 1e-280};
  }
};
/// x^count. What is too small to matter is 0 with an error.
inline BoundedComplex power(BoundedComplex x, index_t count) {
  constexpr BoundedComplex none{0, 0, 1e-200};
  const double size = x.size() + x.error;
  if (size < 0.999 && double(count) * std::log(size) < -470) return none;
  BoundedComplex result;
  for (bool first = true;; x = x * x) {
    if (count % 2) result = first ? x : result * x, first = false;
    count /= 2;
    if (count == 0) return result;
  }
}

inline LossMasses compose_by_fft(std::span<const CountedLosses> parts) {
  const LossMasses& one = *parts[0].losses;
  const bool pessimistic = one.side == BoundSide::pessimistic;
  const LossWindow window = loss_window(parts);
  DPMP_CHECK(window.size() <= 0x1p24 && std::fabs(window.low) < 0x1p52,
             "expected a composition of at most 2^24 losses, got ", window.size());
  const std::size_t n = std::max<std::size_t>(4, std::bit_ceil(std::size_t(window.size())));
  const RealFourier fourier(n);
  LossMasses r;
  r.side = one.side, r.interval = one.interval, r.tilt = one.tilt;
  std::vector<BoundedComplex> product(n / 2 + 1);
  std::vector<double> masses;
  for (const CountedLosses& p : parts) {
    masses.assign(n, 0);
    double sum = 0;
    for (const LossAtom& a : p.losses->atoms) masses[std::size_t(a.index) & (n - 1)] += a.mass, sum += a.mass;
    const RealFourier::Spectrum s = fourier.forward(masses);
    for (std::size_t k = 0; k <= n / 2; ++k) {
      const BoundedComplex x = power({s.re[k], s.im[k], fourier.rounding() * sum}, p.count);
      product[k] = &p == parts.data() ? x : product[k] * x;
    }
    const double count = double(p.count);
    r.log_scale += count * p.losses->log_scale + (pessimistic ? 1 : -1) * 0x1p-51 * std::fabs(count * p.losses->log_scale);
    r.infinite += count * p.losses->infinite;
    r.excess += count * p.losses->excess;
  }
  double error = 0;
  RealFourier::Spectrum spectrum{std::vector<double>(n / 2 + 1), std::vector<double>(n / 2 + 1)};
  for (std::size_t k = 0; k <= n / 2; ++k) {
    error += product[k].error + fourier.rounding() * (product[k].size() + product[k].error);
    spectrum.re[k] = product[k].re, spectrum.im[k] = product[k].im;
  }
  error *= 2.001 / double(n);
  masses = fourier.inverse(spectrum);
  r.atoms.reserve(n);
  for (std::size_t k = 0; k < n; ++k) {
    const index_t index = index_t(window.low) + index_t(k);
    const double mass = std::max(0.0, masses[std::size_t(index) & (n - 1)]) + error;
    if (pessimistic)
      r.atoms.push_back({index, mass});
    else if (mass > 2 * error)
      r.atoms.push_back({index, mass - 2 * error});
  }
  // The mass above the window came into it somewhere below. Where masses are lower bounds, so did both.
  // Mass below the window came into it above, where it is less without the tilt.
  if (pessimistic) r.excess += window.below;
  if (pessimistic)
    r.infinite = r.infinite * (1 + 1e-9) + window.above * std::exp(r.log_scale - r.tilt * window.top);
  else
    r.excess += window.below + window.above;
  return r;
}
}  // namespace detail

DPMP_KEPT_BODY inline LossMasses compose_losses(std::span<const CountedLosses> parts) {
  constexpr std::size_t together = 32;
  DPMP_CHECK(!parts.empty(), "expected at least one part, got none");
  for (const CountedLosses& p : parts) {
    const LossMasses &x = *p.losses, &y = *parts[0].losses;
    DPMP_CHECK(p.count >= 1, "expected a count >= 1, got ", p.count);
    DPMP_CHECK(x.side == y.side && x.interval == y.interval && x.tilt == y.tilt,
               "expected parts of one side, interval and tilt, got (", x.interval, ", ", x.tilt, ") and (", y.interval, ", ",
               y.tilt, ")");
    if (x.atoms.empty()) return x;
  }
  if (parts.size() == 1 && parts[0].count == 1) return *parts[0].losses;
  if (parts.size() <= together) return detail::compose_by_fft(parts);
  std::vector<LossMasses> composed;
  for (std::size_t k = 0; k < parts.size(); k += together)
    composed.push_back(compose_losses(parts.subspan(k, std::min(together, parts.size() - k))));
  std::vector<CountedLosses> again;
  for (const LossMasses& m : composed) again.push_back({&m, 1});
  return compose_losses(again);
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
