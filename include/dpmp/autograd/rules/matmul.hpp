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
#include "dpmp/gemm/gemm.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
/// A stack of stored matrices [.., rows, columns], read as they are or transposed.
struct MatrixStack {
  const Tensor& tensor;
  bool transposed = false;
  MatrixStack flipped() const { return {tensor, !transposed}; }
  index_t rows() const { return tensor.shape()[transposed ? -1 : -2]; }
  index_t columns() const { return tensor.shape()[transposed ? -2 : -1]; }
  index_t stride() const { return tensor.shape()[-2] * tensor.shape()[-1]; }
};

/// x y into a new tensor of this shape.
inline Tensor stacked_product(Context& ctx, MatrixStack x, MatrixStack y, const Shape& shape) {
  const Tensor z = Tensor::empty(ctx, shape, x.tensor.dtype());
  const auto operand = [](const MatrixStack& s) {
    return GemmOperand{s.tensor.raw(), s.tensor.dtype(), s.tensor.shape()[-1], s.stride(), s.transposed};
  };
  gemm(ctx, {.m = x.rows(),
             .n = y.columns(),
             .k = x.columns(),
             .batch = shape.numel(0, shape.rank() - 2),
             .a = operand(x),
             .b = operand(y),
             .out = {.data = z.raw(), .dtype = z.dtype(), .row_stride = shape[-1], .batch_stride = shape[-2] * shape[-1]}});
  return z;
}

struct Matmul {
  static constexpr std::string_view name = "matmul";
  Variable x, y;
  bool transpose_x, transpose_y;

  // With X = op(x) and Y = op(y): dX = G Y^T and dY = X^T G; where an operand is read transposed, its gradient is too.
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const MatrixStack left{x.value(), transpose_x}, right{y.value(), transpose_y}, g{gradient};
    if (pass.needs(x.slot()))
      pass.accumulate(x.slot(), transpose_x ? stacked_product(pass.ctx, right, g.flipped(), x.shape())
                                            : stacked_product(pass.ctx, g, right.flipped(), x.shape()));
    if (pass.needs(y.slot()))
      pass.accumulate(y.slot(), transpose_y ? stacked_product(pass.ctx, g.flipped(), left, y.shape())
                                            : stacked_product(pass.ctx, left.flipped(), g, y.shape()));
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable matmul(const Variable& x, const Variable& y, bool transpose_x, bool transpose_y) {
  Tape& tape = Tape::common(x, y);
  const Shape& a = x.shape();
  const Shape& b = y.shape();
  DPMP_CHECK(a.rank() >= 3 && a.rank() == b.rank() && a.with(-1, 0).with(-2, 0) == b.with(-1, 0).with(-2, 0),
             "matmul: expected x [B, .., m, k] and y [B, .., k, n] with equal leading axes, got ", a, " and ", b);
  DPMP_CHECK(x.dtype() == y.dtype(), "matmul: expected values of one dtype, got ", x.dtype(), " and ", y.dtype());
  const rules::MatrixStack left{x.value(), transpose_x}, right{y.value(), transpose_y};
  DPMP_CHECK(left.columns() == right.rows(), "matmul: expected op(x) [.., m, k] and op(y) [.., k, n], got x ", a,
             transpose_x ? " transposed" : "", " and y ", b, transpose_y ? " transposed" : "");
  const Tensor z = rules::stacked_product(tape.ctx(), left, right, a.with(-2, left.rows()).with(-1, right.columns()));
  return tape.record(z, tape.needs_gradient(x) || tape.needs_gradient(y), rules::Matmul{x, y, transpose_x, transpose_y});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
