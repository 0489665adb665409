// SPDX-License-Identifier: Apache-2.0
// Random token rows with anything but zeros around them, and per-sample gradients of them in double.
#pragma once
#include <limits>
#include <vector>

#include "cuda/device_array.cuh"
#include "dpmp/kernels/cuda/norms/sample_rows.cuh"

namespace test {
/// [samples * tokens, row_stride], of which `width` columns from `offset` on count; the others are NaN.
template <class T>
struct Rows {
  dpmp::index_t width, row_stride, offset = 0;
  std::vector<T> values;
  T& operator()(dpmp::index_t token, dpmp::index_t column) {
    return values[std::size_t(token * row_stride + offset + column)];
  }
  double at(dpmp::index_t token, dpmp::index_t column) const {
    return dpmp::to_float(values[std::size_t(token * row_stride + offset + column)]);
  }
};
template <class T>
Rows<T> slice_of_rows(Rng& rng, dpmp::index_t total_tokens, dpmp::index_t width, dpmp::index_t row_stride,
                      dpmp::index_t offset, double std = 1) {
  const T nan = dpmp::from_float<T>(std::numeric_limits<float>::quiet_NaN());
  Rows<T> x{width, row_stride, offset, std::vector<T>(std::size_t(total_tokens * row_stride), nan)};
  for (dpmp::index_t t = 0; t < total_tokens; ++t)
    for (dpmp::index_t k = 0; k < width; ++k) x(t, k) = dpmp::from_float<T>(float(rng.normal(std)));
  return x;
}
template <class T>
Rows<T> dense_rows(Rng& rng, dpmp::index_t total_tokens, dpmp::index_t width, double std = 1) {
  return slice_of_rows<T>(rng, total_tokens, width, width, 0, std);
}

/// Rows in device memory.
template <class T>
class DeviceRows {
 public:
  explicit DeviceRows(const Rows<T>& x) : values_(x.values), rows_{values_.data() + x.offset, x.width, x.row_stride} {}
  const dpmp::kernels::SampleRows<T>& rows() const { return rows_; }

 private:
  DeviceArray<T> values_;
  dpmp::kernels::SampleRows<T> rows_;
};

/// sum_t b_t a_t^T of one sample, [b.width, a.width].
template <class T>
std::vector<double> exact_gradient(dpmp::index_t sample, dpmp::index_t tokens, const Rows<T>& a, const Rows<T>& b) {
  std::vector<double> gradient(std::size_t(a.width * b.width), 0.0);
  for (dpmp::index_t t = sample * tokens; t < (sample + 1) * tokens; ++t)
    for (dpmp::index_t j = 0; j < b.width; ++j)
      for (dpmp::index_t k = 0; k < a.width; ++k) gradient[std::size_t(j * a.width + k)] += b.at(t, j) * a.at(t, k);
  return gradient;
}
/// |x_t|.
template <class T>
double exact_row_norm(const Rows<T>& x, dpmp::index_t token) {
  double squares = 0;
  for (dpmp::index_t k = 0; k < x.width; ++k) squares += x.at(token, k) * x.at(token, k);
  return std::sqrt(squares);
}
}  // namespace test
