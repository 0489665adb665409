// SPDX-License-Identifier: Apache-2.0
// A row of a product has the same bits wherever it is and whatever the other rows and matrices hold. On the emulated device
// also where the library offers algorithms that sum in another order elsewhere (EMU_ALGORITHMS).
#include <doctest/doctest.h>

#include <cstring>
#include <limits>

#include "cuda/device_array.cuh"
#include "dpmp/gemm/cublaslt.cuh"
#include "dpmp/gemm/gemm.hpp"
#include "dpmp/runtime/cuda_backend.cuh"
#include "dpmp/runtime/cuda_graph.cuh"
#include "support/difference.hpp"

using namespace dpmp;
using test::DeviceArray;

namespace {
constexpr index_t m = 37, n = 24, batch = 3;

struct Kind {
  index_t k;
  bool a_transposed = false, shared_b = true, bias = false, wide_output = false, sums = false;
  GemmActivation activation = GemmActivation::none;
};
struct Place {
  index_t matrix, row;
};
constexpr Place places[] = {{0, 0}, {0, 7}, {0, 8}, {1, 20}, {2, 3}, {2, 36}};

/// The result of the row at each place, with its saved pre-activation and its sum, as bytes.
template <class T, class Out>
std::vector<std::vector<unsigned char>> rows_at_places(Context& ctx, const Kind& kind, bool poison) {
  test::Rng rng(test::seed(), std::uint64_t(kind.k));
  const std::vector<T> row = test::normal_values<T>(rng, kind.k), bias = test::normal_values<T>(rng, n);
  std::vector<T> b = test::normal_values<T>(rng, kind.k * n * (kind.shared_b ? 1 : batch));
  for (index_t i = kind.k * n; i < index_t(b.size()); ++i) b[std::size_t(i)] = b[std::size_t(i % (kind.k * n))];
  std::vector<T> a = test::normal_values<T>(rng, batch * m * kind.k);
  if (poison) a.assign(a.size(), from_float<T>(std::numeric_limits<float>::quiet_NaN()));
  for (const Place& at : places)
    for (index_t k = 0; k < kind.k; ++k)
      a[std::size_t(at.matrix * m * kind.k + (kind.a_transposed ? k * m + at.row : at.row * kind.k + k))] =
          row[std::size_t(k)];
  const DeviceArray<T> device_a(a), device_b(b), device_bias(bias);
  const DeviceArray<Out> out(std::size_t(batch * m * n)), saved(std::size_t(batch * m * n)), sums(std::size_t(batch * m));
  const bool active = kind.activation != GemmActivation::none;
  gemm(
      ctx,
      {.m = m,
       .n = n,
       .k = kind.k,
       .batch = batch,
       .a = {.data = device_a.data(),
             .dtype = dtype_of<T>,
             .row_stride = kind.a_transposed ? m : kind.k,
             .batch_stride = m * kind.k,
             .transposed = kind.a_transposed},
       .b = {.data = device_b.data(), .dtype = dtype_of<T>, .row_stride = n, .batch_stride = kind.shared_b ? 0 : kind.k * n},
       .out = {.data = out.data(), .dtype = dtype_of<Out>, .row_stride = n, .batch_stride = m * n},
       .bias = kind.bias ? device_bias.data() : nullptr,
       .activation = kind.activation,
       .activation_input = active ? saved.data() : nullptr,
       .row_sums = kind.sums ? sums.data() : nullptr});
  const std::vector<Out> results = out.values(), inputs = saved.values(), totals = sums.values();
  std::vector<std::vector<unsigned char>> found;
  for (const Place& at : places) {
    std::vector<unsigned char> bytes;
    const auto take = [&](const Out* from, index_t count) {
      const auto* first = reinterpret_cast<const unsigned char*>(from);
      bytes.insert(bytes.end(), first, first + std::size_t(count) * sizeof(Out));
    };
    take(results.data() + (at.matrix * m + at.row) * n, n);
    if (active) take(inputs.data() + (at.matrix * m + at.row) * n, n);
    if (kind.sums) take(totals.data() + at.matrix * m + at.row, 1);
    found.push_back(bytes);
  }
  return found;
}

template <class T, class Out>
void check(Context& ctx, const Kind& kind) {
  CAPTURE(kind.k);
  CAPTURE(kind.a_transposed);
  CAPTURE(kind.bias);
  CAPTURE(kind.sums);
  const auto among_others = rows_at_places<T, Out>(ctx, kind, false), among_nan = rows_at_places<T, Out>(ctx, kind, true);
  for (std::size_t k = 0; k < std::size(places); ++k) {
    CAPTURE(k);
    CHECK(test::difference(among_others[k], among_others[0]) == "");
    CHECK(test::difference(among_nan[k], among_others[0]) == "");
  }
}
template <class T, class Out>
void check_kinds(Context& ctx) {
  for (const index_t k : {1, 2, 33, 200})
    for (const bool transposed : {false, true})
      for (const bool shared_b : {false, true}) {
        check<T, Out>(ctx, {.k = k, .a_transposed = transposed, .shared_b = shared_b});
        check<T, Out>(ctx, {.k = k, .a_transposed = transposed, .shared_b = shared_b, .bias = true});
      }
  check<T, Out>(ctx, {.k = 130, .a_transposed = true, .shared_b = false, .sums = true});
  for (const GemmActivation activation : {GemmActivation::gelu_tanh, GemmActivation::gelu_erf})
    check<T, Out>(ctx, {.k = 130, .bias = true, .activation = activation});
}
}  // namespace

TEST_CASE("products on CUDA: a row has the same bits everywhere") {
  Context ctx(Device::cuda(0), 1);
  check_kinds<float, float>(ctx);
  check_kinds<bf16, bf16>(ctx);
  check_kinds<bf16, float>(ctx);
  check_kinds<f16, f16>(ctx);
}

TEST_CASE("products on CUDA: what tries the algorithms gives its memory back, and is not recorded") {
  Context ctx(Device::cuda(0), 1);
  const DeviceArray<float> a(std::size_t(64 * 40)), b(std::size_t(40 * 72)), out(std::size_t(64 * 72));
  const auto multiply = [&](index_t rows) {
    gemm(ctx, {.m = rows,
               .n = 72,
               .k = 40,
               .a = {.data = a.data(), .row_stride = 40},
               .b = {.data = b.data(), .row_stride = 72},
               .out = {.data = out.data(), .row_stride = 72}});
  };
  multiply(64);
  std::size_t before = 0, after = 0, total = 0;
  REQUIRE(cudaMemGetInfo(&before, &total) == cudaSuccess);
  for (const index_t rows : {63, 62, 61}) multiply(rows);
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  REQUIRE(cudaMemGetInfo(&after, &total) == cudaSuccess);
  CHECK(after == before);
  CHECK_THROWS_WITH_AS(CudaGraph::capture(ctx, [&] { multiply(60); }), doctest::Contains("run the same work once before"),
                       Error);
  multiply(60);
  CudaGraph graph = CudaGraph::capture(ctx, [&] { multiply(60); });
  CHECK(graph.nodes() == 1);
  // One row in all needs no trial.
  CHECK_NOTHROW(CudaGraph::capture(ctx, [&] { multiply(1); }));
}
