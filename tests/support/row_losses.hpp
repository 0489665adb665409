// SPDX-License-Identifier: Apache-2.0
// Cross-entropy by its definition, in extended precision, on the logits as they are stored: what an exact loss is on any
// device.
#pragma once
#include <doctest/doctest.h>
#include <algorithm>
#include <cmath>
#include <vector>

#include "dpmp/autograd/rules/cross_entropy.hpp"
#include "support/random.hpp"

namespace test {
struct RowLoss {
  double loss = 0;
  std::vector<double> gradient;
  /// Largest distance between logits: exp's argument is rounded relative to it.
  double distance = 0;
};
/// loss = log(1 + sum_{v != target} exp(x_v - x_target)), gradient p_v = 1 / sum_u exp(x_u - x_v) and -(1 - p_target).
inline RowLoss row_loss(const double* x, std::size_t classes, std::size_t target) {
  RowLoss row;
  const auto sum_relative_to = [&](std::size_t v, std::size_t left_out) {
    long double sum = 0;
    for (std::size_t u = 0; u < classes; ++u)
      if (u != left_out) sum += std::exp(static_cast<long double>(x[u]) - static_cast<long double>(x[v]));
    return sum;
  };
  const long double others = sum_relative_to(target, target);
  row.loss = double(std::log1p(others));
  for (std::size_t v = 0; v < classes; ++v)
    row.gradient.push_back(double(v == target ? -others / (1 + others) : 1 / sum_relative_to(v, classes)));
  const auto [low, high] = std::minmax_element(x, x + classes);
  row.distance = *high - *low;
  return row;
}

struct NoSites final : dpmp::GradientSink {
  void accept(dpmp::Context&, const dpmp::ParameterSite&) override {}
};

struct LossAndGradient {
  std::vector<double> losses, gradient;
};
/// Losses and logits' gradient of one sample a row, walked with weights of 1.
inline LossAndGradient cross_entropy_of(dpmp::Context& ctx, const dpmp::Tensor& logits, const dpmp::Tensor& targets,
                                        dpmp::CrossEntropyOptions options = {}) {
  dpmp::Tape tape(ctx, logits.shape().front());
  const dpmp::Variable x = tape.input(logits, true), losses = cross_entropy(x, targets, options);
  NoSites sink;
  tape.backward(losses, sink);
  return {losses.value().to_doubles(), tape.gradient_of(x).to_doubles()};
}

/// Rows of random logits around `offset`, `spread` apart, against row_loss. The bounds: exp's argument x - top is rounded by
/// at most distance u, exp itself is off by 4 u (2^-22, in FP32), sums are wide, and a handful of roundings follow, of which
/// the gradient's last one is to its own dtype; what is smaller than the least normal number is rounded to it.
inline void check_cross_entropy(dpmp::Context& ctx, dpmp::DType dtype, double offset, double spread, dpmp::index_t classes,
                                Rng& rng) {
  using dpmp::index_t;
  const index_t rows = 6;
  std::vector<double> values(std::size_t(rows * classes));
  std::vector<std::int32_t> targets;
  for (double& v : values) v = offset + rng.normal(spread);
  for (index_t r = 0; r < rows; ++r) targets.push_back(std::int32_t(rng.integer(0, classes - 1)));
  // Half of the rows are sure of their target: the loss is small and 1 - p cancels.
  for (index_t r = 0; r < rows; r += 2) values[std::size_t(r * classes + targets[std::size_t(r)])] = offset + 8 * spread;
  const dpmp::Tensor logits = dpmp::Tensor::from(ctx, {rows, classes}, dtype, values);
  const LossAndGradient found = cross_entropy_of(ctx, logits, dpmp::Tensor::from(ctx, {rows}, targets));
  const std::vector<double> stored = logits.to_doubles();
  const double u = dtype == dpmp::DType::f64 ? 0x1p-53 : 0x1p-24, last = dpmp::unit_roundoff(dtype),
               least = dtype == dpmp::DType::f16 ? 0x1p-24 : 0x1p-126;
  double worst_loss = 0, worst_gradient = 0;
  for (std::size_t r = 0; r < std::size_t(rows); ++r) {
    const RowLoss want = row_loss(stored.data() + r * std::size_t(classes), std::size_t(classes), std::size_t(targets[r]));
    const double relative = (want.distance + 16) * u;
    const auto share = [](double off, double limit) { return std::isnan(off) ? INFINITY : std::fabs(off) / limit; };
    worst_loss = std::max(worst_loss, share(found.losses[r] - want.loss, relative * want.loss + 0x1p-126));
    for (std::size_t v = 0; v < std::size_t(classes); ++v) {
      const double g = want.gradient[v];
      worst_gradient = std::max(worst_gradient, share(found.gradient[r * std::size_t(classes) + v] - g,
                                                      (relative + 1.01 * last) * std::fabs(g) + least));
    }
  }
  CAPTURE(offset);
  CAPTURE(spread);
  CAPTURE(classes);
  CHECK(worst_loss <= 1);
  CHECK(worst_gradient <= 1);
}
}  // namespace test
