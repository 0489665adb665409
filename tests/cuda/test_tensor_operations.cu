// SPDX-License-Identifier: Apache-2.0
// Operations on plain tensors on CUDA: the host's results, bit for bit, for numbers whose sums are exact in FP32; operands
// of another device are refused.
#include <doctest/doctest.h>

#include "dpmp/gemm/matmul.hpp"
#include "dpmp/runtime/cuda_backend.cuh"
#include "dpmp/tensor/arithmetic.hpp"
#include "dpmp/tensor/broadcast.hpp"
#include "dpmp/tensor/elementwise.hpp"
#include "dpmp/tensor/slices.hpp"
#include "dpmp/tensor/transpose.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

namespace {
using namespace dpmp;

/// Multiples of 1/8 up to 8, which bf16 holds.
Tensor eighths(Context& ctx, test::Rng& rng, const Shape& shape, DType dtype) {
  std::vector<double> values(std::size_t(shape.numel()));
  for (double& v : values) v = double(rng.integer(-64, 64)) / 8;
  return Tensor::from(ctx, shape, dtype, values);
}
}  // namespace

TEST_CASE("operations on tensors give on CUDA what they give on the host") {
  Context host(Device::cpu(), 1), gpu(Device::cuda(0), 1);
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor x = eighths(host, rng, {3, 5, 7}, dtype), y = shift(host, multiply(host, x, x), 1),
                 rows = eighths(host, rng, {3, 1, 7}, dtype), on_gpu = x.to(gpu), y_on_gpu = y.to(gpu);
    const auto check = [&](const Tensor& found, const Tensor& expected) {
      CHECK(found.shape() == expected.shape());
      CHECK(found.dtype() == expected.dtype());
      CHECK(found.device() == gpu.device());
      CHECK(found.to_doubles() == expected.to_doubles());
    };
    check(add(gpu, on_gpu, y_on_gpu), add(host, x, y));
    check(subtract(gpu, on_gpu, y_on_gpu), subtract(host, x, y));
    check(multiply(gpu, on_gpu, y_on_gpu), multiply(host, x, y));
    check(divide(gpu, on_gpu, y_on_gpu), divide(host, x, y));
    check(scale(gpu, on_gpu, 1.1), scale(host, x, 1.1));
    check(shift(gpu, on_gpu, 1.1), shift(host, x, 1.1));
    const Tensor total = on_gpu.clone(gpu), of_host = x.clone(host);
    add_to(gpu, y_on_gpu, total);
    add_to(host, y, of_host);
    check(total, of_host);
    check(cast(gpu, on_gpu, DType::f16), cast(host, x, DType::f16));
    for (const int axis : {0, 1, 2}) {
      check(slice(gpu, on_gpu, axis, 1, 3), slice(host, x, axis, 1, 3));
      check(pad(gpu, on_gpu, axis, 2, 1), pad(host, x, axis, 2, 1));
      check(concat(gpu, std::vector<Tensor>{on_gpu, y_on_gpu, on_gpu}, axis),
            concat(host, std::vector<Tensor>{x, y, x}, axis));
      check(transpose(gpu, on_gpu, axis, 1), transpose(host, x, axis, 1));
      check(sum(gpu, on_gpu, axis), sum(host, x, axis));
      check(mean(gpu, on_gpu, axis, ReducedAxis::kept), mean(host, x, axis, ReducedAxis::kept));
    }
    check(broadcast_to(gpu, rows.to(gpu), {3, 5, 7}), broadcast_to(host, rows, {3, 5, 7}));
    check(broadcast_to(gpu, on_gpu, {2, 3, 5, 7}, 0.5), broadcast_to(host, x, {2, 3, 5, 7}, 0.5));
    check(sum_to(gpu, on_gpu, {5, 1}), sum_to(host, x, {5, 1}));
    check(matmul(gpu, on_gpu, on_gpu, false, true), matmul(host, x, x, false, true));
  }
  const Tensor ids = Tensor::from(host, {2, 3}, std::vector<std::int32_t>{1, -2, 3, 4, 5, 6});
  const Tensor joined = concat(gpu, std::vector<Tensor>{ids.to(gpu), slice(gpu, ids.to(gpu), 1, 1, 3)}, 1);
  CHECK(joined.to_doubles() == std::vector<double>{1, -2, 3, -2, 3, 4, 5, 6, 5, 6});
}

TEST_CASE("operations on tensors refuse operands of another device") {
  Context host(Device::cpu(), 1), gpu(Device::cuda(0), 1);
  const Tensor x = Tensor::zeros(host, {4, 3}, DType::f32), y = Tensor::zeros(gpu, {4, 3}, DType::f32);
  const auto refused = [](auto&& f) { return test::refuses(f, "on cpu, got cuda:0: use Tensor::to"); };
  CHECK(refused([&] { add(host, x, y); }));
  CHECK(refused([&] { add_to(host, y, x); }));
  CHECK(refused([&] { scale(host, y, 2); }));
  CHECK(refused([&] { cast(host, y, DType::bf16); }));
  CHECK(refused([&] { cast_to(host, x, y); }));
  CHECK(refused([&] { slice(host, y, 0, 1, 2); }));
  CHECK(refused([&] { concat(host, std::vector<Tensor>{x, y}, 0); }));
  CHECK(refused([&] { transpose(host, y, 0, 1); }));
  CHECK(refused([&] { broadcast_to(host, y, {2, 4, 3}); }));
  CHECK(refused([&] { sum(host, y, 0); }));
  CHECK(refused([&] { matmul(host, x, y, false, true); }));
  CHECK(test::refuses([&] { add(gpu, y, x); }, "on cuda:0, got cpu"));
}
