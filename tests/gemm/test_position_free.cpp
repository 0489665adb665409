// SPDX-License-Identifier: Apache-2.0
// P34 for products: a row's bits follow from that row, from the other operand and the spec, wherever the row is, whatever
// the other rows hold, for any number of rows and threads. And the probe that libraries are asked with tells them apart.
#include "dpmp/gemm/host_eigen.hpp"
#include "dpmp/gemm/host_panels.hpp"
#include "dpmp/gemm/position_probe.hpp"
#include "gemm/gemm_case.hpp"

using namespace dpmp;

namespace {
constexpr DType dtypes[] = {DType::f32, DType::bf16, DType::f16, DType::f64};

/// One row times a matrix, as rows of products of all kinds.
struct Row {
  index_t n, k;
  DType dtype, out;
  bool a_transposed, b_transposed, accumulate;
  float alpha;
  test::Elements a, b;

  Row(test::Rng& rng, DType t)
      : n(rng.integer(1, 70)),
        k(rng.integer(1, 3) == 1 ? rng.integer(200, 600) : rng.integer(1, 70)),
        dtype(t),
        out(rng.integer(0, 2) == 0 ? t
            : rng.integer(0, 1)    ? accumulate_dtype(t)
                                   : DType::f64),
        a_transposed(rng.integer(0, 1)),
        b_transposed(rng.integer(0, 1)),
        accumulate(rng.integer(0, 1) && out != DType::bf16 && out != DType::f16),
        alpha(rng.integer(0, 1) ? 1.0f : 0.3f),
        a(t, k),
        b(t, k * n) {
    // Terms that nearly cancel: what is left are roundings, which every other order of summation would change.
    for (index_t j = 0; j < k; ++j) a.set(j, (j % 2 ? -1 : 1) * (1 + 1e-3 * rng.normal()));
    for (index_t j = 0; j < k; ++j)
      for (index_t c = 0; c < n; ++c) b.set(b_transposed ? c * k + j : j * n + c, 1 + 1e-3 * rng.normal());
  }
  /// The row at place `at` of m rows; the others are random, or NaN.
  std::vector<double> result(Context& ctx, test::Rng& rng, index_t m, index_t at, index_t batch) const {
    const bool nan = rng.integer(0, 3) == 0;
    test::Elements all(dtype, batch * m * k), sums(out, batch * m * n);
    const index_t entry = rng.integer(0, batch - 1);
    for (index_t i = 0; i < batch; ++i)
      for (index_t r = 0; r < m; ++r)
        for (index_t j = 0; j < k; ++j) {
          const bool ours = i == entry && r == at;
          all.set(i * m * k + (a_transposed ? j * m + r : r * k + j), ours ? a.get(j) : nan ? std::nan("") : rng.normal());
        }
    for (index_t j = 0; j < batch * m * n; ++j) sums.set(j, 0.125);
    test::Elements right = b;
    GemmSpec s;
    s.m = m, s.n = n, s.k = k, s.batch = batch, s.alpha = alpha, s.accumulate = accumulate;
    s.a = {all.data(), dtype, a_transposed ? m : k, m * k, a_transposed};
    s.b = {right.data(), dtype, b_transposed ? k : n, 0, b_transposed};
    s.out = {sums.data(), out, n, m * n};
    gemm(ctx, s);
    std::vector<double> row;
    for (index_t c = 0; c < n; ++c) row.push_back(sums.get((entry * m + at) * n + c));
    return row;
  }
};

GemmSpec plain_spec(index_t m, index_t n, index_t k) {
  GemmSpec s;
  s.m = m, s.n = n, s.k = k;
  s.a.row_stride = k;
  s.b.row_stride = k, s.b.transposed = true;
  s.out.row_stride = n;
  return s;
}

/// A product whose last two rows are summed from the other end: what a kernel for the rows that are left over does.
void last_rows_backwards(const GemmSpec& s) {
  const auto* a = static_cast<const float*>(s.a.data);
  const auto* b = static_cast<const float*>(s.b.data);
  for (index_t i = 0; i < s.m; ++i)
    for (index_t j = 0; j < s.n; ++j) {
      float sum = 0;
      for (index_t k = 0; k < s.k; ++k) {
        const index_t t = i + 2 < s.m ? k : s.k - 1 - k;
        sum += a[i * s.a.row_stride + t] * b[j * s.b.row_stride + t];
      }
      static_cast<float*>(s.out.data)[i * s.out.row_stride + j] = sum;
    }
}
}  // namespace

TEST_CASE("P34: a row of a product has the same bits in every place, beside anything, on any threads") {
  test::Rng rng(test::seed(), 31);
  Context one(Device::cpu(), 1), two(Device::cpu(), 2), three(Device::cpu(), 3);
  Context* const contexts[] = {&one, &two, &three};
  for (DType dtype : dtypes)
    for (int repeat = 0; repeat < 12; ++repeat) {
      const Row row(rng, dtype);
      CAPTURE(row.n);
      CAPTURE(row.k);
      std::vector<double> expected = row.result(one, rng, 1, 0, 1);
      for (index_t m : {2, 5, 8, 13, 24, 200}) {
        CAPTURE(m);
        const bool library = product_chain(DeviceKind::cpu, dtype, 1000) == 1000;  // promises nothing for another m
        if (library) expected = row.result(one, rng, m, 0, 2);
        for (index_t at : {index_t(0), m / 2, m - 2, m - 1, rng.integer(0, m - 1)})
          CHECK(row.result(library ? one : *contexts[rng.integer(0, 2)], rng, m, at, library ? 2 : rng.integer(1, 4)) ==
                expected);
      }
    }
}

TEST_CASE("P34: a column of a product has the same bits whichever columns are asked for") {
  test::Rng rng(test::seed(), 32);
  Context ctx(Device::cpu(), 2);
  const index_t m = 7, n = 75, k = 300;
  std::vector<float> a(std::size_t(m * k)), b(std::size_t(n * k)), all(std::size_t(m * n)), some(std::size_t(m * n));
  for (float& x : a) x = float(rng.normal());
  for (float& x : b) x = float(rng.normal());
  GemmSpec s = plain_spec(m, n, k);
  s.a.data = a.data(), s.b.data = b.data(), s.out.data = all.data();
  gemm(ctx, s);
  for (index_t first : {0, 1, 16, 33, 74}) {
    GemmSpec part = s;
    part.n = std::min<index_t>(n - first, rng.integer(1, 40));
    part.b.data = b.data() + first * k, part.out.data = some.data(), part.out.row_stride = part.n;
    gemm(ctx, part);
    bool same = true;
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < part.n; ++j)
        same = same && some[std::size_t(i * part.n + j)] == all[std::size_t(i * n + first + j)];
    CHECK(same);
  }
}

TEST_CASE("products whose panels would not fit are done by columns, and give the same") {
  test::Rng rng(test::seed(), 33);
  Context ctx(Device::cpu(), 2);
  // 5000 columns of 2500 terms: 50 MB of panels.
  const index_t m = 3, n = 5000, k = 2500;
  std::vector<float> a(std::size_t(m * k)), b(std::size_t(n * k)), all(std::size_t(m * n)), one(static_cast<std::size_t>(m));
  for (float& x : a) x = float(rng.normal());
  for (float& x : b) x = float(rng.normal());
  GemmSpec s = plain_spec(m, n, k);
  s.a.data = a.data(), s.b.data = b.data(), s.out.data = all.data();
  gemm(ctx, s);
  for (index_t j : {index_t(0), index_t(3199), index_t(3200), n - 1, rng.integer(0, n - 1)}) {
    GemmSpec part = s;
    part.n = 1, part.b.data = b.data() + j * k, part.out.data = one.data(), part.out.row_stride = 1;
    gemm(ctx, part);
    for (index_t i = 0; i < m; ++i) {
      double exact = 0, size = 0;
      for (index_t t = 0; t < k; ++t) {
        const double term = double(a[std::size_t(i * k + t)]) * double(b[std::size_t(j * k + t)]);
        exact += term, size += std::abs(term);
      }
      CHECK(one[std::size_t(i)] == all[std::size_t(i * n + j)]);
      const double bound = double(product_chain(DeviceKind::cpu, DType::f32, k)) * 1.01 * 0x1p-24 * size;
      CHECK(std::abs(double(one[std::size_t(i)]) - exact) <= bound);
    }
  }
}

TEST_CASE("operands of 32 and 16 bits multiplied and summed in double") {
  test::Rng rng(test::seed(), 34);
  Context ctx(Device::cpu(), 2);
  for (DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (int repeat = 0; repeat < 10; ++repeat) {
      test::Options o{.dtype = dtype,
                      .out = DType::f64,
                      .m = rng.integer(1, 40),
                      .n = rng.integer(1, 40),
                      .k = rng.integer(1, 400),
                      .batch = rng.integer(1, 3)};
      o.a_transposed = rng.integer(0, 1), o.b_transposed = rng.integer(0, 1), o.accumulate = rng.integer(0, 1);
      test::Case got(rng, o);
      test::Case wide = got;  // the same numbers in a spec of f64 alone
      test::Elements a(DType::f64, got.a.size()), b(DType::f64, got.b.size());
      for (index_t i = 0; i < a.size(); ++i) a.set(i, got.a.get(i));
      for (index_t i = 0; i < b.size(); ++i) b.set(i, got.b.get(i));
      wide.spec.a.data = a.data(), wide.spec.b.data = b.data();
      wide.spec.a.dtype = wide.spec.b.dtype = DType::f64;
      gemm(ctx, got.spec);
      gemm(ctx, wide.spec);
      CHECK(got.out.bytes() == wide.out.bytes());
    }
}

TEST_CASE("the probe: our panels pass, products with other orders for their last rows do not") {
  Context ctx(Device::cpu(), 1);
  const auto panels = [&](GemmSpec s) { gemm(ctx, s, GemmBackend::panels); };
  for (index_t m : {2, 7, 8, 33, 128})
    for (index_t k : {16, 64, 129, 512}) {
      CHECK(detail::is_position_free<float, float>(plain_spec(m, 10, k), panels));
      if (m > 2) CHECK_FALSE(detail::is_position_free<float, float>(plain_spec(m, 10, k), last_rows_backwards));
    }
  GemmSpec batch = plain_spec(8, 10, 64);
  batch.batch = 5, batch.a.batch_stride = 8 * 64, batch.b.batch_stride = 10 * 64, batch.out.batch_stride = 80;
  CHECK(detail::is_position_free<float, float>(batch, panels));
  const auto last_matrix = [&](GemmSpec s) {
    panels(s);
    s.a.data = static_cast<const float*>(s.a.data) + 4 * s.a.batch_stride;
    s.b.data = static_cast<const float*>(s.b.data) + 4 * s.b.batch_stride;
    s.out.data = static_cast<float*>(s.out.data) + 4 * s.out.batch_stride;
    last_rows_backwards(s);
  };
  CHECK_FALSE(detail::is_position_free<float, float>(batch, last_matrix));
  // Which library's rows depend on their place, and where, follows from the instruction sets of the machine: told, not
  // judged.
  for (GemmBackend backend : {GemmBackend::eigen, GemmBackend::onednn}) {
    if (backend == GemmBackend::onednn && !detail::has_onednn) continue;
    int shapes = 0;
    for (index_t m : {4, 7, 8, 13, 16, 33})
      for (index_t k : {8, 17, 64, 129, 512})
        for (index_t n : {1, 2, 10, 64, 130})
          shapes += !detail::is_position_free<float, float>(plain_spec(m, n, k),
                                                            [&](const GemmSpec& s) { gemm(ctx, s, backend); });
    MESSAGE(std::string(backend == GemmBackend::eigen ? "Eigen" : "oneDNN")
            << ": the place of a row decides bits in " << shapes << " of 150 shapes");
  }
}
