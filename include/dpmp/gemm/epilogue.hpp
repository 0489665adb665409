// SPDX-License-Identifier: Apache-2.0
// What happens to a row of FP32 accumulators on its way into the output: bias, activation or its derivative, residual, one
// rounding.
#pragma once
#include "dpmp/gemm/spec.hpp"
#include "dpmp/runtime/launch.hpp"

namespace dpmp::inline DPMP_ABI::detail {
/// A spec's epilogue for operands of type In and outputs of type Out.
template <class In, class Out>
struct Epilogue {
  using Real = compute_t<Out>;
  const GemmSpec& spec;

  Out* output(index_t batch, index_t row) const {
    return static_cast<Out*>(spec.out.data) + batch * spec.out.batch_stride + row * spec.out.row_stride;
  }
  /// Where the rounded pre-activation of a row goes, or null.
  Out* saved(index_t batch, index_t row) const {
    if (!spec.activation_input) return nullptr;
    return static_cast<Out*>(spec.activation_input) + batch * spec.out.batch_stride + row * spec.out.row_stride;
  }
  const Out* residual(index_t batch, index_t row) const {
    if (!spec.residual) return nullptr;
    return static_cast<const Out*>(spec.residual) + batch * spec.residual_batch_stride + row * spec.residual_row_stride;
  }
  const Out* slope_at(index_t batch, index_t row) const {
    return static_cast<const Out*>(spec.slope_at) + batch * spec.out.batch_stride + row * spec.out.row_stride;
  }

  /// One row of accumulators `sum` [n], alpha applied; `sum` may be the output row itself.
  void finish(const Real* sum, index_t batch, index_t row) const {
    if (spec.slope_at) return scale(sum, batch, row);
    run_rows(0, 1,
             kernels::GemmEpilogue<In, Out>{sum, static_cast<const In*>(spec.bias), residual(batch, row), saved(batch, row),
                                            output(batch, row), spec.n, spec.activation});
  }
  /// One row whose rounded pre-activation a backend has already written to `pre` [n], which may be the output row itself.
  void finish_activation(const Out* pre, index_t batch, index_t row) const {
    if (spec.slope_at) return scale(pre, batch, row);
    run_rows(0, 1,
             kernels::ActivateAndAddResidual<Out>{pre, residual(batch, row), output(batch, row), spec.n, spec.activation});
  }

 private:
  template <class X>
  void scale(const X* x, index_t batch, index_t row) const {
    run_rows(0, 1, kernels::ScaleBySlope<X, Out>{x, slope_at(batch, row), output(batch, row), spec.n, spec.activation});
  }
};

/// Converts `rows` rows of `columns` elements: y = float(x), exactly.
template <class T>
void widen_rows(const T* x, index_t x_stride, float* y, index_t y_stride, index_t rows, index_t columns) {
  run_rows(0, rows, kernels::WidenRows<T>{x, y, columns, x_stride, y_stride});
}
}  // namespace dpmp::inline DPMP_ABI::detail
