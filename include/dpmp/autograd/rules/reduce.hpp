// SPDX-License-Identifier: Apache-2.0
// sum and mean over an axis after the sample axis.
#pragma once
#include "dpmp/autograd/tape.hpp"
#include "dpmp/tensor/broadcast.hpp"

namespace dpmp::inline DPMP_ABI {
/// Sums over an axis of x [B, ..], added up in FP32 (double for f64) whatever x is stored in, and rounded once. Negative
/// axes count from the back. Throws for axis 0: it would mix samples. A sum over an axis of extent 0 is 0.
Variable sum(const Variable& x, int axis, ReducedAxis reduced = ReducedAxis::removed);
/// The same divided by the axis' extent, before it is rounded. Throws for an axis of extent 0.
Variable mean(const Variable& x, int axis, ReducedAxis reduced = ReducedAxis::removed);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/autograd/rules/shape_ops.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
struct Reduce {
  GradientSlot x;
  int axis;
  double factor;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    pass.accumulate(x, broadcast_to(pass.ctx, gradient.reshaped(x.shape.with(axis, 1)), x.shape, factor));
  }
};
struct Sum : Reduce {
  static constexpr std::string_view name = "sum";
};
struct Mean : Reduce {
  static constexpr std::string_view name = "mean";
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable sum(const Variable& x, int axis, ReducedAxis reduced) {
  Tape& tape = x.tape();
  axis = rules::inner_axis("sum", x.shape(), axis);
  return tape.record(sum(tape.ctx(), x.value(), axis, reduced), tape.needs_gradient(x), rules::Sum{{x.slot(), axis, 1}});
}

DPMP_KEPT_BODY inline Variable mean(const Variable& x, int axis, ReducedAxis reduced) {
  Tape& tape = x.tape();
  axis = rules::inner_axis("mean", x.shape(), axis);
  return tape.record(mean(tape.ctx(), x.value(), axis, reduced), tape.needs_gradient(x),
                     rules::Mean{{x.slot(), axis, 1 / double(x.shape()[axis])}});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
