// SPDX-License-Identifier: Apache-2.0
// The state of an optimiser belongs to the parameters one by one: under any pattern of freezing each is updated as if it had
// an optimiser of its own, which is what PyTorch's AdamW and SGD do for parameters without a gradient.
#include <doctest/doctest.h>
#include <cmath>
#include <string>

#include "dpmp/nn/parameters.hpp"
#include "dpmp/optim/optimiser.hpp"
#include "support/errors.hpp"
#include "support/tensors.hpp"

using namespace dpmp;
using optim::AdamW;
using optim::OptimiserState;
using optim::ParameterState;
using optim::Sgd;
using per_sample::GradientSums;

namespace {
constexpr double divisor = 3, rate = 0.05;

struct Model {
  Model(Context& context, DType dtype) : ctx(context), parameters(context, dtype, test::seed()) {
    parameters.normal("matrix", {7, 19}, 0.5);
    parameters.normal("vector", {37}, 0.5);
    parameters.normal("stack", {3, 2, 5}, 0.5);
    parameters.normal("scale", {}, 0.5);
    parameters.normal("table", {2, 600}, 0.5);
  }
  Context& ctx;
  nn::Parameters parameters;
};

/// One parameter by the formulas in double, with a count of its own.
struct PlainParameter {
  std::vector<double> w, m, v, way;
  index_t t = 0;

  explicit PlainParameter(const Parameter& p)
      : w(p.master().to_doubles()), m(w.size(), 0.0), v(w.size(), 0.0), way(w.size(), 0.0) {}
  void update(const optim::Optimiser& optimiser, const std::vector<double>& sums, bool decays, double learning_rate) {
    ++t;
    for (std::size_t j = 0; j < w.size(); ++j) {
      const double g = sums[j] / divisor, before = w[j];
      if (const auto* sgd = std::get_if<Sgd>(&optimiser)) {
        m[j] = sgd->momentum * m[j] + g + (decays ? sgd->weight_decay : 0) * w[j];
        w[j] -= learning_rate * m[j];
      } else {
        const auto& a = std::get<AdamW>(optimiser);
        m[j] = a.beta1 * m[j] + (1 - a.beta1) * g;
        v[j] = a.beta2 * v[j] + (1 - a.beta2) * g * g;
        const double m_hat = m[j] / (1 - std::pow(a.beta1, double(t))), v_hat = v[j] / (1 - std::pow(a.beta2, double(t)));
        w[j] -= learning_rate * (m_hat / (std::sqrt(v_hat) + a.epsilon) + (decays ? a.weight_decay : 0) * w[j]);
      }
      way[j] += std::fabs(w[j] - before);
    }
  }
  /// The largest error as a share of its bound: two roundings of the weight for each update, and 2e-6 of the way that the
  /// updates went (1e-14 in double), for what their terms are rounded to.
  double error_share(const Parameter& p) const {
    const bool wide = p.master().dtype() == DType::f64;
    const double u = unit_roundoff(p.master().dtype()), relative = wide ? 1e-14 : 2e-6;
    const std::vector<double> got = p.master().to_doubles();
    double worst = 0;
    for (std::size_t j = 0; j < w.size(); ++j)
      if (got[j] != w[j])
        worst =
            std::max(worst, std::fabs(got[j] - w[j]) / (2 * double(t) * u * (std::fabs(w[j]) + way[j]) + relative * way[j]));
    return worst;
  }
};
/// All bits of a parameter and of its state.
std::vector<double> bits(const Parameter& p, const OptimiserState& state) {
  std::vector<double> all{double(state.of(p).updates)};
  for (const Tensor& t : {p.master(), p.value(), state.of(p).first, state.of(p).second})
    if (t.defined())
      for (double x : t.to_doubles()) all.push_back(x);
  return all;
}
void fill(const GradientSums& sums, test::Rng& rng) {
  for (const Tensor& t : sums.tensors())
    for (index_t j = 0; j < t.numel(); ++j) t.data<double>()[j] = rng.normal(2);
}
index_t moments_of(const optim::Optimiser& kind) {
  const auto* sgd = std::get_if<Sgd>(&kind);
  return !sgd ? 2 : sgd->momentum == 0 ? 0 : 1;
}
const optim::Optimiser optimisers[] = {Sgd{}, Sgd{.momentum = 0.9, .weight_decay = 0.1}, AdamW{.epsilon = 1e-3},
                                       AdamW{.beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3, .weight_decay = 0.2}};
}  // namespace

TEST_CASE("P28: any pattern of freezing: each parameter as in a plain loop with a count of its own, to rounding") {
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64})
    for (const optim::Optimiser& kind : optimisers)
      for (const double share : {0.2, 0.5, 0.9}) {  // of the steps in which a parameter is trained
        CAPTURE(name_of(dtype));
        CAPTURE(kind.index());
        CAPTURE(share);
        Context ctx(Device::cpu(), 2);
        const Model model(ctx, dtype);
        const optim::RateFactor slow{[](const Parameter& p) { return p.name() == "stack"; }, 0.25};
        OptimiserState state(ctx, model.parameters.all(), kind, {&slow, 1});
        GradientSums sums(ctx, model.parameters.all());
        std::vector<PlainParameter> plain;
        for (const Parameter* p : model.parameters.all()) plain.emplace_back(*p);
        for (int step = 0; step < 25; ++step) {
          for (Parameter* p : model.parameters.all()) p->set_trainable(rng.uniform() < share);
          sums.follow_trainable(ctx);
          fill(sums, rng);
          // Frozen between the sums and the update: as if it had been frozen before.
          Parameter& late = *model.parameters.all()[std::size_t(rng.integer(0, 4))];
          if (step % 5 == 4) late.set_trainable(false);
          std::vector<std::vector<double>> before;
          for (const Parameter* p : model.parameters.all()) before.push_back(bits(*p, state));
          state.step(ctx, sums, 1 / divisor, rate);
          for (std::size_t k = 0; k < plain.size(); ++k) {
            const Parameter& p = *model.parameters.all()[k];
            CAPTURE(p.name());
            if (p.trainable())
              plain[k].update(kind, sums.of(p).to_doubles(), is_matrix(p), rate * (p.name() == "stack" ? 0.25 : 1));
            else
              CHECK(bits(p, state) == before[k]);
            CHECK(state.of(p).updates == plain[k].t);
            CHECK(state.of(p).first.defined() == (plain[k].t > 0 && moments_of(kind) >= 1));
            CHECK(state.of(p).second.defined() == (plain[k].t > 0 && moments_of(kind) == 2));
            CHECK(plain[k].error_share(p) <= 1);
          }
        }
      }
}

TEST_CASE("AdamW: what is trained after a thousand steps of others moves by the learning rate, as in a first step") {
  // With equal gradients m_hat / sqrt(v_hat) is 1 in every step. Of the fifty FP32 roundings of a moment in at most 50
  // updates, and those of the update and the weight, each is below 1e-7 of the rate times 1 + |w| / rate.
  Context ctx(Device::cpu(), 1);
  nn::Parameters parameters(ctx, DType::f32, test::seed());
  Parameter &early = parameters.constant("early", {3, 4}, 0), &late = parameters.constant("late", {9}, 0);
  late.set_trainable(false);
  OptimiserState state(ctx, parameters.all(), AdamW{});
  GradientSums sums(ctx, parameters.all());
  const auto step = [&] {
    sums.follow_trainable(ctx);
    for (const Tensor& t : sums.tensors()) std::fill_n(t.data<double>(), t.numel(), 0.5);
    state.step(ctx, sums, 1, 1e-3);
  };
  for (int t = 0; t < 1000; ++t) step();
  CHECK_FALSE(state.of(late).first.defined());
  late.set_trainable(true);
  for (int t = 1; t <= 50; ++t) {
    const std::vector<double> before = late.master().to_doubles();
    step();
    const std::vector<double> after = late.master().to_doubles();
    for (std::size_t j = 0; j < after.size(); ++j) CHECK(std::fabs((before[j] - after[j]) / 1e-3 - 1) <= 1e-4);
    CHECK(state.of(late).updates == t);
  }
  CHECK(state.of(early).updates == 1050);
}

TEST_CASE("moments take memory for what was trained, and for nothing else") {
  for (const optim::Optimiser& kind : optimisers) {
    Context ctx(Device::cpu(), 1);
    nn::Parameters parameters(ctx, DType::bf16, test::seed());
    // Multiples of the arena's granule below 512 bytes, which it does not round up.
    Parameter &base = parameters.constant("base", {16, 7}, 1), &factor = parameters.constant("factor", {16}, 1);
    base.set_trainable(false);
    OptimiserState state(ctx, parameters.all(), kind);
    GradientSums sums(ctx, parameters.all());
    const index_t moments = moments_of(kind), before = ctx.memory().live_bytes;
    CHECK(state.moments() == moments);
    state.step(ctx, sums, 1, rate);
    CHECK(ctx.memory().live_bytes - before == moments * 4 * factor.numel());
    state.step(ctx, sums, 1, rate);
    CHECK(ctx.memory().live_bytes - before == moments * 4 * factor.numel());
    base.set_trainable(true);
    factor.set_trainable(false);
    sums.follow_trainable(ctx);
    const index_t thawed = ctx.memory().live_bytes;
    state.make_moments(ctx, sums);
    CHECK(ctx.memory().live_bytes - thawed == moments * 4 * base.numel());
    CHECK(state.of(base).updates == 0);
    state.step(ctx, sums, 1, rate);
    CHECK(ctx.memory().live_bytes - thawed == moments * 4 * base.numel());
    CHECK(state.of(base).updates == 1);
  }
}

TEST_CASE("a state that is put back goes on with the same bits; one that does not fit is refused, and nothing changes") {
  test::Rng rng;
  for (const optim::Optimiser& kind : {optimisers[1], optimisers[3]}) {
    Context ctx(Device::cpu(), 1);
    const Model one(ctx, DType::f32), two(ctx, DType::f32);
    OptimiserState state(ctx, one.parameters.all(), kind), other(ctx, two.parameters.all(), kind);
    one.parameters.find("vector").set_trainable(false);
    GradientSums sums(ctx, one.parameters.all());
    for (int step = 0; step < 3; ++step) {
      fill(sums, rng);
      state.step(ctx, sums, 1 / divisor, rate);
    }
    std::vector<ParameterState> states;
    for (std::size_t k = 0; k < one.parameters.all().size(); ++k) {
      const Parameter& p = *one.parameters.all()[k];
      states.push_back(state.of(p));
      for (Tensor* moment : {&states.back().first, &states.back().second})
        if (moment->defined()) *moment = moment->clone(ctx);
      two.parameters.all()[k]->master().copy_from(p.master());
    }
    const auto refused = [&](auto&& spoil, const char* part) {
      std::vector<ParameterState> bad = states;
      spoil(bad);
      CHECK(test::refuses([&] { other.restore(bad); }, part));
      for (const Parameter* p : two.parameters.all()) CHECK((other.of(*p).updates == 0 && !other.of(*p).first.defined()));
    };
    refused([](auto& s) { s.pop_back(); }, "the state of 5 parameters, got 4");
    refused([](auto& s) { s[4].updates = -1; }, "a count of updates of 'table' >= 0, got -1");
    const std::string kept = std::to_string(moments_of(kind)), one_less = std::to_string(moments_of(kind) - 1);
    refused([](auto& s) { s[4].first = Tensor(); }, (kept + " moments of 'table' after 3 updates, got " + one_less).c_str());
    refused([](auto& s) { s[1].updates = 3; }, (kept + " moments of 'vector' after 3 updates, got 0").c_str());
    refused([](auto& s) { std::swap(s[0], s[4]); }, "a moment of 'matrix' of f32[7, 19] on cpu, got f32[2, 600]");
    refused([&](auto& s) { s[3].first = Tensor::zeros(ctx, {}, DType::f64); }, "a moment of 'scale' of f32");
    if (kind.index() == 0)
      refused([](auto& s) { s[0].second = s[0].first; }, "1 moments of 'matrix' after 3 updates, got 2");
    else
      refused([](auto& s) { s[0].second = Tensor(); }, "2 moments of 'matrix' after 3 updates, got 1");

    other.restore(states);
    GradientSums again(ctx, two.parameters.all());
    for (Parameter* p : one.parameters.all()) p->set_trainable(true);
    sums.follow_trainable(ctx);
    for (int step = 0; step < 2; ++step) {
      test::Rng first(test::seed(), std::uint64_t(50 + step)), second(test::seed(), std::uint64_t(50 + step));
      fill(sums, first), fill(again, second);
      state.step(ctx, sums, 1 / divisor, rate), other.step(ctx, again, 1 / divisor, rate);
    }
    for (std::size_t k = 0; k < states.size(); ++k)
      CHECK(bits(*one.parameters.all()[k], state) == bits(*two.parameters.all()[k], other));
    CHECK(other.of(two.parameters.find("vector")).updates == 2);
  }
}

TEST_CASE("bad input: an update of what begin_step did not count is refused, and sums of other parameters count nothing") {
  Context ctx(Device::cpu(), 1);
  const Model model(ctx, DType::f32), other(ctx, DType::f32);
  OptimiserState state(ctx, model.parameters.all(), AdamW{});
  const GradientSums sums(ctx, model.parameters.all()), foreign(ctx, other.parameters.all());
  CHECK(test::refuses([&] { state.update(ctx, sums); }, "expected begin_step() with 'matrix' among the trained"));
  model.parameters.find("vector").set_trainable(false);
  state.begin_step(ctx, sums, 1, rate);
  model.parameters.find("vector").set_trainable(true);
  CHECK(test::refuses([&] { state.update(ctx, sums); }, "expected begin_step() with 'vector' among the trained"));
  CHECK(test::refuses([&] { state.begin_step(ctx, foreign, 1, rate); }, "a parameter that this optimiser was made for"));
  CHECK(state.of(model.parameters.find("matrix")).updates == 1);
  CHECK(state.of(model.parameters.find("vector")).updates == 0);
}
