// SPDX-License-Identifier: Apache-2.0
// Every op of the table in f32, bf16 and f16 against f64 on the same stored operands; and what a gradient that nobody wants
// changes: nothing else.
#include <doctest/doctest.h>

#include "autograd/op_agreement.hpp"
#include "autograd/ops.hpp"

using namespace dpmp;

namespace {
constexpr int rounds = 40;
}

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
        CHECK(share_of_limit(found, expected, problem, dtype) <= 1);
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
