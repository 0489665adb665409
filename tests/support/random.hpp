// SPDX-License-Identifier: Apache-2.0
// Fresh random inputs from a seed that main() prints: set DPMP_TEST_SEED to replay a failure.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>

namespace test {
inline std::uint64_t seed() {
  static const std::uint64_t value = [] {
    if (const char* text = std::getenv("DPMP_TEST_SEED")) return std::uint64_t(std::stoull(text));
    std::random_device entropy;
    return (std::uint64_t(entropy()) << 32) ^ entropy();
  }();
  return value;
}

/// mt19937_64 with the draws that tests need. Two generators of the same seed and stream draw the same.
class Rng {
 public:
  explicit Rng(std::uint64_t seed_value = seed(), std::uint64_t stream = 0)
      : engine_(seed_value * 0x9e3779b97f4a7c15u + stream) {}
  double uniform(double low = 0, double high = 1) { return std::uniform_real_distribution<double>(low, high)(engine_); }
  double normal(double std = 1) { return std::normal_distribution<double>(0, std)(engine_); }
  /// Uniform over low..high, both included.
  std::int64_t integer(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(engine_);
  }
  std::uint64_t bits() { return engine_(); }

 private:
  std::mt19937_64 engine_;
};
}  // namespace test
