// SPDX-License-Identifier: Apache-2.0
// slice, pad and concat of tensors along an axis, without a tape: copies, no arithmetic, on the device of `ctx`, where the
// operands have to be. Negative axes count from the back.
#pragma once
#include <span>

#include "dpmp/tensor/tensor.hpp"

namespace dpmp::inline DPMP_ABI {
/// Elements [begin, end) of an axis in a new tensor, 0 <= begin <= end <= its extent. Throws for other ends. Rows of axis 0
/// without a copy: Tensor::rows.
Tensor slice(Context& ctx, const Tensor& x, int axis, index_t begin, index_t end);
/// x with `before` and `after` zeros at the ends of an axis, in a new tensor. Throws for negative numbers.
Tensor pad(Context& ctx, const Tensor& x, int axis, index_t before, index_t after);
/// Parts one after the other along an axis, in a new tensor. Throws unless there is a part, and all dtypes and all other
/// extents are equal.
Tensor concat(Context& ctx, std::span<const Tensor> parts, int axis);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/permute.hpp"
#include "dpmp/runtime/launch.hpp"

namespace dpmp::inline DPMP_ABI {
namespace detail {
/// Counted from the front; throws unless it is one.
inline int axis_of(const Shape& shape, int axis) {
  const int at = axis < 0 ? axis + shape.rank() : axis;
  DPMP_CHECK(at >= 0 && at < shape.rank(), "expected an axis of the shape ", shape, ", got ", axis);
  return at;
}

/// Where slices of an axis begin in a tensor.
struct SlicesAt {
  const Tensor& tensor;
  index_t start;
};

/// Copies `count` slices of an axis.
inline void copy_slices(Context& ctx, const SlicesAt& from, const SlicesAt& to, int axis, index_t count) {
  check_device("an operand", from.tensor, ctx);
  const Shape& s = from.tensor.shape();
  const index_t outer = s.numel(0, axis), inner = s.numel(axis + 1, s.rank());
  const index_t from_stride = s[axis] * inner, to_stride = to.tensor.shape()[axis] * inner;
  const auto copy = [&](const auto* source, auto* target) {
    using T = std::remove_pointer_t<decltype(target)>;
    launch_library_rows(
        ctx, outer, count * inner,
        kernels::CopyRows<T>{source + from.start * inner, target + to.start * inner, from_stride, to_stride, count * inner});
  };
  if (from.tensor.dtype() != DType::i32)
    return dispatch_real(from.tensor.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      copy(from.tensor.data<T>(), to.tensor.data<T>());
    });
  const index_t each = size_of(DType::i32);
  ctx.backend().copy_rows(to.tensor.data<std::int32_t>() + to.start * inner, to_stride * each,
                          from.tensor.data<std::int32_t>() + from.start * inner, from_stride * each, count * inner * each,
                          outer);
}
}  // namespace detail

DPMP_KEPT_BODY inline Tensor slice(Context& ctx, const Tensor& x, int axis, index_t begin, index_t end) {
  axis = detail::axis_of(x.shape(), axis);
  DPMP_CHECK(0 <= begin && begin <= end && end <= x.shape()[axis], "slice: expected ends in [0, ", x.shape()[axis],
             "] of axis ", axis, " of ", x.shape(), ", got [", begin, ", ", end, ")");
  const Tensor y = Tensor::empty(ctx, x.shape().with(axis, end - begin), x.dtype());
  detail::copy_slices(ctx, {x, begin}, {y, 0}, axis, end - begin);
  return y;
}

DPMP_KEPT_BODY inline Tensor pad(Context& ctx, const Tensor& x, int axis, index_t before, index_t after) {
  axis = detail::axis_of(x.shape(), axis);
  index_t extent = x.shape()[axis];
  DPMP_CHECK(before >= 0 && after >= 0 && !__builtin_add_overflow(extent, before, &extent) &&
                 !__builtin_add_overflow(extent, after, &extent),
             "pad: expected numbers of zeros >= 0 at the ends of axis ", axis, " of ", x.shape(), ", got ", before, " and ",
             after);
  const Tensor y = Tensor::zeros(ctx, x.shape().with(axis, extent), x.dtype());
  detail::copy_slices(ctx, {x, 0}, {y, before}, axis, x.shape()[axis]);
  return y;
}

DPMP_KEPT_BODY inline Tensor concat(Context& ctx, std::span<const Tensor> parts, int axis) {
  DPMP_CHECK(!parts.empty(), "concat: expected at least one part, got none");
  const Tensor& first = parts.front();
  axis = detail::axis_of(first.shape(), axis);
  index_t extent = 0;
  for (const Tensor& part : parts) {
    DPMP_CHECK(part.dtype() == first.dtype() && part.shape().rank() == first.shape().rank() &&
                   part.shape().with(axis, 0) == first.shape().with(axis, 0),
               "concat: expected parts that differ along axis ", axis, " only, got ", first.shape(), " ", first.dtype(),
               " and ", part.shape(), " ", part.dtype());
    extent += part.shape()[axis];
  }
  const Tensor whole = Tensor::empty(ctx, first.shape().with(axis, extent), first.dtype());
  index_t start = 0;
  for (const Tensor& part : parts) {
    detail::copy_slices(ctx, {part, 0}, {whole, start}, axis, part.shape()[axis]);
    start += part.shape()[axis];
  }
  return whole;
}
}  // namespace dpmp::inline DPMP_ABI
#endif
