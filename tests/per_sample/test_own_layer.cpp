// SPDX-License-Identifier: Apache-2.0
// The layer of docs/adding_a_layer.md, written outside of the library: its rule against differences, its sites through every
// strategy, clip rule and dtype against triple loops, its per-sample gradients against batches of one.
#include "../../examples/linear_recurrence.hpp"
#include "dpmp/per_sample/group_pass.hpp"
#include "per_sample/family.hpp"
#include "support/errors.hpp"

using namespace dpmp;

namespace {
/// Emits a site of a parameter that it does not name.
struct Silent {
  static constexpr std::string_view name = "silent";
  Parameter* p;
  void backward(BackwardPass& pass, const Tensor& g) const { pass.emit(ParameterSite::vector(*p, g)); }
};

test::Problem recurrence(test::Draw& draw) {
  const index_t samples = draw.samples(), tokens = draw.tokens(), width = draw.width();
  test::Problem p{samples, {draw.values({samples, tokens, width})}, {draw.values({width})}, {}};
  for (double& decay : p.parameters[0].values) decay /= 4;
  p.forward = [](Tape&, const test::Variables& x, const test::Parameters& w) {
    return test::Variables{own::linear_recurrence(x[0], *w[0])};
  };
  return p;
}
}  // namespace

TEST_CASE("a user's layer passes the gradient check") {
  Context ctx(Device::cpu(), 2);
  index_t compared = 0;
  for (std::uint64_t round = 0; round < 24; ++round) {
    test::Draw draw{round};
    const test::Problem problem = recurrence(draw);
    const test::OwnedParameters parameters(ctx, problem, DType::f64);
    const auto forward = [&](Tape& tape, const test::Variables& x) {
      return problem.forward(tape, x, parameters.pointers());
    };
    const Tensor x = Tensor::from(ctx, problem.inputs[0].shape, DType::f64, problem.inputs[0].values);
    const GradientCheckResult result =
        check_gradients(ctx, problem.samples, {x}, parameters.pointers(), forward, {.elements = 10, .weight = {}});
    compared += result.compared;
    CHECK_MESSAGE(result.error < 1e-8, result.where);
  }
  CHECK(compared > 20);
}

TEST_CASE("P1, P13: a user's layer agrees with the oracle by every strategy, clip rule and dtype") {
  Context ctx(Device::cpu(), 2);
  for (DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (std::uint64_t round = 0; round < 8; ++round) {
      test::Draw draw{round};
      test::Support support;
      test::FamilyProblem(ctx, test::OpModel(ctx, recurrence(draw), dtype)).run(support);
      CAPTURE(name_of(dtype));
      CHECK(support.plain);
      for (const bool agrees : support.strategies) CHECK(agrees);
    }
}

TEST_CASE("a user's layer in a model: per-sample gradients are those of batches of one") {
  Context ctx(Device::cpu(), 2);
  nn::Parameters parameters(ctx, DType::f64, test::seed());
  const own::RecurrentLayer layer(parameters / "memory", 6);
  test::Draw draw{1};
  const auto values = draw.values({4, 5, 6});
  const Tensor x = Tensor::from(ctx, values.shape, DType::f64, values.values);
  const auto backward = [&](const Tensor& rows, GradientSink& sink) {
    Tape tape(ctx, rows.shape()[0]);
    tape.backward(mean_squared_error(layer(tape.input(rows)), Tensor::zeros(ctx, rows.shape(), DType::f64)), sink);
  };
  per_sample::MaterialisedSink all;
  backward(x, all);
  for (index_t i = 0; i < 4; ++i) {
    per_sample::GradientSums sums(ctx, parameters.all());
    per_sample::SumSink one(sums);
    backward(x.rows(i, i + 1), one);
    for (std::size_t k = 0; k < sums.parameters().size(); ++k) {
      const std::vector<double> alone = sums.tensors()[k].to_doubles(),
                                row = all.gradients(ctx, *sums.parameters()[k]).rows(i, i + 1).to_doubles();
      CHECK(test::distance(alone, row) <= 1e-12 * (1 + test::norm(alone)));
    }
  }
}

TEST_CASE("a rule that emits a site of a parameter it does not name is refused") {
  Context ctx(Device::cpu(), 1);
  Parameter w(ctx, "w", Tensor::zeros(ctx, {1}, DType::f32), DType::f32);
  Tape tape(ctx, 2);
  const Variable y = tape.record(Tensor::zeros(ctx, {2}, DType::f32), true, Silent{&w});
  per_sample::GroupPass sink;
  CHECK(test::refuses([&] { tape.backward(y, sink); },
                      "silent: expected a site of a parameter that the rule's parameters() names, got one of w"));
}
