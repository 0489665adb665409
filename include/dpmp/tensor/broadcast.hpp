// SPDX-License-Identifier: Apache-2.0
// broadcast_to of a tensor and the reverse, sums over axes, without a tape. Computed on the device of `ctx`, where the
// operand has to be, in FP32 (double for f64), and rounded once. Not private: a sum over records is not protected.
#pragma once
#include "dpmp/tensor/tensor.hpp"

namespace dpmp::inline DPMP_ABI {
/// Whether a reduced axis stays, with extent 1, or goes.
enum class ReducedAxis : std::uint8_t { removed, kept };

/// factor * x repeated to `shape` in NumPy's way, in a new tensor (x's data under that shape where nothing is repeated and
/// the factor is 1): axes are aligned at the back, and each of x's has the
/// shape's extent, or has extent 1, or is missing. Throws where they do not fit, where the axes that are repeated form more
/// than two runs of neighbours (two do for four axes), and for i32.
Tensor broadcast_to(Context& ctx, const Tensor& x, const Shape& shape, double factor = 1);
/// The reverse: factor * the sums of x over everything that broadcast_to x's shape repeats of a tensor of `shape`. The order
/// of a sum depends on the shapes alone. Shares data and throws as broadcast_to does.
Tensor sum_to(Context& ctx, const Tensor& x, const Shape& shape, double factor = 1);
/// Sums over an axis; negative axes count from the back. A sum over an axis of extent 0 is 0.
Tensor sum(Context& ctx, const Tensor& x, int axis, ReducedAxis reduced = ReducedAxis::removed);
/// The same divided by the axis' extent, before it is rounded. Throws for an axis of extent 0.
Tensor mean(Context& ctx, const Tensor& x, int axis, ReducedAxis reduced = ReducedAxis::removed);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/broadcast.hpp"
#include "dpmp/tensor/map.hpp"

namespace dpmp::inline DPMP_ABI {
namespace detail {
/// How a tensor of the shape `small` is repeated to `full`.
inline kernels::AxisRuns axis_runs(const Shape& small, const Shape& full) {
  index_t part[5] = {1, 1, 1, 1, 1};  // kept, repeated, kept, repeated, kept
  int at = 0;
  bool fits = small.rank() <= full.rank();
  for (int axis = 0; fits && axis < full.rank(); ++axis) {
    const int of_small = axis - full.rank() + small.rank();
    const index_t extent = of_small < 0 ? 1 : small[of_small];
    const bool repeated = extent != full[axis];
    if (repeated != (at % 2 == 1)) ++at;
    fits = at < 5 && (!repeated || extent == 1);
    if (fits) part[at] *= full[axis];
  }
  DPMP_CHECK(fits, "broadcast_to: expected a tensor whose axes, aligned at the back, are those of ", full,
             ", 1 or missing, at most two runs of them, got ", small);
  if (at >= 3) return {.outer = part[0], .first = part[1], .middle = part[2], .second = part[3], .inner = part[4]};
  // Rows are the units of work: with nothing outside of the run there would be one.
  if (part[0] == 1 && part[2] > 1) return {.first = part[1], .inner = part[2]};
  return {.outer = part[0], .second = part[1], .inner = part[2]};
}
/// K<T>{x, the result, runs, factor} over `rows` rows; x's data under the shape where there is nothing to do.
template <template <class> class K>
Tensor along_runs(Context& ctx, const Tensor& x, const Shape& shape, double factor, const kernels::AxisRuns& runs,
                  index_t rows) {
  check_device("an operand", x, ctx);
  if (x.numel() == shape.numel() && factor == 1) return x.reshaped(shape);
  const Tensor y = Tensor::empty(ctx, shape, x.dtype());
  if (y.numel() > 0) map_rows<K>(ctx, x.dtype(), rows, std::max(x.numel(), y.numel()) / rows, x, y, runs, factor);
  return y;
}
}  // namespace detail

DPMP_KEPT_BODY inline Tensor broadcast_to(Context& ctx, const Tensor& x, const Shape& shape, double factor) {
  const kernels::AxisRuns runs = detail::axis_runs(x.shape(), shape);
  return detail::along_runs<kernels::Expand>(ctx, x, shape, factor, runs, runs.outer * runs.first * runs.middle);
}

DPMP_KEPT_BODY inline Tensor sum_to(Context& ctx, const Tensor& x, const Shape& shape, double factor) {
  const kernels::AxisRuns runs = detail::axis_runs(shape, x.shape());
  return detail::along_runs<kernels::SumRuns>(ctx, x, shape, factor, runs, runs.outer * runs.middle);
}

namespace detail {
inline Tensor reduced(Context& ctx, const Tensor& x, int axis, ReducedAxis reduced, double factor) {
  const Shape& s = x.shape();
  const Tensor sums = sum_to(ctx, x, s.with(axis, 1), factor);
  if (reduced == ReducedAxis::kept) return sums;
  Shape shape;
  for (int k = 0; k < s.rank(); ++k)
    if (k != axis && k != axis + s.rank()) shape.push_back(s[k]);
  return sums.reshaped(shape);
}
}  // namespace detail

DPMP_KEPT_BODY inline Tensor sum(Context& ctx, const Tensor& x, int axis, ReducedAxis reduced) {
  return detail::reduced(ctx, x, axis, reduced, 1);
}

DPMP_KEPT_BODY inline Tensor mean(Context& ctx, const Tensor& x, int axis, ReducedAxis reduced) {
  const index_t extent = x.shape()[axis];
  DPMP_CHECK(extent > 0, "mean: expected an axis of at least one element, got axis ", axis, " of ", x.shape());
  return detail::reduced(ctx, x, axis, reduced, 1 / double(extent));
}
}  // namespace dpmp::inline DPMP_ABI
#endif
