// SPDX-License-Identifier: Apache-2.0
// A step that draws its own noise against noise added to the sums first, and the two halves of a step.
#include <doctest/doctest.h>
#include <cmath>

#include "dpmp/nn/parameters.hpp"
#include "dpmp/optim/optimiser.hpp"
#include "support/errors.hpp"
#include "support/tensors.hpp"

using namespace dpmp;
using optim::AdamW;
using optim::OptimiserState;
using optim::Sgd;
using optim::StepNoise;
using per_sample::GradientSums;

namespace {
constexpr double factor = 1 / 3.0, rate = 0.05;

/// Parameters around the lengths at which blocks and chunks of noise end, and one that is spread over threads.
struct Model {
  Model(Context& context, DType dtype) : ctx(context), parameters(context, dtype, test::seed()) {
    for (index_t n : {1, 7, 8, 127, 128, 129, 5000}) parameters.normal("p" + std::to_string(n), {n}, 0.5);
    parameters.find("p8").set_trainable(false);
  }
  void fill(GradientSums& sums, int step) const {
    for (std::size_t k = 0; k < sums.tensors().size(); ++k) {
      test::Rng rng(test::seed(), std::uint64_t(100 * step + int(k)));
      double* sum = sums.tensors()[k].data<double>();
      for (index_t j = 0; j < sums.tensors()[k].numel(); ++j) sum[j] = rng.normal(2);
    }
  }
  /// Masters and compute weights.
  std::vector<double> weights() const {
    std::vector<double> all;
    for (const Parameter* p : parameters.all())
      for (const Tensor& t : {p->master(), p->value()})
        for (double v : t.to_doubles()) all.push_back(v);
    return all;
  }
  Context& ctx;
  nn::Parameters parameters;
};
StepNoise noise_of(index_t step) {
  test::Rng rng(test::seed(), 900);
  StepNoise noise{{{}, step}, 0.7 + 0.1 * double(step)};
  for (auto& word : noise.stream.key.words) word = std::uint32_t(rng.bits());
  return noise;
}
std::vector<double> numbers(const GradientSums& sums) {
  std::vector<double> all;
  for (const Tensor& t : sums.tensors())
    for (double v : t.to_doubles()) all.push_back(v);
  return all;
}
std::vector<double> moments(const Model& model, const OptimiserState& state) {
  std::vector<double> all;
  for (const Parameter* p : model.parameters.all())
    for (const Tensor& t : {state.of(*p).first, state.of(*p).second})
      if (t.defined())
        for (double v : t.to_doubles()) all.push_back(v);
  return all;
}
const optim::Optimiser optimisers[] = {Sgd{.momentum = 0.9, .weight_decay = 0.1}, AdamW{.weight_decay = 0.1},
                                       optim::DpAdamBC{.floor = 1e-3, .weight_decay = 0.1},
                                       optim::Lamb{.weight_decay = 0.1}};
}  // namespace

TEST_CASE("P21: a step that draws its noise is the step after add_gaussian_noise, bit for bit, and leaves the sums alone") {
  for (DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64})
    for (const optim::Optimiser& kind : optimisers) {
      CAPTURE(name_of(dtype));
      CAPTURE(kind.index());
      Context ctx(Device::cpu(), 2), serial(Device::cpu(), 1);
      const Model fused(ctx, dtype), apart(serial, dtype);
      GradientSums fused_sums(ctx, fused.parameters.all()), apart_sums(serial, apart.parameters.all());
      OptimiserState fused_optimiser(ctx, fused.parameters.all(), kind),
          apart_optimiser(serial, apart.parameters.all(), kind);
      for (int step = 0; step < 3; ++step) {
        const StepNoise noise = noise_of(step);
        fused.fill(fused_sums, step), apart.fill(apart_sums, step);
        const std::vector<double> before = numbers(fused_sums);
        fused_optimiser.step(ctx, fused_sums, factor, rate, &noise);
        CHECK(numbers(fused_sums) == before);
        for (std::size_t k = 0; k < apart_sums.tensors().size(); ++k)
          dp::add_gaussian_noise(serial, apart_sums.tensors()[k].data<double>(), apart_sums.tensors()[k].numel(),
                                 noise.standard_deviation, noise.stream, apart_sums.places()[k]);
        CHECK(numbers(apart_sums) != before);
        const StepNoise there{noise.stream, noise.standard_deviation, true};
        apart_optimiser.step(serial, apart_sums, factor, rate, &there);
        CHECK(fused.weights() == apart.weights());
        CHECK(moments(fused, fused_optimiser) == moments(apart, apart_optimiser));
      }
    }
}

TEST_CASE("an update reads the numbers of its step from memory: launched again after begin_step it is the next step") {
  Context ctx(Device::cpu(), 1);
  for (const optim::Optimiser& kind : optimisers) {
    const Model whole(ctx, DType::bf16), halves(ctx, DType::bf16);
    GradientSums whole_sums(ctx, whole.parameters.all()), sums(ctx, halves.parameters.all());
    OptimiserState whole_optimiser(ctx, whole.parameters.all(), kind), optimiser(ctx, halves.parameters.all(), kind);
    const Key256 key = noise_of(0).stream.key;
    for (int step = 0; step < 3; ++step) {
      const StepNoise noise = noise_of(step);
      whole.fill(whole_sums, step), halves.fill(sums, step);
      whole_optimiser.step(ctx, whole_sums, factor / (step + 1), rate * (step + 1), &noise);
      optimiser.begin_step(ctx, sums, factor / (step + 1), rate * (step + 1), &noise);
      optimiser.update(ctx, sums, &key);
      CHECK(whole.weights() == halves.weights());
      for (const Parameter* p : halves.parameters.all()) CHECK(optimiser.of(*p).updates == (p->trainable() ? step + 1 : 0));
    }
  }
}

TEST_CASE("bad input: a step refuses noise that cannot be drawn, and does not count") {
  Context ctx(Device::cpu(), 1);
  const Model model(ctx, DType::f32);
  const GradientSums sums(ctx, model.parameters.all());
  OptimiserState optimiser(ctx, model.parameters.all(), Sgd{});
  const std::vector<double> before = model.weights();
  for (double bad : {-1.0, double(NAN), double(INFINITY)}) {
    const StepNoise noise{{}, bad};
    CHECK(test::refuses([&] { optimiser.step(ctx, sums, 1, rate, &noise); }, "noise standard deviation >= 0"));
  }
  const StepNoise noise{{{}, dp::max_steps}, 1.0};
  CHECK(test::refuses([&] { optimiser.step(ctx, sums, 1, rate, &noise); }, "step in [0, 2^40)"));
  for (const Parameter* p : model.parameters.all()) CHECK(optimiser.of(*p).updates == 0);
  CHECK(model.weights() == before);
}
