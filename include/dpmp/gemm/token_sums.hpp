// SPDX-License-Identifier: Apache-2.0
// Sums over a sample's tokens on any device: of a bias' output gradients, and of a product's operand.
#pragma once
#include "dpmp/kernels/token_sum.hpp"
#include "dpmp/runtime/launch.hpp"

namespace dpmp::inline DPMP_ABI::detail {
/// [samples, tokens, width] numbers, rows and samples so many elements apart.
template <class T>
struct TokenRows {
  const T* data;
  index_t samples, tokens, width, token_stride, sample_stride;
};

/// How a device cuts sums over a sample's tokens. A GPU has to be filled; on a CPU the samples do that.
inline kernels::TokenSlices token_slices_on(const Context& ctx, index_t samples, index_t tokens) {
  return ctx.on_cuda() ? kernels::token_slices(samples, tokens, rows_that_fill_device(ctx))
                       : kernels::fixed_token_slices(tokens);
}

/// sums [samples, width]: over tokens, in compute precision and rounded once; squares [samples], or null: |sums[i]|^2.
template <class T, class Out>
void sum_tokens(Context& ctx, const TokenRows<T>& x, Out* sums, double* squares) {
  const kernels::TokenSlices slices = token_slices_on(ctx, x.samples, x.tokens);
  const auto sum_slices = [&](auto* output, double* squares_of_whole) {
    using Part = std::remove_pointer_t<decltype(output)>;
    launch_library_rows(ctx, x.samples * slices.count, slices.length * x.width,
                        kernels::TokenSum<T, Part>{x.data, output, squares_of_whole, x.tokens, x.width, x.token_stride,
                                                   x.sample_stride, slices});
  };
  if (slices.count == 1) return sum_slices(sums, squares);
  using Real = compute_t<T>;
  const Buffer parts = ctx.allocate(x.samples * slices.count * x.width * index_t(sizeof(Real)));
  sum_slices(static_cast<Real*>(parts.data()), nullptr);
  launch_library_rows(
      ctx, x.samples, slices.count * x.width,
      kernels::JoinSlices<Real, Out>{static_cast<const Real*>(parts.data()), sums, squares, slices.count, x.width});
}
}  // namespace dpmp::inline DPMP_ABI::detail
