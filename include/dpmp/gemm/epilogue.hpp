// SPDX-License-Identifier: Apache-2.0
// What happens to a row of FP32 accumulators on its way into the output: bias, activation, residual, one rounding.
#pragma once
#include <cmath>

#include "dpmp/gemm/spec.hpp"

namespace dpmp::inline DPMP_ABI::detail {
/// from_float, with denormal bf16 results flushed to signed zero: see GemmOperand.
template <class T>
DPMP_HOST T store_rounded(compute_t<T> x) {
  T y = from_float<T>(x);
  if constexpr (std::is_same_v<T, bf16>) y.bits = (y.bits & 0x7f80u) == 0u ? std::uint16_t(y.bits & 0x8000u) : y.bits;
  return y;
}

/// x Phi(x) exactly (erf), or with the tanh approximation of Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.
template <class R>
R activate(GemmActivation activation, R x) {
  const R half = R(0.5), one = R(1);
  switch (activation) {
    case GemmActivation::gelu_erf: return half * x * (one + std::erf(x * R(0.70710678118654752440)));
    case GemmActivation::gelu_tanh:
      return half * x * (one + std::tanh(R(0.79788456080286535588) * (x + R(0.044715) * x * x * x)));
    case GemmActivation::none: break;
  }
  return x;
}

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

  /// One row of accumulators `sum` [n], alpha applied; `sum` may be the output row itself.
  void finish(const Real* sum, index_t batch, index_t row) const {
    const In* bias = static_cast<const In*>(spec.bias);
    const Out* add = residual(batch, row);
    Out *y = output(batch, row), *pre = saved(batch, row);
    const index_t n = spec.n;
    if (spec.activation == GemmActivation::none) {
      if (bias && add)
        for (index_t j = 0; j < n; ++j) y[j] = store_rounded<Out>((sum[j] + to_float(bias[j])) + to_float(add[j]));
      else if (bias)
        for (index_t j = 0; j < n; ++j) y[j] = store_rounded<Out>(sum[j] + to_float(bias[j]));
      else if (add)
        for (index_t j = 0; j < n; ++j) y[j] = store_rounded<Out>(sum[j] + to_float(add[j]));
      else
        for (index_t j = 0; j < n; ++j) y[j] = store_rounded<Out>(sum[j]);
      return;
    }
    for (index_t j = 0; j < n; ++j) {
      const Out x = store_rounded<Out>(bias ? sum[j] + to_float(bias[j]) : sum[j]);
      if (pre) pre[j] = x;
      const Real activated = activate(spec.activation, to_float(x));
      y[j] = store_rounded<Out>(add ? activated + to_float(add[j]) : activated);
    }
  }
  /// One row whose rounded pre-activation a backend has already written to `pre` [n], which may be the output row itself.
  void finish_activation(const Out* pre, index_t batch, index_t row) const {
    const Out* add = residual(batch, row);
    Out* y = output(batch, row);
    for (index_t j = 0; j < spec.n; ++j) {
      const Real activated = activate(spec.activation, to_float(pre[j]));
      y[j] = store_rounded<Out>(add ? activated + to_float(add[j]) : activated);
    }
  }
};

/// Converts `rows` rows of `columns` elements: y = float(x), exactly.
template <class T>
void widen_rows(const T* x, index_t x_stride, float* y, index_t y_stride, index_t rows, index_t columns) {
  for (index_t r = 0; r < rows; ++r)
    for (index_t j = 0; j < columns; ++j) y[r * y_stride + j] = to_float(x[r * x_stride + j]);
}
}  // namespace dpmp::inline DPMP_ABI::detail
