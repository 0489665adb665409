// SPDX-License-Identifier: Apache-2.0
// Every op of the table: its f64 rule against differences, for inputs and parameters, over random shapes with sizes 0 and 1.
#include <doctest/doctest.h>

#include "autograd/ops.hpp"
#include "autograd/run_op.hpp"

using namespace dpmp;

namespace {
// Differences with step h = 2^-10: truncation h^4 / 30 times a fifth derivative (3e-14 x up to 1e4 in layer_norm) and
// rounding 2^-53 / h times the sum of some hundred outputs (1e-11).
constexpr double tolerance = 1e-8;
constexpr int rounds = 24;

GradientCheckResult check(Context& ctx, const test::Problem& problem) {
  const test::OwnedParameters parameters(ctx, problem, DType::f64);
  std::vector<Tensor> inputs;
  for (const test::Values& v : problem.inputs) inputs.push_back(Tensor::from(ctx, v.shape, DType::f64, v.values));
  const auto forward = [&](Tape& tape, const test::Variables& x) { return problem.forward(tape, x, parameters.pointers()); };
  return check_gradients(ctx, problem.samples, inputs, parameters.pointers(), forward, {.elements = 10, .weight = {}});
}

/// Multiplies by 2 and says the derivative is `claimed`.
struct WrongRule {
  static constexpr std::string_view name = "wrong";
  GradientSlot x;
  double claimed;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    pass.accumulate(x, scale(pass.ctx, gradient, claimed));
  }
};
/// Adds a parameter [n] to every sample and emits `factor` times its gradient.
struct WrongSite {
  static constexpr std::string_view name = "wrong site";
  Parameter* p;
  double factor;
  std::vector<Parameter*> parameters() const { return {p}; }
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    pass.emit(ParameterSite::vector(*p, scale(pass.ctx, gradient, factor)));
  }
};
}  // namespace

TEST_CASE("the rule of every op equals 4-point differences in double") {
  Context ctx(Device::cpu(), 2);
  for (const test::Op& op : test::op_table()) {
    CAPTURE(op.name);
    index_t compared = 0;
    for (int round = 0; round < rounds; ++round) {
      CAPTURE(round);
      test::Draw draw{std::uint64_t(round)};
      const test::Problem problem = op.make(draw);
      const GradientCheckResult result = check(ctx, problem);
      compared += result.compared;
      CHECK_MESSAGE(result.error < tolerance, result.where);
    }
    CHECK(compared > 20);
  }
}

TEST_CASE("a wrong derivative and a wrong site fail the gradient check") {
  Context ctx(Device::cpu(), 1);
  test::Draw draw{1};
  const auto x = draw.values({3, 4});
  for (const double claimed : {2.0, 2.0 + 1e-6, -2.0}) {
    const auto forward = [&](Tape& tape, const test::Variables& v) {
      return test::Variables{tape.record(scale(ctx, v[0].value(), 2), true, WrongRule{v[0].slot(), claimed})};
    };
    const auto result = check_gradients(ctx, 3, {Tensor::from(ctx, x.shape, DType::f64, x.values)}, {}, forward);
    CHECK(result.compared == 12);
    CHECK((result.error < tolerance) == (claimed == 2.0));
    CHECK(result.where.empty() == (result.error == 0));
  }
  for (const double factor : {1.0, 1.0 + 1e-6, 0.0}) {
    Parameter p(ctx, "p", Tensor::full(ctx, {4}, DType::f64, 0.5), DType::f64);
    const auto forward = [&](Tape& tape, const test::Variables&) {
      const Tensor y = Tensor::zeros(ctx, {3, 4}, DType::f64);
      for (index_t k = 0; k < 12; ++k) y.data<double>()[k] = p.value().data<double>()[k % 4];
      return test::Variables{tape.record(y, true, WrongSite{&p, factor})};
    };
    const auto result = check_gradients(ctx, 3, {}, {&p}, forward);
    CHECK(result.compared == 4);
    CHECK((result.error < tolerance) == (factor == 1.0));
  }
  const auto nan = [&](Tape&, const test::Variables& v) { return test::Variables{scale(v[0], std::nan(""))}; };
  CHECK_FALSE(check_gradients(ctx, 3, {Tensor::from(ctx, x.shape, DType::f64, x.values)}, {}, nan).error < tolerance);
}
