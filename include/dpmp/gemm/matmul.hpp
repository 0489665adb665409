// SPDX-License-Identifier: Apache-2.0
// Matrix products of tensors, without a tape: stacks of matrices, one product for each, on the device of `ctx`.
#pragma once
#include "dpmp/gemm/interface.hpp"
#include "dpmp/tensor/tensor.hpp"

namespace dpmp::inline DPMP_ABI {
/// A tensor [.., rows, columns] as a stack of stored matrices, each read as it is or transposed.
struct MatrixStack {
  Tensor tensor;
  bool transposed = false;

  index_t rows() const { return tensor.shape()[transposed ? -1 : -2]; }
  index_t columns() const { return tensor.shape()[transposed ? -2 : -1]; }
  index_t count() const { return tensor.shape().numel(0, tensor.shape().rank() - 2); }
};

/// z = x y, matrix by matrix, as a spec to which an epilogue may be added. x and y have as many matrices as z [.., m, n], or
/// y has one for all of them. Throws where extents do not fit.
GemmSpec product_of(const MatrixStack& x, const MatrixStack& y, const Tensor& z);
/// op(x) [.., m, k] times op(y) [.., k, n] -> [.., m, n] in a new tensor of their dtype, matrix by matrix; the leading axes
/// are equal. transpose_x: x is stored as [.., k, m]; transpose_y: y as [.., n, k]. Sums in FP32 (double for f64).
Tensor matmul(Context& ctx, const Tensor& x, const Tensor& y, bool transpose_x = false, bool transpose_y = false);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/gemm/gemm.hpp"

namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline GemmSpec product_of(const MatrixStack& x, const MatrixStack& y, const Tensor& z) {
  const index_t m = x.rows(), n = y.columns(), batch = x.count(), columns = z.shape()[-1], stride = m * n;
  DPMP_CHECK(
      x.columns() == y.rows() && (y.count() == batch || y.count() == 1) && columns == n && z.numel() == batch * stride,
      "expected a product of matrices [.., m, k] and [.., k, n] into [.., m, n], got ", x.tensor.shape(),
      x.transposed ? " transposed, " : ", ", y.tensor.shape(), y.transposed ? " transposed, " : ", ", z.shape());
  const auto operand = [&](const MatrixStack& s) {
    const Shape& stored = s.tensor.shape();
    return GemmOperand{.data = s.tensor.raw(),
                       .dtype = s.tensor.dtype(),
                       .row_stride = stored[-1],
                       .batch_stride = s.count() == batch ? stored[-2] * stored[-1] : 0,
                       .transposed = s.transposed};
  };
  return {.m = m,
          .n = n,
          .k = x.columns(),
          .batch = batch,
          .a = operand(x),
          .b = operand(y),
          .out = {.data = z.raw(), .dtype = z.dtype(), .row_stride = n, .batch_stride = stride}};
}

DPMP_KEPT_BODY inline Tensor matmul(Context& ctx, const Tensor& x, const Tensor& y, bool transpose_x, bool transpose_y) {
  const Shape &a = x.shape(), &b = y.shape();
  DPMP_CHECK(a.rank() >= 2 && a.rank() == b.rank() && a.with(-1, 0).with(-2, 0) == b.with(-1, 0).with(-2, 0),
             "matmul: expected x [.., m, k] and y [.., k, n] with equal leading axes, got ", a, " and ", b);
  DPMP_CHECK(x.dtype() == y.dtype(), "matmul: expected values of one dtype, got ", x.dtype(), " and ", y.dtype());
  for (const Tensor* operand : {&x, &y}) check_device("an operand of matmul", *operand, ctx);
  const MatrixStack left{x, transpose_x}, right{y, transpose_y};
  DPMP_CHECK(left.columns() == right.rows(), "matmul: expected op(x) [.., m, k] and op(y) [.., k, n], got x ", a,
             transpose_x ? " transposed" : "", " and y ", b, transpose_y ? " transposed" : "");
  const Tensor z = Tensor::empty(ctx, a.with(-2, left.rows()).with(-1, right.columns()), x.dtype());
  gemm(ctx, product_of(left, right, z));
  return z;
}
}  // namespace dpmp::inline DPMP_ABI
#endif
