// SPDX-License-Identifier: Apache-2.0
// DLPack on a GPU: device memory is shared and given back once; what cannot be shared is copied through the host.
#include <doctest/doctest.h>
#include <cstring>
#include <vector>

#include "dpmp/interop/dlpack.hpp"
#include "dpmp/runtime/cuda_backend.cuh"
#include "support/errors.hpp"
#include "support/random.hpp"

using namespace dpmp;
using interop::DlpackCopy;
using interop::from_dlpack;
namespace dlpack = interop::dlpack;

TEST_CASE("DLPack on CUDA: the tensor that was handed out comes back as the same memory, which work of the context uses") {
  Context ctx(Device::cuda(0), 1);
  test::Rng rng;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::i32}) {
    std::vector<double> values(24);
    for (double& x : values) x = double(rng.integer(-50, 50));
    Tensor t = Tensor::from(ctx, {6, 4}, dtype, values);
    auto* const out = interop::to_dlpack(ctx, t);
    CHECK((out->dl_tensor.device.device_type == dlpack::cuda && out->dl_tensor.device.device_id == 0));
    CHECK(out->dl_tensor.data == t.raw());
    t = Tensor();
    {
      Tensor back = from_dlpack(ctx, out);
      CHECK(back.raw() == out->dl_tensor.data);
      CHECK(back.device() == Device::cuda(0));
      CHECK(back.to_doubles() == values);
      CHECK(back.clone(ctx).to_doubles() == values);
      Tensor zeros = Tensor::zeros(ctx, {6, 4}, dtype);
      back.copy_from(zeros);
      CHECK(back.to_doubles() == std::vector<double>(24));
      CHECK(ctx.memory().live_bytes > 0);
    }
    CHECK(ctx.memory().live_bytes == 0);
  }
}

TEST_CASE("DLPack on CUDA: strides, other types and other alignments are copied, the CPU's memory is refused") {
  Context ctx(Device::cuda(0), 1);
  const Tensor memory = Tensor::from(ctx, {8}, DType::i32, std::vector<double>{0, 1, 2, 3, 4, 5, 6, 7});
  int released = 0;
  const auto managed = [&](std::int64_t* shape, std::int64_t* strides) {
    dlpack::DLManagedTensor m{};
    m.dl_tensor = {memory.raw(), {dlpack::cuda, 0}, 2, {dlpack::code_int, 32, 1}, shape, strides, 0};
    m.manager_ctx = &released;
    m.deleter = [](dlpack::DLManagedTensor* self) { ++*static_cast<int*>(self->manager_ctx); };
    return m;
  };
  std::int64_t shape[] = {2, 3}, transposed[] = {1, 2}, backwards[] = {-3, -1}, compact[] = {3, 1};
  const interop::DlpackOptions copying{.copy = DlpackCopy::where_needed};
  auto m = managed(shape, transposed);
  CHECK(test::refuses([&] { from_dlpack(ctx, &m); }, "row-major without gaps"));
  const Tensor across = from_dlpack(ctx, &m, copying);
  CHECK(across.device() == Device::cuda(0));
  CHECK(across.to_doubles() == std::vector<double>{0, 2, 4, 1, 3, 5});
  m = managed(shape, backwards);
  m.dl_tensor.byte_offset = 28;
  CHECK(from_dlpack(ctx, &m, copying).to_doubles() == std::vector<double>{7, 6, 5, 4, 3, 2});
  m = managed(shape, compact);
  m.dl_tensor.byte_offset = 4;
  CHECK(test::refuses([&] { from_dlpack(ctx, &m); }, "aligned to 16 bytes"));
  CHECK(from_dlpack(ctx, &m, copying).to_doubles() == std::vector<double>{1, 2, 3, 4, 5, 6});
  m = managed(shape, compact);
  CHECK(from_dlpack(ctx, &m, {.copy = DlpackCopy::always, .dtype = DType::f32}).to_doubles() ==
        std::vector<double>{0, 1, 2, 3, 4, 5});
  m = managed(shape, compact);
  m.dl_tensor.device = {dlpack::cpu, 0};
  CHECK(test::refuses([&] { from_dlpack(ctx, &m, copying); }, "on cuda:0, got one on device 0 of type 1"));
  CHECK(released == 7);
}
