// SPDX-License-Identifier: Apache-2.0
// Matrix products on CUDA, with every epilogue, against the double-precision reference.
#include "gemm/gemm_case.hpp"

#include "dpmp/gemm/cublaslt.cuh"
#include "dpmp/runtime/cuda_backend.cuh"

namespace {
using namespace dpmp;
using test::Elements;

/// Bytes of a case in the memory of the device, and back.
class There {
 public:
  There(Context& ctx, Elements& x) : ctx_(ctx), host_(x), buffer_(ctx.allocate(std::max<index_t>(1, bytes()))) {
    if (bytes() > 0) ctx.backend().copy_in(buffer_.data(), x.data(), bytes());
  }
  void* data() const { return host_.size() ? buffer_.data() : nullptr; }
  void fetch() {
    if (bytes() > 0) ctx_.backend().copy_out(host_.data(), buffer_.data(), bytes());
  }

 private:
  index_t bytes() const { return index_t(host_.bytes().size()); }
  Context& ctx_;
  Elements& host_;
  Buffer buffer_;
};

void check(Context& ctx, const test::Case& c) {
  const test::Expectation expected(c);
  test::Case got = c;
  There a(ctx, got.a), b(ctx, got.b), out(ctx, got.out), bias(ctx, got.bias), residual(ctx, got.residual),
      saved(ctx, got.saved), slope_at(ctx, got.slope_at), row_sums(ctx, got.row_sums);
  GemmSpec s = got.spec;
  s.residual = s.residual == s.out.data && s.residual ? out.data() : residual.data();
  s.a.data = a.data(), s.b.data = b.data(), s.out.data = out.data(), s.bias = bias.data();
  s.activation_input = saved.data(), s.slope_at = slope_at.data(), s.row_sums = row_sums.data();
  gemm(ctx, s);
  out.fetch();
  saved.fetch();
  row_sums.fetch();
  test::check_result(expected, got, false);
}
}  // namespace

TEST_CASE("products on CUDA: every combination of epilogue and dtype, aligned rows") {
  Context ctx(Device::cuda(0), 1);
  test::Rng rng(test::seed(), 6);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (const DType out : {dtype, accumulate_dtype(dtype)})
      for (const GemmActivation activation : {GemmActivation::none, GemmActivation::gelu_erf, GemmActivation::gelu_tanh})
        for (const test::Addend addend : {test::Addend::none, test::Addend::apart, test::Addend::in_place})
          for (int bits = 0; bits < 10; ++bits) {
            test::Options o{.dtype = dtype, .out = out, .m = 9, .n = 24, .k = 13, .batch = 2};
            o.activation = activation, o.addend = addend;
            o.integers = bits & 1, o.bias = bits & 2, o.save = (bits & 4) && activation != GemmActivation::none;
            if (bits >= 8 && activation != GemmActivation::none) o.take_slope();
            check(ctx, test::Case(rng, o));
          }
}

TEST_CASE("products on CUDA: the sums of rows beside a weight's gradient, one and one for each sample") {
  Context ctx(Device::cuda(0), 1);
  test::Rng rng(test::seed(), 7);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (const DType out : {dtype, accumulate_dtype(dtype)})
      for (const index_t batch : {1, 3})
        for (const index_t n : {0, 24})
          for (const index_t k : {0, 1, 200})
            for (const bool integers : {false, true}) {
              test::Options o{.dtype = dtype, .out = out, .m = 40, .n = n, .k = k, .batch = batch, .integers = integers};
              o.sum_rows();
              check(ctx, test::Case(rng, o));
            }
}

TEST_CASE("products on CUDA: random shapes, layouts and epilogues") {
  Context ctx(Device::cuda(0), 1);
  test::Rng rng(test::seed(), 1);
  constexpr DType dtypes[] = {DType::f32, DType::bf16, DType::f16};
  constexpr index_t extents[] = {0, 1, 1, 2, 3, 5, 8, 17, 32, 33, 64, 97};
  const auto extent = [&] { return extents[rng.integer(0, 11)]; };
  for (int i = 0; i < 300; ++i) {
    const index_t m = extent(), n = extent(), k = extent(), batch = rng.integer(0, 9) ? rng.integer(1, 5) : 0;
    test::Options o = test::Options::random(rng, dtypes[rng.integer(0, 2)], m, n, k, batch);
    o.row_squares = false;  // of products on a CPU
    check(ctx, test::Case(rng, o));
  }
}

TEST_CASE("products on CUDA: the epilogues are cuBLASLt's where it has them") {
  GemmSpec s;
  s.a.dtype = s.b.dtype = s.out.dtype = DType::bf16;
  s.out.row_stride = 64;
  alignas(16) static char rows[16];
  CHECK(detail::has_lt_epilogue(s));
  s.activation = GemmActivation::gelu_tanh;
  CHECK(detail::has_lt_epilogue(s));
  s.slope_at = rows;
  CHECK(detail::has_lt_epilogue(s));
  s.slope_at = rows + 2;
  CHECK(!detail::has_lt_epilogue(s));
  s.slope_at = nullptr, s.activation_input = rows;
  CHECK(detail::has_lt_epilogue(s));
  s.out.row_stride = 65;
  CHECK(!detail::has_lt_epilogue(s));
  s.activation_input = nullptr, s.activation = GemmActivation::gelu_erf;
  CHECK(!detail::has_lt_epilogue(s));
  s.activation = GemmActivation::none, s.bias = rows;
  CHECK(detail::has_lt_epilogue(s));
  s.out.dtype = DType::f32;
  CHECK(!detail::has_lt_epilogue(s));
  s.bias = nullptr, s.row_sums = rows;
  CHECK(detail::has_lt_epilogue(s));
}
