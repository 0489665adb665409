// SPDX-License-Identifier: Apache-2.0
// Whether a library's product gives a row the same bits wherever it stands: identical rows are multiplied in all places, and
// must come out identical. What a kernel adds in which order depends on shapes and strides, never on values, so numbers that
// tell orders apart tell it for all.
#pragma once
#include <cstring>
#include <random>
#include <vector>

#include "dpmp/gemm/spec.hpp"

namespace dpmp::inline DPMP_ABI::detail {
/// run(spec) multiplies as the product in question does, whose extents, layouts and flags are those of `s`; its pointers are
/// replaced. No epilogue: that is element by element. In, Out: types of operands and output.
template <class In, class Out, class Run>
bool is_position_free(GemmSpec s, const Run& run) {
  const auto span = [&](index_t rows, index_t columns, index_t row_stride, index_t batch_stride) {
    return std::size_t((s.batch - 1) * batch_stride + (rows - 1) * row_stride + columns);
  };
  const auto stored = [&](const GemmOperand& x, index_t rows, index_t columns) {
    return x.transposed ? span(columns, rows, x.row_stride, x.batch_stride)
                        : span(rows, columns, x.row_stride, x.batch_stride);
  };
  const auto fill = [&](std::vector<In>& to, const GemmOperand& x, index_t rows, index_t columns, const auto& value) {
    const index_t row_step = x.transposed ? 1 : x.row_stride, column_step = x.transposed ? x.row_stride : 1;
    for (index_t i = 0; i < s.batch; ++i)
      for (index_t r = 0; r < rows; ++r)
        for (index_t c = 0; c < columns; ++c)
          to[std::size_t(i * x.batch_stride + r * row_step + c * column_step)] = value(r, c);
  };
  std::vector<In> a(stored(s.a, s.m, s.k)), b(stored(s.b, s.k, s.n)), row(static_cast<std::size_t>(s.k)),
      columns(static_cast<std::size_t>(s.k * s.n));
  std::vector<Out> out(span(s.m, s.n, s.out.row_stride, s.out.batch_stride));
  s.a.data = a.data(), s.b.data = b.data(), s.out.data = out.data();
  s.bias = s.slope_at = s.residual = nullptr;
  s.activation_input = s.row_sums = nullptr;
  s.row_squares = nullptr;
  s.activation = GemmActivation::none;
  std::mt19937_64 engine(20);
  std::normal_distribution<float> normal;
  for (int trial = 0; trial < 3; ++trial) {
    // Of like size; of very different sizes; and terms that cancel, so that nothing but roundings is left.
    const auto number = [&](std::size_t k) {
      const float x = normal(engine);
      return from_float<In>(trial == 1 ? std::ldexp(x, int(engine() % 12)) : trial == 2 && k % 2 ? -x : x);
    };
    for (std::size_t k = 0; k < row.size(); ++k) row[k] = number(k);
    for (std::size_t k = 0; k < columns.size(); ++k) columns[k] = number(k / std::size_t(s.n));
    fill(a, s.a, s.m, s.k, [&](index_t, index_t k) { return row[std::size_t(k)]; });
    fill(b, s.b, s.k, s.n, [&](index_t k, index_t j) { return columns[std::size_t(k * s.n + j)]; });
    std::fill(out.begin(), out.end(), Out{});
    run(s);
    for (index_t i = 0; i < s.batch; ++i)
      for (index_t r = 0; r < s.m; ++r)
        if (std::memcmp(out.data() + i * s.out.batch_stride + r * s.out.row_stride, out.data(),
                        std::size_t(s.n) * sizeof(Out)) != 0)
          return false;
  }
  return true;
}
}  // namespace dpmp::inline DPMP_ABI::detail
