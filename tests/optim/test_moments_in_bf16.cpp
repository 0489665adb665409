// SPDX-License-Identifier: Apache-2.0
// Moments stored in bf16 and rounded stochastically: the two neighbours as often as they must be, no bias over many steps,
// the same bits everywhere, half of the memory.
#include <doctest/doctest.h>
#include <cmath>
#include <cstring>

#include "dpmp/kernels/stochastic_rounding.hpp"
#include "dpmp/nn/parameters.hpp"
#include "dpmp/optim/optimiser.hpp"
#include "support/errors.hpp"
#include "support/tensors.hpp"

using namespace dpmp;
using optim::AdamW;
using optim::OptimiserState;
using optim::ParameterState;
using per_sample::GradientSums;

namespace {
/// Hoeffding's inequality: the mean of n independent values in an interval of this width is farther than this from its
/// expectation with a probability of at most 1e-12.
double hoeffding(double width, double n) { return width * std::sqrt(std::log(2e12) / (2 * n)); }

/// A matrix and a vector whose sums are these constants.
struct Model {
  Model(Context& context, index_t n) : ctx(context), parameters(context, DType::bf16, 1) {
    parameters.constant("a", {n, 1}, 0.5);
    parameters.constant("b", {3}, 0.5);
  }
  GradientSums sums(double of_a) const {
    GradientSums s(ctx, parameters.all());
    for (const Tensor& t : s.tensors())
      for (index_t j = 0; j < t.numel(); ++j) t.data<double>()[j] = of_a;
    return s;
  }
  Context& ctx;
  nn::Parameters parameters;
};
double mean(const Tensor& x) {
  double sum = 0;
  for (const double v : x.to_doubles()) sum += v;
  return sum / double(x.numel());
}
}  // namespace

TEST_CASE("stochastic rounding to bf16: every half once gives the number exactly, and only its two neighbours") {
  test::Rng rng;
  for (int round = 0; round < 60; ++round) {
    // Of any size, denormal ones among them; both signs.
    float x = float(rng.normal() * std::ldexp(1.0, int(rng.integer(-130, 120))));
    if (round == 0) x = 0;
    CAPTURE(x);
    const float below = dpmp::detail::float_of(dpmp::detail::bits_of(x) & 0xffff0000u),
                above = dpmp::detail::float_of((dpmp::detail::bits_of(x) & 0xffff0000u) + 0x10000u);
    double sum = 0;  // at most 2^16 numbers of 8 bits: exact
    bool neighbours = true;
    for (std::uint32_t half = 0; half < 0x10000u; ++half) {
      const float y = kernels::stochastic_bf16(x, half);
      neighbours = neighbours && (y == below || y == above);
      sum += double(y);
    }
    CHECK(neighbours);
    CHECK(sum * 0x1p-16 == double(x));
  }
  // The largest numbers are not rounded to infinity; what is not finite stays.
  const float largest = std::numeric_limits<float>::max();
  for (const std::uint32_t half : {0u, 0x8000u, 0xffffu}) {
    CHECK(kernels::stochastic_bf16(largest, half) == dpmp::detail::float_of(0x7f7f0000u));
    CHECK(kernels::stochastic_bf16(-largest, half) == dpmp::detail::float_of(0xff7f0000u));
    CHECK(kernels::stochastic_bf16(INFINITY, half) == INFINITY);
    CHECK(std::isnan(kernels::stochastic_bf16(dpmp::detail::float_of(0x7f800001u), half)));
    CHECK(kernels::stochastic_bf16(1.5f, half) == 1.5f);
  }
}

TEST_CASE("one step: the mean of many elements' moments is that of f32's, both moments by words of their own") {
  Context ctx(Device::cpu(), 2);
  const index_t n = 50000;
  const double g = 0.7001;
  const Model narrow(ctx, n), wide(ctx, n);
  OptimiserState rounded(ctx, narrow.parameters.all(), AdamW{.moments = DType::bf16}),
      exact(ctx, wide.parameters.all(), AdamW{});
  rounded.step(ctx, narrow.sums(g), 1, 0.01);
  exact.step(ctx, wide.sums(g), 1, 0.01);
  const ParameterState &found = rounded.of(narrow.parameters.find("a")), &want = exact.of(wide.parameters.find("a"));
  CHECK(found.first.dtype() == DType::bf16);
  int up[2][2] = {};
  const auto first = found.first.to_doubles(), second = found.second.to_doubles();
  const double m = want.first.to_doubles()[0], v = want.second.to_doubles()[0];
  for (std::size_t j = 0; j < first.size(); ++j) ++up[first[j] > m][second[j] > v];
  // A unit in the last place of 8 bits is at most 2^-7 of a number.
  CHECK(std::fabs(mean(found.first) - m) <= hoeffding(0x1p-7 * m, double(n)));
  CHECK(std::fabs(mean(found.second) - v) <= hoeffding(0x1p-7 * v, double(n)));
  // Both went up together as often as independent events do.
  const double of_first = double(up[1][0] + up[1][1]) / double(n), of_second = double(up[0][1] + up[1][1]) / double(n);
  CHECK(of_first > 0.01);
  CHECK(of_second > 0.01);
  CHECK(std::fabs(double(up[1][1]) / double(n) - of_first * of_second) <= 3 * hoeffding(1, double(n)));
  // Weights follow from the moments as they were computed: no rounding of theirs is in the first step.
  CHECK(narrow.parameters.find("a").master().to_doubles() == wide.parameters.find("a").master().to_doubles());
}

TEST_CASE("a thousand steps: no bias, where rounding to nearest would have stopped at a quarter") {
  Context ctx(Device::cpu(), 2);
  const index_t n = 4096;
  const int steps = 1000;
  const double g = 1;
  const Model model(ctx, n);
  OptimiserState state(ctx, model.parameters.all(), AdamW{.moments = DType::bf16});
  const GradientSums sums = model.sums(g);
  for (int k = 0; k < steps; ++k) state.step(ctx, sums, 1, 0);
  const double v = (1 - std::pow(0.999, steps)) * g * g;
  // Each step adds at most a unit of 2^-8 (v < 1) times a Bernoulli variable: a variance of at most 2^-16 / 4, which decays
  // by beta2^2 a step. Six standard deviations of the mean, and FP32's own roundings: 3 a step, decaying by beta2.
  const double deviation = std::sqrt(0x1p-18 / (1 - 0.999 * 0.999) / double(n)), fp32 = 3 * 0x1p-24 / 0.001;
  CHECK(std::fabs(mean(state.of(model.parameters.find("a")).second) - v) <= 6 * deviation + fp32);
  double nearest = 0;
  for (int k = 0; k < steps; ++k) nearest = double(to_float(from_float<bf16>(float(0.999 * nearest + 0.001 * g * g))));
  CHECK(nearest < 0.26);
}

TEST_CASE("the same bits whatever the threads, after a restored state, and others for another seed, place or update") {
  Context one(Device::cpu(), 1), two(Device::cpu(), 2);
  const index_t n = 3001;
  const auto moments = [](const Model& model, const OptimiserState& state) {
    std::vector<double> all;
    for (const Parameter* p : model.parameters.all())
      for (const Tensor& t : {state.of(*p).first, state.of(*p).second})
        for (const double v : t.to_doubles()) all.push_back(v);
    return all;
  };
  const AdamW kind{.moments = DType::bf16, .rounding_seed = 5};
  const Model a(one, n), b(two, n), c(one, n), d(one, n);
  OptimiserState of_a(one, a.parameters.all(), kind), of_b(two, b.parameters.all(), kind),
      of_c(one, c.parameters.all(), kind), of_d(one, d.parameters.all(), AdamW{.moments = DType::bf16, .rounding_seed = 6});
  const double g = 0.7001;
  for (int k = 0; k < 3; ++k) {
    of_a.step(one, a.sums(g), 1, 0);
    of_b.step(two, b.sums(g), 1, 0);
    of_d.step(one, d.sums(g), 1, 0);
    if (k == 1) {
      std::vector<ParameterState> states;
      for (const Parameter* p : a.parameters.all()) {
        states.push_back(of_a.of(*p));
        for (Tensor* t : {&states.back().first, &states.back().second}) *t = t->clone(one);
      }
      of_c.restore(states);
    }
  }
  of_c.step(one, c.sums(g), 1, 0);
  CHECK(moments(a, of_a) == moments(b, of_b));
  CHECK(moments(a, of_a) == moments(c, of_c));
  CHECK(moments(a, of_a) != moments(d, of_d));
  // Elements, parameters and updates have words of their own: no pattern of ups and downs comes twice.
  nn::Parameters many(one, DType::f32, 1);
  many.constant("x", {512}, 0), many.constant("y", {512}, 0);
  OptimiserState of_many(one, many.all(), AdamW{.beta1 = 0, .moments = DType::bf16});
  std::vector<std::vector<double>> seen;
  for (int k = 0; k < 2; ++k) {
    GradientSums sums(one, many.all());
    for (const Tensor& t : sums.tensors())
      for (index_t j = 0; j < t.numel(); ++j) t.data<double>()[j] = 0.7001;
    of_many.step(one, sums, 1, 0);
    for (const Parameter* p : many.all()) {
      const std::vector<double> m = of_many.of(*p).first.to_doubles();
      for (int half = 0; half < 2; ++half) seen.emplace_back(m.begin() + 256 * half, m.begin() + 256 * (half + 1));
    }
  }
  for (std::size_t i = 0; i < seen.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) CHECK(seen[i] != seen[j]);
}

TEST_CASE("moments in bf16 take half of the bytes") {
  Context ctx(Device::cpu(), 1);
  const index_t n = 1 << 16;
  const auto bytes = [&](const AdamW& kind) {
    const Model model(ctx, n);
    const GradientSums sums = model.sums(1);
    OptimiserState state(ctx, model.parameters.all(), kind);
    const index_t before = ctx.memory().live_bytes;
    state.make_moments(ctx, sums);
    return ctx.memory().live_bytes - before;
  };
  const index_t wide = bytes(AdamW{}), narrow = bytes(AdamW{.moments = DType::bf16});
  // Those of the three elements of `b` take what a context gives at least: 64 bytes each.
  CHECK(wide == 2 * (4 * n + 64));
  CHECK(narrow == 2 * (2 * n + 64));
}

TEST_CASE("bad input: moments in a dtype that they cannot have") {
  Context ctx(Device::cpu(), 1);
  const Model model(ctx, 4);
  CHECK(test::refuses([&] { OptimiserState(ctx, model.parameters.all(), AdamW{.moments = DType::f16}); },
                      "moments in f32 or bf16, got f16"));
  nn::Parameters wide(ctx, DType::f64, 1);
  wide.constant("x", {2}, 0);
  CHECK(test::refuses([&] { OptimiserState(ctx, wide.all(), AdamW{.moments = DType::bf16}); }, "moments in f32 for 'x'"));
  OptimiserState state(ctx, model.parameters.all(), AdamW{.moments = DType::bf16});
  state.step(ctx, model.sums(1), 1, 0.1);
  std::vector<ParameterState> states;
  for (const Parameter* p : model.parameters.all()) states.push_back(state.of(*p));
  states[0].first = Tensor::zeros(ctx, {4, 1}, DType::f32);
  CHECK(test::refuses([&] { state.restore(states); }, "a moment of 'a' of bf16[4, 1] on cpu, got f32[4, 1]"));
}
