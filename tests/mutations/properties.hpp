// SPDX-License-Identifier: Apache-2.0
// Properties of a private step as functions of a run, so that the real step and every mutant are held to the very same one.
// Each returns what it saw that must not be, or nothing.
#pragma once
#include <cstdio>

#include "dpmp/autograd/gradcheck.hpp"
#include "dpmp/autograd/rules/elementwise.hpp"
#include "dpmp/autograd/rules/linear.hpp"
#include "mutations/mutated_step.hpp"
#include "support/tiny_training.hpp"

namespace mutation {
/// What a property saw; empty: it holds.
using Violation = std::string;
using Property = Violation (*)(const MakeRun& make);

template <class... Args>
Violation seen(const char* format, Args... args) {
  char text[160];
  std::snprintf(text, sizeof text, format, args...);
  return text;
}

/// Two matrices w and u [width, width], all 0. Record i adds v_i (w x_i) and v_i (u y_i), over tokens; its gradient does not
/// depend on the weights.
struct Model {
  explicit Model(Context& ctx, index_t model_width = 16, DType dtype = DType::f32)
      : context(ctx), width(model_width), parameters(ctx, dtype, 1) {
    w = &parameters.constant("w", {width, width}, 0);
    u = &parameters.constant("u", {width, width}, 0);
  }
  struct Record {
    std::vector<double> x, y, v;  // [T, width]; y empty: x enters w twice
  };
  /// A record whose only gradient is `size` at one element of w.
  Record one_element(index_t element, double size) const {
    Record r{zeros(), zeros(), zeros()};
    r.x[std::size_t(element % width)] = 1;
    r.v[std::size_t(element / width)] = size;
    return r;
  }
  void empty_records(index_t n) { records.assign(std::size_t(n), Record{zeros(), zeros(), zeros()}); }
  std::vector<double> zeros() const { return std::vector<double>(std::size_t(width), 0.0); }
  Variable loss(const train::Batch& batch) const {
    const index_t tokens = index_t(records[0].x.size()) / width;
    const bool twice = records[0].y.empty();
    std::vector<double> x, y, v;
    for (const index_t i : batch.records) {
      const Record& r = records[std::size_t(i)];
      x.insert(x.end(), r.x.begin(), r.x.end());
      y.insert(y.end(), (twice ? r.x : r.y).begin(), (twice ? r.x : r.y).end());
      v.insert(v.end(), r.v.begin(), r.v.end());
    }
    const auto term = [&](const std::vector<double>& in, Parameter& weight) {
      const Tensor rows = Tensor::from(context, {batch.size(), tokens, width}, w->dtype(), in);
      return weighted_sum(linear(batch.tape.input(rows), weight), v);
    };
    return add(term(x, *w), term(y, twice ? *w : *u));
  }
  /// Weights one behind the other.
  std::vector<double> weights() const { return test::masters(parameters); }

  Context& context;
  index_t width;
  nn::Parameters parameters;
  Parameter *w, *u;
  std::vector<Record> records;
};
inline std::vector<double> minus(std::vector<double> x, const std::vector<double>& y) {
  for (std::size_t k = 0; k < x.size(); ++k) x[k] -= y[k];
  return x;
}
inline train::TrainerOptions descent(index_t physical_batch) {
  return {.physical_batch = physical_batch, .optimiser = optim::Sgd{}, .learning_rate = optim::LearningRate::constant(1)};
}
inline dp::StreamKeys keys(std::uint64_t stream) {
  test::Rng rng(test::seed(), stream);
  return test::random_keys(rng);
}
/// Hardly any noise: what is left of a step is what the records did.
constexpr double silent = 1e-9;
inline dp::PlanOptions plan_options(index_t records, index_t steps, double q, double C = 1) {
  return {.delta = 1e-5, .sampling_rate = q, .steps = steps, .clip_threshold = C, .dataset_size = records};
}
/// What a run of that many steps moved the weights by, times the divisor: the released sums.
inline std::vector<double> moved(Model& m, const MakeRun& make, const dp::Plan& plan, index_t steps,
                                 const train::TrainerOptions& options, const dp::StreamKeys& of_run) {
  const Step step = make({m.context, m.parameters, plan, of_run, index_t(m.records.size()), options});
  const std::vector<double> before = m.weights();
  for (index_t t = 0; t < steps; ++t) step([&](const train::Batch& batch) { return m.loss(batch); });
  std::vector<double> sum = minus(before, m.weights());
  for (double& x : sum) x *= plan.expected_batch();
  return sum;
}
/// The root mean square of x over sigma is 1 to six standard errors.
inline bool has_deviation(std::span<const double> x, double sigma) {
  double squares = 0;
  for (const double v : x) squares += v * v;
  return std::fabs(std::sqrt(squares / double(x.size())) / sigma - 1) <= 6 / std::sqrt(2 * double(x.size()));
}
inline double correlation(const std::vector<double>& x, const std::vector<double>& y) {
  double sum = 0;
  for (std::size_t k = 0; k < x.size(); ++k) sum += x[k] * y[k];
  return sum / (test::norm(x) * test::norm(y));
}

inline Violation contribution_is_bounded(const MakeRun& make) {
  Context ctx(Device::cpu(), 1);
  test::Rng rng(test::seed(), 100);
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const char* kind : {"random", "used twice", "cancelling"}) {
      Model m(ctx, 16, dtype);
      Model::Record r;
      const bool cancels = *kind == 'c';
      for (index_t t = 0; t < 64; ++t)
        for (index_t k = 0; k < m.width; ++k) {
          const std::size_t of_pair = std::size_t((t - 1) * m.width + k);
          const bool second = cancels && t % 2 == 1;
          r.x.push_back(second ? r.x[of_pair] * (1 + 0.01 * rng.normal()) : rng.normal());
          r.v.push_back(second ? -r.v[of_pair] * (1 + 0.01 * rng.normal()) : rng.normal());
        }
      if (*kind != 'u') r.y.assign(r.x.size(), 0.0);
      m.records = {r};
      const dp::Plan plan = dp::Plan::with_noise_multiplier(plan_options(1, 1, 1), silent);
      const double norm = test::norm(moved(m, make, plan, 1, descent(1), keys(101)));
      if (norm > 1 + 0x1p-18) return seen("%s tokens in %s release a norm of %.3f C", kind, name_of(dtype).data(), norm);
    }
  return {};
}

inline Violation neighbours_are_close(const MakeRun& make) {
  Context ctx(Device::cpu(), 1);
  const dp::Plan plan = dp::Plan::with_noise_multiplier(plan_options(2, 1, 1), silent);
  std::vector<double> sums[2];
  for (const bool with : {false, true}) {
    Model m(ctx);
    m.records = {m.one_element(3, 10)};
    if (with) m.records.push_back(m.one_element(3, -16));
    sums[with] = moved(m, make, plan, 1, descent(4), keys(110));
  }
  const double change = test::norm(minus(sums[1], sums[0]));
  return change > 1 + 0x1p-18 ? seen("one record less moves the sum by %.3f C", change) : Violation();
}

inline Violation non_finite_record_is_absent(const MakeRun& make) {
  Context ctx(Device::cpu(), 1);
  const dp::Plan plan = dp::Plan::with_noise_multiplier(plan_options(3, 1, 1), silent);
  std::vector<double> sums[2];
  for (const bool overflows : {false, true}) {
    Model m(ctx);
    m.records = {m.one_element(0, 5), m.one_element(1, overflows ? double(INFINITY) : 0), m.one_element(2, 5)};
    sums[overflows] = moved(m, make, plan, 1, descent(4), keys(120));
  }
  if (test::norm(sums[0]) < 1) return "nothing was released";
  return sums[0] == sums[1] ? Violation()
                            : seen("with an overflow the others release a norm of %.3f C, without it %.3f C",
                                   test::norm(sums[1]), test::norm(sums[0]));
}

inline Violation noise_has_its_deviation(const MakeRun& make) {
  Context ctx(Device::cpu(), 1);
  constexpr double sigma = 1.3;
  Model m(ctx, 64);
  m.empty_records(9);
  dp::PlanOptions o = plan_options(9, 1, 1, 3);
  const std::vector<double> flat = moved(m, make, dp::Plan::with_noise_multiplier(o, sigma), 1, descent(2), keys(130));
  if (!has_deviation(flat, sigma * 3)) return seen("noise of %.3f, not %.3f", test::norm(flat) / 90.5097, sigma * 3);
  o.clip_threshold = 1;
  o.group_thresholds = {0.5, 2};
  train::TrainerOptions options = descent(2);
  options.groups = per_sample::Groups::by_parameter(m.parameters.all());
  const std::vector<double> grouped = moved(m, make, dp::Plan::with_noise_multiplier(o, sigma), 1, options, keys(131));
  const double right = sigma * std::sqrt(0.25 + 4);
  return has_deviation(grouped, right)
             ? Violation()
             : seen("noise of %.3f for two groups, not %.3f", test::norm(grouped) / 90.5097, right);
}

inline Violation noise_after_thawing(const MakeRun& make) {
  Context ctx(Device::cpu(), 1);
  Model m(ctx, 64);
  m.empty_records(4);
  const dp::Plan plan = dp::Plan::with_noise_multiplier(plan_options(4, 2, 1), 1);
  const Step step = make({ctx, m.parameters, plan, keys(140), 4, descent(4)});
  for (const bool thawed : {false, true}) {
    m.u->set_trainable(thawed);
    const std::vector<double> before = m.u->master().to_doubles();
    step([&](const train::Batch& batch) { return m.loss(batch); });
    std::vector<double> change = minus(m.u->master().to_doubles(), before);
    for (double& x : change) x *= plan.expected_batch();
    if (!thawed && test::norm(change) != 0) return "a frozen parameter moved";
    if (thawed && !has_deviation(change, 1))
      return seen("noise of %.3f on a thawed parameter, not 1", test::norm(change) / 64);
  }
  return {};
}

inline Violation noise_is_fine_and_dense(const MakeRun& make) {
  Context ctx(Device::cpu(), 1);
  Model m(ctx, 64);
  m.empty_records(4);
  m.records[0] = m.one_element(7, 5);
  const dp::Plan plan = dp::Plan::with_noise_multiplier(plan_options(4, 1, 1), 1);
  std::vector<double> noise = moved(m, make, plan, 1, descent(4), keys(150));
  const std::size_t n = noise.size(), still = std::size_t(std::count(noise.begin(), noise.end(), 0.0));
  if (still > n / 100) return seen("%zu of %zu weights got no noise", still, n);
  std::sort(noise.begin(), noise.end());
  const std::size_t values = std::size_t(std::unique(noise.begin(), noise.end()) - noise.begin());
  return values < n / 3 ? seen("%zu values on %zu weights", values, n) : Violation();
}

inline Violation noise_is_fresh(const MakeRun& make) {
  Context ctx(Device::cpu(), 1);
  const Key256 root = keys(160).root();
  std::vector<std::vector<double>> noises;
  for (int run = 0; run < 2; ++run) {
    Model m(ctx, 64);
    m.empty_records(4);
    const dp::Plan plan = dp::Plan::with_noise_multiplier(plan_options(4, 2, 1), 1);
    const Step step = make({ctx, m.parameters, plan, dp::StreamKeys(root), 4, descent(4)});
    for (int t = 0; t < 2; ++t) {
      const std::vector<double> before = m.weights();
      step([&](const train::Batch& batch) { return m.loss(batch); });
      noises.push_back(minus(m.weights(), before));
    }
  }
  const std::ptrdiff_t half = std::ptrdiff_t(noises[0].size() / 2);
  const std::vector<double> of_w(noises[0].begin(), noises[0].begin() + half),
      of_u(noises[0].begin() + half, noises[0].end());
  if (const double c = correlation(of_w, of_u); std::fabs(c) > 6 / std::sqrt(double(half)))
    return seen("noises of two parameters have a correlation of %.3f", c);
  const char* const names[] = {"steps", "runs of one key"};
  for (const std::size_t other : {1, 2})
    if (const double c = correlation(noises[0], noises[other]); std::fabs(c) > 6 / std::sqrt(double(noises[0].size())))
      return seen("noises of two %s have a correlation of %.3f", names[other - 1], c);
  return {};
}

inline Violation divisor_is_public(const MakeRun& make) {
  Context ctx(Device::cpu(), 1);
  const dp::Plan plan = dp::Plan::with_noise_multiplier(plan_options(20, 1, 1), 1);
  std::vector<double> noises[2];
  for (const index_t fewer : {0, 1}) {
    Model m(ctx);
    m.empty_records(20 - fewer);
    noises[fewer] = moved(m, make, plan, 1, descent(8), keys(170));
  }
  return noises[0] == noises[1] ? Violation()
                                : seen("one record less multiplies the noise by %.4f", noises[1][0] / noises[0][0]);
}

inline Violation empty_draw_is_a_step(const MakeRun& make) {
  Context ctx(Device::cpu(), 1);
  Model m(ctx);
  m.empty_records(5);
  const dp::Plan plan = dp::Plan::with_noise_multiplier(plan_options(5, 1, 1e-12), 1);
  return test::norm(moved(m, make, plan, 1, descent(4), keys(180))) > 0 ? Violation() : "an empty draw released nothing";
}

inline Violation draws_are_poisson(const MakeRun& make) {
  Context ctx(Device::cpu(), 1);
  constexpr index_t n = 64, steps = 300;
  constexpr double q = 0.3;
  Model m(ctx);
  for (index_t i = 0; i < n; ++i) m.records.push_back(m.one_element(i, 10));
  const dp::Plan plan = dp::Plan::with_noise_multiplier(plan_options(n, steps, q), silent);
  const Step step = make({ctx, m.parameters, plan, keys(190), n, descent(32)});
  double all = 0, squares = 0;
  for (index_t t = 0; t < steps; ++t) {
    const std::vector<double> before = m.weights();
    step([&](const train::Batch& batch) { return m.loss(batch); });
    const std::vector<double> sum = minus(before, m.weights());
    double size = 0;
    for (std::size_t i = 0; i < std::size_t(n); ++i) {
      const double times = std::round(sum[i] * plan.expected_batch());
      if (times > 1) return seen("a record was drawn %.0f times in one step", times);
      size += times;
    }
    all += size;
    squares += (size - q * n) * (size - q * n);
  }
  const double expected = q * n * steps, variance = n * q * (1 - q);
  if (std::fabs(all - expected) > 6 * std::sqrt(variance * steps))
    return seen("%.0f records were drawn, %.0f are accounted", all, expected);
  // The fourth moment of a binomial size is below 3.1 times the square of the variance here.
  if (std::fabs(squares / steps / variance - 1) > 6 * std::sqrt(2.1 / steps))
    return seen("the batch size has a variance of %.2f, not %.2f", squares / steps, variance);
  return {};
}
}  // namespace mutation
