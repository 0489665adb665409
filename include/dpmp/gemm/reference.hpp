// SPDX-License-Identifier: Apache-2.0
// The product that the others are compared with: three loops in double, one rounding at the end of each stored value.
#pragma once
#include "dpmp/gemm/epilogue.hpp"

namespace dpmp::inline DPMP_ABI {
namespace detail {
/// The T nearest to x, ties to even, denormal bf16 flushed. Rounding through FP32 twice would err; rounding to odd first
/// does not.
template <class T>
T round_once(double x) {
  if constexpr (std::is_same_v<T, double> || std::is_same_v<T, float>) {
    return T(x);
  } else {
    float y = float(x);
    if (std::isfinite(y) && double(y) != x) {
      if (std::abs(double(y)) > std::abs(x)) y = std::nextafter(y, 0.0f);
      y = float_of(bits_of(y) | 1u);
    }
    T z = from_float<T>(y);
    if constexpr (std::is_same_v<T, bf16>) z.bits = (z.bits & 0x7f80u) == 0u ? std::uint16_t(z.bits & 0x8000u) : z.bits;
    return z;
  }
}

/// x Phi(x) exactly (erf), or with the tanh approximation of Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.
inline double reference_activation(GemmActivation activation, double x) {
  switch (activation) {
    case GemmActivation::gelu_erf: return 0.5 * x * (1 + std::erf(x * 0.70710678118654752440));
    case GemmActivation::gelu_tanh: return 0.5 * x * (1 + std::tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    case GemmActivation::none: break;
  }
  return x;
}

/// Its derivative.
inline double reference_slope(GemmActivation activation, double x) {
  switch (activation) {
    case GemmActivation::gelu_erf:
      return 0.5 * (1 + std::erf(x * 0.70710678118654752440)) + x * 0.39894228040143267794 * std::exp(-0.5 * x * x);
    case GemmActivation::gelu_tanh: {
      const double c = 0.79788456080286535588, y = std::tanh(c * (x + 0.044715 * x * x * x));
      return 0.5 * (1 + y) + 0.5 * x * (1 - y * y) * c * (1 + 3 * 0.044715 * x * x);
    }
    case GemmActivation::none: break;
  }
  return 1;
}

template <class In, class Out>
void reference_product(const GemmSpec& s) {
  const Epilogue<In, Out> at{s};
  const auto element = [](const GemmOperand& x, index_t batch, index_t row, index_t column) {
    if (x.transposed) std::swap(row, column);
    return double(to_float(static_cast<const In*>(x.data)[batch * x.batch_stride + row * x.row_stride + column]));
  };
  const index_t depth = s.alpha == 0 ? 0 : s.k;
  for (index_t batch = 0; batch < s.batch; ++batch)
    for (index_t i = 0; i < s.m; ++i) {
      if (s.row_sums) {
        double sum = 0;
        for (index_t k = 0; k < depth; ++k) sum += element(s.a, batch, i, k);
        static_cast<Out*>(s.row_sums)[batch * s.m + i] = round_once<Out>(sum);
      }
      const auto row = at.row(batch, i);
      double squares = 0;
      for (index_t j = 0; j < s.n; ++j) {
        double x = 0;
        for (index_t k = 0; k < depth; ++k) x += element(s.a, batch, i, k) * element(s.b, batch, k, j);
        x *= double(s.alpha);
        Out& y = row.output[j];
        if (s.accumulate) x += double(to_float(y));
        if (row.bias) x += double(to_float(row.bias[j]));
        if (row.slope_at) {
          x *= reference_slope(s.activation, double(to_float(row.slope_at[j])));
        } else if (s.activation != GemmActivation::none) {
          const Out pre = round_once<Out>(x);
          if (row.saved) row.saved[j] = pre;
          x = reference_activation(s.activation, double(to_float(pre)));
        }
        if (row.residual) x += double(to_float(row.residual[j]));
        y = round_once<Out>(x);
        squares += double(to_float(y)) * double(to_float(y));
      }
      if (s.row_squares) s.row_squares[batch * s.m + i] = squares;
    }
}
}  // namespace detail

/// What gemm computes, slowly. All dtypes, any layout. Throws what check_gemm throws.
inline void gemm_reference(const GemmSpec& spec) {
  check_gemm(spec);
  dispatch_stored(spec.a.dtype, [&](auto in) {
    using In = typename decltype(in)::type;
    if (spec.out.dtype == spec.a.dtype)
      detail::reference_product<In, In>(spec);
    else
      detail::reference_product<In, compute_t<In>>(spec);
  });
}
}  // namespace dpmp::inline DPMP_ABI
