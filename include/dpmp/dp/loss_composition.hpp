// SPDX-License-Identifier: Apache-2.0
// Composition of privacy losses by FFT, with bounds on what the transform rounds and what its finite window leaves out.
#pragma once
#include <span>
#include <utility>
#include <vector>

#include "dpmp/dp/connect_dots.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// Steps whose losses are nearly the same: those of step i are masses + u_i change, and the u_i sum to 0.
struct LossChord {
  std::vector<LossAtom> change;                      // masses of either sign
  std::vector<std::pair<double, index_t>> distance;  // u_i in [-1, 1], and of how many steps
};
struct CountedLosses {
  const LossMasses* losses = nullptr;
  index_t count = 1;                 // >= 1
  const LossChord* chord = nullptr;  // where the steps differ; count is that of its distances then
};
/// The chord of steps between two distributions of the same side (pessimistic), interval and tilt: masses (1 - t_i) x +
/// t_i y for shares t_i in [0, 1], each of so many steps. The first is their mean.
std::pair<LossMasses, LossChord> loss_chord(const LossMasses& x, const LossMasses& y,
                                            const std::vector<std::pair<double, index_t>>& shares);
/// The losses of all parts together, each count times: independent, so that they add up. Sides, intervals and tilts are the
/// same. A part without masses says nothing (optimistic) or loses without a bound (pessimistic), and so do all. Where there are many parts, neighbours are composed first, whose windows are smaller. Throws where a window has
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

/// The product of all (x + u_i d) of a chord: powers of x, and a series in d / x for the logarithm of the rest.
class ChordProduct {
 public:
  explicit ChordProduct(const LossChord& chord) : chord_(chord) {
    for (const auto& [u, count] : chord.distance) {
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
      for (const auto& [u, count] : chord_.distance)
        product.multiply({x.re + u * d.re, x.im + u * d.im, x.error + std::fabs(u) * d.error + 0x1p-51 * (size + change)},
                         double(count));
      return;
    }
    product.multiply(x, steps_);
    const double re = (d.re * x.re + d.im * x.im) / (size * size), im = (d.im * x.re - d.re * x.im) / (size * size);
    // log prod (1 + u_i z) = sum_k -(-z)^k / k sum_i u_i^k, without k = 1 as the u_i sum to 0. Its derivative is at most
    // sum_k |z|^(k - 1) sum_i |u_i|^k.
    double log_re = 0, log_im = 0, error = 0, z_re = re, z_im = im, bound = ratio;
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
  const LossChord& chord_;
  double steps_ = 0, sum_[terms] = {}, size_[terms] = {};
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
  std::vector<double> masses;
  for (const CountedLosses& p : parts) {
    masses.assign(n, 0);
    double sum = 0;
    for (const LossAtom& a : p.losses->atoms) masses[std::size_t(a.index) & (n - 1)] += a.mass, sum += a.mass;
    const RealFourier::Spectrum s = fourier.forward(masses);
    if (p.chord) {
      masses.assign(n, 0);
      double changed = 0;
      for (const LossAtom& a : p.chord->change) masses[std::size_t(a.index) & (n - 1)] += a.mass, changed += std::fabs(a.mass);
      const RealFourier::Spectrum d = fourier.forward(masses);
      const ChordProduct chord(*p.chord);
      // Sums and differences of masses are rounded, too.
      const double rounding = fourier.rounding() + 0x1p-50;
      for (std::size_t k = 0; k <= n / 2; ++k)
        chord.multiply(product[k], {s.re[k], s.im[k], rounding * sum},
                       {d.re[k], d.im[k], rounding * changed + 0x1p-50 * sum});
    } else {
      for (std::size_t k = 0; k <= n / 2; ++k)
        product[k].multiply({s.re[k], s.im[k], fourier.rounding() * sum}, double(p.count));
    }
    const double count = double(p.count);
    r.log_scale += count * p.losses->log_scale + (pessimistic ? 1 : -1) * 0x1p-51 * std::fabs(count * p.losses->log_scale);
    r.infinite += count * p.losses->infinite;
    r.excess += count * p.losses->excess;
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

DPMP_KEPT_BODY inline std::pair<LossMasses, LossChord> loss_chord(const LossMasses& x, const LossMasses& y,
                                                                  const std::vector<std::pair<double, index_t>>& shares) {
  DPMP_CHECK(x.side == BoundSide::pessimistic && y.side == x.side && x.interval == y.interval && x.tilt == y.tilt &&
                 !x.atoms.empty() && !y.atoms.empty(),
             "expected two pessimistic distributions of one interval and tilt");
  double share = 0, steps = 0;
  for (const auto& [t, count] : shares) share += double(count) * t, steps += double(count);
  share /= steps;
  // Masses of y in the scale of x.
  const double scale = std::exp(y.log_scale - x.log_scale) *
                       (1 + (std::fabs(x.log_scale) + std::fabs(y.log_scale) + 8) * 0x1p-51);
  LossMasses mean{x.side, x.interval, x.tilt, x.log_scale, 0, 0, {}};
  mean.infinite = ((1 - share) * x.infinite + share * y.infinite) * (1 + 0x1p-50);
  mean.excess = ((1 - share) * x.excess + share * scale * y.excess) * (1 + 0x1p-50);
  LossChord chord;
  double sum = 0;
  for (const auto& [t, count] : shares) chord.distance.push_back({t - share, count});
  for (std::size_t i = 0, j = 0; i < x.atoms.size() || j < y.atoms.size();) {
    const bool from_x = j == y.atoms.size() || (i < x.atoms.size() && x.atoms[i].index <= y.atoms[j].index);
    const bool from_y = i == x.atoms.size() || (j < y.atoms.size() && y.atoms[j].index <= x.atoms[i].index);
    const index_t index = from_x ? x.atoms[i].index : y.atoms[j].index;
    const double a = from_x ? x.atoms[i].mass : 0, b = from_y ? scale * y.atoms[j].mass : 0;
    mean.atoms.push_back({index, ((1 - share) * a + share * b) * (1 + 0x1p-50)});
    chord.change.push_back({index, b - a});
    i += from_x, j += from_y;
    sum += mean.atoms.back().mass;
  }
  // As masses are everywhere: of the sum 1.
  for (LossAtom& a : mean.atoms) a.mass *= (1 + 0x1p-51) / sum;
  for (LossAtom& a : chord.change) a.mass *= (1 + 0x1p-51) / sum;
  mean.excess *= (1 + 0x1p-50) / sum;
  mean.log_scale += std::log(sum) + (std::fabs(mean.log_scale) + std::fabs(std::log(sum)) + 1) * 0x1p-51;
  return {std::move(mean), std::move(chord)};
}

DPMP_KEPT_BODY inline LossMasses compose_losses(std::span<const CountedLosses> parts) {
  constexpr std::size_t together = 32;
  DPMP_CHECK(!parts.empty(), "expected at least one part, got none");
  const CountedLosses* empty = nullptr;
  for (const CountedLosses& p : parts) {
    const LossMasses &x = *p.losses, &y = *parts[0].losses;
    DPMP_CHECK(p.count >= 1, "expected a count >= 1, got ", p.count);
    DPMP_CHECK(x.side == y.side && x.interval == y.interval && x.tilt == y.tilt,
               "expected parts of one side, interval and tilt, got (", x.interval, ", ", x.tilt, ") and (", y.interval, ", ",
               y.tilt, ")");
    if (x.atoms.empty()) empty = &p;
  }
  if (empty) {
    LossMasses r = *empty->losses;
    if (r.side == BoundSide::optimistic) return r;
    r.infinite = 0;
    for (const CountedLosses& p : parts) r.infinite += double(p.count) * p.losses->infinite * (1 + 1e-9);
    r.infinite = std::min(1.0, r.infinite);
    return r;
  }
  if (parts.size() == 1 && parts[0].count == 1 && !parts[0].chord) return *parts[0].losses;
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
