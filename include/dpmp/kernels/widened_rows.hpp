// SPDX-License-Identifier: Apache-2.0
// Rows of per-sample operands on their way into sums in double.
#pragma once
#include "dpmp/runtime/team_host.hpp"

namespace dpmp::inline DPMP_ABI::kernels {
/// output[i, :] = factors_i x[i, :] in double, exact for FP32 and 16-bit numbers; zeros where the factor is 0, by select,
/// whatever x holds. Not scaled: x itself where the factor is above 0.
template <class T>
struct WidenedRows {
  using Real = float;    // decides the instruction set only
  const T* x;            // [rows, width]
  const float* factors;  // [rows]
  bool scaled;
  double* output;  // [rows, width]
  index_t width;

  template <int W>
  DPMP_HOST void operator()(HostTeam<float, W>, index_t row) const {
    const bool counts = factors[row] > 0;
    const double factor = scaled ? double(factors[row]) : 1.0;
    for (index_t j = 0; j < width; ++j) {
      const double value = double(to_float(x[row * width + j])) * factor;
      output[row * width + j] = counts ? value : 0.0;
    }
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
