// SPDX-License-Identifier: Apache-2.0
// What happens to a row of FP32 accumulators on its way into the output: bias, activation or its derivative, residual, one
// rounding. And the sums of rows that a product may give with it.
#pragma once
#include "dpmp/gemm/spec.hpp"
#include "dpmp/kernels/per_sample_tile.hpp"
#include "dpmp/kernels/token_sum.hpp"
#include "dpmp/runtime/launch.hpp"
#include "dpmp/tensor/token_sums.hpp"

namespace dpmp::inline DPMP_ABI::detail {
/// What becomes of the sum [n] of row `row` of a product of the batch. bias [n]: null where it is in the sum.
template <class X, class In, class Out>
DPMP_HD kernels::GemmEpilogue<X, In, Out> epilogue_of_row(const GemmSpec& s, const X* sum, const In* bias, index_t batch,
                                                          index_t row) {
  const index_t at = batch * s.out.batch_stride + row * s.out.row_stride,
                at_residual = batch * s.residual_batch_stride + row * s.residual_row_stride;
  return {sum,
          bias,
          s.slope_at ? static_cast<const Out*>(s.slope_at) + at : nullptr,
          s.residual ? static_cast<const Out*>(s.residual) + at_residual : nullptr,
          s.activation_input ? static_cast<Out*>(s.activation_input) + at : nullptr,
          static_cast<Out*>(s.out.data) + at,
          s.n,
          s.activation};
}

/// A spec's epilogue on the host, for operands of type In and outputs of type Out.
template <class In, class Out>
struct Epilogue {
  using Real = compute_t<Out>;
  const GemmSpec& spec;

  /// Where the row's numbers are, but for its sum.
  kernels::GemmEpilogue<Real, In, Out> row(index_t batch, index_t row) const {
    return epilogue_of_row<Real, In, Out>(spec, nullptr, static_cast<const In*>(spec.bias), batch, row);
  }
  Out* output(index_t batch, index_t row) const { return this->row(batch, row).output; }
  /// One row of accumulators `sum` [n], alpha applied; `sum` may be the output row itself.
  void finish(const Real* sum, index_t batch, index_t row) const {
    run_library_rows(0, 1, epilogue_of_row<Real, In, Out>(spec, sum, static_cast<const In*>(spec.bias), batch, row));
  }
  /// One row whose rounded pre-activation, bias included, a backend has already written to `pre` [n], which may be the
  /// output row itself.
  void finish_activation(const Out* pre, index_t batch, index_t row) const {
    run_library_rows(0, 1, epilogue_of_row<Out, In, Out>(spec, pre, nullptr, batch, row));
  }
};

/// spec.row_sums by a kernel of its own, in compute precision and rounded once.
inline void sum_rows_of_a(Context& ctx, const GemmSpec& s) {
  dispatch_real(s.a.dtype, [&](auto tag) {
    using In = typename decltype(tag)::type;
    using Real = compute_t<In>;
    const TokenSums sums(
        ctx, {.samples = s.batch, .tokens = s.k, .width = s.m, .dtype = dtype_of<Real>, .squares = TokenSquares::none});
    launch_library_rows(ctx, sums.rows(), sums.slices().length * s.m,
                        kernels::TokenSum<In>{static_cast<const In*>(s.a.data), sums.sums<Real>(), nullptr, s.k, s.m,
                                              s.a.row_stride, s.a.batch_stride, sums.slices()});
    if (s.out.dtype == s.a.dtype)
      sums.join_into<Real>(ctx, static_cast<In*>(s.row_sums));
    else
      sums.join_into<Real>(ctx, static_cast<Real*>(s.row_sums));
  });
}

/// spec.row_squares of `count` rows that are finished.
template <class Out>
void square_rows(const GemmSpec& s, index_t batch, index_t first, index_t count) {
  const Out* out = static_cast<const Out*>(s.out.data) + batch * s.out.batch_stride + first * s.out.row_stride;
  run_library_rows(0, count, kernels::SquaredRows<Out>{out, s.row_squares + batch * s.m + first, s.n, s.out.row_stride});
}

/// Converts `rows` rows of `columns` elements: y = float(x), exactly.
template <class T>
void widen_rows(const T* x, index_t x_stride, float* y, index_t y_stride, index_t rows, index_t columns) {
  run_library_rows(0, rows, kernels::WidenRows<T>{x, y, columns, x_stride, y_stride});
}
}  // namespace dpmp::inline DPMP_ABI::detail
