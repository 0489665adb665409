// SPDX-License-Identifier: Apache-2.0
// The exponential moving average of weights: its formula, and the exchange with the parameters.
#include <doctest/doctest.h>

#include "dpmp/nn/linear.hpp"
#include "dpmp/optim/weight_average.hpp"
#include "support/errors.hpp"
#include "support/tensors.hpp"

using namespace dpmp;

TEST_CASE("an average of weights follows its formula, value by value, and is exchanged with the weights and back") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    nn::Parameters parameters(ctx, dtype, test::seed());
    const nn::Linear layer(parameters / "layer", 37, 5);
    const double decay = rng.uniform(0.3, 0.95);
    optim::WeightAverage average(ctx, parameters.all(), decay);
    Parameter& w = layer.weight();
    std::vector<double> wanted = w.master().to_doubles();
    constexpr int steps = 9;
    for (int step = 1; step <= steps; ++step) {
      const Tensor moved = test::normal_tensor(ctx, rng, w.shape(), w.master().dtype());
      w.master().copy_from(moved);
      average.follow();
      const double keep = std::min(decay, double(step - 1) / double(step + 9));
      const std::vector<double> now = moved.to_doubles();
      for (std::size_t k = 0; k < now.size(); ++k) wanted[k] = keep * wanted[k] + (1 - keep) * now[k];
    }
    const std::vector<double> weights = w.master().to_doubles();
    average.swap();
    const std::vector<double> averages = w.master().to_doubles(), stored = w.value().to_doubles();
    // Four roundings a step of numbers of at most 6.
    const double u = unit_roundoff(accumulate_dtype(dtype));
    for (std::size_t k = 0; k < averages.size(); ++k) {
      CHECK(std::abs(averages[k] - wanted[k]) <= 4 * steps * u * 6);
      CHECK(std::abs(stored[k] - averages[k]) <= unit_roundoff(dtype) * std::abs(averages[k]));
    }
    average.swap();
    CHECK(w.master().to_doubles() == weights);
  }
}

TEST_CASE("bad input: a decay outside of [0, 1) is refused") {
  Context ctx(Device::cpu(), 1);
  nn::Parameters parameters(ctx, DType::f32, 1);
  for (const double decay : {-0.1, 1.0, double(NAN)})
    CHECK(test::refuses([&] { optim::WeightAverage(ctx, parameters.all(), decay); }, "decay of a weight average in [0, 1)"));
}
