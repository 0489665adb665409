// SPDX-License-Identifier: Apache-2.0
// Every op of the table in f32, bf16 and f16 against f64 on the same stored operands; and what a gradient that nobody wants
// changes: nothing else.
#include <doctest/doctest.h>
#include <algorithm>
#include <cmath>

#include "autograd/ops.hpp"
#include "autograd/run_op.hpp"

using namespace dpmp;

namespace {
constexpr int rounds = 40;

/// Largest |found - expected| of lists of arrays, as a share of the limit; infinite where the sizes differ.
double share_of_limit(const test::Outcome::Lists& found, const test::Outcome::Lists& expected, double relative_limit) {
  if (found.size() != expected.size()) return INFINITY;
  double worst = 0;
  for (std::size_t j = 0; j < found.size(); ++j) {
    if (found[j].size() != expected[j].size()) return INFINITY;
    double largest = 0;
    for (double x : expected[j]) largest = std::max(largest, std::fabs(x));
    for (std::size_t k = 0; k < found[j].size(); ++k) {
      const double share = std::fabs(found[j][k] - expected[j][k]) / (relative_limit * (1 + largest));
      if (!(share <= worst)) worst = share;
    }
  }
  return worst;
}
}  // namespace

TEST_CASE("every op in f32, bf16 and f16 agrees with f64 on the same operands") {
  Context ctx(Device::cpu(), 2);
  for (const test::Op& op : test::op_table())
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      CAPTURE(op.name);
      const std::string dtype_name(name_of(dtype));
      CAPTURE(dtype_name);
      for (int round = 0; round < rounds; ++round) {
        CAPTURE(round);
        test::Draw draw{std::uint64_t(round)};
        const test::Problem problem = op.make(draw);
        const test::Outcome found = run_op(ctx, problem, dtype), expected = run_op(ctx, problem, DType::f64);
        // A forward result is rounded to storage once; a gradient is formed from at most one rounded number (a saved output)
        // and rounded. FP32 work inside: functions of error 2^-22, and sums whose roundings mostly cancel.
        const double limit = problem.amplification * (2 * unit_roundoff(dtype) + 4 * 0x1p-24);
        const double shares[] = {share_of_limit(found.outputs, expected.outputs, limit),
                                 share_of_limit(found.input_gradients, expected.input_gradients, limit),
                                 share_of_limit(found.parameter_gradients, expected.parameter_gradients, limit)};
        for (double share : shares) CHECK(share <= 1);
      }
    }
}

TEST_CASE("frozen parameters emit no site, unwanted gradients are left out, and the others do not change") {
  Context ctx(Device::cpu(), 1);
  for (const test::Op& op : test::op_table())
    for (int round = 0; round < rounds; ++round) {
      CAPTURE(op.name);
      CAPTURE(round);
      test::Draw draw{std::uint64_t(round)};
      const test::Problem problem = op.make(draw);
      const test::Outcome full = run_op(ctx, problem, DType::f32);
      CHECK(full.parameters_with_sites == problem.parameters.size());
      const test::Outcome frozen =
          run_op(ctx, problem, DType::f32, {.inputs_need_gradients = true, .parameters_train = false});
      CHECK(frozen.parameters_with_sites == 0);
      CHECK(frozen.outputs == full.outputs);
      CHECK(frozen.input_gradients == full.input_gradients);
      const test::Outcome fixed =
          run_op(ctx, problem, DType::f32, {.inputs_need_gradients = false, .parameters_train = true});
      CHECK(fixed.outputs == full.outputs);
      CHECK(fixed.parameter_gradients == full.parameter_gradients);
    }
}
