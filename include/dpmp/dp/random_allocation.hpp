// SPDX-License-Identifier: Apache-2.0
// The privacy curve of an epoch in which a record is used once, in a uniformly random one of t steps (balls in bins):
// Gaussian mechanisms of sensitivity 1 and noise sigma. The pair is P = (1 / t) sum_i N(e_i, sigma^2) and Q = N(0, sigma^2)
// in t dimensions (docs/samplers.md), with the likelihood ratio A = (X_1 + .. + X_t) / t for independent log-normal X_i of
// mean 1 under Q. Both orders are convex functions of A: E_Q[(A - e^epsilon)_+] and E_Q[(1 - e^epsilon A)_+].
#pragma once
#include <vector>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// Upper bounds of both, but for `lost`. The law of an X_i is replaced by one on a grid, each value by its two neighbours
/// with the same mean, and so is every sum of two laws: that makes convex functions larger, never smaller (as connecting the
/// dots of a curve does), and adds about 0.2 % to the variance of A. Sums are found by direct convolution, of positive terms
/// only, so that tails keep their digits.
class RandomAllocation {
 public:
  /// Outcomes of this probability, under P and under Q, are not in the curves, which end where those of the rest do: who
  /// composes them pays for it, once an epoch, out of delta.
  static constexpr double lost = 1e-20;

  /// sigma: above 0.06, finite. steps: t in [1, 2^20].
  RandomAllocation(double sigma, index_t steps);
  /// sup_S P(S) - e^epsilon Q(S) at epsilon >= 0: of the data set with the record to the one without.
  double forward(double epsilon) const;
  /// sup_S Q(S) - e^epsilon P(S).
  double backward(double epsilon) const;

 private:
  double value(index_t k) const;  // of atom k: e^(interval * (first + k))
  double interval_, steps_, inflate_;
  index_t first_;
  std::vector<double> at_least_, above_, at_most_, below_;  // Q(S >= s_k), E(S - s_k)_+, Q(S <= s_k), E(s_k - S)_+
};
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include <algorithm>
#include <cmath>

namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
/// Of a sum of `terms` ratios under Q: masses at e^(interval * (first + k)), and at 0.
struct RatioLaw {
  index_t terms = 1, first = 0;
  std::vector<double> mass;
  double zero = 0;
  index_t end() const { return first + index_t(mass.size()); }
};

/// P[N(0, 1) in (a, b)] from the tail in which it has its digits.
inline double normal_mass(double a, double b) {
  constexpr double root = 0.70710678118654752440;
  return a > 0 ? 0.5 * (std::erfc(a * root) - std::erfc(b * root)) : 0.5 * (std::erfc(-b * root) - std::erfc(-a * root));
}
inline double normal_tail(double a) { return 0.5 * std::erfc(a * 0.70710678118654752440); }

/// Of one ratio X = exp(z / sigma - 1 / (2 sigma^2)), for z within `reach` of 0 and of 1 / sigma. What is above is left out.
inline RatioLaw one_ratio(double sigma, double interval, double reach) {
  const double centre = 0.5 / (sigma * sigma);
  const index_t low = index_t(std::floor((-reach / sigma - centre) / interval)),
                high = index_t(std::ceil((reach / sigma + centre) / interval));
  RatioLaw law{1, low, std::vector<double>(std::size_t(high - low + 1)), 0};
  const auto z = [&](index_t k) { return sigma * (double(k) * interval + centre); };
  for (index_t k = low; k < high; ++k) {
    // x mass = mean for x between the values of both ends.
    const double mass = normal_mass(z(k), z(k + 1)), mean = normal_mass(z(k) - 1 / sigma, z(k + 1) - 1 / sigma);
    const double x = std::exp(double(k) * interval), gap = x * std::expm1(interval);
    const double up = std::clamp((mean - x * mass) / gap, 0.0, mass);
    law.mass[std::size_t(k - low)] += mass - up;
    law.mass[std::size_t(k - low) + 1] += up;
  }
  const double mass = normal_tail(-z(low)), mean = normal_tail(1 / sigma - z(low));
  const double up = std::min(mass, mean / std::exp(double(low) * interval));
  law.mass[0] += up;
  law.zero = mass - up;
  return law;
}

/// The law of the sum of two independent ones.
inline RatioLaw sum_of(const RatioLaw& a, const RatioLaw& b, double interval) {
  const index_t first = std::min(a.first, b.first), reach = index_t(std::ceil(std::log(2.0) / interval)) + 2;
  RatioLaw sum{a.terms + b.terms, first, std::vector<double>(std::size_t(std::max(a.end(), b.end()) + reach - first)),
               a.zero * b.zero};
  // Pairs whose larger value is d places above the smaller one: their products go to the place of the larger one + `place`
  // and to the next one, in the shares 1 - up and up. Twice where x and y are the same law.
  const bool same = &a == &b;
  const auto add = [&](const RatioLaw& large, const RatioLaw& small, index_t d, index_t place, double up) {
    const index_t from = std::max(large.first, small.first + d), end = std::min(large.end(), small.end() + d);
    if (from >= end) return;
    const double times = same && d > 0 ? 2 : 1, stays = times * (1 - up), moves = times * up;
    const double *x = large.mass.data() + (from - large.first), *y = small.mass.data() + (from - d - small.first);
    double* out = sum.mass.data() + (from + place - first);
    const index_t n = end - from;
    out[0] += stays * (x[0] * y[0]);
    for (index_t k = 1; k < n; ++k) out[k] += stays * (x[k] * y[k]) + moves * (x[k - 1] * y[k - 1]);
    out[n] += moves * (x[n - 1] * y[n - 1]);
  };
  const index_t furthest = std::max(a.end() - b.first, b.end() - a.first);
  for (index_t d = 0; d < furthest; ++d) {
    const double ratio = std::exp(-double(d) * interval);  // the sum is 1 + ratio times the larger value
    const index_t place = index_t(std::log1p(ratio) / interval);
    const double low = std::expm1(double(place) * interval), gap = (1 + low) * std::expm1(interval);
    const double up = std::clamp((ratio - low) / gap, 0.0, 1.0);
    add(a, b, d, place, up);
    if (d > 0 && !same) add(b, a, d, place, up);
  }
  for (std::size_t k = 0; k < a.mass.size(); ++k) sum.mass[std::size_t(a.first - first) + k] += b.zero * a.mass[k];
  for (std::size_t k = 0; k < b.mass.size(); ++k) sum.mass[std::size_t(b.first - first) + k] += a.zero * b.mass[k];
  return sum;
}

/// Moves what is negligible at the lower end to 0 and to the lowest atom that stays, and takes it away at the upper end.
/// What that is, under P: of `steps` ratios in all, each part of this many terms may be in it.
inline double prune(RatioLaw& law, double interval, double steps, double negligible) {
  std::size_t low = 0, high = law.mass.size();
  double mass = 0, mean = 0;
  for (; low + 1 < high && mass + law.mass[low] < negligible; ++low) {
    mass += law.mass[low];
    mean += law.mass[low] * std::exp(double(law.first + index_t(low)) * interval);
  }
  const double up = std::min(mass, mean / std::exp(double(law.first + index_t(low)) * interval));
  law.mass[low] += up;
  law.zero += mass - up;
  double lost = 0;
  for (; high > low + 1; --high) {
    const double x = std::exp(double(law.first + index_t(high) - 1) * interval);
    const double more = law.mass[high - 1] * (x + steps) / double(law.terms);
    if (lost + more > negligible) break;
    lost += more;
  }
  law.mass.erase(law.mass.begin() + index_t(high), law.mass.end());
  law.mass.erase(law.mass.begin(), law.mass.begin() + index_t(low));
  law.first += index_t(low);
  return lost;
}
}  // namespace detail

DPMP_KEPT_BODY inline RandomAllocation::RandomAllocation(double sigma, index_t steps) : steps_(double(steps)) {
  DPMP_CHECK(sigma > 0 && std::isfinite(sigma), "expected a finite noise multiplier > 0, got ", sigma);
  DPMP_CHECK(steps >= 1 && steps <= (index_t(1) << 20), "expected 1 to 2^20 steps of an epoch, got ", steps);
  constexpr double reach = 11, negligible = 1e-24;  // tails of 2e-28 for each of the ratios
  const double range = 2 * reach / sigma + 1 / (sigma * sigma), variance = std::expm1(1 / (sigma * sigma));
  // Moving values to neighbours adds at most interval^2 t^2 / 2 to the variance of the sum, t * variance.
  interval_ = std::max(std::min(0.02, std::sqrt(0.004 * variance / steps_)), range / 8192);
  DPMP_CHECK(range < 700, "expected a noise multiplier above 0.06 for a random allocation, got ", sigma);
  detail::RatioLaw power = detail::one_ratio(sigma, interval_, reach), sum;
  double left_out = detail::normal_tail(reach) * (1 + steps_);
  bool any = false;
  for (index_t left = steps;;) {
    left_out += detail::prune(power, interval_, steps_, negligible);
    if (left & 1) {
      sum = any ? detail::sum_of(sum, power, interval_) : power;
      any = true;
      left_out += detail::prune(sum, interval_, steps_, negligible);
    }
    if ((left >>= 1) == 0) break;
    power = detail::sum_of(power, power, interval_);
  }
  left_out += sum.zero;
  DPMP_CHECK(left_out <= lost, "expected at most ", lost, " of an allocation to be left out, got ", left_out);
  first_ = sum.first;
  const std::size_t n = sum.mass.size();
  at_least_.resize(n), above_.resize(n), at_most_.resize(n), below_.resize(n);
  double mass = 0, mean = 0;
  for (std::size_t k = n; k-- > 0;) {
    if (k + 1 < n) mean += (value(index_t(k) + 1) - value(index_t(k))) * mass;
    above_[k] = mean;
    mass += sum.mass[k];
    at_least_[k] = mass;
  }
  mass = 0, mean = 0;
  for (std::size_t k = 0; k < n; ++k) {
    if (k > 0) mean += (value(index_t(k)) - value(index_t(k) - 1)) * mass;
    below_[k] = mean;
    mass += sum.mass[k];
    at_most_[k] = mass;
  }
  // Masses of one ratio: edges of cells are off by some 2^-46, against sigma * interval; their split into two by another
  // factor of 1 / interval. t of them multiply, and sums of up to 16384 positive terms are rounded in every convolution.
  inflate_ = 1 + steps_ * (0x1p-44 / (std::min(1.0, sigma) * interval_ * interval_) + 0x1p-37);
}

DPMP_KEPT_BODY inline double RandomAllocation::value(index_t k) const { return std::exp(double(first_ + k) * interval_); }

DPMP_KEPT_BODY inline double RandomAllocation::forward(double epsilon) const {
  const double x = steps_ * std::exp(epsilon), place = std::ceil(std::log(x) / interval_) - double(first_);
  const index_t n = index_t(above_.size());
  if (!(place < double(n))) return 0;
  index_t k = index_t(std::max(0.0, place));
  while (k < n && value(k) < x) ++k;  // where rounding has it otherwise
  if (k == n) return 0;
  return std::min(1.0, (above_[std::size_t(k)] + (value(k) - x) * at_least_[std::size_t(k)]) / steps_ * inflate_);
}

DPMP_KEPT_BODY inline double RandomAllocation::backward(double epsilon) const {
  const double y = steps_ * std::exp(-epsilon), place = std::floor(std::log(y) / interval_) - double(first_);
  index_t k = index_t(std::clamp(place, -1.0, double(below_.size()) - 1));
  while (k >= 0 && value(k) > y) --k;
  if (k < 0) return 0;
  return std::min(1.0, (below_[std::size_t(k)] + (y - value(k)) * at_most_[std::size_t(k)]) / y * inflate_);
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
