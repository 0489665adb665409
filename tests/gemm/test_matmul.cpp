// SPDX-License-Identifier: Apache-2.0
// matmul of plain tensors and the specs of their products, against loops over the stored elements in double.
#include <doctest/doctest.h>
#include <cmath>

#include "dpmp/gemm/gemm.hpp"
#include "dpmp/gemm/matmul.hpp"
#include "support/errors.hpp"
#include "support/tensors.hpp"

using namespace dpmp;
using test::refuses;

namespace {
/// Element [i, j] of op(x) of matrix b.
double element(const std::vector<double>& x, const Shape& stored, bool transposed, index_t b, index_t i, index_t j) {
  if (transposed) std::swap(i, j);
  return x[std::size_t((b * stored[-2] + i) * stored[-1] + j)];
}
/// z [.., m, n] against op(x) op(y); y may have one matrix for all. FP32 sums of k products (double for f64), rounded once.
void check_product(const Tensor& z, const Tensor& x, bool transpose_x, const Tensor& y, bool transpose_y) {
  const std::vector<double> found = z.to_doubles(), u = x.to_doubles(), v = y.to_doubles();
  const index_t m = z.shape()[-2], n = z.shape()[-1], k = x.shape()[transpose_x ? -2 : -1],
                batch = z.shape().numel(0, z.shape().rank() - 2);
  const bool shared = y.shape().rank() == 2;
  const double compute = z.dtype() == DType::f64 ? 0x1p-53 : 0x1p-24;
  for (index_t b = 0; b < batch; ++b)
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < n; ++j) {
        double sum = 0, size = 0;
        for (index_t t = 0; t < k; ++t) {
          const double term =
              element(u, x.shape(), transpose_x, b, i, t) * element(v, y.shape(), transpose_y, shared ? 0 : b, t, j);
          sum += term;
          size += std::fabs(term);
        }
        const double limit = 1.01 * (unit_roundoff(z.dtype()) * std::fabs(sum) + double(k + 1) * compute * size) + 0x1p-24;
        CHECK(std::fabs(found[std::size_t((b * m + i) * n + j)] - sum) <= limit);
      }
}
}  // namespace

TEST_CASE("matmul multiplies stacks of matrices of any rank, each read as it is or transposed") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng;
  for (const DType dtype : real_dtypes)
    for (int round = 0; round < 24; ++round) {
      const index_t m = rng.integer(1, 20), n = rng.integer(1, 20), k = rng.integer(0, 30);
      const bool transpose_x = round % 2 == 1, transpose_y = round / 2 % 2 == 1;
      Shape leading;
      for (index_t rank = rng.integer(0, 3); rank > 0; --rank) leading.push_back(rng.integer(0, 3));
      const auto stack = [&](index_t rows, index_t columns) {
        Shape shape = leading;
        shape.push_back(rows);
        shape.push_back(columns);
        return shape;
      };
      const Tensor x = test::normal_tensor(ctx, rng, transpose_x ? stack(k, m) : stack(m, k), dtype),
                   y = test::normal_tensor(ctx, rng, transpose_y ? stack(n, k) : stack(k, n), dtype),
                   z = matmul(ctx, x, y, transpose_x, transpose_y);
      CHECK(z.shape() == stack(m, n));
      CHECK(z.dtype() == dtype);
      check_product(z, x, transpose_x, y, transpose_y);
    }
}

TEST_CASE("the spec of a product: one matrix for a whole stack, and an epilogue") {
  Context ctx(Device::cpu(), 2);
  test::Rng rng(test::seed(), 1);
  for (const DType dtype : real_dtypes) {
    const Tensor x = test::normal_tensor(ctx, rng, {2, 3, 5, 7}, dtype), w = test::normal_tensor(ctx, rng, {4, 7}, dtype),
                 z = Tensor::empty(ctx, {2, 3, 5, 4}, dtype), wide = Tensor::empty(ctx, z.shape(), accumulate_dtype(dtype));
    gemm(ctx, product_of({x}, {w, true}, z));
    check_product(z, x, false, w, true);
    GemmSpec spec = product_of({x}, {w, true}, wide);
    gemm(ctx, spec);
    check_product(wide, x, false, w, true);
    spec.accumulate = true;  // the same once more: doubled, which is exact but for one rounding
    const std::vector<double> once = wide.to_doubles();
    gemm(ctx, spec);
    const std::vector<double> twice = wide.to_doubles();
    for (std::size_t k = 0; k < once.size(); ++k)
      CHECK(std::fabs(twice[k] - 2 * once[k]) <= 8 * unit_roundoff(wide.dtype()) * std::fabs(2 * once[k]) + 0x1p-18);
  }
}

TEST_CASE("matmul and the spec of a product refuse matrices that do not fit") {
  Context ctx(Device::cpu(), 1);
  const Tensor x = Tensor::zeros(ctx, {2, 3, 4}, DType::f32), y = Tensor::zeros(ctx, {2, 4, 5}, DType::f32),
               z = Tensor::zeros(ctx, {2, 3, 5}, DType::f32);
  CHECK(matmul(ctx, x, y).shape() == z.shape());
  CHECK(refuses([&] { matmul(ctx, x, y, true); }, "matmul: expected op(x) [.., m, k] and op(y) [.., k, n]"));
  CHECK(refuses([&] { matmul(ctx, x, y.rows(0, 1)); }, "with equal leading axes"));
  CHECK(refuses([&] { matmul(ctx, Tensor::zeros(ctx, {4}, DType::f32), y); }, "with equal leading axes"));
  CHECK(refuses([&] { matmul(ctx, x, Tensor::zeros(ctx, {2, 4, 5}, DType::f16)); }, "values of one dtype"));
  const auto refused = "expected a product of matrices [.., m, k] and [.., k, n] into [.., m, n], got [2, 3, 4]";
  CHECK(refuses([&] { product_of({x}, {y, true}, z); }, refused));
  CHECK(refuses([&] { product_of({x}, {y}, z.reshaped({2, 5, 3})); }, refused));
  CHECK(refuses([&] { product_of({x}, {y}, Tensor::zeros(ctx, {1, 3, 5}, DType::f32)); }, refused));
  CHECK(refuses([&] { product_of({x}, {Tensor::zeros(ctx, {3, 4, 5}, DType::f32)}, z); }, refused));
}
