// SPDX-License-Identifier: Apache-2.0
// What a plan guarantees as curves to plot. Every point holds: it is on the side that claims less.
#pragma once
#include <utility>
#include <vector>

#include "dpmp/dp/plan.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// Points (x, y), x ascending.
struct GuaranteeCurves {
  using Curve = std::vector<std::pair<double, double>>;
  Curve epsilon_by_steps;  // epsilon at the plan's delta after so many steps, from 0 to the planned ones, or those taken
  Curve delta_by_epsilon;  // after the steps taken
  /// After the steps taken: an upper bound of the true positive rate of any test that tells two neighbouring datasets apart
  /// from all that was released, at each false positive rate in [0, 1].
  Curve trade_off;
};

/// The largest true positive rate at this false positive rate that all points (epsilon, delta) of a curve leave possible.
double true_positive_bound(const GuaranteeCurves::Curve& delta_by_epsilon, double false_positive_rate);

/// Throws as Plan::epsilon_after does. After no step the last two curves are those of a mechanism that tells nothing.
GuaranteeCurves guarantee_curves(const Plan& plan, index_t steps_taken);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include <algorithm>
#include <cmath>

namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
/// (epsilon, delta) pairs that hold after so many steps, for deltas from 0.8 down to 10^-20 or what the plan sets aside.
inline GuaranteeCurves::Curve delta_by_epsilon(const Plan& plan, index_t steps) {
  const double aside = delta_aside(plan.options(), steps);
  std::vector<double> deltas;
  for (int k = 1; k <= 200; ++k) {
    const double delta = std::pow(10.0, -0.1 * k);
    if (delta - aside <= 0.01 * aside) break;
    deltas.push_back(delta);
  }
  const std::vector<double> epsilons = plan.account().epsilons(steps, deltas);
  GuaranteeCurves::Curve curve;
  for (std::size_t k = 0; k < deltas.size(); ++k) {
    if (!curve.empty() && curve.back().first >= epsilons[k]) curve.pop_back();
    curve.emplace_back(epsilons[k], deltas[k]);
  }
  return curve;
}
}  // namespace detail

DPMP_KEPT_BODY inline double true_positive_bound(const GuaranteeCurves::Curve& delta_by_epsilon,
                                                 double false_positive_rate) {
  double bound = 1;
  for (const auto& [epsilon, delta] : delta_by_epsilon)
    bound = std::min(bound, true_positive_bound(epsilon, delta, false_positive_rate));
  return bound;
}

DPMP_KEPT_BODY inline GuaranteeCurves guarantee_curves(const Plan& plan, index_t steps_taken) {
  GuaranteeCurves curves;
  const index_t last = std::max(plan.steps(), steps_taken);
  std::vector<index_t> counts{0, steps_taken, plan.steps()};
  // Few, as an accountant may take a tenth of a second for each: evenly, and closer together at the beginning, where epsilon
  // grows fastest.
  constexpr index_t pieces = 10;
  for (index_t k = 1; k <= pieces; ++k) counts.push_back(index_t(double(last) * double(k) / double(pieces)));
  for (index_t n = 1; n < last / pieces; n += n / 2 + 1) counts.push_back(n);
  std::sort(counts.begin(), counts.end());
  counts.erase(std::unique(counts.begin(), counts.end()), counts.end());
  for (const index_t n : counts) curves.epsilon_by_steps.emplace_back(double(n), plan.epsilon_after(n));

  curves.delta_by_epsilon =
      steps_taken == 0 ? GuaranteeCurves::Curve{{0.0, 0.0}} : detail::delta_by_epsilon(plan, steps_taken);
  constexpr int rates = 160;
  for (int k = 0; k <= rates; ++k) {
    const double false_positive = std::pow(double(k) / rates, 3);  // close together where the curve is steep
    curves.trade_off.emplace_back(false_positive, true_positive_bound(curves.delta_by_epsilon, false_positive));
  }
  return curves;
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
