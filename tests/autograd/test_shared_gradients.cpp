// SPDX-License-Identifier: Apache-2.0
// The gradient of a value that is used many times: shares in 16 bits are added up in FP32 and rounded once.
#include <doctest/doctest.h>
#include <cmath>

#include "autograd/shared_gradients.hpp"
#include "dpmp/autograd/rules/layer_norm.hpp"
#include "dpmp/autograd/rules/layer_norm.hpp"

using namespace dpmp;

TEST_CASE("the gradient of a value of 16 bits is the rounded sum of its shares, however many there are") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32, DType::f64})
    for (const index_t uses : {1, 2, 3, 4, 5, 64, 1024, 4096}) test::check_shared_gradient(ctx, dtype, uses, rng);
}

TEST_CASE("0.5 used 256 to 4096 times in a mean of squares has the gradient 1") {
  Context ctx(Device::cpu(), 1);
  for (const DType dtype : {DType::bf16, DType::f16})
    for (const index_t uses : {256, 512, 1024, 4096}) CHECK(test::gradient_of_half(ctx, dtype, uses) == 1.0);
}

// A norm adds what its input got elsewhere while it computes its own share. n norms give n equal shares: each is rounded
// once, two of them possibly as a total, and so is the sum.
TEST_CASE("norms that share an input do not round its gradient again and again") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  const Shape shape{2, 3, 8};
  for (const DType dtype : {DType::bf16, DType::f16})
    for (const bool layer : {false, true})
      for (const index_t uses : {1, 2, 3, 300}) {
        const Tensor value = test::normal_tensor(ctx, rng, shape, dtype);
        Parameter gain(ctx, "gain", Tensor::full(ctx, {8}, DType::f32, 1), dtype),
            bias(ctx, "bias", Tensor::zeros(ctx, {8}, DType::f32), dtype);
        std::vector<double> weights(std::size_t(shape.numel()));
        for (double& w : weights) w = rng.normal();
        const auto gradient = [&](index_t n) {
          Tape tape(ctx, 2);
          const Variable x = tape.input(value, true);
          Variable loss;
          for (index_t k = 0; k < n; ++k) {
            const Variable y = weighted_sum(layer ? layer_norm(x, gain, bias) : rms_norm(x, gain), weights);
            loss = k == 0 ? y : add(loss, y);
          }
          test::NoSites sink;
          tape.backward(loss, sink);
          return tape.gradient_of(x).to_doubles();
        };
        const std::vector<double> one = gradient(1), all = gradient(uses);
        const double u = unit_roundoff(dtype);
        for (std::size_t k = 0; k < one.size(); ++k)
          CHECK(std::fabs(all[k] - double(uses) * one[k]) <= (3 * u + 0x1p-14) * double(uses) * std::fabs(one[k]) + 1e-6);
      }
}

TEST_CASE("a value of 16 bits that is used twice costs no FP32 memory") {
  Context ctx(Device::cpu(), 1);
  const index_t n = index_t(1) << 18;
  const auto peak = [&](index_t uses) {
    Tape tape(ctx, 1);
    const Variable x = tape.input(Tensor::full(ctx, {1, n}, DType::bf16, 1), true);
    Variable y = scale(x, 1);
    for (index_t k = 1; k < uses; ++k) y = add(y, x);
    const Variable loss = mean_squared_error(y, Tensor::zeros(ctx, {1, n}, DType::f32));
    y = Variable();
    test::NoSites sink;
    const index_t before = ctx.memory().live_bytes;
    ctx.reset_peak_memory();
    tape.backward(loss, sink);
    return ctx.memory().peak_bytes - before;
  };
  // The gradient of y, which add passes on, and the share of scale.
  CHECK(peak(2) <= 2 * 2 * n + 4096);
  CHECK(peak(5) <= (2 * 2 + 4) * n + 4096);
}
