// SPDX-License-Identifier: Apache-2.0
// The general operations of the op table on a GPU.
#include "autograd/ops_general.hpp"
#include "cuda/op_on_cuda.hpp"
#include "dpmp/dpmp.cuh"
#include "support/errors.hpp"

using namespace dpmp;

TEST_CASE("every general op on CUDA agrees with f64 on the CPU") { test::check_ops_on_cuda(test::general_ops(), 5); }

TEST_CASE("a GPU's tensor has no elements for the host") {
  Context ctx(Device::cuda(), 1);
  const Tensor t = Tensor::from(ctx, {2}, DType::f32, std::vector<float>{1, -2});
  CHECK(test::refuses([&] { t.host_data<float>(); }, "expected a tensor on the CPU, got one on cuda:0"));
  CHECK(t.to_doubles() == std::vector<double>{1, -2});
  CHECK(Tensor::from(ctx, {2}, DType::bf16, std::vector<std::uint8_t>{0, 255}, 1. / 255).to_doubles() ==
        std::vector<double>{0, 1});
  CHECK(Tensor::from(ctx, {1}, std::vector<std::int64_t>{-7}).to_doubles() == std::vector<double>{-7});
}
