// SPDX-License-Identifier: Apache-2.0
// matmul: products of matrices of one sample with each other. Products with a parameter are linear's (rules/linear.hpp).
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// op(x) [B, .., m, k] times op(y) [B, .., k, n] -> [B, .., m, n], matrix by matrix; the leading axes are equal.
/// transpose_x: x is stored as [B, .., k, m]; transpose_y: y as [B, .., n, k].
Variable matmul(const Variable& x, const Variable& y, bool transpose_x = false, bool transpose_y = false);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/gemm/matmul.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
struct Matmul {
  static constexpr std::string_view name = "matmul";
  Variable x, y;
  bool transpose_x, transpose_y;

  // With X = op(x) and Y = op(y): dX = G Y^T and dY = X^T G; where an operand is read transposed, its gradient is too.
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const Tensor &left = x.value(), &right = y.value();
    if (pass.needs(x.slot()))
      pass.accumulate(x.slot(), transpose_x ? matmul(pass.ctx, right, gradient, transpose_y, true)
                                            : matmul(pass.ctx, gradient, right, false, !transpose_y));
    if (pass.needs(y.slot()))
      pass.accumulate(y.slot(), transpose_y ? matmul(pass.ctx, gradient, left, true, transpose_x)
                                            : matmul(pass.ctx, left, gradient, !transpose_x, false));
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable matmul(const Variable& x, const Variable& y, bool transpose_x, bool transpose_y) {
  Tape& tape = Tape::common(x, y);
  const Shape& a = x.shape();
  const Shape& b = y.shape();
  DPMP_CHECK(a.rank() >= 3 && a.rank() == b.rank() && a.with(-1, 0).with(-2, 0) == b.with(-1, 0).with(-2, 0),
             "matmul: expected x [B, .., m, k] and y [B, .., k, n] with equal leading axes, got ", a, " and ", b);
  return tape.record(matmul(tape.ctx(), x.value(), y.value(), transpose_x, transpose_y),
                     tape.needs_gradient(x) || tape.needs_gradient(y), rules::Matmul{x, y, transpose_x, transpose_y});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
