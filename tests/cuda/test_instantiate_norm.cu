// SPDX-License-Identifier: Apache-2.0
// Norms of per-sample gradients that a CUDA device forms and forgets, against |sum_t b_t a_t^T|^2 in double.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "cuda/sample_rows_oracle.cuh"
#include "dpmp/kernels/cuda/norms/instantiate_norm.cuh"
#include "dpmp/kernels/cuda/sums/weighted_sum.cuh"

using namespace dpmp;
using test::dense_rows;
using test::DeviceArray;
using test::DeviceRows;
using test::Rows;
using test::slice_of_rows;

namespace {
/// token_sums: null, or receives [samples, p].
template <class T>
std::vector<double> on_device(index_t samples, index_t tokens, const Rows<T>& a, const Rows<T>& b,
                              std::vector<float>* token_sums = nullptr) {
  const auto nan = std::numeric_limits<double>::quiet_NaN();
  const DeviceRows<T> input(a), output(b);
  const DeviceArray<double> scratch(
      std::vector<double>(std::size_t(kernels::instantiate_norm_scratch<T>(samples, a.width, b.width)), nan));
  const DeviceArray<double> squared(std::vector<double>(std::size_t(samples), nan));
  const DeviceArray<float> sums(std::vector<float>(token_sums ? std::size_t(samples * b.width) : 0, float(nan)));
  kernels::instantiate_norm<T>(nullptr, samples, tokens, input.rows(), output.rows(), scratch.data(), squared.data(),
                               token_sums ? sums.data() : nullptr);
  if (token_sums) *token_sums = sums.values();
  return squared.values();
}
double gamma(double n) { return n * 0x1p-24 / (1 - n * 0x1p-24); }
bool same_bits(double x, double y) { return std::memcmp(&x, &y, sizeof x) == 0; }

/// Every element is within gamma_n sum_t |b_tj| |a_tk| of the exact one, so the norm within gamma_n S; 24 roundings behind.
template <class T>
void check(index_t samples, index_t tokens, const Rows<T>& a, const Rows<T>& b) {
  std::vector<float> token_sums;
  const std::vector<double> got = on_device<T>(samples, tokens, a, b, &token_sums),
                            alone = on_device<T>(samples, tokens, a, b);
  for (index_t i = 0; i < samples; ++i) {
    CAPTURE(tokens);
    CAPTURE(a.width);
    CAPTURE(b.width);
    CAPTURE(i);
    CHECK(same_bits(got[std::size_t(i)], alone[std::size_t(i)]));
    for (index_t k = 0; k < b.width; ++k) {
      CAPTURE(k);
      double sum = 0, size = 0;
      for (index_t t = i * tokens; t < (i + 1) * tokens; ++t) sum += b.at(t, k), size += std::abs(b.at(t, k));
      CHECK(std::abs(double(token_sums[std::size_t(i * b.width + k)]) - sum) <=
            gamma(kernels::chain_roundings<T>(32) + double(tokens / 32 + 1)) * size);
    }
    double squared = 0, product_sum = 0;
    for (const double g : test::exact_gradient(i, tokens, a, b)) squared += g * g;
    for (index_t t = i * tokens; t < (i + 1) * tokens; ++t)
      product_sum += test::exact_row_norm(a, t) * test::exact_row_norm(b, t);
    const double norm = std::sqrt(squared), distance = gamma(kernels::instantiate_norm_roundings<T>(tokens)) * product_sum;
    CHECK(std::abs(std::sqrt(got[std::size_t(i)]) - norm) <= distance + gamma(24) * (norm + distance));
  }
}
}  // namespace

TEST_CASE_TEMPLATE("instantiate and forget: any number of tokens, any widths", T, bf16, f16, float) {
  test::Rng rng(test::seed(), sizeof(T));
  const index_t shapes[][3] = {{1, 8, 16},   {2, 1, 1},   {7, 24, 40},   {16, 64, 64}, {33, 67, 5},
                               {64, 128, 8}, {97, 72, 9}, {130, 3, 130}, {31, 129, 65}};
  for (const auto& [tokens, d, p] : shapes)
    check<T>(2, tokens, dense_rows<T>(rng, 2 * tokens, d), dense_rows<T>(rng, 2 * tokens, p, 0.01));
}

TEST_CASE("instantiate and forget: tiles of 128 x 128") {
  test::Rng rng(test::seed(), 11);
  for (const auto& [d, p] : {std::pair<index_t, index_t>{128, 128}, {200, 120}, {127, 101}}) {
    REQUIRE(kernels::detail::instantiate_norm_side<bf16>(d, p) == 128);
    check<bf16>(2, 100, dense_rows<bf16>(rng, 200, d), dense_rows<bf16>(rng, 200, p));
  }
}

TEST_CASE_TEMPLATE("instantiate and forget: slices of wider rows read nothing beside the slice", T, bf16, float) {
  test::Rng rng(test::seed(), 30 + sizeof(T));
  const index_t tokens = 20;
  check<T>(2, tokens, slice_of_rows<T>(rng, 2 * tokens, 21, 64, 16), slice_of_rows<T>(rng, 2 * tokens, 16, 48, 32));
  check<T>(2, tokens, slice_of_rows<T>(rng, 2 * tokens, 16, 48, 3), slice_of_rows<T>(rng, 2 * tokens, 9, 13, 2));
}

TEST_CASE_TEMPLATE("instantiate and forget: cancelling tokens", T, bf16, float) {
  test::Rng rng(test::seed(), 40 + sizeof(T));
  const index_t tokens = 140, d = 64, p = 48;
  Rows<T> a = dense_rows<T>(rng, tokens, d), b = dense_rows<T>(rng, tokens, p);
  for (index_t t = 1; t < tokens; ++t)
    for (index_t k = 0; k < d; ++k) a(t, k) = from_float<T>(float(a.at(0, k) * (1 + 1e-3 * rng.normal())));
  for (index_t t = 1; t < tokens; t += 2)
    for (index_t j = 0; j < p; ++j) b(t, j) = from_float<T>(float(-b.at(t - 1, j)));
  check<T>(1, tokens, a, b);
}

TEST_CASE_TEMPLATE("instantiate and forget: NaN and Inf of one sample are seen there and nowhere else", T, bf16, f16,
                   float) {
  test::Rng rng(test::seed(), 50 + sizeof(T));
  const index_t samples = 3, tokens = 34, d = 72, p = 40;
  const Rows<T> a = dense_rows<T>(rng, samples * tokens, d), b = dense_rows<T>(rng, samples * tokens, p);
  const auto clean = on_device<T>(samples, tokens, a, b), again = on_device<T>(samples, tokens, a, b);
  for (std::size_t i = 0; i < clean.size(); ++i) CHECK(same_bits(clean[i], again[i]));
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()})
    for (const index_t token : {0, 33})
      for (const bool in_input : {true, false}) {
        Rows<T> x = a, y = b;
        (in_input ? x : y)(tokens + token, 39) = from_float<T>(bad);
        // The other factor of that token is 0: 0 * NaN must not be taken for nothing.
        for (index_t k = 0; k < (in_input ? p : d); ++k) (in_input ? y : x)(tokens + token, k) = from_float<T>(0.0f);
        const auto got = on_device<T>(samples, tokens, x, y);
        CHECK(same_bits(got[0], clean[0]));
        CHECK(!std::isfinite(got[1]));
        CHECK(same_bits(got[2], clean[2]));
      }
}

TEST_CASE("instantiate and forget: nothing to add up") {
  test::Rng rng(test::seed(), 60);
  CHECK(on_device<bf16>(0, 8, dense_rows<bf16>(rng, 0, 8), dense_rows<bf16>(rng, 0, 8)).empty());
  for (const index_t d : {0, 8})
    for (const index_t p : {0, 8})
      for (const index_t tokens : {0, 5}) {
        if (d * p * tokens > 0) continue;
        for (const double x :
             on_device<bf16>(2, tokens, dense_rows<bf16>(rng, 2 * tokens, d), dense_rows<bf16>(rng, 2 * tokens, p)))
          CHECK(x == 0);
      }
}

TEST_CASE("instantiate and forget: what is refused") {
  const auto run = [](index_t samples, index_t tokens, index_t width, index_t row_stride) {
    const kernels::SampleRows<bf16> x{nullptr, width, row_stride};
    kernels::instantiate_norm<bf16>(nullptr, samples, tokens, x, x, nullptr, nullptr);
  };
  CHECK_THROWS_AS(run(-1, 1, 8, 8), Error);
  CHECK_THROWS_AS(run(1, -1, 8, 8), Error);
  CHECK_THROWS_AS(run(1, 1, 8, 7), Error);
  CHECK_THROWS_AS(run(1, 1, -1, 8), Error);
  CHECK_THROWS_AS(run(1 << 20, 1, 1 << 14, 1 << 14), Error);
}

namespace {
/// The norm is that of the tile which the weighted sum releases, bit for bit. Each sample's gradient has one element that is
/// not 0, so that its square is the squared norm, rounded once to FP32.
template <class T>
void check_released(index_t tokens, index_t d, index_t p, kernels::WeightedSumKernel kernel) {
  CAPTURE(tokens);
  CAPTURE(d);
  CAPTURE(p);
  test::Rng rng(test::seed(), std::uint64_t(tokens * 1000003 + d * 1009 + p));
  constexpr index_t samples = 12;
  const index_t total = samples * tokens;
  Rows<T> a{d, d, 0, std::vector<T>(std::size_t(total * d), from_float<T>(0.0f))};
  Rows<T> b{p, p, 0, std::vector<T>(std::size_t(total * p), from_float<T>(0.0f))};
  std::vector<std::size_t> places;
  for (index_t i = 0; i < samples; ++i) {
    const index_t row = i == 0 ? 0 : i == 1 ? p - 1 : rng.integer(0, p - 1), column = i == 1 ? d - 1 : rng.integer(0, d - 1);
    places.push_back(std::size_t(row * d + column));
    for (index_t t = i * tokens; t < (i + 1) * tokens; ++t) {
      a(t, column) = from_float<T>(float(rng.normal()));
      b(t, row) = from_float<T>(float(rng.normal()));
    }
  }
  const std::vector<double> squared = on_device<T>(samples, tokens, a, b);
  const DeviceArray<T> device_a(a.values), device_b(b.values);
  const kernels::WeightedSumPlan plan{kernel, kernels::split_samples(samples, 1, 1)};
  for (index_t i = 0; i < samples; ++i) {
    std::vector<float> factors(samples, 0.0f);
    factors[std::size_t(i)] = 1;
    const DeviceArray<float> device_factors(factors);
    const DeviceArray<double> sum(std::vector<double>(std::size_t(p * d), 0.0));
    kernels::weighted_sum<T>(
        nullptr, {device_a.data(), device_b.data(), device_factors.data(), sum.data(), samples, tokens, p, d}, plan);
    const float released = float(sum.values()[places[std::size_t(i)]]);
    CHECK(same_bits(squared[std::size_t(i)], double(released * released)));
  }
}
}  // namespace

TEST_CASE_TEMPLATE("instantiate and forget: the norm is that of the released tile, bit for bit", T, bf16, f16) {
  for (const index_t tokens : {2, 15, 16, 17, 33, 100})
    for (const kernels::WeightedSumKernel kernel :
         {kernels::WeightedSumKernel::tiles_64, kernels::WeightedSumKernel::tiles_128}) {
      check_released<T>(tokens, 9, 70, kernel);
      check_released<T>(tokens, 128, 120, kernel);  // tiles of 128 x 128 in the norm
    }
}
TEST_CASE("instantiate and forget: the norm is that of the released tile, bit for bit, in FP32") {
  for (const index_t tokens : {2, 31, 32, 33, 100})
    check_released<float>(tokens, 65, 130, kernels::WeightedSumKernel::tiles_64);
}
