// SPDX-License-Identifier: Apache-2.0
// Which tilt and which grid answer a question about a composition: the saddle point of its moments.
#pragma once
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "dpmp/dp/loss_composition.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// What is asked of a composition: epsilon at a delta, delta at an epsilon, the true at a false positive rate.
struct TiltQuestion {
  enum class Given : std::uint8_t { delta, epsilon, false_positive_rate };
  Given given = Given::delta;
  double value = 0;
  double known = 0;  // an epsilon: whether the answer is below it is enough to know; 0: it is not
};
struct CountedCurve {
  PrivacyCurve curve;
  index_t count = 1;
  /// Steps between this curve and the next one of a list: mixtures with this share of the next one, and how many.
  /// Pessimistic.
  LossShares towards_next = {};
};
struct TiltedLosses {
  std::optional<LossMasses> losses = {};
  bool below_known = false;  // the answer is below `known`
};
/// The composition of all curves, each count times, tilted so that the answer is in the middle of its window, on a grid on
/// which connecting the dots adds about 1e-5 of the variance. None where a grid of 2^20 losses is too coarse to be worth it.
TiltedLosses tilted_losses(std::span<const CountedCurve> curves, BoundSide side, const TiltQuestion& question);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include <algorithm>
#include <cmath>
#include <numbers>

namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
/// Logarithm of the moment sum p e^(lambda loss), mean and variance of the losses under weights p e^(lambda loss).
struct TiltedMoments {
  double log_moment = 0, mean = 0, variance = 0;
};
/// The losses of one curve on a rough grid, from above: what the choice of a tilt needs.
struct RoughLosses {
  std::vector<double> loss, log_mass;
  double count;

  /// The loss above which there is less than `mass`.
  double largest(double mass) const {
    std::size_t k = loss.size();
    for (double sum = 0; k > 1 && sum < mass; --k) sum += std::exp(log_mass[k - 1]);
    return loss[k - 1];
  }
  /// The median of |loss - median| under the tilt.
  double median_distance(double lambda) const {
    const double scale = at(lambda).log_moment;
    std::vector<std::pair<double, double>> weighted;
    for (std::size_t k = 0; k < loss.size(); ++k)
      weighted.push_back({loss[k], std::exp(log_mass[k] + lambda * loss[k] - scale)});
    const auto median = [&] {
      std::sort(weighted.begin(), weighted.end());
      double sum = 0;
      for (const auto& [value, weight] : weighted)
        if ((sum += weight) >= 0.5) return value;
      return weighted.back().first;
    };
    const double middle = median();
    for (auto& [value, weight] : weighted) value = std::fabs(value - middle);
    return median();
  }
  TiltedMoments at(double lambda) const {
    double top = -HUGE_VAL, sum = 0, mean = 0, square = 0;
    for (std::size_t k = 0; k < loss.size(); ++k) top = std::max(top, log_mass[k] + lambda * loss[k]);
    for (std::size_t k = 0; k < loss.size(); ++k) {
      const double weight = std::exp(log_mass[k] + lambda * loss[k] - top);
      sum += weight, mean += weight * loss[k];
    }
    mean /= sum;
    for (std::size_t k = 0; k < loss.size(); ++k) {
      const double distance = loss[k] - mean;
      square += std::exp(log_mass[k] + lambda * loss[k] - top) * distance * distance;
    }
    return {top + std::log(sum), mean, square / sum};
  }
};
inline double power_of_two_below(double x) { return std::ldexp(1.0, std::ilogb(x)); }

/// near: where the losses that matter are, if known.
inline RoughLosses rough_losses(const CountedCurve& c, const TiltedMoments* near) {
  constexpr double tail = 1e-290;
  LossGrid grid{.resolution = near ? 1.0 / 16 : 1.0 / 8, .tail = tail};
  double largest = 0x1p-60;
  while (largest < 0x1p60 && std::max(c.curve.forward(largest).upper, c.curve.backward(largest).upper) > tail) largest *= 2;
  grid.interval = power_of_two_below(largest) * 0x1p-48;
  if (near) {
    grid.centre = near->mean, grid.spread = std::sqrt(near->variance);
    grid.interval = std::max(grid.interval, power_of_two_below(grid.spread * grid.resolution / 4));
  }
  RoughLosses r{{}, {}, double(c.count)};
  const LossMasses losses = connect_the_dots(c.curve, BoundSide::pessimistic, grid);
  for (const LossAtom& a : losses.atoms) {
    r.loss.push_back(double(a.index) * grid.interval);
    r.log_mass.push_back(std::log(a.mass) + losses.log_scale);
  }
  return r;
}
inline TiltedMoments moments_of_all(const std::vector<RoughLosses>& all, double lambda) {
  TiltedMoments sum;
  for (const RoughLosses& r : all) {
    const TiltedMoments one = r.at(lambda);
    sum.log_moment += r.count * one.log_moment;
    sum.mean += r.count * one.mean;
    sum.variance += r.count * one.variance;
  }
  return sum;
}

/// The lambda >= 0 whose mean is about the epsilon in question: by the saddle-point approximation
/// log delta = log moment - lambda mean - log(lambda (1 + lambda) sqrt(2 pi variance)) where a delta is given.
inline double saddle_point(const std::vector<RoughLosses>& all, const TiltQuestion& question) {
  const auto wants_more = [&](double lambda) {
    const TiltedMoments m = moments_of_all(all, lambda);
    // Not beyond a delta that is 0 to a double: losses may be bounded.
    if (question.given == TiltQuestion::Given::epsilon)
      return m.mean < question.value && m.log_moment - lambda * question.value > -600;
    const double width = std::log1p(lambda * std::sqrt(2 * std::numbers::pi * m.variance));
    if (question.given == TiltQuestion::Given::delta)
      return m.log_moment - lambda * m.mean - std::log1p(lambda) - width > std::log(question.value);
    // The mass under Q above the mean, e^(log moment - (1 + lambda) mean).
    return m.log_moment - (1 + lambda) * m.mean - width > std::log(question.value);
  };
  double low = -20, high = 40;  // of log2 lambda
  if (!wants_more(std::exp2(low))) return 0;
  while (high - low > 0.01) {
    const double middle = (low + high) / 2;
    (wants_more(std::exp2(middle)) ? low : high) = middle;
  }
  return std::exp2(low);
}
/// A smaller lambda, which gives less weight to rare large losses and needs a smaller window for them; at most e^7 of the
/// transform's accuracy is given for it.
inline double gentler(const std::vector<RoughLosses>& all, double saddle) {
  const TiltedMoments m = moments_of_all(all, saddle);
  for (const double lambda : {0.5 * saddle, 0.6 * saddle, 0.7 * saddle, 0.8 * saddle, 0.9 * saddle})
    if (moments_of_all(all, lambda).log_moment - lambda * m.mean <= m.log_moment - saddle * m.mean + 7) return lambda;
  return saddle;
}
/// What curves lose near the answer to a question, on rough grids.
struct RoughComposition {
  double steps = 0;
  std::size_t every = 1;            // of so many curves one has been looked at
  std::vector<RoughLosses> losses;  // of these
};
inline RoughComposition rough_composition(std::span<const CountedCurve> curves, const TiltQuestion& question) {
  std::vector<double> counts(curves.size(), 0);
  for (std::size_t k = 0; k < curves.size(); ++k) {
    counts[k] += double(curves[k].count);
    for (const auto& [share, count] : curves[k].towards_next) {
      counts[k] += (1 - share) * double(count);
      counts[k + 1] += share * double(count);
    }
  }
  // Some of many curves are enough to find the tilt.
  RoughComposition r{0, (curves.size() + 31) / 32, {}};
  for (std::size_t k = 0; k < curves.size(); k += r.every) {
    r.losses.push_back(rough_losses(curves[k], nullptr));
    r.losses.back().count = 0;
    for (std::size_t j = k; j < std::min(k + r.every, curves.size()); ++j) r.losses.back().count += counts[j];
    r.steps += r.losses.back().count;
  }
  const double lambda = gentler(r.losses, saddle_point(r.losses, question));
  for (std::size_t k = 0; k < r.losses.size(); ++k) {
    const TiltedMoments m = r.losses[k].at(lambda);
    const double count = r.losses[k].count;
    r.losses[k] = rough_losses(curves[k * r.every], &m);
    r.losses[k].count = count;
  }
  return r;
}
/// About epsilon of the first order at `delta`.
inline double rough_epsilon(std::span<const CountedCurve> curves, double delta) {
  const TiltQuestion question{TiltQuestion::Given::delta, delta};
  const std::vector<RoughLosses> rough = rough_composition(curves, question).losses;
  return moments_of_all(rough, saddle_point(rough, question)).mean;
}
}  // namespace detail

DPMP_KEPT_BODY inline TiltedLosses tilted_losses(std::span<const CountedCurve> curves, BoundSide side,
                                                 const TiltQuestion& question) {
  const detail::RoughComposition composition = detail::rough_composition(curves, question);
  const std::vector<detail::RoughLosses>& rough = composition.losses;
  const double steps = composition.steps;
  const std::size_t every = composition.every;
  const double saddle = detail::saddle_point(rough, question);
  const double lambda = detail::gentler(rough, saddle);
  const detail::TiltedMoments all = detail::moments_of_all(rough, lambda);
  std::vector<detail::TiltedMoments> near;
  for (const detail::RoughLosses& r : rough) near.push_back(r.at(lambda));

  if (!(all.variance > 0)) return {};
  const bool all_seen =
      every == 1 && std::all_of(curves.begin(), curves.end(), [](const auto& c) { return c.towards_next.empty(); });
  if (all_seen && question.given == TiltQuestion::Given::delta && question.known > 0) {
    // A tail bound is enough: E (1 - e^(epsilon - loss))_+ is at most E e^(lambda (loss - epsilon)) times the largest value
    // of (1 - e^-x) e^(-lambda x).
    const detail::TiltedMoments m = detail::moments_of_all(rough, saddle);
    const double factor = saddle > 0 ? saddle * std::log(saddle) - (saddle + 1) * std::log1p(saddle) : 0;
    const double bound = m.log_moment - saddle * question.known + factor + 1e-9 * (1 + std::fabs(m.log_moment));
    if (bound < std::log(question.value)) return {.below_known = true};
  }

  // A grid of the interval resolution * sqrt(variance / steps) adds resolution^2 / 3 of the variance, or less; a window is
  // some 15 standard deviations. A finer grid costs time in proportion.
  const double window = 32 * std::sqrt(steps);
  double resolution = std::max(1.0 / 64, std::min(window * 0x1p-17, 1.0 / 32));
  resolution = std::max(resolution, window * 0x1p-20);
  if (resolution > 0.25) return {};
  const double coarse = resolution * std::sqrt(all.variance / steps);
  double wanted = coarse, largest = 0;
  // Where few large losses make up the variance, a grid for it is too coarse for the many small ones.
  for (std::size_t k = 0; k < rough.size(); ++k) {
    if (every == 1) wanted = std::min(wanted, std::max(rough[k].median_distance(lambda) / 16, coarse / 64));
    largest = std::max(largest, rough[k].largest(1e-12 / steps));
  }
  // Few steps are no Gaussian: the shape of a curve at the epsilon in question counts, not the variance.
  const bool few = steps <= 256;
  if (few && all.mean > 0) wanted = std::min(wanted, std::max(all.mean * 0x1p-9, largest * 0x1p-15));
  double delta = question.value;
  if (question.given != TiltQuestion::Given::delta) {
    const detail::TiltedMoments m = detail::moments_of_all(rough, saddle);
    delta = std::exp(m.log_moment - saddle * std::max(m.mean, 0.0)) / (2 + saddle * std::sqrt(m.variance)) / (2 + saddle);
  }
  // Every loss is a number of intervals that a double holds.
  for (const detail::RoughLosses& r : rough)
    wanted = std::max(wanted, 0x1p-44 * std::max(std::fabs(r.loss.front()), std::fabs(r.loss.back())));
  double interval = detail::power_of_two_below(wanted);
  for (int doubled = 0; doubled < 24; ++doubled, interval *= 2) {
    std::vector<LossMasses> losses;
    for (std::size_t k = 0; k < curves.size(); ++k) {
      const detail::TiltedMoments& m = near[k / every];
      losses.push_back(connect_the_dots(curves[k].curve, side,
                                        {.interval = interval,
                                         .tilt = lambda,
                                         .centre = m.mean,
                                         .spread = std::sqrt(m.variance),
                                         .resolution = resolution,
                                         .fall = few ? 1.0 / 32 : 0,
                                         .tail = std::max(1e-290, delta / steps * 1e-9)}));
    }
    std::vector<CountedLosses> parts;
    bool empty = false;
    for (std::size_t k = 0; k < curves.size(); ++k) {
      // A mechanism of which nothing is known from below adds nothing to a lower bound.
      if (side == BoundSide::optimistic && losses[k].atoms.empty()) continue;
      empty = empty || losses[k].atoms.empty();
      parts.push_back({&losses[k], curves[k].count, curves[k].towards_next.empty() ? nullptr : &curves[k].towards_next});
    }
    if (parts.empty()) return {.losses = losses[0]};
    // All of its mass is at an infinite loss: no grid is too coarse for that.
    if (empty) return {.losses = compose_losses(parts)};
    if (detail::loss_window(parts).size() <= (interval < coarse / 2 ? 0x1p16 : 0x1p21))
      return {.losses = compose_losses(parts)};
  }
  return {};
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
