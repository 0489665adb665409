// SPDX-License-Identifier: Apache-2.0
// The packs' conversions of bf16 and f16 against the scalar ones of core/low_precision.hpp, which have an oracle of their
// own; and the team's visits and reductions over every row length, with every instruction set.
#include <doctest/doctest.h>
#include <cmath>
#include <vector>

#include "dpmp/core/dtype.hpp"
#include "dpmp/kernels/elementwise.hpp"
#include "support/isa.hpp"
#include "support/random.hpp"

using namespace dpmp;

namespace {
template <class From, class To>
std::vector<To> cast(const std::vector<From>& x, Isa isa) {
  std::vector<To> y(x.size());
  test::run_elements(index_t(x.size()), kernels::Cast<From, To>{x.data(), y.data()}, isa);
  return y;
}
float float_of_bits(std::uint32_t bits) { return detail::float_of(bits); }

/// What a pack stores: the scalar conversion, but bf16 denormals become zeros of their sign.
std::uint16_t expected_bits(float x, TypeTag<bf16>) {
  const std::uint16_t bits = from_float<bf16>(x).bits;
  return (bits & 0x7f80u) == 0 ? std::uint16_t(bits & 0x8000u) : bits;
}
std::uint16_t expected_bits(float x, TypeTag<f16>) { return from_float<f16>(x).bits; }

/// sum (largest) of x[0..n), and x copied by packs.
template <class R>
struct Reduce {
  using Real = R;
  const R* x;
  R* sum;
  R* largest;
  R* copy;
  index_t n;
  template <class Team>
  DPMP_HOST void operator()(const Team& team, index_t) const {
    *sum = team.sum(n, [&](auto at) DPMP_LAMBDA { return at.load(x); });
    *largest = team.max(n, R(-1000), [&](auto at) DPMP_LAMBDA { return at.load(x); });
    team.for_each(n, [&](auto at) DPMP_LAMBDA { at.store(copy, at.load(x)); });
  }
};
}  // namespace

TEST_CASE_TEMPLATE("packs load all 65,536 patterns as the scalar conversion does", T, bf16, f16) {
  std::vector<T> patterns;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) patterns.push_back({std::uint16_t(bits)});
  for (int k = 0; k < 5; ++k)
    patterns.push_back({std::uint16_t(0x3c01 + k)});  // an odd number, so that a tail is loaded too
  for (const Isa isa : test::isas()) {
    const auto wide = cast<T, float>(patterns, isa);
    int wrong = 0;
    for (std::size_t k = 0; k < patterns.size(); ++k)
      wrong += detail::bits_of(wide[k]) != detail::bits_of(to_float(patterns[k]));
    CHECK(wrong == 0);
  }
}

TEST_CASE_TEMPLATE("packs store as the scalar conversion does; bf16 denormals become zeros", T, bf16, f16) {
  std::vector<float> x;
  // Every value of the format, what lies next to it, half-way to the next one and next to that.
  const std::uint32_t half = std::is_same_v<T, bf16> ? 0x8000u : 0x1000u;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits)
    for (const std::uint32_t offset : {0u, 1u, half - 1, half, half + 1, 2 * half - 1})
      x.push_back(float_of_bits(detail::bits_of(to_float(T{std::uint16_t(bits)})) + offset));
  // Half-way between denormals of f16, where the spacing is 2^-24 whatever the exponent.
  for (int k = 0; k <= 2048; ++k)
    for (const double offset : {0.0, 0x1p-20, -0x1p-20}) x.push_back(float((k + 0.5 + offset) * 0x1p-24));
  test::Rng rng;
  for (int k = 0; k < 200003; ++k) x.push_back(float_of_bits(std::uint32_t(rng.bits())));
  for (const Isa isa : test::isas()) {
    const auto stored = cast<float, T>(x, isa);
    int wrong = 0, denormals = 0;
    for (std::size_t k = 0; k < x.size(); ++k) {
      wrong += stored[k].bits != expected_bits(x[k], TypeTag<T>{});
      denormals += (stored[k].bits & (std::is_same_v<T, bf16> ? 0x7f80 : 0x7c00)) == 0 && (stored[k].bits & 0x7fff) != 0;
    }
    CHECK(wrong == 0);
    CHECK((denormals == 0) == std::is_same_v<T, bf16>);
  }
}

TEST_CASE_TEMPLATE("a team sums, compares and visits rows of every length, and nothing beyond them", R, float, double) {
  test::Rng rng;
  for (const Isa isa : test::isas())
    for (index_t n = 0; n <= 150; ++n) {
      // Integers, so that the sum is exact in every order; a huge value behind the row must not be seen.
      std::vector<R> x(std::size_t(n) + 20, R(1e6)), copy(x.size(), R(-7));
      R expected_sum = 0, expected_largest = -1000;
      for (index_t k = 0; k < n; ++k) {
        x[std::size_t(k)] = R(rng.integer(-900, 900));
        expected_sum += x[std::size_t(k)];
        expected_largest = std::max(expected_largest, x[std::size_t(k)]);
      }
      R sum = 1, largest = 1;
      run_rows(0, 1, Reduce<R>{x.data(), &sum, &largest, copy.data(), n}, isa);
      CHECK(sum == expected_sum);
      CHECK(largest == expected_largest);
      CHECK(std::equal(copy.begin(), copy.begin() + n, x.begin()));
      CHECK(std::count(copy.begin() + n, copy.end(), R(-7)) == 20);
    }
}

TEST_CASE("rows are bit-identical for every number of threads") {
  test::Rng rng;
  std::vector<float> x(100000);
  for (float& v : x) v = float(rng.normal());
  std::vector<float> first;
  for (const int threads : {1, 2, 3, 7}) {
    Context ctx(Device::cpu(), threads);
    std::vector<float> y(x.size());
    launch_elements(ctx, index_t(x.size()), kernels::Scale<float>{x.data(), y.data(), 1.1f});
    if (threads == 1) first = y;
    CHECK(y == first);
  }
}
