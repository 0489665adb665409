// SPDX-License-Identifier: Apache-2.0
// SGD with momentum and AdamW on FP32 master weights (f64 for an f64 model), from f64 gradient sums.
#pragma once
#include <cmath>
#include <functional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "dpmp/optim/fused_update.hpp"
#include "dpmp/per_sample/gradient_sums.hpp"

namespace dpmp::inline DPMP_ABI::optim {
/// Decides by what is public of a parameter: name, shape, dtype. Called once for each parameter, when an optimiser is made.
using ParameterPredicate = std::function<bool(const Parameter&)>;

/// Stochastic gradient descent with heavy-ball momentum (Polyak 1964) and L2 weight decay.
struct Sgd {
  double momentum = 0;
  double weight_decay = 0;
  /// The parameters that decay; by default all but biases and gains.
  ParameterPredicate decays = is_matrix;
};
/// Adam with decoupled weight decay (Loshchilov, Hutter 2019, arXiv 1711.05101).
struct AdamW {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  /// The parameters that decay; by default all but biases and gains.
  ParameterPredicate decays = is_matrix;
};
using Rule = std::variant<Sgd, AdamW>;

/// A group of parameters that learn at factor times the learning rate (with AdamW, their decay is multiplied too).
struct RateFactor {
  ParameterPredicate parameters;
  double factor = 1;
};

/// Gaussian noise that a step adds to the sums: to sum k the normals of parameter sums.places()[k].
struct StepNoise {
  dp::NoiseStream stream;
  double standard_deviation = 0;
};

/// Keeps the moments of one set of parameters. Frozen parameters are skipped and keep their bits.
class Optimiser {
 public:
  /// A tensor of the state with the name it is saved under.
  struct StateEntry {
    std::string name;
    Tensor tensor;
  };

  /// rate_factors: the first group that has a parameter counts; a parameter in none has the factor 1.
  Optimiser(Context& ctx, std::span<Parameter* const> parameters, const Rule& rule,
            std::span<const RateFactor> rate_factors = {});

  /// One update from gradient = (sums + noise) * gradient_factor (1 / a public divisor), with the compute weights rounded
  /// again. The sums stay as they are. Throws on noise that dp::add_gaussian_noise refuses.
  void step(Context& ctx, const per_sample::GradientSums& sums, double gradient_factor, double learning_rate,
            const StepNoise* noise = nullptr);
  /// The two halves of step. begin_step counts the step and puts its numbers into the memory of the device; update launches
  /// kernels only, with nothing of the step but the key in their arguments: it may be captured in a CUDA graph, which then
  /// is launched after each begin_step.
  void begin_step(double gradient_factor, double learning_rate, const StepNoise* noise = nullptr);
  void update(Context& ctx, const per_sample::GradientSums& sums, const Key256* noise_key = nullptr) const;
  /// Updates made so far: Adam's bias correction depends on it. Save and restore it with state().
  index_t steps() const { return steps_; }
  void set_steps(index_t steps) { steps_ = steps; }
  /// The moments, sharing their data: write into them to restore a checkpoint.
  std::vector<StateEntry> state() const;
  /// What the predicates decided for a parameter.
  bool decays(const Parameter& p) const { return moments_of(p).decays; }
  double rate_factor(const Parameter& p) const { return moments_of(p).rate_factor; }

 private:
  struct Moments {
    Parameter* parameter;
    Tensor first, second;
    bool decays;
    double rate_factor;
  };
  static void check_range(std::string_view name, double value, double low, double high);
  static void check_decay(double decay, const ParameterPredicate& decays);
  static double rate_factor_of(const Parameter& p, std::span<const RateFactor> rate_factors);
  const Moments& moments_of(const Parameter& p) const;
  template <class R>
  static kernels::SgdUpdate<R> formula_of(const Sgd& sgd, const Moments& m);
  template <class R>
  static kernels::AdamWUpdate<R> formula_of(const AdamW& a, const Moments& m);
  /// All parameters of compute dtype T.
  template <class T, class SomeRule>
  void update_all(Context& ctx, const SomeRule& rule, const per_sample::GradientSums& sums, const Key256* noise_key) const;

  Rule rule_;
  Tensor numbers_;  // detail::FusedNumbers
  std::vector<Moments> moments_;
  index_t steps_ = 0;
};
}  // namespace dpmp::inline DPMP_ABI::optim

#if DPMP_BODIES
#include "dpmp/runtime/profiler_range.hpp"

namespace dpmp::inline DPMP_ABI::optim {
DPMP_KEPT_BODY inline Optimiser::Optimiser(Context& ctx, std::span<Parameter* const> parameters, const Rule& rule,
                                           std::span<const RateFactor> rate_factors)
    : rule_(rule), numbers_(Tensor::zeros(ctx, {index_t(sizeof(detail::FusedNumbers) / sizeof(double))}, DType::f64)) {
  if (const auto* sgd = std::get_if<Sgd>(&rule_)) {
    check_range("momentum", sgd->momentum, 0, 1);
    check_decay(sgd->weight_decay, sgd->decays);
  } else {
    const AdamW& a = std::get<AdamW>(rule_);
    check_range("beta1", a.beta1, 0, 1);
    check_range("beta2", a.beta2, 0, 1);
    DPMP_CHECK(a.epsilon > 0 && std::isfinite(a.epsilon), "expected a finite epsilon > 0, got ", a.epsilon);
    check_decay(a.weight_decay, a.decays);
  }
  for (const RateFactor& group : rate_factors) {
    DPMP_CHECK(group.parameters, "expected a predicate for the parameters of a rate factor, got none");
    DPMP_CHECK(group.factor > 0 && std::isfinite(group.factor), "expected a finite factor > 0 of the learning rate, got ",
               group.factor, group.factor == 0 ? ": freeze parameters that are not to learn" : "");
  }
  for (Parameter* p : parameters) {
    const bool decays = std::visit([&](const auto& r) { return r.decays(*p); }, rule_);
    moments_.push_back(
        {p, Tensor::zeros(ctx, p->shape(), p->master().dtype()), Tensor(), decays, rate_factor_of(*p, rate_factors)});
    if (std::holds_alternative<AdamW>(rule_)) moments_.back().second = Tensor::zeros(ctx, p->shape(), p->master().dtype());
  }
}

DPMP_KEPT_BODY inline void Optimiser::step(Context& ctx, const per_sample::GradientSums& sums, double gradient_factor,
                                           double learning_rate, const StepNoise* noise) {
  begin_step(gradient_factor, learning_rate, noise);
  update(ctx, sums, noise ? &noise->stream.key : nullptr);
}

DPMP_KEPT_BODY inline void Optimiser::begin_step(double gradient_factor, double learning_rate, const StepNoise* noise) {
  detail::FusedNumbers now;
  if (noise) now.noise = dp::NoiseOfStep(noise->stream.step, noise->standard_deviation);
  ++steps_;
  now.update = {.gradient_factor = gradient_factor, .rate = learning_rate};
  if (const auto* a = std::get_if<AdamW>(&rule_)) {
    now.update.rate = learning_rate * (1 / (1 - std::pow(a->beta1, double(steps_))));
    now.update.second_correction = 1 / std::sqrt(1 - std::pow(a->beta2, double(steps_)));
    now.update.decay = learning_rate * a->weight_decay;
  }
  numbers_.copy_from_host(&now);
}

DPMP_KEPT_BODY inline void Optimiser::update(Context& ctx, const per_sample::GradientSums& sums,
                                             const Key256* noise_key) const {
  const ProfilerRange range(ctx, "update");
  std::visit(
      [&](const auto& rule) {
        for (const DType dtype : real_dtypes)
          dispatch_real(dtype, [&](auto tag) { update_all<typename decltype(tag)::type>(ctx, rule, sums, noise_key); });
      },
      rule_);
}

DPMP_KEPT_BODY inline std::vector<Optimiser::StateEntry> Optimiser::state() const {
  std::vector<StateEntry> entries;
  for (const Moments& m : moments_) {
    entries.push_back({m.parameter->name() + ".first_moment", m.first});
    if (m.second.defined()) entries.push_back({m.parameter->name() + ".second_moment", m.second});
  }
  return entries;
}

DPMP_KEPT_BODY inline void Optimiser::check_range(std::string_view name, double value, double low, double high) {
  DPMP_CHECK(value >= low && value < high, "expected ", name, " in [", low, ", ", high, "), got ", value);
}

DPMP_KEPT_BODY inline void Optimiser::check_decay(double decay, const ParameterPredicate& decays) {
  DPMP_CHECK(decay >= 0 && std::isfinite(decay), "expected a finite weight decay >= 0, got ", decay);
  DPMP_CHECK(decays, "expected a predicate for the parameters that decay, got none");
}

DPMP_KEPT_BODY inline double Optimiser::rate_factor_of(const Parameter& p, std::span<const RateFactor> rate_factors) {
  for (const RateFactor& group : rate_factors)
    if (group.parameters(p)) return group.factor;
  return 1;
}

DPMP_KEPT_BODY inline const Optimiser::Moments& Optimiser::moments_of(const Parameter& p) const {
  for (const Moments& m : moments_)
    if (m.parameter == &p) return m;
  throw Error("expected a parameter this optimiser was made for, got " + p.name());
}

template <class R>
inline kernels::SgdUpdate<R> Optimiser::formula_of(const Sgd& sgd, const Moments& m) {
  return {m.first.data<R>(), R(sgd.momentum), R(m.decays ? sgd.weight_decay : 0), R(m.rate_factor)};
}

template <class R>
inline kernels::AdamWUpdate<R> Optimiser::formula_of(const AdamW& a, const Moments& m) {
  return {m.first.data<R>(), m.second.data<R>(), R(a.beta1),
          R(1 - a.beta1),    R(a.beta2),         R(1 - a.beta2),
          R(a.epsilon),      R(m.rate_factor),   R(m.decays ? m.rate_factor : 0)};
}

template <class T, class SomeRule>
inline void Optimiser::update_all(Context& ctx, const SomeRule& rule, const per_sample::GradientSums& sums,
                                  const Key256* noise_key) const {
  using R = compute_t<T>;
  using Fused = detail::FusedUpdate<decltype(formula_of<R>(rule, moments_[0])), T>;
  const auto* numbers = static_cast<const detail::FusedNumbers*>(numbers_.raw());
  std::vector<Fused> updates;
  for (std::size_t k = 0; k < sums.parameters().size(); ++k) {
    Parameter& parameter = *sums.parameters()[k];
    if (!parameter.trainable() || parameter.dtype() != dtype_of<T>) continue;
    updates.push_back(
        {sums.tensors()[k].numel(), sums.tensors()[k].template data<double>(), parameter.master().template data<R>(),
         parameter.value().template data<T>(), formula_of<R>(rule, moments_of(parameter)), &numbers->update,
         noise_key ? dp::ParameterNoise(*noise_key, &numbers->noise, sums.places()[k]) : dp::ParameterNoise()});
  }
  detail::launch_updates<Fused>(ctx, updates);
}
}  // namespace dpmp::inline DPMP_ABI::optim
#endif
