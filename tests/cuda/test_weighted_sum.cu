// SPDX-License-Identifier: Apache-2.0
// The clipped weighted sum on CUDA against plain loops in double, and the exactness rules that the privacy proof leans on.
#include <doctest/doctest.h>
#include <cmath>
#include <limits>
#include <vector>

#include "dpmp/kernels/cuda/sums/weighted_sum.cuh"
#include "support/difference.hpp"
#include "support/random.hpp"

using namespace dpmp;
using namespace dpmp::kernels;

namespace {
void checked(cudaError_t code) { REQUIRE_MESSAGE(code == cudaSuccess, cudaGetErrorString(code)); }

/// A copy on the device of host values, `offset` elements behind a 256-byte boundary.
template <class T>
class OnDevice {
 public:
  explicit OnDevice(const std::vector<T>& values, std::size_t offset = 0) : size_(values.size()) {
    checked(cudaMalloc(&memory_, (size_ + offset) * sizeof(T) + 16));
    data_ = static_cast<T*>(memory_) + offset;
    if (size_ > 0) checked(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~OnDevice() { cudaFree(memory_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  T* data() const { return data_; }
  std::vector<T> host() const {
    std::vector<T> values(size_);
    if (size_ > 0) checked(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  void* memory_ = nullptr;
  T* data_ = nullptr;
  std::size_t size_;
};

/// Operands on the host, and the sum that was there before.
template <class T>
struct Case {
  index_t samples, tokens, rows, columns;
  std::vector<T> a, b;
  std::vector<float> factors;
  std::vector<double> before;

  Case(index_t B, index_t t, index_t p, index_t d, test::Rng& rng) : samples(B), tokens(t), rows(p), columns(d) {
    for (index_t k = 0; k < B * t * d; ++k) a.push_back(from_float<T>(float(rng.normal())));
    for (index_t k = 0; k < B * t * p; ++k) b.push_back(from_float<T>(float(rng.normal())));
    for (index_t i = 0; i < B; ++i) factors.push_back(i % 5 == 3 ? 0.0f : float(rng.uniform(0.01, 1)));
    for (index_t k = 0; k < p * d; ++k) before.push_back(rng.normal(10));
  }

  std::vector<double> on_device(const WeightedSumPlan& plan, std::size_t a_offset = 0, std::size_t sum_offset = 0) const {
    const OnDevice<T> device_a(a, a_offset), device_b(b);
    const OnDevice<float> device_factors(factors);
    const OnDevice<double> sum(before, sum_offset);
    // Scratch holds NaN: what a split does not write, it must not use.
    const OnDevice<double> scratch(
        std::vector<double>(std::size_t(plan.scratch(rows, columns)), std::numeric_limits<double>::quiet_NaN()));
    weighted_sum<T>(nullptr,
                    {device_a.data(), device_b.data(), device_factors.data(), sum.data(), samples, tokens, rows, columns},
                    plan, scratch.data(), plan.scratch(rows, columns));
    checked(cudaDeviceSynchronize());
    return sum.host();
  }

  /// Largest error in units of what is allowed. Per coordinate: FP32 sum over tokens, c times it and the sum over samples in
  /// double. Tensor cores cut off where FP32 addition rounds: up to 10 units for 8 products and the sum they join.
  double worst(const std::vector<double>& got) const {
    const bool matrix = !std::is_same_v<T, float> && tokens > 1;
    const double chain = matrix ? 10 * double((tokens + 7) / 8) : tokens == 1 ? 0 : double(tokens);
    const double u = 0x1p-24, gamma = chain * u / (1 - chain * u);
    double worst = 0;
    for (index_t r = 0; r < rows; ++r)
      for (index_t j = 0; j < columns; ++j) {
        double wanted = before[std::size_t(r * columns + j)], size = 0;
        for (index_t i = 0; i < samples; ++i) {
          if (!(factors[std::size_t(i)] > 0)) continue;
          for (index_t t = 0; t < tokens; ++t) {
            const std::size_t row = std::size_t(i * tokens + t);
            const double x = double(factors[std::size_t(i)]) *
                             double(to_float(b[row * std::size_t(rows) + std::size_t(r)])) *
                             double(to_float(a[row * std::size_t(columns) + std::size_t(j)]));
            wanted += x;
            size += std::fabs(x);
          }
        }
        const double allowed = gamma * size + double(samples + 2) * 0x1p-52 * (std::fabs(wanted) + size);
        const double error = std::fabs(got[std::size_t(r * columns + j)] - wanted) / allowed;
        if (!(error <= worst)) worst = error == error ? error : std::numeric_limits<double>::infinity();
      }
    return worst;
  }
};

WeightedSumPlan plan_of(WeightedSumKernel kernel, index_t samples, index_t splits = 1) {
  return {kernel, split_samples(samples, 1, splits)};
}

template <class T>
void check(index_t B, index_t t, index_t p, index_t d, WeightedSumKernel kernel, index_t splits = 1) {
  CAPTURE(B);
  CAPTURE(t);
  CAPTURE(p);
  CAPTURE(d);
  CAPTURE(splits);
  test::Rng rng(test::seed(), std::uint64_t(B * 1000003 + t * 10007 + p * 101 + d));
  const Case<T> x(B, t, p, d, rng);
  CHECK(x.worst(x.on_device(plan_of(kernel, B, splits))) <= 1);
}
}  // namespace

TEST_CASE("weighted sum on tensor cores: tiles, tails, chunks, splits") {
  check<bf16>(3, 40, 136, 144, WeightedSumKernel::tiles_128);    // aligned rows, a second tile each way, a token tail
  check<bf16>(9, 33, 72, 80, WeightedSumKernel::tiles_64);       // two FP32 blocks
  check<bf16>(2, 100, 130, 70, WeightedSumKernel::tiles_128);    // rows that are not 16-byte aligned
  check<bf16>(18, 5, 67, 9, WeightedSumKernel::tiles_64, 3);     // splits, odd columns
  check<bf16>(17, 16, 8, 136, WeightedSumKernel::tiles_128, 2);  // splits whose slabs are stored in pairs
  check<f16>(10, 33, 40, 72, WeightedSumKernel::tiles_64);
  check<bf16>(1, 2, 1, 1, WeightedSumKernel::tiles_64);
  check<bf16>(2, 2, 600, 8, WeightedSumKernel::tiles_64);  // more tile rows than a band
}

TEST_CASE("weighted sum in FP32") {
  check<float>(3, 40, 132, 68, WeightedSumKernel::tiles_64);
  check<float>(9, 17, 33, 67, WeightedSumKernel::tiles_64);
  check<float>(20, 3, 130, 10, WeightedSumKernel::tiles_64, 3);
}

TEST_CASE("weighted sum of samples of one token") {
  check<bf16>(37, 1, 136, 72, WeightedSumKernel::rank_one);
  check<bf16>(37, 1, 10, 67, WeightedSumKernel::rank_one, 4);
  check<f16>(9, 1, 33, 64, WeightedSumKernel::rank_one);
  check<float>(19, 1, 132, 68, WeightedSumKernel::rank_one);
}

TEST_CASE("weighted sum: rows that start off a 16-byte boundary, empty extents") {
  test::Rng rng;
  const Case<bf16> x(2, 20, 24, 16, rng);
  CHECK(x.worst(x.on_device(plan_of(WeightedSumKernel::tiles_64, 2), 3, 1)) <= 1);
  const Case<bf16> none(0, 20, 4, 5, rng);
  CHECK(test::difference(none.on_device(plan_of(WeightedSumKernel::tiles_64, 0)), none.before) == "");
  const Case<bf16> silent(3, 0, 4, 5, rng);
  CHECK(test::difference(silent.on_device(plan_of(WeightedSumKernel::tiles_64, 3)), silent.before) == "");
}

/// One sample's NaN, Inf and overflow end with its factor of 0: every bit is as if it had held zeros.
template <class T>
void check_isolation(index_t tokens, WeightedSumKernel kernel) {
  test::Rng rng(test::seed(), std::uint64_t(tokens));
  Case<T> x(11, tokens, 20, 24, rng);
  const index_t bad = rng.integer(0, 10);
  x.factors[std::size_t(bad)] = 0;
  const std::vector<double> wanted = x.on_device(plan_of(kernel, x.samples));
  const float poison[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity(), 3e38f};
  for (index_t k = 0; k < tokens * x.columns; ++k)
    x.a[std::size_t(bad * tokens * x.columns + k)] = from_float<T>(poison[rng.integer(0, 3)]);
  for (index_t k = 0; k < tokens * x.rows; ++k)
    x.b[std::size_t(bad * tokens * x.rows + k)] = from_float<T>(poison[rng.integer(0, 3)]);
  CHECK(test::difference(x.on_device(plan_of(kernel, x.samples)), wanted) == "");
  // A factor that is not a number, or negative, counts nothing either.
  x.factors[std::size_t(bad)] = poison[rng.integer(0, 1) * 2];
  CHECK(test::difference(x.on_device(plan_of(kernel, x.samples)), wanted) == "");
}

TEST_CASE("weighted sum: a dropped sample vanishes exactly") {
  check_isolation<bf16>(20, WeightedSumKernel::tiles_64);
  check_isolation<bf16>(1, WeightedSumKernel::rank_one);
  check_isolation<float>(20, WeightedSumKernel::tiles_64);
}

/// A sample's contribution is formed alone: with every other factor 0 it is c times its FP32 tile, whoever its neighbours
/// are.
TEST_CASE("weighted sum: a sample's tile does not depend on the others") {
  test::Rng rng;
  Case<bf16> x(10, 37, 24, 40, rng);
  x.before.assign(x.before.size(), 0.0);
  x.factors.assign(10, 0.0f);
  x.factors[6] = 0.37f;
  const std::vector<double> first = x.on_device(plan_of(WeightedSumKernel::tiles_64, 10));
  for (index_t k = 0; k < 6 * 37 * 40; ++k) x.a[std::size_t(k)] = from_float<bf16>(float(rng.normal(100)));
  for (index_t k = 7 * 37 * 24; k < 10 * 37 * 24; ++k) x.b[std::size_t(k)] = from_float<bf16>(float(rng.normal(100)));
  CHECK(test::difference(x.on_device(plan_of(WeightedSumKernel::tiles_64, 10)), first) == "");
  CHECK(test::difference(x.on_device(plan_of(WeightedSumKernel::tiles_128, 10)), first) == "");
  CHECK(test::difference(x.on_device(plan_of(WeightedSumKernel::tiles_64, 10, 2)), first) == "");
  bool tiles = true;
  for (const double s : first) {
    const float tile = float(s / double(0.37f));
    tiles = tiles && s == double(0.37f) * double(tile);
  }
  CHECK(tiles);
}

/// The same contribution in every slot, beside anything: other samples, NaN, samples that are not there.
template <class T>
void check_slots(index_t tokens, WeightedSumKernel kernel) {
  test::Rng rng(test::seed(), std::uint64_t(tokens) + 100);
  const Case<T> record(1, tokens, 70, 40, rng);
  const auto alone = [&](index_t samples, index_t slot, bool poison, index_t splits) {
    Case<T> x(samples, tokens, 70, 40, rng);
    x.before.assign(x.before.size(), 0.0);
    x.factors.assign(std::size_t(samples), 0.0f);
    if (poison) {
      x.a.assign(x.a.size(), from_float<T>(std::numeric_limits<float>::quiet_NaN()));
      x.b.assign(x.b.size(), from_float<T>(std::numeric_limits<float>::infinity()));
    }
    std::copy(record.a.begin(), record.a.end(), x.a.begin() + slot * tokens * 40);
    std::copy(record.b.begin(), record.b.end(), x.b.begin() + slot * tokens * 70);
    x.factors[std::size_t(slot)] = 0.61f;
    return x.on_device(plan_of(kernel, samples, splits));
  };
  const std::vector<double> wanted = alone(1, 0, false, 1);
  for (const index_t samples : {5, 19})
    for (const index_t slot : {index_t(0), samples / 2, samples - 1})
      for (const bool poison : {false, true})
        CHECK(test::difference(alone(samples, slot, poison, 1 + slot % 3), wanted) == "");
}
TEST_CASE("weighted sum: a contribution has the same bits in every slot") {
  check_slots<bf16>(37, WeightedSumKernel::tiles_64);
  check_slots<f16>(16, WeightedSumKernel::tiles_128);
  check_slots<bf16>(1, WeightedSumKernel::rank_one);
  check_slots<float>(1, WeightedSumKernel::rank_one);
  check_slots<float>(21, WeightedSumKernel::tiles_64);
}

TEST_CASE("weighted sum: samples meet in double") {
  // 2^40 + 15 is no FP32 number, and no sum of two samples is one either.
  test::Rng rng;
  for (const index_t tokens : {1, 2}) {
    Case<bf16> x(16, tokens, 1, 8, rng);
    x.before.assign(8, 0.0);
    x.factors.assign(16, 1.0f);
    x.a.assign(x.a.size(), from_float<bf16>(1.0f));
    x.b.assign(x.b.size(), from_float<bf16>(0.0f));
    for (std::size_t i = 0; i < 16; ++i) x.b[std::size_t(tokens) * i] = from_float<bf16>(i == 0 ? 0x1p40f : 1.0f);
    for (const index_t splits : {1, 2})
      for (const WeightedSumKernel kernel : {WeightedSumKernel::tiles_64, WeightedSumKernel::tiles_128}) {
        const WeightedSumPlan plan = plan_of(tokens == 1 ? WeightedSumKernel::rank_one : kernel, 16, splits);
        CHECK(x.on_device(plan) == std::vector<double>(8, 0x1p40 + 15));
      }
  }
}

/// One sample really removed, all later ones a slot lower: the sum moves by its contribution, and by the roundings of at
/// most `samples` additions in double of partial sums that are at most the sum of the absolute values.
template <class T>
void check_removal(index_t samples, index_t tokens, WeightedSumKernel kernel, index_t splits) {
  test::Rng rng(test::seed(), std::uint64_t(samples * 31 + tokens));
  const index_t p = 5, d = 9;
  Case<T> with(samples, tokens, p, d, rng);
  with.before.assign(with.before.size(), 0.0);
  for (float& c : with.factors) c = float(std::exp(rng.normal(6)));  // of very different sizes
  const std::size_t gone = std::size_t(rng.integer(0, int(samples) - 1));
  Case<T> without = with, alone = with;
  const auto erase = [&](auto& x, std::size_t each) {
    x.erase(x.begin() + index_t(gone * each), x.begin() + index_t((gone + 1) * each));
  };
  erase(without.a, std::size_t(tokens * d)), erase(without.b, std::size_t(tokens * p)), erase(without.factors, 1);
  --without.samples;
  alone.factors.assign(std::size_t(samples), 0.0f);
  alone.factors[gone] = with.factors[gone];
  std::vector<double> size(std::size_t(p * d), 0.0);
  for (index_t i = 0; i < samples; ++i) {
    Case<T> one = with;
    one.factors.assign(std::size_t(samples), 0.0f);
    one.factors[std::size_t(i)] = with.factors[std::size_t(i)];
    const std::vector<double> x = one.on_device(plan_of(kernel, samples));
    for (std::size_t k = 0; k < size.size(); ++k) size[k] += std::fabs(x[k]);
  }
  const std::vector<double> sum = with.on_device(plan_of(kernel, samples, splits)),
                            less = without.on_device(plan_of(kernel, without.samples, splits)),
                            contribution = alone.on_device(plan_of(kernel, samples));
  double worst = 0;
  for (std::size_t k = 0; k < size.size(); ++k)
    worst = std::max(worst, std::fabs(sum[k] - less[k] - contribution[k]) / (2 * double(samples) * 0x1p-53 * size[k]));
  MESSAGE("removal moves the others by ", worst, " of what is allowed");
  CHECK(worst <= 1);
}
TEST_CASE("weighted sum: a removed sample leaves the others where they were, up to roundings of double") {
  check_removal<bf16>(40, 3, WeightedSumKernel::tiles_64, 1);
  check_removal<bf16>(25, 17, WeightedSumKernel::tiles_128, 3);
  check_removal<bf16>(50, 1, WeightedSumKernel::rank_one, 2);
  check_removal<float>(30, 4, WeightedSumKernel::tiles_64, 1);
}

TEST_CASE("weighted sum: plans cover every sample and refuse what does not fit") {
  for (const index_t samples : {0, 1, 8, 9, 64, 1000})
    for (const index_t tokens : {1, 2, 512})
      for (const index_t extent : {1, 64, 65, 768, 50257})
        for (const index_t processors : {1, 4, 108, 132}) {
          const WeightedSumPlan plan = plan_weighted_sum<bf16>(samples, tokens, extent, 768, processors);
          CHECK(plan.split.splits * plan.split.samples_each >= samples);
          CHECK((plan.split.splits - 1) * plan.split.samples_each <= std::max<index_t>(0, samples - 1));
          CHECK((plan.kernel == WeightedSumKernel::rank_one) == (tokens == 1));
          // Scratch is at most a tile of doubles for each block that can be resident.
          if (plan.kernel == WeightedSumKernel::tiles_64)
            CHECK((plan.split.splits == 1 || plan.split.splits * ceil_div(extent, 64) * 12 <= processors * 3));
        }
  test::Rng rng;
  const Case<bf16> x(9, 2, 4, 4, rng);
  CHECK_THROWS_WITH_AS(x.on_device(plan_of(WeightedSumKernel::tiles_64, 1)),
                       doctest::Contains("expected splits that cover 9 samples"), Error);
  CHECK_THROWS_WITH_AS(x.on_device(plan_of(WeightedSumKernel::rank_one, 9)), doctest::Contains("samples of one token"),
                       Error);
  CHECK_THROWS_WITH_AS(weighted_sum<bf16>(nullptr, {nullptr, nullptr, nullptr, nullptr, samples_per_chain + 1, 2, 4, 4},
                                          plan_of(WeightedSumKernel::tiles_64, samples_per_chain + 1)),
                       doctest::Contains("expected a sum over at most 512 samples"), Error);
  CHECK_THROWS_WITH_AS(weighted_sum<bf16>(nullptr, {nullptr, nullptr, nullptr, nullptr, 9, 2, 4, 4},
                                          plan_of(WeightedSumKernel::tiles_64, 9, 2)),
                       doctest::Contains("expected scratch of 32 doubles"), Error);
  const Case<float> wide(9, 2, 4, 4, rng);
  CHECK_THROWS_WITH_AS(wide.on_device(plan_of(WeightedSumKernel::tiles_128, 9)),
                       doctest::Contains("expected a plan of tiles of 64 x 64 for float"), Error);
}
