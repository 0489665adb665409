// SPDX-License-Identifier: Apache-2.0
// add, multiply, scale and cast of whole tensors, without a tape: to prepare data, and what rules of autograd are made of.
// Computed on the device of `ctx`, where the operands have to be; in FP32 (double for f64), and rounded once.
#pragma once
#include "dpmp/tensor/tensor.hpp"

namespace dpmp::inline DPMP_ABI {
/// x + y in a new tensor. Throws unless both have one shape and one floating dtype.
Tensor add(Context& ctx, const Tensor& x, const Tensor& y);
/// sum += x, in place: whoever shares the data of `sum` sees it. Throws as add does.
void add_to(Context& ctx, const Tensor& x, const Tensor& sum);
/// x * y element by element in a new tensor. Throws as add does.
Tensor multiply(Context& ctx, const Tensor& x, const Tensor& y);
/// factor * x in a new tensor, the factor rounded to compute precision. Throws for i32.
Tensor scale(Context& ctx, const Tensor& x, double factor);
/// x rounded to another floating dtype, to nearest even, past FP32 between f64 and the two-byte dtypes; x itself, its data
/// shared, where it has that dtype. Throws for i32.
Tensor cast(Context& ctx, const Tensor& x, DType dtype);
/// Overwrites y, of x's shape, with x rounded to y's dtype in the same way.
void cast_to(Context& ctx, const Tensor& x, const Tensor& y);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/elementwise.hpp"
#include "dpmp/tensor/map.hpp"

namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline Tensor add(Context& ctx, const Tensor& x, const Tensor& y) {
  detail::check_alike("add", x, y);
  return detail::map<kernels::Add>(ctx, x, y);
}

DPMP_KEPT_BODY inline void add_to(Context& ctx, const Tensor& x, const Tensor& sum) {
  detail::check_alike("add_to", x, sum);
  detail::map_to<kernels::Add>(ctx, sum, sum, x);
}

DPMP_KEPT_BODY inline Tensor multiply(Context& ctx, const Tensor& x, const Tensor& y) {
  detail::check_alike("multiply", x, y);
  return detail::map<kernels::Multiply>(ctx, x, y);
}

DPMP_KEPT_BODY inline Tensor scale(Context& ctx, const Tensor& x, double factor) {
  return detail::map_with<kernels::Scale>(ctx, x, factor);
}

DPMP_KEPT_BODY inline Tensor cast(Context& ctx, const Tensor& x, DType dtype) {
  if (x.dtype() == dtype && is_real(dtype)) return x;
  const Tensor y = Tensor::empty(ctx, x.shape(), dtype);
  cast_to(ctx, x, y);
  return y;
}

DPMP_KEPT_BODY inline void cast_to(Context& ctx, const Tensor& x, const Tensor& y) {
  DPMP_CHECK(is_real(x.dtype()) && is_real(y.dtype()), "cast: expected two floating dtypes, got ", x.dtype(), " to ",
             y.dtype());
  check_shape("the result of a cast", y, x.shape());
  check_device("the operand of a cast", x, ctx);
  check_device("the result of a cast", y, ctx);
  if (x.dtype() == y.dtype()) return ctx.backend().copy(y.raw(), x.raw(), x.bytes());
  if (y.dtype() == DType::f64 && size_of(x.dtype()) == 2) return cast_to(ctx, cast(ctx, x, DType::f32), y);
  dispatch_real(x.dtype(), [&](auto from) {
    dispatch_real(y.dtype(), [&](auto to) {
      using From = typename decltype(from)::type;
      using To = typename decltype(to)::type;
      if constexpr (!std::is_same_v<From, To> && (!std::is_same_v<To, double> || std::is_same_v<From, float>))
        launch_library_elements(ctx, x.numel(), kernels::Cast<From, To>{x.data<From>(), y.data<To>()});
    });
  });
}
}  // namespace dpmp::inline DPMP_ABI
#endif
