// SPDX-License-Identifier: Apache-2.0
// Biases of many parameters, on any device: sums over tokens, norms, and weighted sums of all of them in few launches,
// against loops in double.
#pragma once
#include <doctest/doctest.h>

#include <memory>

#include "dpmp/autograd/bias_site.hpp"
#include "dpmp/per_sample/vector.hpp"
#include "support/tensors.hpp"

namespace test {
/// What one bias was made of, and is.
struct DrawnBias {
  std::unique_ptr<dpmp::Parameter> parameter;
  std::vector<double> gradient, before;  // [samples, tokens, width], [width + what is beyond the vectors]
  dpmp::index_t tokens, width;
};

inline void check_many_vectors(dpmp::Context& ctx, Rng& rng, dpmp::index_t samples) {
  using namespace dpmp;
  constexpr index_t widths[] = {0, 1, 3, 33, 1024, 4095, 4096, 4097, 9000}, lengths[] = {0, 1, 3, 40};
  constexpr DType dtypes[] = {DType::f32, DType::bf16, DType::f16};
  CAPTURE(samples);
  const index_t broken = samples > 1 ? rng.integer(0, samples - 1) : -1;  // holds NaN, and has a factor of 0
  std::vector<DrawnBias> drawn;
  std::vector<ParameterSite> sites;
  std::vector<Tensor> sums;
  for (int k = 0; k < 60; ++k) {  // more than two launches take of any dtype
    const index_t width = widths[rng.integer(0, 8)], tokens = lengths[rng.integer(0, width > 1024 ? 2 : 3)];
    const DType dtype = k < 30 ? DType::f32 : dtypes[rng.integer(0, 2)];
    DrawnBias x{.parameter = {}, .gradient = {}, .before = {}, .tokens = tokens, .width = width};
    const Shape whole{width + rng.integer(0, 2)};
    x.parameter = std::make_unique<Parameter>(ctx, "bias", Tensor::zeros(ctx, whole, accumulate_dtype(dtype)), dtype);
    Tensor gradient = normal_tensor(ctx, rng, {samples, tokens, width}, dtype);
    x.gradient = gradient.to_doubles();
    if (broken >= 0 && width * tokens > 0) {
      std::vector<double> poisoned = x.gradient;
      poisoned[std::size_t(broken * tokens * width)] = NAN;
      gradient = Tensor::from(ctx, gradient.shape(), dtype, poisoned);
    }
    const Tensor sum = normal_tensor(ctx, rng, whole, DType::f64);
    x.before = sum.to_doubles();
    sums.push_back(sum);
    sites.push_back(bias_site(ctx, *x.parameter, gradient));
    drawn.push_back(std::move(x));
  }
  std::vector<float> factors(static_cast<std::size_t>(samples));
  for (index_t i = 0; i < samples; ++i)
    factors[std::size_t(i)] = i == broken || rng.integer(0, 3) == 0 ? 0.0f : float(rng.integer(1, 64)) / 64;

  per_sample::NormBounds bounds(ctx, samples);
  per_sample::add_vector_norms(ctx, sites, bounds);
  per_sample::weighted_sums_vector(ctx, sites, factors, sums);

  const double u = 0x1p-24;
  std::vector<double> squared(std::size_t(samples), 0.0);
  double worst_vector = 0, worst_square = 0, worst_sum = 0;
  const auto compare = [](double& worst, double found, double expected, double bound) {
    const double share = found == expected ? 0 : std::fabs(found - expected) / bound;
    if (!(share <= worst)) worst = share;
  };
  for (std::size_t k = 0; k < drawn.size(); ++k) {
    const DrawnBias& x = drawn[k];
    const std::vector<double> vectors = sites[k].b.to_doubles(), squares = sites[k].squares.to_doubles(),
                              after = sums[k].to_doubles();
    std::vector<double> expected = x.before, magnitudes(x.before.size(), 0.0);
    for (index_t i = 0; i < samples; ++i) {
      if (i == broken) continue;
      double square = 0;
      for (index_t j = 0; j < x.width; ++j) {
        const double found = vectors[std::size_t(i * x.width + j)];
        double exact = 0, magnitude = 0;
        for (index_t t = 0; t < x.tokens; ++t) {
          const double g = x.gradient[std::size_t((i * x.tokens + t) * x.width + j)];
          exact += g, magnitude += std::fabs(g);
        }
        compare(worst_vector, found, exact, double(x.tokens) * u * magnitude);
        square += found * found;
        expected[std::size_t(j)] += double(factors[std::size_t(i)]) * found;
        magnitudes[std::size_t(j)] += std::fabs(double(factors[std::size_t(i)]) * found);
      }
      compare(worst_square, squares[std::size_t(i)], square, double(x.width + 1) * 0x1p-53 * square);
      squared[std::size_t(i)] += square;
    }
    // A product and at most four additions of FP32, then sums in double.
    for (std::size_t j = 0; j < after.size(); ++j)
      compare(worst_sum, after[j], expected[j], 5 * u * magnitudes[j] + 1e-14 * (std::fabs(x.before[j]) + magnitudes[j]));
  }
  CHECK(worst_vector <= 1);
  CHECK(worst_square <= 1);
  CHECK(worst_sum <= 1);
  const std::vector<std::uint8_t> finite = bounds.finite();
  for (index_t i = 0; i < samples; ++i) {
    CHECK(finite[std::size_t(i)] == (i == broken ? 0 : 1));
    if (i == broken) continue;
    CHECK(std::fabs(bounds.norm(i) * bounds.norm(i) - squared[std::size_t(i)]) <= 1e-12 * squared[std::size_t(i)]);
    CHECK(bounds.upper(i) * bounds.upper(i) >= squared[std::size_t(i)]);
  }
}
}  // namespace test
