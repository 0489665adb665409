// SPDX-License-Identifier: Apache-2.0
// SGD with momentum and AdamW on FP32 master weights (f64 for an f64 model), from f64 gradient sums.
#pragma once
#include <cmath>
#include <string>
#include <variant>
#include <vector>

#include "dpmp/kernels/optimiser_update.hpp"
#include "dpmp/per_sample/gradient_sums.hpp"

namespace dpmp::inline DPMP_ABI::optim {
/// Stochastic gradient descent with heavy-ball momentum (Polyak 1964) and L2 weight decay.
struct Sgd {
  double momentum = 0;
  double weight_decay = 0;
};
/// Adam with decoupled weight decay (Loshchilov, Hutter 2019, arXiv 1711.05101).
struct AdamW {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
};
using Rule = std::variant<Sgd, AdamW>;

/// Keeps the moments of one set of parameters. Frozen parameters are skipped and keep their bits.
class Optimiser {
 public:
  /// A tensor of the state with the name it is saved under.
  struct StateEntry {
    std::string name;
    Tensor tensor;
  };

  Optimiser(Context& ctx, std::span<Parameter* const> parameters, const Rule& rule) : rule_(rule) {
    if (const auto* sgd = std::get_if<Sgd>(&rule_)) {
      check_range("momentum", sgd->momentum, 0, 1);
      check_decay(sgd->weight_decay);
    } else {
      const AdamW& a = std::get<AdamW>(rule_);
      check_range("beta1", a.beta1, 0, 1);
      check_range("beta2", a.beta2, 0, 1);
      DPMP_CHECK(a.epsilon > 0 && std::isfinite(a.epsilon), "expected a finite epsilon > 0, got ", a.epsilon);
      check_decay(a.weight_decay);
    }
    for (Parameter* p : parameters) {
      moments_.push_back({p, Tensor::zeros(ctx, p->shape(), p->master().dtype()), Tensor()});
      if (std::holds_alternative<AdamW>(rule_)) moments_.back().second = Tensor::zeros(ctx, p->shape(), p->master().dtype());
    }
  }

  /// One update from gradient = sums * gradient_factor (1 / a public divisor), then the compute weights are rounded anew.
  void step(Context& ctx, const per_sample::GradientSums& sums, double gradient_factor, double learning_rate) {
    ++steps_;
    for (std::size_t k = 0; k < sums.parameters().size(); ++k) {
      Moments& m = moments_of(*sums.parameters()[k]);
      if (!m.parameter->trainable()) continue;
      if (m.parameter->master().dtype() == DType::f64)
        update<double>(ctx, m, sums.tensors()[k], gradient_factor, learning_rate);
      else
        update<float>(ctx, m, sums.tensors()[k], gradient_factor, learning_rate);
      m.parameter->refresh(ctx);
    }
  }
  /// Updates made so far: Adam's bias correction depends on it. Save and restore it with state().
  index_t steps() const { return steps_; }
  void set_steps(index_t steps) { steps_ = steps; }
  /// The moments, sharing their data: write into them to restore a checkpoint.
  std::vector<StateEntry> state() const {
    std::vector<StateEntry> entries;
    for (const Moments& m : moments_) {
      entries.push_back({m.parameter->name() + ".first_moment", m.first});
      if (m.second.defined()) entries.push_back({m.parameter->name() + ".second_moment", m.second});
    }
    return entries;
  }

 private:
  struct Moments {
    Parameter* parameter;
    Tensor first, second;
  };
  static void check_range(std::string_view name, double value, double low, double high) {
    DPMP_CHECK(value >= low && value < high, "expected ", name, " in [", low, ", ", high, "), got ", value);
  }
  static void check_decay(double decay) {
    DPMP_CHECK(decay >= 0 && std::isfinite(decay), "expected a finite weight decay >= 0, got ", decay);
  }
  Moments& moments_of(const Parameter& p) {
    for (Moments& m : moments_)
      if (m.parameter == &p) return m;
    throw Error("expected a parameter this optimiser was made for, got " + p.name());
  }
  template <class R>
  void update(Context& ctx, Moments& m, const Tensor& sum, double factor, double rate) const {
    R* weight = m.parameter->master().data<R>();
    if (const auto* sgd = std::get_if<Sgd>(&rule_)) {
      launch_elements(ctx, sum.numel(),
                      kernels::SgdUpdate<R>{sum.data<double>(), weight, m.first.data<R>(), R(factor), R(rate),
                                            R(sgd->momentum), R(sgd->weight_decay)});
      return;
    }
    const AdamW& a = std::get<AdamW>(rule_);
    const double first_correction = 1 / (1 - std::pow(a.beta1, double(steps_))),
                 second_correction = 1 / std::sqrt(1 - std::pow(a.beta2, double(steps_)));
    launch_elements(
        ctx, sum.numel(),
        kernels::AdamWUpdate<R>{sum.data<double>(), weight, m.first.data<R>(), m.second.data<R>(), R(factor), R(a.beta1),
                                R(1 - a.beta1), R(a.beta2), R(1 - a.beta2), R(rate * first_correction), R(second_correction),
                                R(a.epsilon), R(rate * a.weight_decay)});
  }

  Rule rule_;
  std::vector<Moments> moments_;
  index_t steps_ = 0;
};
}  // namespace dpmp::inline DPMP_ABI::optim
