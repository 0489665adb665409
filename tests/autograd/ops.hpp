// SPDX-License-Identifier: Apache-2.0
// The op table: every differentiable operation with a generator of random problems for it. Gradient checks, the comparison
// of dtypes and the support tables of the documentation are all driven from here; a new op is one entry.
#pragma once
#include "autograd/ops_general.hpp"
#include "autograd/ops_sequence.hpp"
#include "autograd/ops_vision.hpp"

namespace test {
/// Every differentiable op of the library.
inline const std::vector<Op>& op_table() {
  static const std::vector<Op> table = [] {
    std::vector<Op> ops = general_ops();
    for (Op& op : sequence_ops()) ops.push_back(std::move(op));
    for (Op& op : vision_ops()) ops.push_back(std::move(op));
    return ops;
  }();
  return table;
}
}  // namespace test
