// SPDX-License-Identifier: Apache-2.0
// How far the outcome of an op in a narrow dtype may be from that in f64 on the same stored operands.
#pragma once
#include <algorithm>
#include <cmath>

#include "autograd/run_op.hpp"

namespace test {
/// Largest |found - expected| of lists of arrays, as a share of the limit; infinite where the sizes differ. scale: that of
/// Problem.
inline double share_of_limit(const Outcome::Lists& found, const Outcome::Lists& expected, double relative_limit,
                             double scale) {
  if (found.size() != expected.size()) return INFINITY;
  double worst = 0;
  for (std::size_t j = 0; j < found.size(); ++j) {
    if (found[j].size() != expected[j].size()) return INFINITY;
    double largest = scale;
    for (double x : expected[j]) largest = std::max(largest, std::fabs(x));
    for (std::size_t k = 0; k < found[j].size(); ++k) {
      const double share = std::fabs(found[j][k] - expected[j][k]) / (relative_limit * (1 + largest));
      if (!(share <= worst)) worst = share;
    }
  }
  return worst;
}

/// The worst share of outputs, input gradients and parameter gradients; not above 1 where an op is right.
///
/// A forward result is rounded to storage once; a gradient is formed from at most one rounded number (a saved output) and
/// rounded. FP32 work inside: functions of error 2^-22, and sums whose roundings mostly cancel.
inline double share_of_limit(const Outcome& found, const Outcome& expected, const Problem& problem, dpmp::DType dtype) {
  const double limit = problem.amplification * (2 * dpmp::unit_roundoff(dtype) + 4 * 0x1p-24);
  double worst = 0;
  for (const auto list : {&Outcome::outputs, &Outcome::input_gradients, &Outcome::parameter_gradients}) {
    const double share = share_of_limit(found.*list, expected.*list, limit, problem.scale);
    if (!(share <= worst)) worst = share;
  }
  return worst;
}
}  // namespace test
