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
struct Pad {
  static constexpr std::string_view name = "pad";
  GradientSlot x;
  int axis;
  index_t begin;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    pass.accumulate(x, slice(pass.ctx, gradient, axis, begin, begin + x.shape[axis]));
  }
};

struct Slice {
  static constexpr std::string_view name = "slice";
  GradientSlot x;
  int axis;
  index_t begin;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    pass.accumulate(x, pad(pass.ctx, gradient, axis, begin, x.shape[axis] - begin - gradient.shape()[axis]));
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable pad(const Variable& x, int axis, index_t before, index_t after) {
  Tape& tape = x.tape();
  axis = rules::inner_axis("pad", x.shape(), axis);
  return tape.record(pad(tape.ctx(), x.value(), axis, before, after), tape.needs_gradient(x),
                     rules::Pad{x.slot(), axis, before});
}

DPMP_KEPT_BODY inline Variable slice(const Variable& x, int axis, index_t begin, index_t end) {
  Tape& tape = x.tape();
  axis = rules::inner_axis("slice", x.shape(), axis);
  return tape.record(slice(tape.ctx(), x.value(), axis, begin, end), tape.needs_gradient(x),
                     rules::Slice{x.slot(), axis, begin});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
