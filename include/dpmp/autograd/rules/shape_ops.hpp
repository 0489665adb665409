// SPDX-License-Identifier: Apache-2.0
// reshape, transpose, pad, slice, split, concat: no arithmetic. Axis 0 is the sample axis and none of them may touch it.
#pragma once
#include <span>
#include <vector>

#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// The same elements, row-major, under another shape with the same axis 0. Shares the data.
Variable reshape(const Variable& x, const Shape& shape);
/// Exchanges two axes, neither of them axis 0; negative axes count from the back. Copies.
Variable transpose(const Variable& x, int i, int j);
/// x with `before` and `after` zeros at the ends of an axis. Negative axes count from the back. Throws for axis 0 and for
/// negative numbers.
Variable pad(const Variable& x, int axis, index_t before, index_t after);
/// Elements [begin, end) of an axis, 0 <= begin <= end <= its extent. Copies. Throws for axis 0 and for other ends.
Variable slice(const Variable& x, int axis, index_t begin, index_t end);
/// Consecutive parts of these sizes along an axis after axis 0. Throws unless the sizes add up to the axis' extent.
std::vector<Variable> split(const Variable& x, std::span<const index_t> sizes, int axis);
/// `parts` equal parts along an axis after axis 0. Throws unless the axis' extent is a multiple of `parts`.
std::vector<Variable> split(const Variable& x, index_t parts, int axis);
/// Parts one after the other along an axis after axis 0. At least one part; all other extents and the dtypes are equal.
Variable concat(const std::vector<Variable>& parts, int axis);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/tensor/slices.hpp"
#include "dpmp/tensor/transpose.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
/// The axis counted from the front; throws unless it is an axis of the shape after the sample axis.
inline int inner_axis(std::string_view name, const Shape& shape, int axis) {
  const int at = axis < 0 ? axis + shape.rank() : axis;
  DPMP_CHECK(at >= 0 && at < shape.rank(), name, ": expected an axis of the shape ", shape, ", got ", axis);
  DPMP_CHECK(at != 0, name, ": expected an axis after the sample axis of ", shape, ", got ", axis, ": it would mix samples");
  return at;
}

struct Reshape {
  static constexpr std::string_view name = "reshape";
  GradientSlot x;
  void backward(BackwardPass& pass, const Tensor& gradient) const { pass.accumulate(x, gradient.reshaped(x.shape)); }
};

struct Transpose {
  static constexpr std::string_view name = "transpose";
  GradientSlot x;
  int i, j;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    pass.accumulate(x, transpose(pass.ctx, gradient, i, j));
  }
};

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

struct Concat {
  static constexpr std::string_view name = "concat";
  std::vector<GradientSlot> parts;
  int axis;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    index_t start = 0;
    for (const GradientSlot& part : parts) {
      const index_t end = start + part.shape[axis];
      if (pass.needs(part)) pass.accumulate(part, slice(pass.ctx, gradient, axis, start, end));
      start = end;
    }
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable reshape(const Variable& x, const Shape& shape) {
  Tape& tape = x.tape();
  DPMP_CHECK(shape.rank() > 0 && shape.front() == x.shape().front(),
             "reshape: expected a shape that keeps the sample axis (", x.shape().front(), " samples) of ", x.shape(),
             " first, got ", shape);
  // Counted a sample at a time: with no samples every shape would have as many elements.
  DPMP_CHECK(shape.numel(1, shape.rank()) == x.shape().numel(1, x.shape().rank()),
             "reshape: expected a shape of as many elements a sample as ", x.shape(), ", got ", shape);
  return tape.record(x.value().reshaped(shape), tape.needs_gradient(x), rules::Reshape{x.slot()});
}

DPMP_KEPT_BODY inline Variable transpose(const Variable& x, int i, int j) {
  Tape& tape = x.tape();
  i = rules::inner_axis("transpose", x.shape(), i);
  j = rules::inner_axis("transpose", x.shape(), j);
  if (i == j) return x;
  return tape.record(transpose(tape.ctx(), x.value(), i, j), tape.needs_gradient(x), rules::Transpose{x.slot(), i, j});
}

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

DPMP_KEPT_BODY inline std::vector<Variable> split(const Variable& x, std::span<const index_t> sizes, int axis) {
  axis = rules::inner_axis("split", x.shape(), axis);
  index_t total = 0;
  bool overflow = false, negative = false;
  for (index_t size : sizes) {
    negative = negative || size < 0;
    overflow = overflow || __builtin_add_overflow(total, size, &total);
  }
  DPMP_CHECK(!overflow && !negative && total == x.shape()[axis],
             "split: expected sizes >= 0 that add up to the extent of axis ", axis, " of ", x.shape(), ", got ",
             sizes.size(), " sizes with the sum ", total);
  std::vector<Variable> parts;
  index_t start = 0;
  for (index_t size : sizes) {
    parts.push_back(slice(x, axis, start, start + size));
    start += size;
  }
  return parts;
}

DPMP_KEPT_BODY inline std::vector<Variable> split(const Variable& x, index_t parts, int axis) {
  axis = rules::inner_axis("split", x.shape(), axis);
  const index_t extent = x.shape()[axis];
  DPMP_CHECK(parts > 0 && extent % parts == 0, "split: expected a number of parts that divides the extent of axis ", axis,
             " of ", x.shape(), ", got ", parts);
  return split(x, std::vector<index_t>(std::size_t(parts), extent / parts), axis);
}

DPMP_KEPT_BODY inline Variable concat(const std::vector<Variable>& parts, int axis) {
  DPMP_CHECK(!parts.empty(), "concat: expected at least one part, got none");
  const Variable& first = parts.front();
  Tape& tape = first.tape();
  axis = rules::inner_axis("concat", first.shape(), axis);
  rules::Concat rule{{}, axis};
  std::vector<Tensor> values;
  bool needs_gradient = false;
  for (const Variable& part : parts) {
    Tape::common(first, part);
    values.push_back(part.value());
    needs_gradient = needs_gradient || tape.needs_gradient(part);
    rule.parts.push_back(part.slot());
  }
  return tape.record(concat(tape.ctx(), values, axis), needs_gradient, std::move(rule));
}
}  // namespace dpmp::inline DPMP_ABI
#endif
