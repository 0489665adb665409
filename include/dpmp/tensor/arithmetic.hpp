// SPDX-License-Identifier: Apache-2.0
// subtract, divide and shift of whole tensors, without a tape; see elementwise.hpp.
#pragma once
#include "dpmp/tensor/tensor.hpp"

namespace dpmp::inline DPMP_ABI {
/// x - y in a new tensor. Throws unless both have one shape and one floating dtype.
Tensor subtract(Context& ctx, const Tensor& x, const Tensor& y);
/// x / y in a new tensor, in the same way. Nothing is thrown for a divisor of 0.
Tensor divide(Context& ctx, const Tensor& x, const Tensor& y);
/// x + constant in a new tensor, the constant rounded to compute precision. Throws for i32.
Tensor shift(Context& ctx, const Tensor& x, double constant);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/elementwise.hpp"
#include "dpmp/tensor/map.hpp"

namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline Tensor subtract(Context& ctx, const Tensor& x, const Tensor& y) {
  detail::check_alike("subtract", x, y);
  return detail::map<kernels::Subtract>(ctx, x, y);
}

DPMP_KEPT_BODY inline Tensor divide(Context& ctx, const Tensor& x, const Tensor& y) {
  detail::check_alike("divide", x, y);
  return detail::map<kernels::Divide>(ctx, x, y);
}

DPMP_KEPT_BODY inline Tensor shift(Context& ctx, const Tensor& x, double constant) {
  return detail::map_with<kernels::Shift>(ctx, x, constant);
}
}  // namespace dpmp::inline DPMP_ABI
#endif
