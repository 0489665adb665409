// SPDX-License-Identifier: Apache-2.0
// Tokens in the order of their ids, and the squared norms, per-sample gradients and the clipped weighted sum of looked-up
// rows on CUDA, against plain loops in double.
#include <doctest/doctest.h>
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "dpmp/kernels/cuda/sums/segment_sum.cuh"
#include "support/difference.hpp"
#include "support/random.hpp"

using namespace dpmp;
using namespace dpmp::kernels;

namespace {
void checked(cudaError_t code) { REQUIRE_MESSAGE(code == cudaSuccess, cudaGetErrorString(code)); }

template <class T>
class OnDevice {
 public:
  explicit OnDevice(const std::vector<T>& values) : size_(values.size()) {
    checked(cudaMalloc(&data_, std::max<std::size_t>(1, size_) * sizeof(T)));
    if (size_ > 0) checked(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~OnDevice() { cudaFree(data_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  T* data() const { return data_; }

 private:
  T* data_ = nullptr;
  std::size_t size_;
};
template <class T>
std::vector<T> on_host(const T* data, std::size_t size) {
  std::vector<T> values(size);
  if (size > 0) checked(cudaMemcpy(values.data(), data, size * sizeof(T), cudaMemcpyDeviceToHost));
  return values;
}

struct Results {
  std::vector<double> squared, table;
  std::vector<double> wide, narrow;  // gradients that the segments were added to, in FP32 and in T
  bool operator==(const Results&) const = default;
};

template <class T>
struct Case {
  index_t samples, tokens, rows, columns;
  std::vector<T> a;
  std::vector<std::int32_t> ids;
  std::vector<float> factors;
  std::vector<double> before;

  /// Ids from low to high, both included.
  Case(index_t B, index_t t, index_t v, index_t d, std::int64_t low, std::int64_t high, test::Rng& rng)
      : samples(B), tokens(t), rows(v), columns(d) {
    for (index_t k = 0; k < B * t * d; ++k) a.push_back(from_float<T>(float(rng.normal())));
    for (index_t k = 0; k < B * t; ++k) ids.push_back(std::int32_t(rng.integer(low, high)));
    for (index_t i = 0; i < B; ++i) factors.push_back(i % 5 == 3 ? 0.0f : float(rng.uniform(0.01, 1)));
    for (index_t k = 0; k < v * d; ++k) before.push_back(rng.normal(10));
  }

  Results on_device() const {
    const OnDevice<T> rows_of(a);
    const OnDevice<std::int32_t> device_ids(ids);
    const OnDevice<float> device_factors(factors);
    const OnDevice<double> table(before), squared(std::vector<double>(std::size_t(samples), -1.0));
    const OnDevice<TokenKey> first(std::vector<TokenKey>(ids.size())), second(std::vector<TokenKey>(ids.size()));
    TokenKeys keys = sort_tokens(nullptr, device_ids.data(), {first.data(), second.data()}, samples, tokens);
    segment_norms<T>(nullptr, {rows_of.data(), keys.keys, samples, tokens, rows, columns}, squared.data());
    const std::vector<double> wide = gradients<float>(keys.keys, rows_of.data()),
                              narrow = gradients<T>(keys.keys, rows_of.data());
    keys = merge_samples(nullptr, keys, samples, tokens);
    segment_sum<T>(nullptr, {rows_of.data(), keys.keys, samples, tokens, rows, columns}, device_factors.data(),
                   table.data());
    checked(cudaDeviceSynchronize());
    return {on_host(squared.data(), std::size_t(samples)), on_host(table.data(), before.size()), wide, narrow};
  }
  /// What per-sample gradients hold before the segments are added: exact in every dtype.
  double gradient_before(index_t element) const { return double(element % 17) / 4 - 2; }
  template <class Out>
  std::vector<double> gradients(const TokenKey* keys, const T* rows_of) const {
    std::vector<Out> start;
    for (index_t k = 0; k < samples * rows * columns; ++k) start.push_back(from_float<Out>(float(gradient_before(k))));
    const OnDevice<Out> there(start);
    segment_add<T>(nullptr, {rows_of, keys, samples, tokens, rows, columns}, there.data());
    checked(cudaDeviceSynchronize());
    std::vector<double> values;
    for (const Out x : on_host(there.data(), start.size())) values.push_back(double(to_float(x)));
    return values;
  }

  /// Sums of sample i's rows by id, and of their absolute values.
  std::map<std::int32_t, std::pair<std::vector<double>, std::vector<double>>> segments(index_t i) const {
    std::map<std::int32_t, std::pair<std::vector<double>, std::vector<double>>> all;
    for (index_t t = 0; t < tokens; ++t) {
      const std::int32_t id = ids[std::size_t(i * tokens + t)];
      if (id < 0 || id >= rows) continue;
      auto& [sum, size] = all[id];
      sum.resize(std::size_t(columns)), size.resize(std::size_t(columns));
      for (index_t j = 0; j < columns; ++j) {
        const double x = double(to_float(a[std::size_t((i * tokens + t) * columns + j)]));
        sum[std::size_t(j)] += x, size[std::size_t(j)] += std::fabs(x);
      }
    }
    return all;
  }

  /// Errors are at most what FP32 sums over a sample's tokens, one FP32 square or product, and double sums may make.
  void check(const Results& got) const {
    const double u = 0x1p-24, gamma = double(tokens + 1) * u / (1 - double(tokens + 1) * u);
    std::vector<double> wanted = before, allowed(before.size());
    for (index_t i = 0; i < samples; ++i) {
      double squared = 0, slack = 0;
      for (const auto& [id, both] : segments(i))
        for (index_t j = 0; j < columns; ++j) {
          const double x = both.first[std::size_t(j)], error = gamma * both.second[std::size_t(j)];
          squared += x * x;
          slack += 2 * std::fabs(x) * error + error * error + 4 * u * (x * x + error * error);
          const double c = double(factors[std::size_t(i)]);
          if (!(c > 0)) continue;
          wanted[std::size_t(id * columns + j)] += c * x;
          allowed[std::size_t(id * columns + j)] += c * (error + u * std::fabs(x)) * (1 + u) + 0x1p-50 * std::fabs(c * x);
        }
      CAPTURE(i);
      CHECK(std::fabs(got.squared[std::size_t(i)] - squared) <= slack + 1e-12 * squared);
    }
    index_t wrong = 0;
    for (index_t i = 0; i < samples; ++i) {
      const auto sums = segments(i);
      for (index_t r = 0; r < rows; ++r)
        for (index_t j = 0; j < columns; ++j) {
          const index_t k = (i * rows + r) * columns + j;
          const auto found = sums.find(std::int32_t(r));
          const double x = found == sums.end() ? 0 : found->second.first[std::size_t(j)],
                       error = found == sums.end() ? 0 : gamma * found->second.second[std::size_t(j)],
                       y = gradient_before(k) + x, half = std::is_same_v<T, bf16> ? 0x1p-8 : 0x1p-11;
          const double rounding = x == 0 && error == 0 ? 0 : u,
                       narrow = std::is_same_v<T, float> || rounding == 0 ? 0 : half;
          wrong += !(std::fabs(got.wide[std::size_t(k)] - y) <= error + rounding * (std::fabs(y) + error));
          wrong +=
              !(std::fabs(got.narrow[std::size_t(k)] - y) <= error + (rounding + narrow) * (std::fabs(y) + error) * (1 + u));
        }
    }
    for (std::size_t k = 0; k < wanted.size(); ++k)
      wrong += !(std::fabs(got.table[k] - wanted[k]) <= allowed[k] + double(samples + 2) * 0x1p-52 * std::fabs(before[k]));
    CHECK(wrong == 0);
  }
};

/// The tokens' order by std::sort.
std::vector<TokenKey> sorted(const std::vector<std::int32_t>& ids, index_t group) {
  std::vector<TokenKey> keys;
  for (std::size_t k = 0; k < ids.size(); ++k) keys.push_back(token_key(ids[k], std::uint32_t(k)));
  for (index_t first = 0; first < index_t(ids.size()); first += group)
    std::sort(keys.begin() + first, keys.begin() + first + group);
  return keys;
}

void check_order(index_t samples, index_t tokens, std::int64_t low, std::int64_t high) {
  CAPTURE(samples);
  CAPTURE(tokens);
  test::Rng rng(test::seed(), std::uint64_t(samples * 100000 + tokens));
  std::vector<std::int32_t> ids;
  for (index_t k = 0; k < samples * tokens; ++k) ids.push_back(std::int32_t(rng.integer(low, high)));
  const OnDevice<std::int32_t> device_ids(ids);
  const OnDevice<TokenKey> first(std::vector<TokenKey>(ids.size())), second(std::vector<TokenKey>(ids.size()));
  TokenKeys keys = sort_tokens(nullptr, device_ids.data(), {first.data(), second.data()}, samples, tokens);
  checked(cudaDeviceSynchronize());
  CHECK(on_host(keys.keys, ids.size()) == sorted(ids, tokens));
  keys = merge_samples(nullptr, keys, samples, tokens);
  checked(cudaDeviceSynchronize());
  CHECK(on_host(keys.keys, ids.size()) == sorted(ids, samples * tokens));
}
}  // namespace

TEST_CASE("tokens are ordered by id, sample and position") {
  constexpr std::int64_t least = std::numeric_limits<std::int32_t>::min(), most = std::numeric_limits<std::int32_t>::max();
  check_order(1, 1, 0, 3);
  check_order(7, 1, -1, 3);
  check_order(5, 37, -2, 9);
  check_order(2, 300, least, most);
  check_order(3, SortRun::longest + 5, 0, 50);     // a second run of a sample, which is short
  check_order(1, 2 * SortRun::longest + 1, 7, 7);  // three runs, one id
}

template <class T>
void check_case(index_t B, index_t t, index_t v, index_t d, std::int64_t low, std::int64_t high) {
  CAPTURE(B);
  CAPTURE(t);
  CAPTURE(d);
  test::Rng rng(test::seed(), std::uint64_t(B * 1000003 + t * 10007 + v * 101 + d));
  const Case<T> x(B, t, v, d, low, high, rng);
  x.check(x.on_device());
}

TEST_CASE("norms and weighted sums of looked-up rows") {
  check_case<bf16>(6, 45, 30, 72, -1, 29);  // padding, more than a slice of columns
  check_case<bf16>(3, 33, 5, 67, 0, 4);     // columns in odd rows, long segments
  check_case<bf16>(40, 1, 9, 8, 0, 8);      // samples of one token
  check_case<bf16>(4, 70, 1, 6, 0, 0);      // one id: segments longer than a window
  check_case<f16>(3, 20, 7, 1026, -3, 9);   // more columns than a round of a block; ids beyond the table
  check_case<float>(5, 40, 64, 34, -1, 63);
  check_case<float>(2, 9, 5, 3, -1, -1);  // nothing but padding
}

TEST_CASE("looked-up rows: empty extents") {
  test::Rng rng;
  const Case<bf16> none(0, 5, 4, 6, 0, 3, rng), silent(3, 0, 4, 6, 0, 3, rng);
  const Results nothing = none.on_device(), nought = silent.on_device();
  CHECK(nothing.squared.empty());
  CHECK(nothing.table == none.before);
  CHECK(nought.squared == std::vector<double>{0, 0, 0});
  CHECK(nought.table == silent.before);
  for (std::size_t k = 0; k < nought.wide.size(); ++k) CHECK(nought.narrow[k] == silent.gradient_before(index_t(k)));
}

TEST_CASE("looked-up rows: a dropped sample vanishes exactly, samples do not touch each other") {
  test::Rng rng;
  Case<bf16> x(9, 20, 12, 10, -1, 11, rng);
  const index_t bad = rng.integer(0, 8);
  x.factors[std::size_t(bad)] = 0;
  const Results wanted = x.on_device();
  const float poison[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()};
  for (index_t k = 0; k < 20 * 10; ++k) x.a[std::size_t(bad * 200 + k)] = from_float<bf16>(poison[rng.integer(0, 2)]);
  Results got = x.on_device();
  CHECK(test::difference(got.table, wanted.table) == "");
  CHECK(!std::isfinite(got.squared[std::size_t(bad)]));
  got.squared[std::size_t(bad)] = wanted.squared[std::size_t(bad)];
  CHECK(test::difference(got.squared, wanted.squared) == "");
  for (std::size_t k = 0; k < got.wide.size(); ++k)
    if (index_t(k) / 120 != bad) CHECK((got.wide[k] == wanted.wide[k] && got.narrow[k] == wanted.narrow[k]));
  x.factors[std::size_t(bad)] = poison[0];
  CHECK(test::difference(x.on_device().table, wanted.table) == "");
}

TEST_CASE("looked-up rows: rows of padding may hold anything") {
  test::Rng rng;
  Case<bf16> x(3, 20, 12, 10, -1, 3, rng);
  x.ids[5] = -7;
  x.ids[29] = 12;
  const Results wanted = x.on_device();
  for (index_t t = 0; t < 60; ++t)
    if (x.ids[std::size_t(t)] < 0 || x.ids[std::size_t(t)] >= 12)
      for (index_t j = 0; j < 10; ++j)
        x.a[std::size_t(t * 10 + j)] = from_float<bf16>(std::numeric_limits<float>::infinity());
  CHECK(x.on_device() == wanted);
}
