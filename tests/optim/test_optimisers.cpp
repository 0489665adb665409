// SPDX-License-Identifier: Apache-2.0
// SGD and AdamW against plain loops in double, low-precision copies, frozen parameters, refusals.
#include <doctest/doctest.h>
#include <algorithm>
#include <cmath>
#include <memory>

#include "dpmp/nn/parameters.hpp"
#include "dpmp/optim/optimiser.hpp"
#include "support/errors.hpp"
#include "support/tensors.hpp"

using namespace dpmp;
using optim::AdamW;
using optim::OptimiserState;
using optim::Sgd;
using per_sample::GradientSums;

namespace {
constexpr double divisor = 3, rate = 0.05;
constexpr int steps = 12;
bool every(const Parameter&) { return true; }

/// Two parameters and their gradient sums, the same numbers in every dtype.
struct Model {
  Model(Context& context, DType dtype) : ctx(context), parameters(context, dtype, test::seed()) {
    parameters.normal("matrix", {7, 19}, 0.5);
    parameters.constant("vector", {37}, 1);
  }
  /// The sums of one step, normal numbers of standard deviation 2 that only step and parameter decide.
  void fill(GradientSums& sums, int step) const {
    for (std::size_t k = 0; k < sums.tensors().size(); ++k) {
      test::Rng rng(test::seed(), std::uint64_t(100 * step + int(k)));
      double* sum = sums.tensors()[k].data<double>();
      for (index_t j = 0; j < sums.tensors()[k].numel(); ++j) sum[j] = rng.normal(2);
    }
  }
  std::vector<double> masters() const {
    std::vector<double> all;
    for (const Parameter* p : parameters.all())
      for (double v : p->master().to_doubles()) all.push_back(v);
    return all;
  }
  Context& ctx;
  nn::Parameters parameters;
};

/// What is wrong with the weights after `steps` steps of both: the largest error as a share of its bound. f32: a rounding of
/// the weight a step, and 1e-6 of the way that the updates went.
template <class Update>
double error_share(DType dtype, const optim::Optimiser& kind, Update&& reference_update) {
  Context ctx(Device::cpu(), 2);
  const Model model(ctx, dtype);
  GradientSums sums(ctx, model.parameters.all());
  OptimiserState optimiser(ctx, model.parameters.all(), kind);
  std::vector<double> w = model.masters(), m(w.size(), 0.0), v(w.size(), 0.0), way(w.size(), 0.0);
  double worst = 0;
  for (int step = 0; step < steps; ++step) {
    model.fill(sums, step);
    optimiser.step(ctx, sums, 1 / divisor, rate);
    std::size_t at = 0;
    for (const Tensor& sum : sums.tensors())
      for (double s : sum.to_doubles()) {
        const double before = w[at];
        reference_update(step + 1, s / divisor, w[at], m[at], v[at]);
        way[at] += std::fabs(w[at] - before);
        ++at;
      }
    const std::vector<double> got = model.masters();
    const double u = unit_roundoff(model.parameters.all()[0]->master().dtype()),
                 relative = dtype == DType::f64 ? 1e-14 : 1e-6;
    for (std::size_t j = 0; j < w.size(); ++j)
      worst = std::max(
          worst, std::fabs(got[j] - w[j]) / (2 * double(step + 1) * u * (std::fabs(w[j]) + way[j]) + relative * way[j]));
  }
  return worst;
}
/// Bits of the master, for comparisons that may not forgive anything.
std::vector<double> master(const nn::Parameters& parameters, const char* name) {
  return parameters.find(name).master().to_doubles();
}
}  // namespace

TEST_CASE("SGD: momentum and weight decay as in Polyak's heavy ball with an L2 term") {
  for (DType dtype : {DType::f32, DType::bf16, DType::f64})
    for (const Sgd& kind : {Sgd{}, Sgd{.momentum = 0.9}, Sgd{.weight_decay = 0.1, .decays = every},
                            Sgd{.momentum = 0.7, .weight_decay = 0.2, .decays = every}}) {
      CAPTURE(name_of(dtype));
      CAPTURE(kind.momentum);
      CAPTURE(kind.weight_decay);
      CHECK(error_share(dtype, kind, [&](int, double g, double& w, double& velocity, double&) {
              velocity = kind.momentum * velocity + g + kind.weight_decay * w;
              w -= rate * velocity;
            }) <= 1);
    }
}

TEST_CASE("AdamW: algorithm 2 of Loshchilov and Hutter with the schedule as the learning rate") {
  for (DType dtype : {DType::f32, DType::bf16, DType::f64})
    for (const AdamW& kind : {AdamW{}, AdamW{.weight_decay = 0.1, .decays = every},
                              AdamW{.beta1 = 0, .beta2 = 0.5, .epsilon = 1e-3}, AdamW{.beta1 = 0.5, .beta2 = 0}}) {
      CAPTURE(name_of(dtype));
      CAPTURE(kind.beta1);
      CHECK(error_share(dtype, kind, [&](int t, double g, double& w, double& m, double& v) {
              m = kind.beta1 * m + (1 - kind.beta1) * g;
              v = kind.beta2 * v + (1 - kind.beta2) * g * g;
              const double m_hat = m / (1 - std::pow(kind.beta1, t)), v_hat = v / (1 - std::pow(kind.beta2, t));
              w -= rate * (m_hat / (std::sqrt(v_hat) + kind.epsilon)) + rate * kind.weight_decay * w;
            }) <= 1);
    }
}

TEST_CASE("AdamW: the moments kept are those of the formulas, to FP32 rounding") {
  Context ctx(Device::cpu(), 1);
  const Model model(ctx, DType::f32);
  GradientSums sums(ctx, model.parameters.all());
  OptimiserState optimiser(ctx, model.parameters.all(), AdamW{});
  model.fill(sums, 0);
  optimiser.step(ctx, sums, 1 / divisor, rate);
  const optim::ParameterState& state = optimiser.of(model.parameters.find("matrix"));
  const std::vector<double> sum = sums.tensors()[0].to_doubles(), m = state.first.to_doubles(),
                            v = state.second.to_doubles();
  for (std::size_t j = 0; j < sum.size(); ++j) {
    const double g = sum[j] / divisor;
    CHECK(std::fabs(m[j] - 0.1 * g) <= 4 * 0x1p-24 * std::fabs(0.1 * g));
    CHECK(std::fabs(v[j] - 0.001 * g * g) <= 8 * 0x1p-24 * 0.001 * g * g);
  }
  CHECK(state.updates == 1);
}

TEST_CASE("after a step the compute weights are the masters rounded to their dtype") {
  Context ctx(Device::cpu(), 2);
  for (DType dtype : {DType::bf16, DType::f16}) {
    const Model model(ctx, dtype);
    GradientSums sums(ctx, model.parameters.all());
    OptimiserState optimiser(ctx, model.parameters.all(), AdamW{});
    for (int step = 0; step < 3; ++step) {
      model.fill(sums, step);
      optimiser.step(ctx, sums, 1 / divisor, rate);
      for (const Parameter* p : model.parameters.all()) {
        CHECK(p->master().dtype() == DType::f32);
        const std::vector<double> values = p->value().to_doubles(),
                                  rounded = Tensor::from(ctx, p->shape(), dtype, p->master().to_doubles()).to_doubles();
        CHECK(values == rounded);
        CHECK(values != p->master().to_doubles());
      }
    }
  }
}

TEST_CASE("P28: a step changes every trainable parameter and not one bit of a frozen one, whenever it was frozen") {
  Context ctx(Device::cpu(), 2);
  for (const optim::Optimiser& kind :
       {optim::Optimiser(Sgd{.momentum = 0.9, .weight_decay = 0.1}), optim::Optimiser(AdamW{.weight_decay = 0.1})}) {
    for (bool frozen_before : {true, false}) {
      const Model model(ctx, DType::f32);
      Parameter& frozen = model.parameters.find("vector");
      if (frozen_before) frozen.set_trainable(false);
      GradientSums sums(ctx, model.parameters.all());
      CHECK(sums.tensors().size() == (frozen_before ? 1 : 2));
      OptimiserState optimiser(ctx, model.parameters.all(), kind);
      frozen.set_trainable(false);
      const std::vector<double> matrix = master(model.parameters, "matrix"), vector = master(model.parameters, "vector");
      model.fill(sums, 0);
      optimiser.step(ctx, sums, 1 / divisor, rate);
      CHECK(master(model.parameters, "vector") == vector);
      const std::vector<double> after = master(model.parameters, "matrix");
      for (std::size_t j = 0; j < after.size(); ++j) CHECK(after[j] != matrix[j]);
    }
  }
}

TEST_CASE("decay and learning rate go by parameter: each against a plain loop of its own in double") {
  struct Shaped {
    const char* name;
    Shape shape;
    bool decays;         // by default
    double rate_factor;  // by the groups below
  };
  const std::vector<Shaped> shaped{{"embedding.weight", {9, 4}, true, 0.25},
                                   {"block.weight", {3, 2, 5}, true, 1},
                                   {"block.bias", {33}, false, 3},
                                   {"norm.gain", {8}, false, 1},
                                   {"scale", {}, false, 1},
                                   {"head.bias", {6}, false, 3}};
  const auto named = [](const char* part) {
    return [part](const Parameter& p) { return p.name().find(part) != std::string::npos; };
  };
  // head.bias is in two of them.
  const std::vector<optim::RateFactor> rate_factors{{named("embedding"), 0.25}, {named("bias"), 3}, {named("head"), 7}};
  const double weight_decay = 0.3;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64})
    for (const bool adam : {false, true})
      for (const bool gains_decay : {false, true}) {
        CAPTURE(name_of(dtype));
        CAPTURE(adam);
        CAPTURE(gains_decay);
        Context ctx(Device::cpu(), 1);
        nn::Parameters parameters(ctx, dtype, test::seed());
        for (const Shaped& s : shaped) parameters.normal(s.name, s.shape, 0.5);
        AdamW adamw{.epsilon = 1e-3, .weight_decay = weight_decay};
        Sgd sgd{.momentum = 0.5, .weight_decay = weight_decay};
        if (gains_decay) adamw.decays = sgd.decays = named("gain");
        OptimiserState optimiser(ctx, parameters.all(), adam ? optim::Optimiser(adamw) : optim::Optimiser(sgd),
                                 rate_factors);
        GradientSums sums(ctx, parameters.all());
        std::vector<std::vector<double>> w, m, v, way;
        for (const Parameter* p : parameters.all()) {
          w.push_back(p->master().to_doubles());
          m.emplace_back(w.back().size()), v.emplace_back(w.back().size()), way.emplace_back(w.back().size());
        }
        const double u = unit_roundoff(dtype == DType::f64 ? DType::f64 : DType::f32),
                     relative = dtype == DType::f64 ? 1e-14 : 1e-6;
        for (int t = 1; t <= steps; ++t) {
          for (std::size_t k = 0; k < shaped.size(); ++k) {
            test::Rng rng(test::seed(), std::uint64_t(100 * t) + k);
            for (index_t j = 0; j < sums.tensors()[k].numel(); ++j) sums.tensors()[k].data<double>()[j] = rng.normal(2);
          }
          optimiser.step(ctx, sums, 1 / divisor, rate);
          for (std::size_t k = 0; k < shaped.size(); ++k) {
            const bool decays = gains_decay ? std::string(shaped[k].name) == "norm.gain" : shaped[k].decays;
            const double decay = decays ? weight_decay : 0, own_rate = rate * shaped[k].rate_factor;
            const std::vector<double> sum = sums.tensors()[k].to_doubles(), got = parameters.all()[k]->master().to_doubles();
            double worst = 0;
            for (std::size_t j = 0; j < got.size(); ++j) {
              const double g = sum[j] / divisor, before = w[k][j];
              double &first = m[k][j], &second = v[k][j], &weight = w[k][j];
              if (adam) {
                first = adamw.beta1 * first + (1 - adamw.beta1) * g;
                second = adamw.beta2 * second + (1 - adamw.beta2) * g * g;
                const double m_hat = first / (1 - std::pow(adamw.beta1, t)), v_hat = second / (1 - std::pow(adamw.beta2, t));
                weight -= own_rate * (m_hat / (std::sqrt(v_hat) + adamw.epsilon) + decay * weight);
              } else {
                first = sgd.momentum * first + g + decay * weight;
                weight -= own_rate * first;
              }
              way[k][j] += std::fabs(weight - before);
              worst = std::max(worst, std::fabs(got[j] - weight) /
                                          (2 * t * u * (std::fabs(weight) + way[k][j]) + 2 * relative * way[k][j]));
            }
            CAPTURE(shaped[k].name);
            CHECK(worst <= 1);
          }
        }
        for (std::size_t k = 0; k < shaped.size(); ++k) {
          CHECK(optimiser.rate_factor(*parameters.all()[k]) == shaped[k].rate_factor);
          CHECK(optimiser.decays(*parameters.all()[k]) ==
                (gains_decay ? std::string(shaped[k].name) == "norm.gain" : shaped[k].decays));
        }
      }
}

TEST_CASE("the predicate of decay is called once for each parameter, when the optimiser is made") {
  Context ctx(Device::cpu(), 1);
  const Model model(ctx, DType::f32);
  int asked = 0;
  const optim::ParameterPredicate count = [&](const Parameter&) { return ++asked, true; };
  OptimiserState optimiser(ctx, model.parameters.all(), AdamW{.weight_decay = 0.1, .decays = count});
  GradientSums sums(ctx, model.parameters.all());
  model.fill(sums, 0);
  optimiser.step(ctx, sums, 1 / divisor, rate);
  CHECK(asked == 2);
}

TEST_CASE("optimisers refuse hyper-parameters out of range and parameters of another model") {
  Context ctx(Device::cpu(), 1);
  const Model model(ctx, DType::f32), other(ctx, DType::f32);
  const auto refused = [&](const optim::Optimiser& kind, const char* part) {
    return test::refuses([&] { OptimiserState(ctx, model.parameters.all(), kind); }, part);
  };
  for (double bad : {-0.1, 1.0, double(NAN)}) {
    CHECK(refused(Sgd{.momentum = bad}, "momentum"));
    CHECK(refused(AdamW{.beta1 = bad}, "beta1"));
    CHECK(refused(AdamW{.beta2 = bad}, "beta2"));
  }
  for (double bad : {0.0, -1e-8, double(NAN), double(INFINITY)}) CHECK(refused(AdamW{.epsilon = bad}, "epsilon"));
  for (double bad : {-0.1, double(NAN), double(INFINITY)}) {
    CHECK(refused(Sgd{.weight_decay = bad}, "weight decay"));
    CHECK(refused(AdamW{.weight_decay = bad}, "weight decay"));
  }
  CHECK(refused(AdamW{.decays = {}}, "the parameters that decay, got none"));
  CHECK(refused(Sgd{.decays = {}}, "the parameters that decay, got none"));
  const auto factor_refused = [&](const optim::RateFactor& group, const char* part) {
    return test::refuses([&] { OptimiserState(ctx, model.parameters.all(), Sgd{}, std::span(&group, 1)); }, part);
  };
  for (double bad : {-1.0, double(NAN), double(INFINITY)}) CHECK(factor_refused({every, bad}, "a finite factor > 0"));
  CHECK(factor_refused({every, 0}, "freeze parameters"));
  CHECK(factor_refused({{}, 1}, "a predicate for the parameters of a rate factor, got none"));
  OptimiserState optimiser(ctx, model.parameters.all(), Sgd{});
  const GradientSums sums(ctx, other.parameters.all());
  CHECK(test::refuses([&] { optimiser.step(ctx, sums, 1, rate); }, "matrix"));
}

TEST_CASE("sums keep their values when other parameters are frozen and thawed, and new ones begin at 0") {
  Context ctx(Device::cpu(), 1);
  std::vector<std::unique_ptr<Parameter>> owned;
  std::vector<Parameter*> parameters;
  for (const Shape& shape : {Shape{3, 5}, Shape{0}, Shape{17}, Shape{1}}) {
    owned.push_back(std::make_unique<Parameter>(ctx, "p", Tensor::zeros(ctx, shape, DType::f32), DType::f32));
    parameters.push_back(owned.back().get());
  }
  per_sample::GradientSums sums(ctx, parameters);
  const auto is_filled = [&](std::size_t k, double value) {
    const Tensor& sum = sums.of(*parameters[k]);
    return sum.shape() == parameters[k]->shape() && reinterpret_cast<std::uintptr_t>(sum.raw()) % 64 == 0 &&
           sum.to_doubles() == std::vector<double>(std::size_t(sum.numel()), value);
  };
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    CHECK(is_filled(k, 0));
    const Tensor& sum = sums.of(*parameters[k]);
    std::fill_n(sum.data<double>(), sum.numel(), double(k + 1));
  }
  const void* before = sums.of(*parameters[0]).raw();
  sums.follow_trainable(ctx);
  CHECK(sums.of(*parameters[0]).raw() == before);  // nothing changed: nothing moves
  parameters[0]->set_trainable(false);
  sums.follow_trainable(ctx);
  CHECK_THROWS_AS(sums.of(*parameters[0]), Error);
  CHECK((is_filled(2, 3) && is_filled(3, 4)));
  CHECK(sums.places() == std::vector<index_t>{1, 2, 3});
  parameters[0]->set_trainable(true);
  sums.follow_trainable(ctx);
  CHECK((is_filled(0, 0) && is_filled(2, 3) && is_filled(3, 4)));
  sums.set_zero();
  for (std::size_t k = 0; k < parameters.size(); ++k) CHECK(is_filled(k, 0));
}
