// SPDX-License-Identifier: Apache-2.0
// Composition of privacy losses by FFT, with bounds on what the transform rounds and what its finite window leaves out.
#pragma once
#include <span>
#include <utility>
#include <vector>

#include "dpmp/dp/connect_dots.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// Steps between two distributions x and y: masses (1 - t_i) x + t_i y for shares t_i in [0, 1], each of so many steps.
using LossShares = std::vector<std::pair<double, index_t>>;
struct CountedLosses {
  const LossMasses* losses = nullptr;
  index_t count = 1;                         // >= 1
  const LossShares* towards_next = nullptr;  // further steps, between this part and the next one. Pessimistic
};
/// The losses of all parts together, each count times: independent, so that they add up. Sides, intervals and tilts are the
/// same. A part without masses says nothing (optimistic) or loses without a bound (pessimistic), and so do all. Throws
/// where a window has more than 2^24 losses.
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

/// The steps between two parts: their mean is ((1 - share) x + share scale y) / sum, x and y as they are stored, of the sum
/// 1, and times e^log_scale.
struct LossChord {
  LossChord(const LossMasses& x, const LossMasses& y, const LossShares& shares) {
    const auto sum_of = [](const LossMasses& m) {
      double all = 0;
      for (const LossAtom& a : m.atoms) all += a.mass;
      return all;
    };
    for (const auto& [t, count] : shares) share += double(count) * t, steps += double(count);
    share /= steps;
    scale = std::exp(y.log_scale - x.log_scale) * (1 + (std::fabs(x.log_scale) + std::fabs(y.log_scale) + 8) * 0x1p-51);
    sum = (1 - share) * sum_of(x) + share * scale * sum_of(y);
    log_scale = x.log_scale + std::log(sum) + (std::fabs(x.log_scale) + std::fabs(std::log(sum)) + 1) * 0x1p-51;
  }
  /// Of a number that x has and one that y has.
  double mean(double x, double y) const { return ((1 - share) * x + share * scale * y) / sum; }
  double share = 0, steps = 0, scale = 1, sum = 1, log_scale = 0;
};

inline LossWindow loss_window(std::span<const CountedLosses> parts) {
  constexpr double outside = 1e-13;
  const double interval = parts[0].losses->interval;
  double mean = 0, variance = 0, smallest = 0, largest = 0;
  std::vector<double> means, logs(parts.size());
  std::vector<std::pair<std::size_t, LossChord>> chords;
  for (std::size_t k = 0; k < parts.size(); ++k) {
    const std::vector<LossAtom>& atoms = parts[k].losses->atoms;
    const double m = mean_loss(*parts[k].losses);
    double square = 0, count = double(parts[k].count);
    for (const LossAtom& a : atoms) square += a.mass * std::pow(double(a.index) * interval - m, 2);
    means.push_back(m);
    if (k > 0 && parts[k - 1].towards_next) {
      const LossChord& c =
          chords.emplace_back(k - 1, LossChord(*parts[k - 1].losses, *parts[k].losses, *parts[k - 1].towards_next)).second;
      const std::vector<LossAtom>& before = parts[k - 1].losses->atoms;
      mean += c.steps * c.mean(means[k - 1], m), count += c.steps;
      smallest += c.steps * double(std::min(before.front().index, atoms.front().index));
      largest += c.steps * double(std::max(before.back().index, atoms.back().index));
    }
    mean += double(parts[k].count) * m, variance += count * square;
    smallest += double(parts[k].count) * double(atoms.front().index);
    largest += double(parts[k].count) * double(atoms.back().index);
  }
  // The mean logarithm of the steps of a chord is at most the logarithm of their mean.
  const auto moment_at = [&](double theta) {
    double moment = 0;
    for (std::size_t k = 0; k < parts.size(); ++k) {
      logs[k] = log_moment(*parts[k].losses, theta, means[k]);
      moment += double(parts[k].count) * logs[k];
    }
    for (const auto& [k, c] : chords) {
      const double middle = c.mean(means[k], means[k + 1]);
      moment += c.steps * (std::log(c.mean(std::exp(logs[k] + theta * (means[k] - middle)),
                                           std::exp(logs[k + 1] + theta * (means[k + 1] - middle)))) +
                           1e-12);
    }
    return moment;
  };
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
        const double distance = (moment_at(side * theta) - std::log(outside)) / theta;
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
  double re = 0, im = 0, error = 0;
  double size() const { return std::sqrt(re * re + im * im); }
};
/// A product of powers of such numbers by its logarithm. What it stands for is within e^re (e^slack - 1) of e^(re + i im):
/// prod |x| (1 + error / |x|)^count - prod |x|, and the rounding of logarithms, angles and their sums.
class LogProduct {
 public:
  /// Times x^count. What is too small to matter stays as it is: factors are at most 1.
  void multiply(const BoundedComplex& x, double count) {
    if (negligible()) return;
    constexpr double least = 1e-200;
    const double size = std::max(x.size(), least), share = (x.error + (size > least ? 0 : 2 * least)) / size;
    const double angle = std::atan2(x.im, x.re);
    add(count * std::log(size), count * angle,
        count * ((share < 1e-3 ? share : std::log1p(share)) + 0x1p-51 * (1 + std::fabs(angle))));
  }
  /// Times e^(re + i im), known up to a factor within e^slack - 1 of 1.
  void add(double re, double im, double slack) {
    re_ += re, im_ += im;
    slack_ += slack + 0x1p-51 * (std::fabs(re_) + std::fabs(im_));
  }
  bool negligible() const { return re_ + slack_ < -80; }
  BoundedComplex value() const {
    if (negligible()) return {0, 0, 1e-34};
    const double size = std::exp(re_), slack = slack_ + 0x1p-50;
    return {size * std::cos(im_), size * std::sin(im_),
            slack < 1 ? size * slack * (1 + slack) : std::exp(re_ + slack) * (1 + 0x1p-48)};
  }

 private:
  double re_ = 0, im_ = 0, slack_ = 0;
};

/// The product of all (x + u_i d), u_i = t_i - share, of a chord: powers of x, and a series in d / x for the logarithm of
/// the rest.
class ChordProduct {
 public:
  ChordProduct(const LossShares& shares, double share) : shares_(shares), share_(share) {
    for (const auto& [t, count] : shares) {
      const double u = t - share;
      steps_ += double(count);
      double power = u;
      for (int k = 2; k < terms; ++k) {
        power *= u;
        sum_[k] += double(count) * power, size_[k] += double(count) * std::fabs(power);
      }
    }
  }
  void multiply(LogProduct& product, const BoundedComplex& x, const BoundedComplex& d) const {
    if (product.negligible()) return;
    const double size = x.size(), change = d.size();
    const double ratio_error = (d.error + change / size * x.error) / (size - x.error) + 0x1p-49 * change / size;
    const double ratio = change / size + ratio_error;
    if (!(x.error < size / 2 && ratio < 0.25)) {
      for (const auto& [t, count] : shares_) {
        const double u = t - share_;
        product.multiply({x.re + u * d.re, x.im + u * d.im, x.error + std::fabs(u) * d.error + 0x1p-51 * (size + change)},
                         double(count));
      }
      return;
    }
    product.multiply(x, steps_);
    const double re = (d.re * x.re + d.im * x.im) / (size * size), im = (d.im * x.re - d.re * x.im) / (size * size);
    // log prod (1 + u_i z) = sum_k -(-z)^k / k sum_i u_i^k, without k = 1, as the u_i sum to 0 up to their
    // rounding. Its derivative is at most sum_k |z|^(k - 1) sum_i |u_i|^k.
    double log_re = 0, log_im = 0, error = steps_ * 0x1p-51 * ratio, z_re = re, z_im = im, bound = ratio;
    int k = 2;
    for (; k + 1 < terms && bound * ratio * size_[k] > 1e-16; ++k) {
      const double next = z_re * re - z_im * im;
      z_im = z_re * im + z_im * re, z_re = next;
      const double factor = (k % 2 ? 1 : -1) * sum_[k] / k;
      log_re += factor * z_re, log_im += factor * z_im;
      error += size_[k] * bound * (ratio_error + 0x1p-48 * ratio);
      bound *= ratio;
    }
    product.add(log_re, log_im, error + bound * ratio * size_[k] / (1 - ratio));
  }

 private:
  static constexpr int terms = 16;
  const LossShares& shares_;
  double share_, steps_ = 0, sum_[terms] = {}, size_[terms] = {};
};

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
  std::vector<LogProduct> product(n / 2 + 1);
  std::vector<double> masses(n);
  double sum = 0;
  const auto spectrum_of = [&](const LossMasses& m) {
    std::fill(masses.begin(), masses.end(), 0.0);
    sum = 0;
    for (const LossAtom& a : m.atoms) masses[std::size_t(a.index) & (n - 1)] += a.mass, sum += a.mass;
    return fourier.forward(masses);
  };
  const auto account = [&](double count, double log_scale, double infinite, double excess) {
    r.log_scale += count * log_scale + (pessimistic ? 1 : -1) * 0x1p-51 * std::fabs(count * log_scale);
    r.infinite += count * infinite;
    r.excess += count * excess;
  };
  RealFourier::Spectrum last;
  double last_sum = 0;
  for (std::size_t part = 0; part < parts.size(); ++part) {
    const LossMasses& y = *parts[part].losses;
    RealFourier::Spectrum s = spectrum_of(y);
    for (std::size_t k = 0; k <= n / 2; ++k)
      product[k].multiply({s.re[k], s.im[k], fourier.rounding() * sum}, double(parts[part].count));
    account(double(parts[part].count), y.log_scale, y.infinite, y.excess);
    if (part > 0 && parts[part - 1].towards_next) {
      const LossMasses& x = *parts[part - 1].losses;
      const LossChord c(x, y, *parts[part - 1].towards_next);
      const ChordProduct chord(*parts[part - 1].towards_next, c.share);
      const double up = c.scale / c.sum, down = 1 / c.sum;
      const double error = (fourier.rounding() + 0x1p-50) * (down * last_sum + up * sum);
      for (std::size_t k = 0; k <= n / 2; ++k)
        chord.multiply(product[k], {c.mean(last.re[k], s.re[k]), c.mean(last.im[k], s.im[k]), fourier.rounding() + 0x1p-49},
                       {up * s.re[k] - down * last.re[k], up * s.im[k] - down * last.im[k], error});
      // Of no scale.
      account(c.steps, c.log_scale, (1 - c.share) * x.infinite + c.share * y.infinite, c.mean(x.excess, y.excess));
    }
    last = std::move(s), last_sum = sum;
  }
  double error = 0;
  RealFourier::Spectrum spectrum{std::vector<double>(n / 2 + 1), std::vector<double>(n / 2 + 1)};
  for (std::size_t k = 0; k <= n / 2; ++k) {
    const BoundedComplex x = product[k].value();
    error += x.error + fourier.rounding() * (x.size() + x.error);
    spectrum.re[k] = x.re, spectrum.im[k] = x.im;
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
  DPMP_CHECK(!parts.empty(), "expected at least one part, got none");
  const CountedLosses* empty = nullptr;
  for (const CountedLosses& p : parts) {
    const LossMasses &x = *p.losses, &y = *parts[0].losses;
    DPMP_CHECK(p.count >= 1, "expected a count >= 1, got ", p.count);
    DPMP_CHECK(x.side == y.side && x.interval == y.interval && x.tilt == y.tilt,
               "expected parts of one side, interval and tilt, got (", x.interval, ", ", x.tilt, ") and (", y.interval, ", ",
               y.tilt, ")");
    if (x.atoms.empty()) empty = &p;
    DPMP_CHECK(!p.towards_next || (&p != &parts.back() && x.side == BoundSide::pessimistic),
               "expected steps between two pessimistic parts, got them after the last one or between optimistic ones");
  }
  if (empty) {
    LossMasses r = *empty->losses;
    if (r.side == BoundSide::optimistic) return r;
    r.infinite = 0;
    for (std::size_t k = 0; k < parts.size(); ++k) {
      double count = double(parts[k].count);
      for (const std::size_t j : {k, k - 1})
        if (j < parts.size() && parts[j].towards_next)
          for (const auto& step : *parts[j].towards_next) count += double(step.second);
      r.infinite += count * parts[k].losses->infinite * (1 + 1e-9);
    }
    r.infinite = std::min(1.0, r.infinite);
    return r;
  }
  if (parts.size() == 1 && parts[0].count == 1) return *parts[0].losses;
  return detail::compose_by_fft(parts);
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
