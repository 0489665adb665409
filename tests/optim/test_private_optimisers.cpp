// SPDX-License-Identifier: Apache-2.0
// DP-AdamBC and LAMB against plain loops in double, parameter by parameter.
#include <doctest/doctest.h>
#include <cmath>

#include "dpmp/nn/parameters.hpp"
#include "dpmp/optim/optimiser.hpp"
#include "support/errors.hpp"
#include "support/tensors.hpp"

using namespace dpmp;
using optim::DpAdamBC;
using optim::Lamb;
using optim::OptimiserState;
using optim::StepNoise;
using per_sample::GradientSums;

namespace {
constexpr double divisor = 3, rate = 0.05;
constexpr int steps = 12;
bool every(const Parameter&) { return true; }

/// Lengths around a pack, a row of LAMB's norms (4096) and several of them; one that starts at zero, one without decay.
struct Model {
  Model(Context& context, DType dtype) : ctx(context), parameters(context, dtype, test::seed()) {
    parameters.normal("matrix", {7, 19}, 0.5);
    parameters.constant("vector", {37}, 0);
    parameters.normal("long", {3, 4099}, 0.1);
    parameters.normal("scale", {}, 0.5);
  }
  void fill(GradientSums& sums, int step) const {
    for (std::size_t k = 0; k < sums.tensors().size(); ++k) {
      test::Rng rng(test::seed(), std::uint64_t(100 * step + int(k)));
      double* sum = sums.tensors()[k].data<double>();
      for (index_t j = 0; j < sums.tensors()[k].numel(); ++j) sum[j] = rng.normal(2);
    }
  }
  Context& ctx;
  nn::Parameters parameters;
};
/// Noise that the sums are said to have, of another size in each step.
StepNoise noise_of(int step) { return {{{}, step}, 0.5 + 0.05 * step, true}; }
}  // namespace

TEST_CASE("DP-AdamBC: algorithm 1 of Tang et al. on sums whose noise changes from step to step") {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64})
    for (const DpAdamBC& kind :
         {DpAdamBC{.floor = 1e-2}, DpAdamBC{.beta1 = 0.8, .beta2 = 0.9, .floor = 0.05, .weight_decay = 0.2, .decays = every},
          DpAdamBC{.beta1 = 0, .beta2 = 0, .floor = 0.3}}) {
      CAPTURE(name_of(dtype));
      CAPTURE(kind.beta2);
      Context ctx(Device::cpu(), 2);
      const Model model(ctx, dtype);
      GradientSums sums(ctx, model.parameters.all());
      OptimiserState optimiser(ctx, model.parameters.all(), kind);
      int floored = 0, not_floored = 0;
      std::vector<std::vector<double>> w, m, v, allowed;
      for (const Parameter* p : model.parameters.all()) {
        w.push_back(p->master().to_doubles());
        m.emplace_back(w.back().size()), v.emplace_back(w.back().size()), allowed.emplace_back(w.back().size());
      }
      const double u = unit_roundoff(dtype == DType::f64 ? DType::f64 : DType::f32);
      // sqrt of FP32 packs errs by 2^-21, and the other operations of an update by a dozen roundings.
      const double formula = dtype == DType::f64 ? 16 * u : 0x1p-21 + 16 * u;
      for (int t = 1; t <= steps; ++t) {
        model.fill(sums, t);
        const StepNoise noise = noise_of(t);
        optimiser.step(ctx, sums, 1 / divisor, rate, &noise);
        // The bias of the second moment: the same average over the variances, summed from its definition.
        double bias = 0;
        for (int s = 1; s <= t; ++s)
          bias += (1 - kind.beta2) * std::pow(kind.beta2, t - s) * std::pow(noise_of(s).standard_deviation / divisor, 2);
        double worst = 0;
        for (std::size_t k = 0; k < w.size(); ++k) {
          const std::vector<double> sum = sums.tensors()[k].to_doubles(),
                                    got = model.parameters.all()[k]->master().to_doubles();
          const bool decays = kind.decays(*model.parameters.all()[k]);
          for (std::size_t j = 0; j < got.size(); ++j) {
            const double g = sum[j] / divisor;
            double &first = m[k][j], &second = v[k][j], &weight = w[k][j];
            first = kind.beta1 * first + (1 - kind.beta1) * g;
            second = kind.beta2 * second + (1 - kind.beta2) * g * g;
            const double correction = 1 / (1 - std::pow(kind.beta2, t)), signal = (second - bias) * correction,
                         square = std::max(signal, kind.floor);
            (signal > kind.floor ? not_floored : floored) += 1;
            // |m| by the sum of its terms: they may cancel where it does not.
            const double m_size = std::fabs(first) + t * 4 * u * 4;
            const double step_size = rate * m_size / (1 - std::pow(kind.beta1, t)) / std::sqrt(square);
            weight -= rate * first / (1 - std::pow(kind.beta1, t)) / std::sqrt(square) +
                      (decays ? rate * kind.weight_decay * weight : 0);
            // The second moment has 3 roundings a step, its difference to the bias 4 of the larger of both.
            const double of_square = (3 * t + 8) * u * (second + bias) * correction / square;
            allowed[k][j] += step_size * (formula + (3 * t + 8) * u + of_square) + 4 * u * (std::fabs(weight) + step_size) +
                             rate * t * 16 * u / std::sqrt(square) / (1 - std::pow(kind.beta1, t));
            worst = std::max(worst, std::fabs(got[j] - weight) / allowed[k][j]);
          }
        }
        CHECK(worst <= 1);
      }
      CHECK(floored > 0);
      CHECK(not_floored > 0);
    }
}

TEST_CASE("DP-AdamBC: of noise alone the second moment is left at its floor, where AdamW's is the noise") {
  Context ctx(Device::cpu(), 1);
  nn::Parameters parameters(ctx, DType::f32, test::seed());
  parameters.normal("p", {4096}, 1);
  GradientSums sums(ctx, parameters.all());
  OptimiserState optimiser(ctx, parameters.all(), DpAdamBC{.beta2 = 0.99, .floor = 1e-4});
  test::Rng rng(test::seed(), 77);
  StepNoise noise{{{}, 0}, 2.0};
  for (auto& word : noise.stream.key.words) word = std::uint32_t(rng.bits());
  for (; noise.stream.step < 500; ++noise.stream.step) optimiser.step(ctx, sums, 1 / divisor, 0, &noise);
  const optim::ParameterState& state = optimiser.of(*parameters.all()[0]);
  const double variance = 2.0 * 2.0 / (divisor * divisor), correction = 1 - std::pow(0.99, 500);
  CHECK(std::fabs(state.noise_share / correction / variance - 1) < 1e-12);
  // Mean over 4096 elements of an average of about 200 squares: standard deviation sqrt(2 (1 - b2) / (1 + b2) / 4096).
  double mean = 0;
  for (const double v : state.second.to_doubles()) mean += v / correction / 4096;
  CHECK(std::fabs(mean / variance - 1) < 6 * std::sqrt(2 * 0.01 / 1.99 / 4096));
}

TEST_CASE("DP-AdamBC without noise is Adam with a floor: the share of the noise is 0") {
  Context ctx(Device::cpu(), 1);
  const Model model(ctx, DType::f32);
  GradientSums sums(ctx, model.parameters.all());
  OptimiserState optimiser(ctx, model.parameters.all(), DpAdamBC{});
  model.fill(sums, 0);
  optimiser.step(ctx, sums, 1 / divisor, rate);
  for (const Parameter* p : model.parameters.all()) CHECK(optimiser.of(*p).noise_share == 0);
}

TEST_CASE("LAMB: algorithm 2 of You et al., each parameter scaled by the ratio of its norms") {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64})
    for (const Lamb& kind : {Lamb{}, Lamb{.beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3, .weight_decay = 0.2}}) {
      CAPTURE(name_of(dtype));
      CAPTURE(kind.weight_decay);
      Context ctx(Device::cpu(), 2);
      const Model model(ctx, dtype);
      GradientSums sums(ctx, model.parameters.all());
      const optim::RateFactor slow{[](const Parameter& p) { return p.name() == "long"; }, 0.25};
      OptimiserState optimiser(ctx, model.parameters.all(), kind, std::span(&slow, 1));
      std::vector<std::vector<double>> w, m, v;
      for (const Parameter* p : model.parameters.all()) {
        w.push_back(p->master().to_doubles());
        m.emplace_back(w.back().size()), v.emplace_back(w.back().size());
      }
      std::vector<double> way(w.size());  // longest way of an element, by parameter
      // Of a direction: sqrt of FP32 packs 2^-21, moments and the rest 64 roundings over the steps; of the norms no more.
      const double u = unit_roundoff(dtype == DType::f64 ? DType::f64 : DType::f32),
                   formula = dtype == DType::f64 ? 200 * u : 0x1p-20 + 64 * u;
      for (int t = 1; t <= steps; ++t) {
        model.fill(sums, t);
        optimiser.step(ctx, sums, 1 / divisor, rate);
        for (std::size_t k = 0; k < w.size(); ++k) {
          const Parameter& p = *model.parameters.all()[k];
          const std::vector<double> sum = sums.tensors()[k].to_doubles(), got = p.master().to_doubles();
          std::vector<double> direction(w[k].size());
          double of_w = 0, of_direction = 0, largest = 0, heaviest = 0;
          for (std::size_t j = 0; j < direction.size(); ++j) {
            const double g = sum[j] / divisor;
            m[k][j] = kind.beta1 * m[k][j] + (1 - kind.beta1) * g;
            v[k][j] = kind.beta2 * v[k][j] + (1 - kind.beta2) * g * g;
            direction[j] = m[k][j] / (1 - std::pow(kind.beta1, t)) /
                               (std::sqrt(v[k][j] / (1 - std::pow(kind.beta2, t))) + kind.epsilon) +
                           (optim::Lamb{}.decays(p) ? kind.weight_decay : 0) * w[k][j];
            of_w += w[k][j] * w[k][j];
            of_direction += direction[j] * direction[j];
          }
          const double ratio = of_w > 0 && of_direction > 0 ? std::sqrt(of_w / of_direction) : 1;
          for (std::size_t j = 0; j < direction.size(); ++j) {
            const double moved = rate * (p.name() == "long" ? 0.25 : 1) * ratio * direction[j];
            w[k][j] -= moved;
            largest = std::max(largest, std::fabs(moved)), heaviest = std::max(heaviest, std::fabs(w[k][j]));
          }
          way[k] += std::max(largest, rate * (p.name() == "long" ? 0.25 : 1) * ratio);
          double worst = 0;
          for (std::size_t j = 0; j < got.size(); ++j)
            worst = std::max(worst, std::fabs(got[j] - w[k][j]) / (2 * formula * way[k] + 2 * t * u * (heaviest + way[k])));
          CAPTURE(p.name());
          CHECK(worst <= 1);
          const Tensor rounded = Tensor::from(ctx, p.shape(), dtype, got);
          CHECK(p.value().to_doubles() == rounded.to_doubles());
        }
      }
    }
}

TEST_CASE("P21: LAMB's norms are summed in one order: the bits do not depend on the threads") {
  Context one(Device::cpu(), 1), two(Device::cpu(), 2);
  const Model a(one, DType::f32), b(two, DType::f32);
  GradientSums of_a(one, a.parameters.all()), of_b(two, b.parameters.all());
  OptimiserState at_a(one, a.parameters.all(), Lamb{}), at_b(two, b.parameters.all(), Lamb{});
  for (int t = 0; t < 3; ++t) {
    a.fill(of_a, t), b.fill(of_b, t);
    at_a.step(one, of_a, 1 / divisor, rate), at_b.step(two, of_b, 1 / divisor, rate);
    for (std::size_t k = 0; k < a.parameters.all().size(); ++k)
      CHECK(a.parameters.all()[k]->master().to_doubles() == b.parameters.all()[k]->master().to_doubles());
  }
}

TEST_CASE("bad input: DP-AdamBC and LAMB refuse settings out of range") {
  Context ctx(Device::cpu(), 1);
  const Model model(ctx, DType::f32);
  const auto refused = [&](const optim::Optimiser& kind, const char* part) {
    return test::refuses([&] { OptimiserState(ctx, model.parameters.all(), kind); }, part);
  };
  for (const double bad : {0.0, -1.0, 1e-31, 1e31, double(NAN), double(INFINITY)})
    CHECK(refused(DpAdamBC{.floor = bad}, "a floor of the second moment"));
  CHECK(refused(DpAdamBC{.beta2 = 1}, "beta2"));
  CHECK(refused(Lamb{.beta1 = 1}, "beta1"));
  CHECK(refused(Lamb{.epsilon = 0}, "epsilon"));
  CHECK(refused(Lamb{.weight_decay = -1}, "weight decay"));
  OptimiserState state(ctx, model.parameters.all(), DpAdamBC{});
  for (const double bad : {-1.0, double(NAN)}) {
    std::vector<optim::ParameterState> states(model.parameters.all().size());
    states[0].noise_share = bad;
    CHECK(test::refuses([&] { state.restore(states); }, "a finite share of the noise"));
  }
}
