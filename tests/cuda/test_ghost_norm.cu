// SPDX-License-Identifier: Apache-2.0
// The ghost norm on a CUDA device against |sum_t b_t a_t^T|^2 in double, and its upper bounds of row norms.
#include <doctest/doctest.h>

#include <cmath>
#include <deque>
#include <limits>

#include "cuda/sample_rows_oracle.cuh"
#include "dpmp/kernels/cuda/norms/ghost_norm.cuh"
#include "support/difference.hpp"

using namespace dpmp;
using kernels::GhostNormResults;
using test::dense_rows;
using test::DeviceArray;
using test::DeviceRows;
using test::Rows;
using test::slice_of_rows;

namespace {
/// The numbers of one parameter and sample.
struct Numbers {
  double squared, quadratic, product_sum, input_sum, output_sum;
};
/// Memory for the results, filled with NaN.
class DeviceResults {
 public:
  explicit DeviceResults(index_t count)
      : count_(std::size_t(count)), memory_(std::vector<double>(5 * count_, std::numeric_limits<double>::quiet_NaN())) {}
  GhostNormResults arrays() const { return GhostNormResults::in(memory_.data(), index_t(count_)); }
  std::vector<Numbers> values() const {
    const std::vector<double> x = memory_.values();
    std::vector<Numbers> numbers;
    for (std::size_t k = 0; k < count_; ++k)
      numbers.push_back({x[k], x[count_ + k], x[2 * count_ + k], x[3 * count_ + k], x[4 * count_ + k]});
    return numbers;
  }

 private:
  std::size_t count_;
  DeviceArray<double> memory_;
};

/// slice_sums: null, or receives [samples, slices, p_k] of each parameter.
template <class T>
std::vector<Numbers> on_device(index_t samples, index_t tokens, const Rows<T>& a, const std::vector<Rows<T>>& b,
                               std::vector<std::vector<float>>* slice_sums = nullptr) {
  const auto nan = std::numeric_limits<double>::quiet_NaN();
  const DeviceRows<T> input(a);
  std::deque<DeviceRows<T>> arrays;
  std::deque<DeviceArray<float>> sums;
  std::vector<kernels::SampleRows<T>> outputs;
  std::vector<float*> sums_of;
  for (const Rows<T>& x : b) {
    outputs.push_back(arrays.emplace_back(x).rows());
    const index_t numbers = samples * kernels::ghost_norm_slices<T>(tokens) * x.width;
    if (slice_sums) sums_of.push_back(sums.emplace_back(std::vector<float>(std::size_t(numbers), float(nan))).data());
  }
  const index_t count = index_t(b.size());
  const DeviceArray<double> scratch(
      std::vector<double>(std::size_t(kernels::ghost_norm_scratch<T>(samples, tokens, count)), nan));
  const DeviceResults results(count * samples);
  kernels::ghost_norm<T>(nullptr, samples, tokens, input.rows(), outputs, scratch.data(), results.arrays(), sums_of);
  for (const DeviceArray<float>& x : sums) slice_sums->push_back(x.values());
  return results.values();
}

/// What ghost_norm computes, in double.
template <class T>
Numbers exact(index_t sample, index_t tokens, const Rows<T>& a, const Rows<T>& b) {
  Numbers r{0, 0, 0, 0, 0};
  for (const double g : test::exact_gradient(sample, tokens, a, b)) r.squared += g * g;
  for (index_t t = sample * tokens; t < (sample + 1) * tokens; ++t) {
    const double x = test::exact_row_norm(a, t), y = test::exact_row_norm(b, t);
    r.product_sum += x * y, r.input_sum += x, r.output_sum += y;
  }
  return r;
}

/// The bound that the certificate uses: what the kernel found, and eta.
double bound(index_t tokens, index_t d, index_t p, const Numbers& r) {
  const double t = double(tokens);
  return r.quadratic + 0x1p-125 * (double(d) * r.output_sum * r.output_sum + double(p) * r.input_sum * r.input_sum + t * t);
}
void check_upper_bound(double bound, double value, double floor) {
  CHECK(bound >= value);
  CHECK(bound <= 1.001 * value + floor);
}
/// Sums of b over the tokens of each slice.
template <class T>
void check_slice_sums(index_t samples, index_t tokens, const Rows<T>& b, const std::vector<float>& got) {
  const index_t slices = kernels::ghost_norm_slices<T>(tokens), side = kernels::detail::ghost_norm_side<T>(tokens);
  const double n = kernels::chain_roundings<T>(side) * 0x1p-24;
  REQUIRE(index_t(got.size()) == samples * slices * b.width);
  for (index_t row = 0; row < samples * slices; ++row)
    for (index_t k = 0; k < b.width; ++k) {
      CAPTURE(row);
      CAPTURE(k);
      double sum = 0, size = 0;
      const index_t first = row % slices * side, past = std::min(first + side, tokens);
      for (index_t t = row / slices * tokens + first; t < row / slices * tokens + past; ++t)
        sum += b.at(t, k), size += std::abs(b.at(t, k));
      CHECK(std::abs(double(got[std::size_t(row * b.width + k)]) - sum) <= n / (1 - n) * size);
    }
}
template <class T>
void check(index_t samples, index_t tokens, const Rows<T>& a, const std::vector<Rows<T>>& b) {
  std::vector<std::vector<float>> slice_sums;
  const std::vector<Numbers> got = on_device<T>(samples, tokens, a, b, &slice_sums);
  for (std::size_t k = 0; k < b.size(); ++k) check_slice_sums<T>(samples, tokens, b[k], slice_sums[k]);
  for (std::size_t k = 0; k < b.size(); ++k)
    for (index_t i = 0; i < samples; ++i) {
      CAPTURE(tokens);
      CAPTURE(a.width);
      CAPTURE(b[k].width);
      CAPTURE(k);
      CAPTURE(i);
      const Numbers &r = got[k * std::size_t(samples) + std::size_t(i)], want = exact<T>(i, tokens, a, b[k]);
      CHECK(std::abs(r.squared - want.squared) <= bound(tokens, a.width, b[k].width, r));
      check_upper_bound(r.product_sum, want.product_sum, 1e-12);
      check_upper_bound(r.input_sum, want.input_sum, 1e-12);
      check_upper_bound(r.output_sum, want.output_sum, 1e-12);
    }
}
bool same_bits(const Numbers& x, const Numbers& y) { return std::memcmp(&x, &y, sizeof x) == 0; }
bool finite(const Numbers& x) {
  return std::isfinite(x.squared) && std::isfinite(x.quadratic) && std::isfinite(x.product_sum);
}
/// What the certificate costs for random rows, beside what the cost rule expects: without the released tile.
template <class T>
void check_slack(index_t tokens, index_t d, index_t p) {
  test::Rng rng(test::seed(), std::uint64_t(tokens + d + p));
  const Rows<T> a = dense_rows<T>(rng, tokens, d), b = dense_rows<T>(rng, tokens, p);
  const Numbers r = on_device<T>(1, tokens, a, {b})[0], want = exact<T>(0, tokens, a, b);
  constexpr bool by_mma = !std::is_same_v<T, float>;
  const double slack = std::sqrt((r.squared + r.quadratic) / want.squared) - 1,
               released = kernels::gamma_float(kernels::chain_roundings<T>(tokens) + 20) * std::sqrt(double(tokens)),
               expected = kernels::gram_slack_on_cuda(by_mma, tokens, p, d) - released;
  MESSAGE(tokens, " tokens, ", p, " x ", d, ": ", slack, " over the norm, expected ", expected);
  CHECK(slack >= 0);
  CHECK(slack <= 1.2 * expected);
  CHECK(slack >= 0.5 * expected);
}
}  // namespace

TEST_CASE("ghost norm: what its bound costs is what is expected of it") {
  check_slack<bf16>(200, 64, 2100);
  check_slack<bf16>(200, 2100, 64);
  check_slack<bf16>(64, 256, 256);
  check_slack<float>(130, 100, 1100);
}

TEST_CASE("ghost norm: the bound of large models stays below 1 %") {
  for (const bool tensor_cores : {false, true}) {
    CHECK(kernels::gram_slack_on_cuda(tensor_cores, 512, 8192, 64) < 0.01);
    CHECK(kernels::gram_slack_on_cuda(tensor_cores, 1024, 50257, 768) < 0.01);
    CHECK(kernels::gram_slack_on_cuda(tensor_cores, 1024, 768, 3072) < 0.01);
    CHECK(kernels::gram_slack_on_cuda(tensor_cores, 1024, 262144, 1024) < 0.01);
    CHECK(kernels::gram_slack_on_cuda(tensor_cores, 8192, 16384, 16384) > 0.01);  // left to instantiation
  }
}

TEST_CASE_TEMPLATE("ghost norm: sides wider than a block, either of them, and several outputs", T, bf16, float) {
  test::Rng rng(test::seed(), 70 + sizeof(T));
  const index_t tokens = 66;
  const auto dense = [&](index_t width) { return dense_rows<T>(rng, 2 * tokens, width); };
  check<T>(2, tokens, dense(40), {dense(1030)});
  check<T>(2, tokens, dense(2049), {dense(24)});
  check<T>(2, tokens, dense(1024), {dense(1100)});
  check<T>(2, tokens, dense(30), {dense(1024), dense(8), dense(1025)});
}

TEST_CASE_TEMPLATE("ghost norm: dense rows of any length and width", T, bf16, f16, float) {
  test::Rng rng(test::seed(), sizeof(T));
  const index_t shapes[][3] = {{1, 8, 16},   {2, 1, 1},   {7, 24, 40}, {16, 64, 64},   {33, 67, 5},
                               {64, 128, 8}, {65, 72, 9}, {128, 3, 3}, {130, 200, 136}};
  for (const auto& [tokens, d, p] : shapes)
    check<T>(2, tokens, dense_rows<T>(rng, 2 * tokens, d), {dense_rows<T>(rng, 2 * tokens, p, 0.01)});
}

TEST_CASE("ghost norm: tiles of 128 x 128") {
  test::Rng rng(test::seed(), 11);
  for (const index_t tokens : {200, 380}) {
    REQUIRE(kernels::detail::ghost_norm_side<bf16>(tokens) == 128);
    check<bf16>(2, tokens, dense_rows<bf16>(rng, 2 * tokens, 136),
                {dense_rows<bf16>(rng, 2 * tokens, 24), dense_rows<bf16>(rng, 2 * tokens, 7)});
  }
}

TEST_CASE_TEMPLATE("ghost norm: shared inputs give each parameter what it gets alone", T, bf16, float) {
  test::Rng rng(test::seed(), 20 + sizeof(T));
  const index_t samples = 3, tokens = 70;
  const Rows<T> a = dense_rows<T>(rng, samples * tokens, 40);
  std::vector<Rows<T>> b;
  for (const index_t p : {48, 40, 70, 129}) b.push_back(dense_rows<T>(rng, samples * tokens, p));
  check<T>(samples, tokens, a, b);
  const auto together = on_device<T>(samples, tokens, a, b), again = on_device<T>(samples, tokens, a, b);
  for (std::size_t k = 0; k < b.size(); ++k) {
    const auto alone = on_device<T>(samples, tokens, a, {b[k]});
    for (std::size_t i = 0; i < alone.size(); ++i) {
      CHECK(same_bits(alone[i], together[k * alone.size() + i]));
      CHECK(same_bits(again[k * alone.size() + i], together[k * alone.size() + i]));
    }
  }
}

TEST_CASE("ghost norm: sums over tokens are taken of those that want them, and change no norm") {
  test::Rng rng(test::seed(), 63);
  const index_t samples = 2, tokens = 200, widths[] = {72, 24, 9};
  const Rows<bf16> a = dense_rows<bf16>(rng, samples * tokens, 40);
  std::vector<Rows<bf16>> b;
  for (const index_t p : widths) b.push_back(dense_rows<bf16>(rng, samples * tokens, p));
  std::vector<std::vector<float>> all;
  const auto without = on_device<bf16>(samples, tokens, a, b), with = on_device<bf16>(samples, tokens, a, b, &all);
  for (std::size_t k = 0; k < with.size(); ++k) CHECK(same_bits(without[k], with[k]));

  const DeviceRows<bf16> input(a), first(b[0]), second(b[1]), third(b[2]);
  const std::vector<kernels::SampleRows<bf16>> outputs{first.rows(), second.rows(), third.rows()};
  const DeviceArray<double> scratch(std::size_t(kernels::ghost_norm_scratch<bf16>(samples, tokens, 3)));
  const DeviceResults results(3 * samples);
  const DeviceArray<float> sums(std::vector<float>(all[1].size(), std::numeric_limits<float>::quiet_NaN()));
  const std::vector<float*> one{nullptr, sums.data(), nullptr}, too_few{nullptr, sums.data()};
  const auto run = [&](const std::vector<float*>& slice_sums) {
    kernels::ghost_norm<bf16>(nullptr, samples, tokens, input.rows(), outputs, scratch.data(), results.arrays(), slice_sums);
  };
  run(one);
  CHECK(test::difference(sums.values(), all[1]) == "");
  CHECK_THROWS_AS(run(too_few), Error);
}

TEST_CASE_TEMPLATE("ghost norm: slices of wider rows read nothing beside the slice", T, bf16, float) {
  test::Rng rng(test::seed(), 30 + sizeof(T));
  const index_t tokens = 20;
  // A slice that ends inside a 16-byte piece; one that begins inside one; one with an odd stride.
  check<T>(2, tokens, slice_of_rows<T>(rng, 2 * tokens, 21, 64, 16),
           {slice_of_rows<T>(rng, 2 * tokens, 16, 48, 32), slice_of_rows<T>(rng, 2 * tokens, 16, 48, 3),
            slice_of_rows<T>(rng, 2 * tokens, 9, 13, 2)});
}

TEST_CASE_TEMPLATE("ghost norm: cancelling tokens stay within the certificate", T, bf16, float) {
  test::Rng rng(test::seed(), 40 + sizeof(T));
  const index_t tokens = 140, d = 64, p = 48;
  Rows<T> a = dense_rows<T>(rng, tokens, d), b = dense_rows<T>(rng, tokens, p);
  for (index_t t = 1; t < tokens; ++t)  // all inputs nearly equal, output gradients in pairs of opposite sign
    for (index_t k = 0; k < d; ++k) a(t, k) = from_float<T>(float(a.at(0, k) * (1 + 1e-3 * rng.normal())));
  for (index_t t = 1; t < tokens; t += 2)
    for (index_t j = 0; j < p; ++j) b(t, j) = from_float<T>(float(-b.at(t - 1, j)));
  check<T>(1, tokens, a, {b});
}

TEST_CASE_TEMPLATE("ghost norm: NaN and Inf of one sample are seen there and nowhere else", T, bf16, f16, float) {
  test::Rng rng(test::seed(), 50 + sizeof(T));
  const index_t samples = 3, tokens = 66, d = 24, p = 40;
  const Rows<T> a = dense_rows<T>(rng, samples * tokens, d), b = dense_rows<T>(rng, samples * tokens, p);
  const auto clean = on_device<T>(samples, tokens, a, {b});
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()})
    for (const index_t token : {0, 65})
      for (const bool in_input : {true, false}) {
        Rows<T> x = a, y = b;
        (in_input ? x : y)(tokens + token, 23) = from_float<T>(bad);
        // The other factor of that token is 0: 0 * NaN must not be taken for nothing.
        for (index_t k = 0; k < (in_input ? p : d); ++k) (in_input ? y : x)(tokens + token, k) = from_float<T>(0.0f);
        const auto got = on_device<T>(samples, tokens, x, {y});
        CHECK(same_bits(got[0], clean[0]));
        CHECK(!finite(got[1]));
        CHECK(same_bits(got[2], clean[2]));
      }
}

TEST_CASE_TEMPLATE("ghost norm: bounds survive underflow, overflow makes a sample non-finite", T, bf16, float) {
  const index_t tokens = 4, d = 40, p = 72;
  Rows<T> a{d, d, 0, std::vector<T>(std::size_t(3 * tokens * d), from_float<T>(5e17f))};
  Rows<T> b{p, p, 0, std::vector<T>(std::size_t(3 * tokens * p), from_float<T>(1e-23f))};
  for (index_t k = 0; k < tokens * d; ++k) a.values[std::size_t(tokens * d + k)] = from_float<T>(1e20f);     // sample 1
  for (index_t k = 0; k < tokens * p; ++k) b.values[std::size_t(2 * tokens * p + k)] = from_float<T>(0.0f);  // sample 2
  const auto got = on_device<T>(3, tokens, a, {b});
  const Numbers want = exact<T>(0, tokens, a, b);
  CHECK(got[0].product_sum >= want.product_sum);
  CHECK(got[0].input_sum >= want.input_sum);
  CHECK(got[0].output_sum >= want.output_sum);
  CHECK(std::abs(got[0].squared - want.squared) <= bound(tokens, d, p, got[0]));
  CHECK(!finite(got[1]));
  CHECK(got[2].squared == 0);
  CHECK(finite(got[2]));
}

TEST_CASE("ghost norm: nothing to add up") {
  test::Rng rng(test::seed(), 60);
  CHECK(on_device<bf16>(0, 8, dense_rows<bf16>(rng, 0, 8), {dense_rows<bf16>(rng, 0, 8)}).empty());
  for (const index_t d : {0, 8})
    for (const index_t p : {0, 8})
      for (const index_t tokens : {0, 5}) {
        if (d * p * tokens > 0) continue;
        for (const Numbers& r :
             on_device<bf16>(2, tokens, dense_rows<bf16>(rng, 2 * tokens, d), {dense_rows<bf16>(rng, 2 * tokens, p)})) {
          CHECK(r.squared == 0);
          CHECK(r.product_sum < 1e-12);
        }
      }
}

TEST_CASE("ghost norm: outputs of width 0 among others") {
  test::Rng rng(test::seed(), 61);
  const index_t tokens = 70;
  std::vector<Rows<bf16>> b;
  for (const index_t p : {0, 8, 0, 0}) b.push_back(dense_rows<bf16>(rng, 2 * tokens, p));
  check<bf16>(2, tokens, dense_rows<bf16>(rng, 2 * tokens, 16), b);
}

TEST_CASE("ghost norm: replayed from a captured graph") {
  test::Rng rng(test::seed(), 62);
  const index_t samples = 2, tokens = 70;
  const Rows<bf16> a = dense_rows<bf16>(rng, samples * tokens, 16), b = dense_rows<bf16>(rng, samples * tokens, 24);
  const DeviceRows<bf16> input(a), output(b);
  const DeviceArray<double> scratch(std::size_t(kernels::ghost_norm_scratch<bf16>(samples, tokens, 1)));
  const DeviceResults results(samples);
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t program;
  REQUIRE(cudaStreamCreate(&stream) == cudaSuccess);
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  kernels::ghost_norm<bf16>(stream, samples, tokens, input.rows(), {&output.rows(), 1}, scratch.data(), results.arrays());
  REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  REQUIRE(cudaGraphInstantiate(&program, graph, 0) == cudaSuccess);
  CHECK(cudaGraphLaunch(program, stream) == cudaSuccess);
  const auto got = results.values(), want = on_device<bf16>(samples, tokens, a, {b});
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(same_bits(got[i], want[i]));
  cudaGraphExecDestroy(program);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

TEST_CASE("ghost norm: what is refused") {
  const kernels::SampleRows<bf16> x{nullptr, 8, 8}, narrow{nullptr, 8, 7};
  const std::vector<kernels::SampleRows<bf16>> one = {x}, none, five(5, x), wrong = {narrow};
  const auto run = [&](index_t samples, index_t tokens, const std::vector<kernels::SampleRows<bf16>>& b) {
    kernels::ghost_norm<bf16>(nullptr, samples, tokens, x, b, nullptr, {});
  };
  CHECK_THROWS_AS(run(-1, 1, one), Error);
  CHECK_THROWS_AS(run(1, -1, one), Error);
  CHECK_THROWS_AS(run(1, 1, none), Error);
  CHECK_THROWS_AS(run(1, 1, five), Error);
  CHECK_THROWS_AS(run(1, 1, wrong), Error);
  CHECK_THROWS_AS(run(index_t(1) << 20, 1 << 14, one), Error);
}
