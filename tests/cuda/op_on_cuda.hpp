// SPDX-License-Identifier: Apache-2.0
// The op table on a GPU against f64 on the CPU, by the bound that the CPU's own dtypes keep.
#pragma once
#include <doctest/doctest.h>

#include "autograd/op_agreement.hpp"

namespace test {
/// Every op in f32 and bf16 forward and backward, on the same stored operands; problems that only differ in the head widths
/// that a GPU takes. Nothing may be refused.
inline void check_ops_on_cuda(const std::vector<Op>& ops, int rounds) {
  dpmp::Context gpu(dpmp::Device::cuda(0), 1), cpu(dpmp::Device::cpu(), 1);
  for (const Op& op : ops) {
    double worst[] = {0, 0};
    for (int round = 0; round < rounds; ++round) {
      CAPTURE(op.name);
      CAPTURE(round);
      Draw draw{std::uint64_t(round), 8};
      const Problem problem = op.make(draw);
      const Outcome expected = run_op(cpu, problem, dpmp::DType::f64);
      for (const dpmp::DType dtype : {dpmp::DType::f32, dpmp::DType::bf16}) {
        const std::string dtype_name(name_of(dtype));
        CAPTURE(dtype_name);
        double share = INFINITY;
        CHECK_NOTHROW(share = share_of_limit(run_op(gpu, problem, dtype), expected, problem, dtype));
        CHECK(share <= 1);
        double& largest = worst[dtype == dpmp::DType::bf16];
        largest = std::max(largest, share);
      }
    }
    MESSAGE(op.name << ": at most " << worst[0] << " of the bound in f32, " << worst[1] << " in bf16");
  }
}
}  // namespace test
