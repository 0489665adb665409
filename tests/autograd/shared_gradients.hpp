// SPDX-License-Identifier: Apache-2.0
// A value that is used n times, on any device.
#pragma once
#include <cmath>

#include "dpmp/autograd/gradcheck.hpp"
#include "dpmp/autograd/rules/mean_squared_error.hpp"
#include "dpmp/autograd/rules/shape_ops.hpp"
#include "support/row_losses.hpp"
#include "support/tensors.hpp"

namespace test {
/// x enters `uses` products with constants: its gradient is the sum of the constants, each rounded to its dtype. That sum
/// is rounded once; before that it is in FP32 (double for f64), with one rounding a share.
inline void check_shared_gradient(dpmp::Context& ctx, dpmp::DType dtype, dpmp::index_t uses, Rng& rng) {
  using namespace dpmp;
  const index_t width = 33;
  Tape tape(ctx, 2);
  const Variable x = tape.input(normal_tensor(ctx, rng, {2, width}, dtype), true);
  double sum = 0, magnitudes = 0;
  Variable loss;
  for (index_t k = 0; k < uses; ++k) {
    const double factor = rng.uniform(-0.2, 1);
    const double share = Tensor::full(ctx, {1}, dtype, factor).item();
    sum += share;
    magnitudes += std::fabs(share);
    const Variable y = weighted_sum(scale(x, factor), std::vector<double>(std::size_t(2 * width), 1));
    loss = k == 0 ? y : add(loss, y);
  }
  NoSites sink;
  tape.backward(loss, sink);
  const double compute = dtype == DType::f64 ? 0x1p-53 : 0x1p-24,
               limit = 1.01 * unit_roundoff(dtype) * std::fabs(sum) + double(uses) * compute * magnitudes;
  double worst = 0;
  for (const double g : tape.gradient_of(x).to_doubles()) worst = std::max(worst, std::fabs(g - sum));
  CAPTURE(dtype);
  CAPTURE(uses);
  CHECK(worst <= limit);
}

/// The gradient of x = 0.5 in the mean of (x^2, .., x^2), `uses` of them: 2 x.
inline double gradient_of_half(dpmp::Context& ctx, dpmp::DType dtype, dpmp::index_t uses) {
  using namespace dpmp;
  Tape tape(ctx, 1);
  const Variable x = tape.input(Tensor::full(ctx, {1, 1}, dtype, 0.5), true);
  std::vector<Variable> all;
  for (index_t k = 0; k < uses; ++k) all.push_back(scale(x, 1));
  const Variable losses = mean_squared_error(concat(all, 1), Tensor::zeros(ctx, {1, uses}, DType::f32));
  NoSites sink;
  tape.backward(losses, sink);
  return tape.gradient_of(x).item();
}
}  // namespace test
