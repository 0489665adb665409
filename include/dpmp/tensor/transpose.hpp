// SPDX-License-Identifier: Apache-2.0
// transpose of a tensor, without a tape: a copy, no arithmetic, on the device of `ctx`, where the operand has to be.
#pragma once
#include "dpmp/tensor/tensor.hpp"

namespace dpmp::inline DPMP_ABI {
/// x with two axes exchanged, in a new tensor; x itself, its data shared, for one and the same axis. Negative axes count
/// from the back. Throws for i32.
Tensor transpose(Context& ctx, const Tensor& x, int i, int j);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/permute.hpp"
#include "dpmp/runtime/launch.hpp"

namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline Tensor transpose(Context& ctx, const Tensor& x, int i, int j) {
  const Shape& s = x.shape();
  const Shape shape = s.with(i, s[j]).with(j, s[i]);
  i = i < 0 ? i + s.rank() : i;
  j = j < 0 ? j + s.rank() : j;
  check_device("an operand", x, ctx);
  if (i == j) return x;
  if (i > j) std::swap(i, j);
  const Tensor y = Tensor::empty(ctx, shape, x.dtype());
  const index_t outer = s.numel(0, i), middle = s.numel(i + 1, j), inner = s.numel(j + 1, s.rank());
  if (y.numel() > 0)
    dispatch_real(x.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      launch_library_rows(ctx, outer * s[j] * middle, s[i] * inner,
                          kernels::SwapAxes<T>{x.data<T>(), y.data<T>(), s[i], middle, s[j], inner});
    });
  return y;
}
}  // namespace dpmp::inline DPMP_ABI
#endif
