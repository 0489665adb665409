// SPDX-License-Identifier: Apache-2.0
// reshape, transpose, split, concat: no arithmetic. Axis 0 is the sample axis and none of them may touch it.
#pragma once
#include <span>
#include <vector>

#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// The same elements, row-major, under another shape with the same axis 0. Shares the data.
Variable reshape(const Variable& x, const Shape& shape);
/// Exchanges two axes, neither of them axis 0; negative axes count from the back. Copies.
Variable transpose(const Variable& x, int i, int j);
/// Consecutive parts of these sizes along an axis after axis 0. Throws unless the sizes add up to the axis' extent.
std::vector<Variable> split(const Variable& x, std::span<const index_t> sizes, int axis);
/// `parts` equal parts along an axis after axis 0. Throws unless the axis' extent is a multiple of `parts`.
std::vector<Variable> split(const Variable& x, index_t parts, int axis);
/// Parts one after the other along an axis after axis 0. At least one part; all other extents and the dtypes are equal.
Variable concat(const std::vector<Variable>& parts, int axis);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/permute.hpp"

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

/// A new tensor with axes i < j exchanged.
inline Tensor transposed(Context& ctx, const Tensor& x, int i, int j) {
  const Shape& s = x.shape();
  const Tensor y = Tensor::empty(ctx, s.with(i, s[j]).with(j, s[i]), x.dtype());
  const index_t outer = s.numel(0, i), middle = s.numel(i + 1, j), inner = s.numel(j + 1, s.rank());
  if (y.numel() > 0)
    dispatch_real(x.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      launch_library_rows(ctx, outer * s[j] * middle, s[i] * inner,
                          kernels::SwapAxes<T>{x.data<T>(), y.data<T>(), s[i], middle, s[j], inner});
    });
  return y;
}

struct Transpose {
  static constexpr std::string_view name = "transpose";
  GradientSlot x;
  int i, j;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    pass.accumulate(x, transposed(pass.ctx, gradient, i, j));
  }
};

/// Copies `count` slices of an axis, from number `from_start` of one tensor to number `to_start` of another.
inline void copy_slices(Context& ctx, const Tensor& from, index_t from_start, const Tensor& to, index_t to_start, int axis,
                        index_t count) {
  const Shape& s = from.shape();
  const index_t outer = s.numel(0, axis), inner = s.numel(axis + 1, s.rank());
  dispatch_real(from.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_library_rows(ctx, outer, count * inner,
                        kernels::CopyRows<T>{from.data<T>() + from_start * inner, to.data<T>() + to_start * inner,
                                             s[axis] * inner, to.shape()[axis] * inner, count * inner});
  });
}

/// Slices [start, start + the result's extent) of an axis.
struct SplitPart {
  static constexpr std::string_view name = "split";
  GradientSlot x;
  int axis;
  index_t start;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const Tensor whole = Tensor::zeros(pass.ctx, x.shape, x.dtype);
    copy_slices(pass.ctx, gradient, 0, whole, start, axis, gradient.shape()[axis]);
    pass.accumulate(x, whole);
  }
};

struct Concat {
  static constexpr std::string_view name = "concat";
  std::vector<GradientSlot> parts;
  int axis;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    index_t start = 0;
    for (const GradientSlot& part : parts) {
      if (pass.needs(part)) {
        const Tensor g = Tensor::empty(pass.ctx, part.shape, part.dtype);
        copy_slices(pass.ctx, gradient, start, g, 0, axis, part.shape[axis]);
        pass.accumulate(part, g);
      }
      start += part.shape[axis];
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
  if (i > j) std::swap(i, j);
  return tape.record(rules::transposed(tape.ctx(), x.value(), i, j), tape.needs_gradient(x),
                     rules::Transpose{x.slot(), i, j});
}

DPMP_KEPT_BODY inline std::vector<Variable> split(const Variable& x, std::span<const index_t> sizes, int axis) {
  Tape& tape = x.tape();
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
    const Tensor part = Tensor::empty(tape.ctx(), x.shape().with(axis, size), x.dtype());
    rules::copy_slices(tape.ctx(), x.value(), start, part, 0, axis, size);
    parts.push_back(tape.record(part, tape.needs_gradient(x), rules::SplitPart{x.slot(), axis, start}));
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
  index_t extent = 0;
  bool needs_gradient = false;
  for (const Variable& part : parts) {
    Tape::common(first, part);
    DPMP_CHECK(part.dtype() == first.dtype() && part.shape().rank() == first.shape().rank() &&
                   part.shape().with(axis, 0) == first.shape().with(axis, 0),
               "concat: expected parts that differ along axis ", axis, " only, got ", first.shape(), " ", first.dtype(),
               " and ", part.shape(), " ", part.dtype());
    extent += part.shape()[axis];
    needs_gradient = needs_gradient || tape.needs_gradient(part);
    rule.parts.push_back(part.slot());
  }
  const Tensor whole = Tensor::empty(tape.ctx(), first.shape().with(axis, extent), first.dtype());
  index_t start = 0;
  for (const Variable& part : parts) {
    rules::copy_slices(tape.ctx(), part.value(), 0, whole, start, axis, part.shape()[axis]);
    start += part.shape()[axis];
  }
  return tape.record(whole, needs_gradient, std::move(rule));
}
}  // namespace dpmp::inline DPMP_ABI
#endif
