// SPDX-License-Identifier: Apache-2.0
// pad and slice along an axis after the sample axis: each is the other's backward pass.
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// x with `before` and `after` zeros at the ends of an axis. Negative axes count from the back. Throws for axis 0 and for
/// negative numbers.
Variable pad(const Variable& x, int axis, index_t before, index_t after);
/// Elements [begin, end) of an axis, 0 <= begin <= end <= its extent. Copies. Throws for axis 0 and for other ends.
Variable slice(const Variable& x, int axis, index_t begin, index_t end);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/autograd/rules/shape_ops.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
/// A new tensor of this shape: zeros, with x from place `begin` of the axis on.
inline Tensor padded(Context& ctx, const Tensor& x, int axis, index_t begin, const Shape& shape) {
  const Tensor y = Tensor::zeros(ctx, shape, x.dtype());
  copy_slices(ctx, x, 0, y, begin, axis, x.shape()[axis]);
  return y;
}
/// A new tensor of this shape: x from place `begin` of the axis on.
inline Tensor sliced(Context& ctx, const Tensor& x, int axis, index_t begin, const Shape& shape) {
  const Tensor y = Tensor::empty(ctx, shape, x.dtype());
  copy_slices(ctx, x, begin, y, 0, axis, shape[axis]);
  return y;
}

struct Pad {
  static constexpr std::string_view name = "pad";
  GradientSlot x;
  int axis;
  index_t begin;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    pass.accumulate(x, sliced(pass.ctx, gradient, axis, begin, x.shape));
  }
};

struct Slice {
  static constexpr std::string_view name = "slice";
  GradientSlot x;
  int axis;
  index_t begin;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    pass.accumulate(x, padded(pass.ctx, gradient, axis, begin, x.shape));
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable pad(const Variable& x, int axis, index_t before, index_t after) {
  Tape& tape = x.tape();
  axis = rules::inner_axis("pad", x.shape(), axis);
  index_t extent = x.shape()[axis];
  DPMP_CHECK(before >= 0 && after >= 0 && !__builtin_add_overflow(extent, before, &extent) &&
                 !__builtin_add_overflow(extent, after, &extent),
             "pad: expected numbers of zeros >= 0 at the ends of axis ", axis, " of ", x.shape(), ", got ", before, " and ",
             after);
  return tape.record(rules::padded(tape.ctx(), x.value(), axis, before, x.shape().with(axis, extent)),
                     tape.needs_gradient(x), rules::Pad{x.slot(), axis, before});
}

DPMP_KEPT_BODY inline Variable slice(const Variable& x, int axis, index_t begin, index_t end) {
  Tape& tape = x.tape();
  axis = rules::inner_axis("slice", x.shape(), axis);
  DPMP_CHECK(0 <= begin && begin <= end && end <= x.shape()[axis], "slice: expected ends in [0, ", x.shape()[axis],
             "] of axis ", axis, " of ", x.shape(), ", got [", begin, ", ", end, ")");
  return tape.record(rules::sliced(tape.ctx(), x.value(), axis, begin, x.shape().with(axis, end - begin)),
                     tape.needs_gradient(x), rules::Slice{x.slot(), axis, begin});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
