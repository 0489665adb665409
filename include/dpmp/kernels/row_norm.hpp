// SPDX-License-Identifier: Apache-2.0
// Euclidean norms of rows, which neither overflow nor underflow: squares of FP32 and 16-bit numbers are summed in double,
// rows of f64 numbers are scaled by a power of two (exact) first.
#pragma once
#include <cmath>

#include "dpmp/core/low_precision.hpp"
#include "dpmp/runtime/math.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// norms[row] = |x[row, :]|, relative error below (width + 8) 2^-54 (of f64 rows squares below 2^-1022 of the largest one
/// are lost: far below that bound). NaN or Inf in the row gives a non-finite norm.
template <class T>
struct RowNorm {
  using Real = compute_t<T>;
  using Storage = T;
  const T* x;     // [rows, width]
  double* norms;  // [rows]
  index_t width;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const T* r = x + row * width;
    if constexpr (!std::is_same_v<Real, double>) {
      norms[row] = std::sqrt(team.sum_of_squares(width, [&](auto at) DPMP_LAMBDA { return at.load(r); }));
    } else {
      norms[row] = scaled(team, r);
    }
  }

 private:
  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD double scaled(const Team& team, const T* r) const {
    const Real largest = team.max(width, Real(0), [&](auto at) DPMP_LAMBDA { return abs(at.load(r)); });
    // The largest element becomes a number in [1, 2) (Inf stays Inf). ldexp by the exponent in two halves, because
    // 2^-exponent itself may not be a normal number.
    const int exponent = largest > Real(0) && std::isfinite(largest) ? std::ilogb(largest) : 0;
    const Real first = std::ldexp(Real(1), -exponent / 2), second = std::ldexp(Real(1), -exponent + exponent / 2);
    const Real sum = team.sum(width, [&](auto at) DPMP_LAMBDA {
      const auto v = at.load(r) * first * second;
      return v * v;
    });
    return std::ldexp(std::sqrt(double(sum)), exponent);
  }
};

/// squares[row] = |x[row, :]|^2 of per-sample vectors, summed in double: squares of FP32 and 16-bit numbers neither overflow
/// nor underflow there, so one reading is enough. NaN or Inf in the row gives a non-finite square.
template <class T>
struct VectorSquares {
  using Real = compute_t<T>;
  using Storage = T;
  const T* x;       // [rows, width]
  double* squares;  // [rows]
  index_t width;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    squares[row] = team.sum_of_squares(width, [&](auto at) DPMP_LAMBDA { return at.load(x + row * width); });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
