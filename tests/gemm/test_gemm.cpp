// SPDX-License-Identifier: Apache-2.0
// Products of random shapes, layouts and epilogues against the double-precision reference, from outside and inside a team.
#include "dpmp/gemm/openmp_scope.hpp"
#include "gemm/gemm_case.hpp"

using namespace dpmp;
using test::Case;

namespace {
constexpr DType dtypes[] = {DType::f32, DType::bf16, DType::f16, DType::f64};

Case random_case(test::Rng& rng, bool large) {
  static constexpr index_t extents[] = {0, 1, 1, 2, 3, 5, 8, 17, 31, 33, 48, 64, 97, 128};
  const auto extent = [&] { return large ? rng.integer(60, 330) : extents[rng.integer(0, 13)]; };
  const index_t m = extent(), n = extent(), k = extent(),
                batch = large               ? 1 + rng.integer(0, 1)
                        : rng.integer(0, 9) ? rng.integer(1, 5)
                                            : 0;
  return Case(rng, test::Options::random(rng, dtypes[rng.integer(0, 3)], m, n, k, batch));
}

void check_outside_and_inside(Context& ctx, const Case& c) {
  const test::Expectation expected(c);
  for (GemmBackend backend : test::backends_for(c.spec.a.dtype)) {
    CAPTURE(int(backend));
    CAPTURE(ctx.threads());
    INFO(c.describe());
    Case once = c, twice = c;
    gemm(ctx, once.spec, backend);
    gemm(ctx, twice.spec, backend);
    test::check_result(expected, once);
    CHECK(once.out.bytes() == twice.out.bytes());
    std::vector<Case> inside(std::size_t(ctx.threads()), c);
    ctx.team().run([&](int t) { gemm(ctx, inside[std::size_t(t)].spec, backend); });
    for (const Case& x : inside) {
      test::check_result(expected, x);
      CHECK(x.out.bytes() == inside[0].out.bytes());
    }
  }
}
}  // namespace

TEST_CASE("gemm equals the reference: random small shapes, layouts, epilogues") {
  test::Rng rng(test::seed(), 1);
  Context one(Device::cpu(), 1), two(Device::cpu(), 2);
  for (int i = 0; i < 160; ++i) check_outside_and_inside(i % 2 ? one : two, random_case(rng, false));
}

TEST_CASE("gemm equals the reference: larger shapes") {
  test::Rng rng(test::seed(), 2);
  Context one(Device::cpu(), 1), two(Device::cpu(), 2);
  for (int i = 0; i < 8; ++i) check_outside_and_inside(i % 4 ? two : one, random_case(rng, true));
}

TEST_CASE("gemm equals the reference: every combination of epilogue and dtype") {
  test::Rng rng(test::seed(), 6);
  Context ctx(Device::cpu(), 2);
  for (DType dtype : dtypes)
    for (DType out : {dtype, accumulate_dtype(dtype)})
      for (GemmActivation activation : {GemmActivation::none, GemmActivation::gelu_erf, GemmActivation::gelu_tanh})
        for (test::Addend addend : {test::Addend::none, test::Addend::apart, test::Addend::in_place})
          for (int bits = 0; bits < 8; ++bits) {
            test::Options o{.dtype = dtype, .out = out, .m = 9, .n = 21, .k = 13, .batch = 2};
            o.activation = activation, o.addend = addend;
            o.integers = bits & 1, o.bias = bits & 2, o.save = (bits & 4) && activation != GemmActivation::none;
            if (bits >= 6 && activation != GemmActivation::none) o.take_slope();
            const Case c(rng, o);
            const test::Expectation expected(c);
            for (GemmBackend backend : test::backends_for(dtype)) {
              Case got = c;
              gemm(ctx, got.spec, backend);
              CAPTURE(int(backend));
              test::check_result(expected, got);
            }
          }
}

TEST_CASE("low-precision operands taller than a block of rows, in all four transpositions") {
  test::Rng rng(test::seed(), 7);
  Context one(Device::cpu(), 1), two(Device::cpu(), 2);
  for (DType dtype : {DType::bf16, DType::f16})
    for (int bits = 0; bits < 4; ++bits) {
      test::Options o{.dtype = dtype, .out = dtype, .m = rng.integer(600, 700), .n = 9, .k = 33};
      o.a_transposed = bits & 1, o.b_transposed = bits & 2, o.bias = true;
      check_outside_and_inside(bits == 0 ? two : one, Case(rng, o));
    }
}

TEST_CASE("a primitive made for all threads is not run by one, and the other way round") {
  // Large enough for oneDNN to split one product over both threads.
  test::Rng rng(test::seed(), 3);
  Context ctx(Device::cpu(), 2), one(Device::cpu(), 1);
  for (bool outside_first : {true, false}) {
    Case c(rng, {.dtype = DType::bf16, .out = DType::f32, .m = rng.integer(256, 320), .n = 256, .k = 320 + outside_first});
    const test::Expectation expected(c);
    const auto outside = [&](Context& context) {
      Case x = c;
      gemm(context, x.spec);
      test::check_result(expected, x);
    };
    if (outside_first) outside(ctx);
    std::vector<Case> inside(2, c);
    ctx.team().run([&](int t) { gemm(ctx, inside[std::size_t(t)].spec); });
    for (const Case& x : inside) test::check_result(expected, x);
    outside(one);
    outside(ctx);
  }
}

TEST_CASE("OpenMP's settings are the caller's again after a product") {
  const detail::OpenMp& openmp = detail::OpenMp::get();
  if (!openmp.found()) return;
  const int before = openmp.max_threads(), dynamic = openmp.dynamic();
  openmp.set_threads(3);
  openmp.set_dynamic(1);
  test::Rng rng(test::seed(), 9);
  Context ctx(Device::cpu(), 2);
  for (DType dtype : dtypes) {
    Case c(rng, {.dtype = dtype, .out = dtype, .m = 80, .n = 80, .k = 80});
    gemm(ctx, c.spec);
    CHECK(openmp.max_threads() == 3);
    CHECK(openmp.dynamic() == 1);
  }
  openmp.set_threads(before);
  openmp.set_dynamic(dynamic);
}

TEST_CASE("a batch that is one tall matrix, and those that only look like it") {
  test::Rng rng(test::seed(), 8);
  Context ctx(Device::cpu(), 2);
  for (int i = 0; i < 400; ++i) {
    const index_t n = rng.integer(1, 4);
    const Case c(rng, test::Options::random(rng, i % 8 ? DType::f32 : DType::bf16, n, n, n, rng.integer(2, 3)));
    Case got = c;
    gemm(ctx, got.spec);
    test::check_result(test::Expectation(c), got);
  }
}

TEST_CASE("rows and matrices of a batch do not touch each other: NaN stays where it was") {
  test::Rng rng(test::seed(), 4);
  Context ctx(Device::cpu(), 2);
  for (DType dtype : dtypes)
    for (GemmBackend backend : test::backends_for(dtype))
      for (int repeat = 0; repeat < 4; ++repeat) {
        Case c(rng, test::Options::random(rng, dtype, rng.integer(2, 40), rng.integer(1, 40), rng.integer(1, 40),
                                          rng.integer(1, 4)));
        if (c.spec.alpha == 0.0f) c.spec.alpha = 1;
        Case clean = c, dirty = c;
        const index_t bad_row = rng.integer(0, c.spec.m - 1), bad_batch = rng.integer(0, c.spec.batch - 1);
        const bool shared = c.spec.a.batch_stride == 0;
        for (index_t j = 0; j < c.spec.k; ++j) {
          const index_t at = c.spec.a.transposed ? j * c.spec.a.row_stride + bad_row : bad_row * c.spec.a.row_stride + j;
          dirty.a.set(bad_batch * c.spec.a.batch_stride + at, std::nan(""));
        }
        gemm(ctx, clean.spec, backend);
        gemm(ctx, dirty.spec, backend);
        INFO(c.describe());
        CAPTURE(int(backend));
        bool same = true, reached = true;
        c.each([&](index_t i, index_t r, index_t, index_t at) {
          if (r == bad_row && (shared || i == bad_batch))
            reached = reached && std::isnan(dirty.out.get(at));
          else
            same = same && clean.out.get(at) == dirty.out.get(at);
        });
        CHECK(same);
        CHECK(reached);
      }
}

TEST_CASE("bf16 results that would be denormal are stored as zeros") {
  Context ctx(Device::cpu(), 1);
  for (GemmBackend backend : test::backends_for(DType::bf16)) {
    const bf16 a = from_float<bf16>(-0x1p-100f), b[2] = {from_float<bf16>(0x1p-30f), from_float<bf16>(0x1p-26f)};
    bf16 out[2] = {};
    GemmSpec s;
    s.m = 1, s.n = 2, s.k = 1;
    s.a = {.data = &a, .dtype = DType::bf16, .row_stride = 1};
    s.b = {.data = b, .dtype = DType::bf16, .row_stride = 2};
    s.out = {.data = out, .dtype = DType::bf16, .row_stride = 2};
    gemm(ctx, s, backend);
    CHECK((out[0].bits & 0x7fff) == 0);  // of either sign: a kernel may add a padding product of +0
    CHECK(out[1].bits == 0x8080);
    gemm_reference(s);
    CHECK(out[0].bits == 0x8000);
    CHECK(out[1].bits == 0x8080);
  }
}

TEST_CASE("without its k, a product is the epilogue of zeros; accumulating, it changes nothing") {
  Context ctx(Device::cpu(), 2);
  const float bias[3] = {1, -2, 3}, residual[6] = {10, 20, 30, 40, 50, 60};
  float out[6] = {7, 7, 7, 7, 7, 7};
  GemmSpec s;
  s.m = 2, s.n = 3;
  s.b.row_stride = 3;
  s.out = {.data = out, .row_stride = 3};
  for (GemmBackend backend : test::backends_for(DType::f32)) {
    GemmSpec add = s;
    add.accumulate = true;
    std::fill_n(out, 6, 7.0f);
    gemm(ctx, add, backend);
    for (float x : out) CHECK(x == 7.0f);
    GemmSpec whole = s;
    whole.bias = bias, whole.residual = residual, whole.residual_row_stride = 3;
    gemm(ctx, whole, backend);
    for (int i = 0; i < 6; ++i) CHECK(out[i] == bias[i % 3] + residual[i]);
  }
}

TEST_CASE("the reference rounds once") {
  // 1 + 2^-8 + 2^-40 is above the middle of two bf16 numbers; rounding to FP32 first would land on it and go to even.
  CHECK(detail::round_once<bf16>(1 + 0x1p-8 + 0x1p-40).bits == 0x3f81);
  CHECK(detail::round_once<bf16>(1 + 0x1p-8).bits == 0x3f80);
  CHECK(detail::round_once<bf16>(-1 - 0x1p-8 - 0x1p-40).bits == 0xbf81);
  CHECK(detail::round_once<f16>(1 + 0x1p-11 + 0x1p-40).bits == 0x3c01);
  CHECK(detail::round_once<f16>(0x1p-25 + 0x1p-60).bits == 1);
  CHECK(detail::round_once<f16>(0x1p-25).bits == 0);
  CHECK(detail::round_once<bf16>(1e300).bits == 0x7f80);
}

TEST_CASE("steady state: no request to the system after the first call") {
  test::Rng rng(test::seed(), 5);
  Context ctx(Device::cpu(), 2);
  std::vector<Case> cases;
  for (int i = 0; i < 30; ++i) cases.push_back(random_case(rng, false));
  const auto round = [&] {
    for (Case& c : cases) gemm(ctx, c.spec);
    return ctx.memory();
  };
  const index_t held = round().system_allocations;
  const MemoryStatistics after = round();
  CHECK(after.system_allocations == held);
  CHECK(after.live_bytes == 0);
}

TEST_CASE("the info line names a backend for each dtype") {
  Context ctx(Device::cpu(), 2);
  const std::string line = gemm_backend_info(ctx);
  for (const char* part : {"f32", "bf16", "f16", "f64", "panels", "threads: 2"}) CHECK(line.find(part) != std::string::npos);
  CHECK(line.find('\n') == std::string::npos);
}
