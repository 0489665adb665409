// SPDX-License-Identifier: Apache-2.0
// What a layer of your own should be tested for: its gradients against differences, its per-sample norms against batches of
// one in float64, and that a private step moves it.
#include "layer.hpp"

#include <cstdio>
#include <random>
using namespace dpmp;

namespace {
int failures = 0;
void check(bool ok, const char* what, double got = 0) {
  std::printf("%s: %s (%g)\n", ok ? "ok" : "FAILED", what, got);
  failures += !ok;
}
}  // namespace

int main() {
  Context ctx(Device::cpu(), 2);
  const unsigned seed = std::random_device()();
  std::printf("seed %u\n", seed);
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal;
  const index_t samples = 4, tokens = 5, width = 7;
  const auto random = [&](index_t n) {
    std::vector<double> x;
    for (index_t k = 0; k < n; ++k) x.push_back(normal(engine));
    return x;
  };
  const std::vector<double> values = random(samples * tokens * width), gains = random(width);
  const auto input = [&](DType dtype) { return Tensor::from(ctx, {samples, tokens, width}, dtype, values); };

  // Gradients, by differences in float64.
  nn::Parameters exact(ctx, DType::f64, 1);
  Parameter& exact_gain = exact.add("gain", {width}, nn::init::from_values(gains));
  const std::vector<Parameter*> parameters{&exact_gain};
  const auto result = check_gradients(
      ctx, samples, {input(DType::f64)}, parameters,
      [&](Tape&, std::span<const Variable> x) { return std::vector<Variable>{skeleton::gain(x[0], exact_gain)}; });
  check(result.error < 1e-8, "gradients agree with differences", result.error);

  // Per-sample norms of the loss sum_k y_k^2 in float32, against 2 gain x^2 summed over tokens, in double.
  nn::Parameters rounded(ctx, DType::f32, 1);
  Parameter& gain = rounded.add("gain", {width}, nn::init::from_values(gains));
  per_sample::BookKeepingSink sink;
  Tape tape(ctx, samples);
  const Variable y = skeleton::gain(tape.input(input(DType::f32)), gain);
  tape.backward(sum(reshape(square(y), {samples, tokens * width}), 1), sink);
  const per_sample::NormBounds norms = sink.norms(ctx, samples);
  for (index_t i = 0; i < samples; ++i) {
    double square_norm = 0;
    for (index_t k = 0; k < width; ++k) {
      double g = 0;
      for (index_t t = 0; t < tokens; ++t) {
        const double x = values[std::size_t((i * tokens + t) * width + k)];
        g += 2 * gains[std::size_t(k)] * x * x;
      }
      square_norm += g * g;
    }
    // Some 6 roundings of 2^-24 to a term, and a chain of `tokens` terms of one sign.
    const double wanted = std::sqrt(square_norm), bound = (6 + double(tokens)) * 0x1p-23 * wanted;
    check(std::abs(norms.norm(i) - wanted) <= bound, "norm of a sample", norms.norm(i) - wanted);
    check(norms.upper(i) >= norms.norm(i), "the norm that is clipped by is not below it", norms.upper(i));
  }
  return failures;
}
