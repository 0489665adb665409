// SPDX-License-Identifier: Apache-2.0
// Data sets made to break the guarantee where a record's contribution depends on more than the record: on its slot, on the
// numbers of other records, on the noise's grid.
#pragma once
#include <dpmp/autograd/rules/linear.hpp>
#include <dpmp/autograd/rules/mean_squared_error.hpp>
#include <limits>
#include <optional>

#include "audit_dropout.hpp"
#include "audit_experiment.hpp"

namespace audit {
/// Removing record 0 moves all others by a slot. The last slots' records have inputs whose products with the weights cancel,
/// so that the sign of their error, and with it the direction of their gradient, is that of the roundings. Where a product
/// gives a row other bits in other places, all of them turn around.
inline Experiment slot_experiment(DType dtype, int threads) {
  constexpr index_t slots = 8, d = 64, p = 16, records = 128;
  struct State {
    Context ctx;
    std::vector<std::vector<double>> data;
    std::vector<double> difference, own;
    State(int t) : ctx(Device::cpu(), t) {}
  };
  const auto s = std::make_shared<State>(threads);
  std::mt19937_64 random(7);
  std::normal_distribution<double> normal;
  const auto make = [s, dtype](nn::Parameters& parameters) -> Parameter& {
    Parameter& w = parameters.normal("w", {p, d}, 1);
    for (index_t k = d; k < p * d; ++k) w.master().data<float>()[k] = 0;
    w.refresh(s->ctx);
    return w;
  };
  std::vector<double> weights;
  {
    nn::Parameters parameters(s->ctx, dtype, 1);
    weights = make(parameters).value().to_doubles();
  }
  const auto output = [&](const std::vector<double>& x, index_t slot) {
    nn::Parameters parameters(s->ctx, dtype, 1);
    std::vector<double> a(std::size_t(slots * d), 0.0);
    std::copy(x.begin(), x.end(), a.begin() + std::ptrdiff_t(slot * d));
    Tape tape(s->ctx, slots, TapeMode::inference);
    return linear(tape.input(Tensor::from(s->ctx, {slots, d}, dtype, a)), make(parameters))
        .value()
        .to_doubles()[std::size_t(slot * p)];
  };
  // Searches an input whose product is 0 up to roundings and changes its sign from slot 5 to slot 6; the last one tried
  // where there is none.
  std::vector<double> flip(std::size_t(d), 0.0);
  for (int tries = 0; tries < 3000; ++tries) {
    for (double& x : flip) x = Tensor::from(s->ctx, {1}, dtype, std::vector<double>{100 * normal(random)}).item();
    for (int again = 0; again < 3; ++again)
      for (std::size_t k = 0; k < 8; ++k) {
        const double sum = dot(flip, weights) - flip[k] * weights[k];
        flip[k] = Tensor::from(s->ctx, {1}, dtype, std::vector<double>{-sum / weights[k]}).item();
      }
    if (output(flip, 5) * output(flip, 6) < 0) break;
  }
  for (index_t i = 0; i < records; ++i) s->data.push_back(i % slots == 6 ? flip : std::vector<double>(std::size_t(d), 0.0));
  s->data[0] = std::vector<double>(std::size_t(d), 0.0);
  s->data[0][1] = 1;
  const auto losses_of = [s, dtype](Parameter& w, bool with) {
    return [s, dtype, &w, with](const train::Batch& batch) {
      std::vector<double> a(batch.records.size() * std::size_t(d), 0.0);
      for (std::size_t i = 0; i < batch.records.size(); ++i)
        if (batch.records[i] >= 0)
          std::copy_n(s->data[std::size_t(batch.records[i] + !with)].begin(), d,
                      a.begin() + std::ptrdiff_t(i * std::size_t(d)));
      const Variable y = linear(batch.tape.input(Tensor::from(s->ctx, {index_t(batch.records.size()), d}, dtype, a)), w);
      return mean_squared_error(y, Tensor::zeros(s->ctx, y.shape(), DType::f32));
    };
  };
  const auto plan_of = [](double share) {
    return dp::Plan::with_noise_multiplier(
        {.delta = 1e-5, .sampling_rate = 1, .steps = 1, .clip_threshold = 1e-3, .dataset_size = records}, share);
  };
  for (const bool with : {false, true}) {
    nn::Parameters parameters(s->ctx, dtype, 1);
    Parameter& w = make(parameters);
    const auto sum = clipped_sum(s->ctx, parameters, plan_of(1), losses_of(w, with), records - !with, slots);
    s->difference = with ? minus(sum, s->difference) : sum;
  }
  Experiment e;
  e.name = dpmp::detail::concat("slots, ", name_of(dtype), ", ", threads, threads == 1 ? " thread" : " threads");
  e.claimed_epsilon = plan_of(1).epsilon();
  e.claimed_power = gaussian_power(mu_of(plan_of(1)));
  e.scores = [s, dtype, make, losses_of, whole = plan_of(1), half = plan_of(0.5)](std::mt19937_64& r, bool with,
                                                                                  double share) {
    nn::Parameters parameters(s->ctx, dtype, 1);
    Parameter& w = make(parameters);
    train::Trainer trainer(
        s->ctx, parameters, share == 1 ? whole : half, fresh_keys(r), records - !with,
        {.physical_batch = slots, .optimiser = optim::Sgd{}, .learning_rate = optim::LearningRate::constant(1)});
    const std::vector<double> before = masters(parameters);
    trainer.step(losses_of(w, with));
    return std::vector<double>{dot(minus(before, masters(parameters)), s->difference)};
  };
  return e;
}

/// An adaptive threshold tells the count of norms. Each is public; after the last step it tells the sum of both counts, and
/// the weights alone tell the first one: many records of huge gradients release the threshold of the second step. Under
/// zero_out the record in question is emptied: its norm becomes 0, and the count changes by 1.
///
/// declared: the sensitivity of the count that the noise and the claim are made from. A wrong one gives the mechanism, and
/// the claim, of a library that declares it.
inline Experiment adaptive_experiment(dp::NeighbouringRelation relation, double declared) {
  constexpr index_t large = 64, empty = 64, records = large + empty + 1, steps = 2;
  constexpr double rate = 115;
  const bool emptied = relation == dp::NeighbouringRelation::zero_out;
  const auto ctx = std::make_shared<Context>(Device::cpu(), 1);
  // Where the count is attacked, nearly all of the budget is in it: were its sensitivity twice the declared one, mu would
  // be nearly twice the claim, which is 1 for both steps.
  const double of_limit = emptied ? 0.99 : 0.5, sigma = std::sqrt(double(steps)), count_noise = sigma / of_limit * declared;
  const dp::PlanOptions claimed{
      .delta = 1e-5, .sampling_rate = 1, .steps = steps, .dataset_size = records, .relation = relation};
  // The multiplier whose plan adds just that noise to the count, and to the sum what is left by the one declared.
  const double as_declared = dp::count_sensitivity(relation) / declared,
               joint = sigma / std::sqrt(1 - of_limit * of_limit * (1 - as_declared * as_declared));
  const auto plan_of = [=](double share) {
    dp::PlanOptions o = claimed;
    o.adaptive = dp::AdaptiveOptions{
        .quantile = 0.5, .learning_rate = rate, .count_noise = count_noise * share, .initial_threshold = 1};
    return dp::Plan::with_noise_multiplier(o, joint * share);
  };
  Experiment e;
  e.name = dpmp::detail::concat("adaptive, ", name_of(relation));
  if (as_declared != 1) e.name += dpmp::detail::concat(", count of sensitivity ", declared);
  const dp::Plan claim = dp::Plan::with_noise_multiplier(claimed, sigma);
  e.claimed_epsilon = claim.epsilon();
  e.claimed_power = gaussian_power(mu_of(claim));
  e.scores = [ctx, emptied, count_noise, whole = plan_of(1), half = plan_of(0.5)](std::mt19937_64& r, bool with,
                                                                                  double share) {
    nn::Parameters parameters(*ctx, DType::f32, 3);
    Parameter& w = parameters.constant("w", {1, 2}, 0);
    const dp::Plan& plan = share == 1 ? whole : half;
    // Record 0 along the first weight, the large ones along the second.
    const index_t shift = with || emptied ? 0 : 1;
    const auto losses = [&](const train::Batch& batch) {
      std::vector<double> x;
      for (const index_t i : batch.records) {
        const index_t record = i + shift;
        x.push_back(i >= 0 && record == 0 && with ? 1e6 : 0);
        x.push_back(i >= 0 && record > 0 && record <= large ? 1e6 : 0);
      }
      const Variable y = linear(batch.tape.input(Tensor::from(*ctx, {index_t(batch.records.size()), 2}, DType::f32, x)), w);
      return weighted_sum(y, std::vector<double>(batch.records.size(), 1.0));
    };
    train::Trainer trainer(
        *ctx, parameters, plan, fresh_keys(r), records - shift,
        {.physical_batch = records, .optimiser = optim::Sgd{}, .learning_rate = optim::LearningRate::constant(1)});
    for (index_t step = 0; step < steps; ++step) trainer.step(losses);
    const std::vector<double> moved = masters(parameters);
    // What the second weight tells of the second threshold, that of the first count; and what the first one tells beside.
    const double threshold = std::max(1e-3, -moved[1] * plan.expected_batch() / double(large) - 1);
    const double sigma_z = plan.first_step().noise_multiplier, of_sum = -moved[0] * plan.expected_batch() * (1 + threshold) /
                                                                        (sigma_z * sigma_z * (1 + threshold * threshold));
    // The logarithm of how likely a threshold is with the record, against without it, up to a constant.
    const auto of_counts = [&](double after) {
      const double counts = -std::log(after) * plan.expected_batch() / rate, change = emptied ? 1 : 0.5;
      return -counts * change / (count_noise * count_noise * share * share);
    };
    return std::vector<double>{of_counts(threshold) + of_sum, of_counts(trainer.clip_threshold()),
                               of_counts(trainer.clip_threshold()) + of_sum};
  };
  return e;
}

inline Experiment adaptive_experiment(dp::NeighbouringRelation relation) {
  return adaptive_experiment(relation, dp::count_sensitivity(relation));
}

/// A loss scale that follows overflows moves up or down in every step, by whether the noisy count is above a half: record 0
/// overflows where it is there and full, and nothing else does. Nearly all of the budget is in the count; what the scale
/// tells of it is one bit a step, about 2 / pi of mu^2.
inline Experiment overflow_experiment(dp::NeighbouringRelation relation) {
  constexpr index_t records = 9, steps = 4;
  const bool emptied = relation == dp::NeighbouringRelation::zero_out;
  const auto ctx = std::make_shared<Context>(Device::cpu(), 1);
  const double sigma = std::sqrt(double(steps));  // mu = 1
  const dp::PlanOptions claimed{
      .delta = 1e-5, .sampling_rate = 1, .steps = steps, .dataset_size = records, .relation = relation};
  const auto plan_of = [=](double share) {
    dp::PlanOptions o = claimed;
    o.overflow = dp::OverflowOptions{
        .count_noise = sigma / 0.99 * share, .share = 0.5 / double(records), .growth_interval = 1, .initial_scale = 1};
    return dp::Plan::with_noise_multiplier(o, sigma * share);
  };
  Experiment e;
  e.name = dpmp::detail::concat("overflows, ", name_of(relation));
  const dp::Plan claim = dp::Plan::with_noise_multiplier(claimed, sigma);
  e.claimed_epsilon = claim.epsilon();
  e.claimed_power = gaussian_power(mu_of(claim));
  e.scores = [ctx, emptied, whole = plan_of(1), half = plan_of(0.5)](std::mt19937_64& r, bool with, double share) {
    nn::Parameters parameters(*ctx, DType::f32, 3);
    Parameter& w = parameters.constant("w", {1, 1}, 0);
    const index_t shift = with || emptied ? 0 : 1;
    const auto losses = [&](const train::Batch& batch) {
      std::vector<double> x;
      for (const index_t i : batch.records) x.push_back(i >= 0 && i + shift == 0 && with ? HUGE_VAL : 1);
      const Variable y = linear(batch.tape.input(Tensor::from(*ctx, {batch.size(), 1}, DType::f32, x)), w);
      return weighted_sum(y, std::vector<double>(x.size(), 1.0));
    };
    train::Trainer trainer(
        *ctx, parameters, share == 1 ? whole : half, fresh_keys(r), records - shift,
        {.physical_batch = records, .optimiser = optim::Sgd{}, .learning_rate = optim::LearningRate::constant(1)});
    for (index_t step = 0; step < steps; ++step) trainer.step(losses);
    return std::vector<double>{-double(trainer.overflow_scale()->state().exponent)};
  };
  return e;
}

/// Every record goes through dropout. Where masks are keyed by a seed that the adversary knows and by an index, removing
/// record 0 gives every other record another mask, and the adversary knows which.
inline Experiment dropout_experiment(double rate) {
  constexpr index_t records = 128, d = 64, slots = 64;
  struct State {
    Context ctx{Device::cpu(), 1};
    std::vector<double> data, difference, own;
  };
  const auto s = std::make_shared<State>();
  std::mt19937_64 random(9);
  std::normal_distribution<double> normal;
  // Record 0 and the others have different inputs, so that it can be told by its own, too.
  for (index_t k = 0; k < records * d; ++k)
    s->data.push_back((k < d) == (k % d < d / 2) ? double(float(normal(random))) : 0);
  const auto losses_of = [s, rate](Parameter& w, bool with, const RunDropout& masks) {
    return [s, rate, &w, with, masks](const train::Batch& batch) {
      std::vector<double> a(batch.records.size() * std::size_t(d), 0.0);
      std::vector<index_t> original;
      for (index_t i = 0; i < records - !with; ++i) original.push_back(i + !with);
      for (std::size_t i = 0; i < batch.records.size(); ++i)
        std::copy_n(s->data.begin() + original[std::size_t(batch.records[i])] * d, d,
                    a.begin() + std::ptrdiff_t(i * std::size_t(d)));
      const Variable x = batch.tape.input(Tensor::from(s->ctx, {index_t(batch.records.size()), d}, DType::f32, a));
      return weighted_sum(linear(masks(x, rate, batch.records, original), w),
                          std::vector<double>(batch.records.size(), 100.0));
    };
  };
  const auto plan_of = [](double share) {
    return dp::Plan::with_noise_multiplier({.delta = 1e-5, .sampling_rate = 1, .steps = 1, .dataset_size = records}, share);
  };
  s->own = unit({s->data.begin(), s->data.begin() + d});
  for (const bool with : {false, true}) {
    nn::Parameters parameters(s->ctx, DType::f32, 1);
    const RunDropout masks{fresh_keys(random)};  // of another run: the adversary's guess
    const auto losses = losses_of(parameters.constant("w", {1, d}, 0), with, masks);
    const auto sum = clipped_sum(s->ctx, parameters, plan_of(1), losses, records - !with, slots);
    s->difference = with ? minus(sum, s->difference) : sum;
  }
  Experiment e;
  e.name = dpmp::detail::concat("dropout ", rate);
  e.claimed_epsilon = plan_of(1).epsilon();
  e.claimed_power = gaussian_power(mu_of(plan_of(1)));
  e.scores = [s, losses_of, whole = plan_of(1), half = plan_of(0.5)](std::mt19937_64& r, bool with, double share) {
    nn::Parameters parameters(s->ctx, DType::f32, 1);
    Parameter& w = parameters.constant("w", {1, d}, 0);
    train::Trainer trainer(
        s->ctx, parameters, share == 1 ? whole : half, fresh_keys(r), records - !with,
        {.physical_batch = slots, .optimiser = optim::Sgd{}, .learning_rate = optim::LearningRate::constant(1)});
    trainer.step(losses_of(w, with, RunDropout{trainer.keys()}));
    const std::vector<double> moved = masters(parameters);
    return std::vector<double>{-dot(moved, s->difference), -dot(moved, s->own)};
  };
  return e;
}

/// A float64 model: does every released weight come from a noise value on the noise's grid alone? Nothing where the library
/// refuses such a run.
inline std::optional<Experiment> lattice_experiment() {
  constexpr index_t records = 4, d = 64;
  struct State {
    Context ctx{Device::cpu(), 1};
    std::vector<double> x;
  };
  const auto s = std::make_shared<State>();
  std::mt19937_64 random(11);
  std::normal_distribution<double> normal;
  for (index_t k = 0; k < d; ++k) s->x.push_back(normal(random));
  const auto plan_of = [](double share) {
    return dp::Plan::with_noise_multiplier(
        {.delta = 1e-5, .sampling_rate = 1, .steps = 1, .clip_threshold = 0.9, .dataset_size = records}, share);
  };
  const auto released = [s](const dp::Plan& plan, const dp::StreamKeys& keys, bool with) {
    nn::Parameters parameters(s->ctx, DType::f64, 1);
    Parameter& w = parameters.constant("w", {1, d}, 0);
    train::Trainer trainer(
        s->ctx, parameters, plan, keys, records - !with,
        {.physical_batch = records, .optimiser = optim::Sgd{}, .learning_rate = optim::LearningRate::constant(1)});
    trainer.step([&](const train::Batch& batch) {
      std::vector<double> a;
      for (const index_t i : batch.records)
        for (const double x : s->x) a.push_back(i == 0 && with ? x : 0);
      const Tensor inputs = Tensor::from(s->ctx, {index_t(batch.records.size()), d}, DType::f64, a);
      return weighted_sum(linear(batch.tape.input(inputs), w), std::vector<double>(batch.records.size(), 100.0));
    });
    std::vector<double> sum = masters(parameters);
    for (double& v : sum) v *= -plan.expected_batch();  // powers of two: exact
    return sum;
  };
  try {
    released(plan_of(1), fresh_keys(random), true);
  } catch (const Error&) {
    return std::nullopt;
  }
  Experiment e;
  e.name = "float64 lattice";
  e.claimed_epsilon = plan_of(1).epsilon();
  e.claimed_power = gaussian_power(mu_of(plan_of(1)));
  e.scores = [s, released, whole = plan_of(1), half = plan_of(0.5)](std::mt19937_64& r, bool with, double share) {
    const dp::Plan& plan = share == 1 ? whole : half;
    const std::vector<double> sum = released(plan, fresh_keys(r), with);
    const double deviation = plan.noise_standard_deviation();
    double off_the_grid = 0;
    for (const double v : sum) {
      bool reached = false;
      double z = v / deviation;
      for (int k = 0; k < 3; ++k) z = std::nextafter(z, -HUGE_VAL);
      for (int k = 0; k < 7; ++k, z = std::nextafter(z, HUGE_VAL)) reached = reached || z * deviation == v;
      off_the_grid += !reached;
    }
    return std::vector<double>{off_the_grid, dot(sum, s->x)};
  };
  return e;
}
}  // namespace audit
