// SPDX-License-Identifier: Apache-2.0
// From a privacy curve to masses of the privacy loss on a grid: connecting the dots (Doroshenko, Ghazi, Kamath, Kumar,
// Manurangsi, "Connect the Dots: Tighter Discrete Approximations of Privacy Loss Distributions", 2022).
#pragma once
#include <vector>

#include "dpmp/dp/privacy_curve.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// On which side of the truth all results are.
enum class BoundSide : std::uint8_t { pessimistic, optimistic };

/// Where the curve of a pair is looked at, and with which weight masses are stored.
struct LossGrid {
  double interval = 0x1p-14;  // every loss is a multiple of it; a power of two
  double tilt = 0;            // lambda >= 0: masses are stored times e^(lambda loss), see PrivacyLossDistribution
  double centre = 0;          // points of the curve are `interval` apart near `centre`, and at most
  double spread = 0;          // resolution * max(spread, |loss - centre|) apart elsewhere;
  double resolution = 0;      // in [0, 1/4]; 0: `interval` apart everywhere
  double fall = 0;            // in [0, 1): above 0 the curve falls by at most this share to the next point; 0: by any
  double tail = 1e-18;        // > 0: the grid ends where the curve is below it; what is beyond has an infinite loss
};

struct LossAtom {
  index_t index = 0;  // loss / interval
  double mass = 0;    // under P, times e^(tilt loss - log_scale)
};

/// Masses of the privacy loss log(P / Q) under P.
struct LossMasses {
  BoundSide side = BoundSide::pessimistic;
  double interval = 0, tilt = 0, log_scale = 0;
  double infinite = 0;          // pessimistic: P-mass of the infinite loss
  double excess = 0;            // tilted mass that may be more than there is (pessimistic: less)
  std::vector<LossAtom> atoms;  // ascending; none where nothing is known (optimistic)
};

/// Pessimistic: the masses whose curve sum_i p_i (1 - e^(epsilon - loss_i))_+ connects the dots of the pair's curve, as a
/// function of e^epsilon, by straight lines. Any masses >= 0 whose curve is above that of the pair will do, because
/// composing with the pair averages the curve over losses of the rest, with weights >= 0: so masses are simply rounded up.
/// Optimistic: each dot is lowered by the most that chords next to it can be above the curve, which is convex and so above
/// the chords of its neighbours; the lower convex hull of these dots is below the curve. Masses are rounded down.
/// Throws where the grid has no meaning or more than 2^24 points.
LossMasses connect_the_dots(const PrivacyCurve& curve, BoundSide side, const LossGrid& grid);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include <algorithm>
#include <cmath>

namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
/// A point of the curve. Below 0 the value is that of the curve minus (1 - e^loss), which keeps its digits; the difference
/// is a straight line in e^loss and has its mass at 0.
struct CurveDot {
  index_t index;
  double value, error;  // pessimistic: an upper bound; optimistic: a lower one, and how far the truth may be above it
};

inline CurveDot curve_dot(const PrivacyCurve& curve, BoundSide side, index_t index, double interval) {
  const double loss = double(index) * interval;
  DeltaBounds b;
  if (index >= 0) {
    b = curve.forward(loss);
  } else {
    b = curve.backward(-loss);
    const double scale = std::exp(loss), error = (4 - loss) * 0x1p-53;
    b = {b.lower * scale * (1 - error), b.upper * scale * (1 + error)};
  }
  // What is no number bounds nothing.
  if (!(b.upper <= 1)) b.upper = 1;
  if (!(b.lower >= 0)) b.lower = 0;
  return side == BoundSide::pessimistic ? CurveDot{index, b.upper, 0} : CurveDot{index, b.lower, b.upper - b.lower};
}

inline std::vector<CurveDot> curve_dots(const PrivacyCurve& curve, BoundSide side, const LossGrid& g) {
  constexpr index_t most = index_t(1) << 24;
  // Steps are powers of two.
  const auto step_at = [&](double loss) -> index_t {
    const double steps = g.resolution * std::max(g.spread, std::fabs(loss - g.centre)) / g.interval;
    return steps < 2 ? 1 : index_t(1) << std::min(50, std::ilogb(steps));
  };
  std::vector<CurveDot> dots{curve_dot(curve, side, 0, g.interval)};
  const auto go = [&](index_t direction) {
    for (index_t index = 0, last_step = index_t(1) << 50;;) {
      const double value = dots.back().value;
      index_t step = std::min(2 * last_step, step_at(double(index) * g.interval));
      CurveDot next = curve_dot(curve, side, index + direction * step, g.interval);
      while (g.fall > 0 && direction > 0 && step > 1 && next.value < value * (1 - g.fall)) {
        step /= 2;
        next = curve_dot(curve, side, index + step, g.interval);
      }
      dots.push_back(next);
      index = next.index, last_step = step;
      if (next.value <= g.tail || std::abs(index) > index_t(1) << 50) return;
      DPMP_CHECK(index_t(dots.size()) < most, "expected a grid of less than 2^24 losses, got the interval ", g.interval,
                 " and the resolution ", g.resolution);
    }
  };
  go(-1);
  std::reverse(dots.begin(), dots.end());
  go(1);
  return dots;
}

/// x = e^loss at b times the slope of the chord from a to b: of the curve above 0, of the difference below it.
inline double slope_before(double from, const CurveDot& a, const CurveDot& b, double to, double interval) {
  const double line = a.index < 0 && b.index > 0 ? std::expm1(double(a.index) * interval) : 0;
  return (to - from + line) / -std::expm1(double(a.index - b.index) * interval);
}
/// x at b times the slope of the chord from b to c.
inline double slope_after(const CurveDot& b, double from, const CurveDot& c, double to, double interval) {
  const double line = b.index < 0 && c.index > 0 ? std::expm1(double(c.index) * interval) : 0;
  return (to - from + line) / std::expm1(double(c.index - b.index) * interval);
}

/// The most that the chord between each of `dots` and the next one is above a convex function which is at the dots up to
/// their errors.
inline std::vector<double> chord_heights(const std::vector<CurveDot>& dots, double interval) {
  const auto above = [](const CurveDot& d) { return d.value + d.error; };
  std::vector<double> heights;
  for (std::size_t j = 0; j + 1 < dots.size(); ++j) {
    // Slopes times x at l: of the chord, and of its neighbours, not above that of the function at l, not below that at r.
    const CurveDot &l = dots[j], &r = dots[j + 1];
    const double chord = slope_after(l, l.value, r, r.value, interval), distance = double(r.index - l.index) * interval;
    double before = 0, after = 0;  // below 0 the function rises from 0, above 0 it falls to 0
    if (j > 0) before = slope_before(above(dots[j - 1]), dots[j - 1], l, l.value, interval) - (l.index == 0 ? 1 : 0);
    if (j + 2 < dots.size())
      after = (slope_after(r, r.value, dots[j + 2], above(dots[j + 2]), interval) + (r.index == 0 ? 1 : 0)) *
              std::exp(-distance);
    const double width = std::expm1(distance), x = std::max(0.0, chord - before), y = std::max(0.0, after - chord);
    const double rounding = 0x1p-49 * (std::fabs(chord) + std::fabs(before) + std::fabs(after)) * width;
    // Both lines are below the function; they meet at this distance from the chord.
    heights.push_back((x + y > 0 ? x / (x + y) * y * width : 0) * (1 + 0x1p-49) + rounding);
  }
  return heights;
}

/// Lowers every dot by the most that the chords at its sides are above the curve, and leaves out those at the upper end that
/// are not above 0 then. More dots between them, on a grid `parts` times as fine, show how high the chords are.
inline void lower_dots(std::vector<CurveDot>& dots, const PrivacyCurve& curve, double interval) {
  constexpr index_t parts = 8;
  std::vector<CurveDot> fine;
  for (std::size_t j = 0; j < dots.size(); ++j) {
    fine.push_back(dots[j]);
    fine.back().index *= parts;
    if (j + 1 == dots.size()) break;
    const index_t step = dots[j + 1].index - dots[j].index;
    for (index_t k = 1; k < parts; ++k)
      fine.push_back(curve_dot(curve, BoundSide::optimistic, dots[j].index * parts + k * step, interval / double(parts)));
  }
  const std::vector<double> heights = chord_heights(fine, interval / double(parts));
  std::vector<double> depth(dots.size(), 0);
  std::size_t zero = 0;
  for (std::size_t j = 0; j + 1 < dots.size(); ++j) {
    const CurveDot &l = dots[j], &r = dots[j + 1];
    const double width = std::expm1(double(r.index - l.index) * interval);
    double most = 0;
    for (std::size_t k = 0; k < std::size_t(parts); ++k) {
      const std::size_t at = j * std::size_t(parts) + k;
      const double share =
          std::expm1(double(fine[at].index - fine[j * std::size_t(parts)].index) * interval / double(parts)) / width;
      const double chord = l.value + (r.value - l.value) * share,
                   rounding = 0x1p-50 * (std::fabs(l.value) + std::fabs(r.value));
      most = std::max(most, chord - fine[at].value + rounding + std::max(heights[at], at > 0 ? heights[at - 1] : 0));
    }
    // The last part lies between its dot and r, where the chord is at the dot.
    most = std::max(most, heights[(j + 1) * std::size_t(parts) - 1]);
    for (const std::size_t k : {j, j + 1}) depth[k] = std::max(depth[k], most);
  }
  for (std::size_t k = 0; k < dots.size(); ++k) {
    dots[k].value -= depth[k];
    if (dots[k].index == 0) zero = k;
  }
  // Falling from 0 on to both sides; below 0 from 0 or less, so that the difference stays there; above 0 as long as
  // positive.
  for (std::size_t k = zero; k-- > 0;) dots[k].value = std::min(dots[k].value, dots[k + 1].value);
  dots.front().value = std::min(dots.front().value, 0.0);
  std::size_t end = zero;
  for (; end < dots.size() && dots[end].value > 0; ++end)
    if (end > zero) dots[end].value = std::min(dots[end].value, dots[end - 1].value);
  if (end == zero) return dots.clear();
  dots.erase(dots.begin() + index_t(end), dots.end());
}

/// A mass and a bound of its rounding error.
struct Kink {
  double mass, error;
};
/// x at b times the change of the slope there, for the chords from a and to c. Without an `a` the curve comes from
/// (0, `start`), without a `c` it ends, `end` above 0, in x.
inline Kink kink(const CurveDot* a, const CurveDot& b, const CurveDot* c, double interval, double start, double end) {
  const double before = a ? slope_before(a->value, *a, b, b.value, interval) : start;
  const double after = c ? slope_after(b, b.value, *c, c->value, interval) : end;
  const double line = b.index == 0 ? 1 : 0;
  const bool over_zero = (a && a->index < 0 && b.index > 0) || (c && b.index < 0 && c->index > 0);
  return {after - before + line, 0x1p-49 * (std::fabs(before) + std::fabs(after) + line + (over_zero ? 1 : 0))};
}

/// Multiplies masses by e^(tilt loss) and makes them sum to 1, rounded to their side. What becomes too small for a double is
/// added to the next loss (pessimistic).
inline void tilt_masses(LossMasses& m) {
  constexpr double least = 1e-250;
  const double side = m.side == BoundSide::pessimistic ? 1 : -1;
  double reference = -HUGE_VAL, sum = 0, carried = 0;
  for (const LossAtom& a : m.atoms)
    reference = std::max(reference, std::log(a.mass) + m.tilt * (double(a.index) * m.interval));
  if (reference == -HUGE_VAL) return;
  std::vector<LossAtom> tilted;
  for (const LossAtom& a : m.atoms) {
    const double power = m.tilt * (double(a.index) * m.interval), exponent = power - reference;
    const double half = std::exp(exponent / 2);  // e^exponent may be larger than any double
    const double error = (std::fabs(power) + std::fabs(exponent) + 8) * 0x1p-52;
    const double mass = (a.mass + carried) * half * half * (1 + side * error);
    if (mass < least) {
      if (side > 0) carried += a.mass;
      continue;
    }
    carried = 0;
    tilted.push_back({a.index, mass});
    sum += mass;
  }
  m.infinite += carried * (1 + 1e-9);
  m.atoms = std::move(tilted);
  for (LossAtom& a : m.atoms) a.mass *= (1 + side * 0x1p-51) / sum;
  m.log_scale = reference + std::log(sum);
  m.log_scale += side * (std::fabs(reference) + std::fabs(std::log(sum)) + 1) * 0x1p-51;
}
}  // namespace detail

DPMP_KEPT_BODY inline LossMasses connect_the_dots(const PrivacyCurve& curve, BoundSide side, const LossGrid& grid) {
  int power = 0;
  DPMP_CHECK(grid.interval > 0 && std::isfinite(grid.interval) && std::frexp(grid.interval, &power) == 0.5,
             "expected a power of two for the interval of losses, got ", grid.interval);
  DPMP_CHECK(grid.tilt >= 0 && std::isfinite(grid.tilt), "expected a finite tilt >= 0, got ", grid.tilt);
  DPMP_CHECK(grid.resolution >= 0 && grid.resolution <= 0.25, "expected a resolution in [0, 1/4], got ", grid.resolution);
  DPMP_CHECK(grid.fall >= 0 && grid.fall < 1, "expected a fall in [0, 1), got ", grid.fall);
  DPMP_CHECK(grid.tail > 0 && grid.tail < 1, "expected a tail in (0, 1), got ", grid.tail);
  const bool pessimistic = side == BoundSide::pessimistic;
  LossMasses r;
  r.side = side, r.interval = grid.interval, r.tilt = grid.tilt;
  std::vector<detail::CurveDot> dots = detail::curve_dots(curve, side, grid);
  if (!pessimistic) detail::lower_dots(dots, curve, grid.interval);
  if (dots.empty()) return r;
  // Pessimistic: all that is below the first dot is at the first one, and the curve stays where the last one is.
  // Optimistic: what is below the first one is nowhere, and a line through 0 is taken off so that the curve ends at the
  // last.
  const double start = pessimistic ? dots.front().value : 0, end = pessimistic ? 0 : dots.back().value;
  if (pessimistic) r.infinite = dots.back().value;
  std::vector<detail::CurveDot> hull;
  std::vector<detail::Kink> masses;
  for (std::size_t k = 0; k < dots.size(); ++k) {
    const detail::CurveDot* next = k + 1 < dots.size() ? &dots[k + 1] : nullptr;
    hull.push_back(dots[k]);
    while (true) {
      const std::size_t m = hull.size();
      const detail::Kink here = detail::kink(m > 1 ? &hull[m - 2] : nullptr, hull[m - 1], next, grid.interval, start, end);
      if (here.mass > 0 || m == 1 || !next) {
        masses.resize(m - 1);
        masses.push_back(here);
        break;
      }
      hull.pop_back();
    }
  }
  for (std::size_t k = 0; k < hull.size(); ++k) {
    const double mass = masses[k].mass + (pessimistic ? 1 : -1) * masses[k].error;
    if (mass > 0) r.atoms.push_back({hull[k].index, mass});
  }
  detail::tilt_masses(r);
  return r;
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
