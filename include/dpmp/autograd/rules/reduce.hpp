// SPDX-License-Identifier: Apache-2.0
// sum and mean over an axis after the sample axis.
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// Whether a reduced axis stays, with extent 1, or goes.
enum class ReducedAxis : std::uint8_t { removed, kept };

/// Sums over an axis of x [B, ..], added up in FP32 (double for f64) whatever x is stored in, and rounded once. Negative
/// axes count from the back. Throws for axis 0: it would mix samples. A sum over an axis of extent 0 is 0.
Variable sum(const Variable& x, int axis, ReducedAxis reduced = ReducedAxis::removed);
/// The same divided by the axis' extent, before it is rounded. Throws for an axis of extent 0.
Variable mean(const Variable& x, int axis, ReducedAxis reduced = ReducedAxis::removed);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/autograd/rules/broadcast.hpp"
#include "dpmp/autograd/rules/shape_ops.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
struct Reduce {
  static constexpr std::string_view name = "reduce";
  GradientSlot x;
  kernels::AxisRuns runs;
  double factor;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    pass.accumulate(x, expanded(pass.ctx, gradient, x.shape, runs, factor));
  }
};

inline Variable reduced_axis(const Variable& x, int axis, ReducedAxis reduced, double factor) {
  Tape& tape = x.tape();
  const Shape& s = x.shape();
  Shape result;
  for (int k = 0; k < s.rank(); ++k)
    if (k != axis || reduced == ReducedAxis::kept) result.push_back(k == axis ? 1 : s[k]);
  const kernels::AxisRuns runs{.outer = s.numel(0, axis), .second = s[axis], .inner = s.numel(axis + 1, s.rank())};
  return tape.record(summed(tape.ctx(), x.value(), result, runs, factor), tape.needs_gradient(x),
                     Reduce{x.slot(), runs, factor});
}
}  // namespace rules

DPMP_KEPT_BODY inline Variable sum(const Variable& x, int axis, ReducedAxis reduced) {
  return rules::reduced_axis(x, rules::inner_axis("sum", x.shape(), axis), reduced, 1);
}

DPMP_KEPT_BODY inline Variable mean(const Variable& x, int axis, ReducedAxis reduced) {
  axis = rules::inner_axis("mean", x.shape(), axis);
  const index_t extent = x.shape()[axis];
  DPMP_CHECK(extent > 0, "mean: expected an axis of at least one element, got axis ", axis, " of ", x.shape());
  return rules::reduced_axis(x, axis, reduced, 1 / double(extent));
}
}  // namespace dpmp::inline DPMP_ABI
#endif
