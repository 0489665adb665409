// SPDX-License-Identifier: Apache-2.0
// Steps of many noise multipliers as few curves: a step between two of them is composed as a mixture of both.
#pragma once
#include <utility>
#include <vector>

#include "dpmp/dp/loss_tilt.hpp"
#include "dpmp/dp/step_mechanism.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// Steps and how many of each.
using CountedSteps = std::vector<std::pair<StepMechanism, index_t>>;

/// Curves whose composition bounds that of all steps from above. Where more than 32 Poisson samples differ by their noise
/// multipliers alone, some of them stand for the others, about 3 % apart, more where steps lose little: a step in between
/// has at most the curve of a mixture of its two neighbours, which costs about 10^-4 of epsilon. The steps are sorted by all
/// but their noise multiplier first, then ascending by that.
///
/// Proof. Let mu = 1 / sigma and H(mu) be the curve of a step at some epsilon >= 0, in one of the orders. With k >= 0 it is
/// a convex function of -mu^-k / k (of log mu for k = 0) if mu H'' + (k + 1) H' >= 0, and so below its chord. One neighbour
/// contributes nothing: H is a positive multiple of the divergence of N(mu, 1) and N(0, 1) at some other epsilon e >= 0,
/// with H' = phi(e / mu - mu / 2) and mu H'' = (e^2 / mu^2 - mu^2 / 4) H'. So k >= mu^2 / 4 - 1 is enough. Replaced: with a
/// = mu / 2, the threshold z (dp/gaussian_curve.hpp) and r = e^(epsilon - 2 a z) <= 1, dH / da is q phi(z - a) (1 + r), and
/// dz / da = tau - z / a for some tau in [0, 1). The condition is (1 + r) (1 + k + z^2 - a^2 - a z tau) + a^2 tau (1 - r) >=
/// 0. As z^2 - a z tau >= -a^2 / 4, k >= 5 a^2 / 4 - 1 = 5 mu^2 / 16 - 1 is enough: for both.
std::vector<CountedCurve> noise_chords(const CountedSteps& sorted);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include <algorithm>
#include <cmath>

namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
/// The share of the step with `more` noise in the mixture of `less` and `more` that bounds one in between. Rounded down.
inline double share_of_more_noise(double less, double between, double more) {
  const double mu = 1 / less, k = std::max(0.0, 0.3125 * mu * mu * (1 + 1e-12) - 1);
  const double part = std::log(more / between), whole = std::log(more / less);  // log mu above that of `more`
  const double share = k * whole > 1e-6 ? std::expm1(-k * part) / std::expm1(-k * whole) : part / whole * (1 + k * whole);
  return std::max(0.0, 1 - share - 1e-9);
}
/// Appends the curves of steps [begin, end), which differ by their noise multipliers alone.
inline void append_chords(std::vector<CountedCurve>& curves, CountedSteps::const_iterator begin,
                          CountedSteps::const_iterator end) {
  constexpr std::ptrdiff_t few = 32;
  constexpr double wide = 0.25;
  const auto loses = [](double sigma) { return std::expm1(std::min(50.0, 1 / (sigma * sigma))); };
  double mean = 0, count = 0;
  for (auto s = begin; s != end; ++s) {
    mean += double(s->second) * loses(s->first.noise_multiplier);
    count += double(s->second);
  }
  mean /= count;
  // Wider where a range has more than some 64 curves.
  const double range = std::log(std::prev(end)->first.noise_multiplier / begin->first.noise_multiplier);
  const bool proven = begin->first.kind != StepMechanism::Kind::random_allocation_gaussian;
  const double width = proven && end - begin > few ? std::max(0.03, range / 64) : 0;
  for (auto s = begin; s != end;) {
    const double sigma = s->first.noise_multiplier;
    const double reach = sigma * (1 + std::min(wide, width * std::max(1.0, std::cbrt(mean / loses(sigma)))));
    auto next = std::next(s);
    while (next != end && std::next(next) != end && std::next(next)->first.noise_multiplier <= reach) ++next;
    CountedCurve c{privacy_curve(s->first), s->second, {}};
    for (auto between = std::next(s); between < next; ++between)
      c.towards_next.push_back(
          {share_of_more_noise(sigma, between->first.noise_multiplier, next->first.noise_multiplier), between->second});
    curves.push_back(std::move(c));
    s = next;
  }
}
}  // namespace detail

DPMP_KEPT_BODY inline std::vector<CountedCurve> noise_chords(const CountedSteps& sorted) {
  std::vector<CountedCurve> curves;
  for (auto begin = sorted.begin(); begin != sorted.end();) {
    auto end = begin;
    for (; end != sorted.end(); ++end) {
      StepMechanism same = end->first;
      same.noise_multiplier = begin->first.noise_multiplier;
      if (same != begin->first) break;
    }
    detail::append_chords(curves, begin, end);
    begin = end;
  }
  return curves;
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
