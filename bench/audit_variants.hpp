// SPDX-License-Identifier: Apache-2.0
// Ways to train a tiny model privately, each with the record whose presence shows most: its gradient always has the same
// direction, and all others have none.
#pragma once
#include <dpmp/autograd/rules/embedding.hpp>
#include <dpmp/autograd/rules/linear.hpp>

#include "audit_experiment.hpp"

namespace audit {
struct LinearVariant {
  std::string name;
  DType dtype = DType::f32;
  index_t steps = 4, records = 4, physical_batch = 4;
  double sampling_rate = 1, sigma = 2;
  optim::Optimiser optimiser = optim::Sgd{};
  bool grouped = false;  // weight and bias clipped apart
  bool thawed = false;   // the bias is frozen in the first half of the steps
};

/// y = W x + b, loss <v, y>: the record in question has the gradient (v x^T, v), all others have x = 0 and v = 0.
inline Experiment linear_experiment(const LinearVariant& v) {
  constexpr index_t d = 7, p = 3;
  constexpr double weight_threshold = 0.8, bias_threshold = 0.6;
  struct State {
    LinearVariant v;
    Context ctx{Device::cpu(), 1};
    std::vector<double> x, out;
  };
  const auto s = std::make_shared<State>();
  s->v = v;
  std::mt19937_64 random(5);
  std::normal_distribution<double> normal;
  for (index_t k = 0; k < d; ++k) s->x.push_back(v.optimiser.index() == 1 ? double(k == 0) : double(float(normal(random))) * 0.5);
  for (index_t k = 0; k < p; ++k)
    s->out.push_back(v.optimiser.index() == 1 ? 1000.0 * (k == 0) : std::round(300 * normal(random)));
  const auto plan_of = [s](double share) {
    dp::PlanOptions o{.delta = 1e-5, .sampling_rate = s->v.sampling_rate, .steps = s->v.steps, .dataset_size = s->v.records};
    if (s->v.grouped) o.group_thresholds = {weight_threshold, bias_threshold};
    return dp::Plan::with_noise_multiplier(o, s->v.sigma * share);
  };
  Experiment e;
  e.name = v.name;
  e.claimed_epsilon = plan_of(1).epsilon();
  if (v.sampling_rate == 1) {
    e.claimed_power = gaussian_power(mu_of(plan_of(1)));
  } else {
    // One step of the sampled Gaussian mechanism: the larger power of telling D' from D and D from D'.
    e.claimed_power = [q = v.sampling_rate, mu = 1 / v.sigma](double a) {
      const auto phi = [](double t) { return 0.5 * std::erfc(-t / std::sqrt(2.0)); };
      const double there = q * phi(dp::normal_quantile(a) + mu) + (1 - q) * a;
      double low = -40, high = 40;
      for (int k = 0; k < 100; ++k) {
        const double t = (low + high) / 2;
        (q * phi(t - mu) + (1 - q) * phi(t) < a ? low : high) = t;
      }
      return std::max(there, phi(high));
    };
  }
  e.scores = [s, plan_of, half = plan_of(0.5), whole = plan_of(1)](std::mt19937_64& r, bool with, double share) {
    const LinearVariant& c = s->v;
    nn::Parameters parameters(s->ctx, c.dtype, 3);
    Parameter &w = parameters.normal("w", {p, d}, 1), &b = parameters.constant("b", {p}, 0);
    const index_t target = c.records / 2;
    const auto losses = [&](const train::Batch& batch) {
      std::vector<double> x, out;
      for (const index_t i : batch.records) {
        const double here = i == target && with;  // without it, the record behind it has its number
        for (const double value : s->x) x.push_back(here * value);
        for (const double value : s->out) out.push_back(here * value);
      }
      const Tensor inputs = Tensor::from(s->ctx, {index_t(batch.records.size()), d}, c.dtype, x);
      return weighted_sum(linear(batch.tape.input(inputs), w, &b), out);
    };
    train::TrainerOptions o{
        .physical_batch = c.physical_batch, .optimiser = c.optimiser, .learning_rate = optim::LearningRate::constant(1)};
    const auto all = parameters.all();
    if (c.grouped) o.groups = per_sample::Groups::by_parameter(all);
    train::Trainer trainer(s->ctx, parameters, share == 1 ? whole : half, fresh_keys(r), c.records - !with, o);
    const std::vector<double> before = masters(parameters);
    double weight_squares = 0, bias_squares = 0;
    for (const double i : s->x)
      for (const double j : s->out) weight_squares += i * i * j * j;
    for (const double j : s->out) bias_squares += j * j;
    // What the record adds to the weight and to the bias over all steps, and the steps whose noise is on each.
    double on_weight = 0, on_bias = 0, bias_steps = 0;
    for (index_t t = 0; t < c.steps; ++t) {
      b.set_trainable(!c.thawed || t >= c.steps / 2);
      trainer.step(losses);
      bias_steps += b.trainable();
      const double norm = std::sqrt(weight_squares + (b.trainable() ? bias_squares : 0));
      on_weight += c.grouped ? weight_threshold : std::sqrt(weight_squares) / norm;
      on_bias += c.grouped ? bias_threshold : b.trainable() * std::sqrt(bias_squares) / norm;
    }
    const std::vector<double> moved = minus(before, masters(parameters));
    double along_weight = 0, along_bias = 0;
    for (index_t j = 0; j < p; ++j) {
      for (index_t k = 0; k < d; ++k)
        along_weight += moved[std::size_t(j * d + k)] * s->out[std::size_t(j)] * s->x[std::size_t(k)];
      along_bias += moved[std::size_t(p * d + j)] * s->out[std::size_t(j)];
    }
    along_weight /= std::sqrt(weight_squares), along_bias /= std::sqrt(bias_squares);
    return std::vector<double>{along_weight * on_weight / double(c.steps) + along_bias * on_bias / bias_steps, along_weight};
  };
  return e;
}

/// One step of a table that is an embedding and the output layer behind it.
inline Experiment tied_experiment() {
  constexpr index_t vocabulary = 6, width = 5, tokens = 3, records = 4;
  struct State {
    Context ctx{Device::cpu(), 1};
    std::vector<double> direction;
  };
  const auto s = std::make_shared<State>();
  const auto plan_of = [](double share) {
    return dp::Plan::with_noise_multiplier({.delta = 1e-5, .sampling_rate = 1, .steps = 1, .dataset_size = records}, share);
  };
  const auto losses_of = [s](Parameter& table, bool with) {
    return [s, &table, with](const train::Batch& batch) {
      std::vector<std::int32_t> ids;
      std::vector<double> out;
      for (const index_t i : batch.records)
        for (index_t t = 0; t < tokens; ++t) {
          ids.push_back(std::int32_t(t % 2 ? 4 : 1));
          for (index_t k = 0; k < vocabulary; ++k) out.push_back(i == records - 1 && with ? double(100 * (k == 1) - 40) : 0);
        }
      const Variable h =
          embedding(batch.tape, Tensor::from(batch.tape.ctx(), {index_t(batch.records.size()), tokens}, ids), table);
      return weighted_sum(linear(h, table), out);
    };
  };
  {
    nn::Parameters parameters(s->ctx, DType::f32, 3);
    Parameter& table = parameters.normal("table", {vocabulary, width}, 1);
    s->direction = unit(clipped_sum(s->ctx, parameters, plan_of(1), losses_of(table, true), records, records));
  }
  Experiment e;
  e.name = "tied";
  e.claimed_epsilon = plan_of(1).epsilon();
  e.claimed_power = gaussian_power(mu_of(plan_of(1)));
  e.scores = [s, losses_of, whole = plan_of(1), half = plan_of(0.5)](std::mt19937_64& r, bool with, double share) {
    nn::Parameters parameters(s->ctx, DType::f32, 3);
    Parameter& table = parameters.normal("table", {vocabulary, width}, 1);
    train::Trainer trainer(
        s->ctx, parameters, share == 1 ? whole : half, fresh_keys(r), records - !with,
        {.physical_batch = records, .optimiser = optim::Sgd{}, .learning_rate = optim::LearningRate::constant(1)});
    const std::vector<double> before = masters(parameters);
    trainer.step(losses_of(table, with));
    return std::vector<double>{dot(minus(before, masters(parameters)), s->direction)};
  };
  return e;
}

inline std::vector<Experiment> variants() {
  std::vector<Experiment> all;
  for (const LinearVariant& v : std::vector<LinearVariant>{
           {.name = "flat"},
           {.name = "bf16", .dtype = DType::bf16},
           {.name = "f16", .dtype = DType::f16},
           {.name = "groups", .grouped = true},
           {.name = "virtual batches", .steps = 2, .records = 20, .physical_batch = 6, .sigma = std::sqrt(2.0)},
           {.name = "thawed", .thawed = true},
           {.name = "AdamW", .steps = 2, .sigma = std::sqrt(2.0), .optimiser = optim::AdamW{}},
           {.name = "Poisson", .steps = 1, .sampling_rate = 0.5, .sigma = 1}})
    all.push_back(linear_experiment(v));
  all.push_back(tied_experiment());
  return all;
}
}  // namespace audit
