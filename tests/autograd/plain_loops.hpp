// SPDX-License-Identifier: Apache-2.0
// What oracles of plain loops need: where a broadcast element comes from, and how far a rounded one may be off.
#pragma once
#include <doctest/doctest.h>
#include <cmath>

#include "autograd/op.hpp"

namespace test {
/// What element k of a `full` array reads of one that is broadcast to it: the sample axes are the same, the others are
/// aligned at the back.
inline std::size_t source_of(index_t k, const Shape& full, const Shape& small) {
  index_t at = 0, stride = 1;
  for (int back = 1; back < full.rank(); ++back) {
    const index_t i = k % full[-back], extent = back < small.rank() ? small[-back] : 1;
    k /= full[-back];
    if (extent > 1) at += i * stride;
    stride *= extent;
  }
  return std::size_t(at + k * stride);
}
/// Whether every element of `found` is the rounding of `expected` to the dtype, computed with `roundings` in compute
/// precision before; below the least normal number, to a multiple of the least one.
inline void check_rounded(const std::vector<double>& found, const std::vector<double>& expected, dpmp::DType dtype,
                          double roundings) {
  REQUIRE(found.size() == expected.size());
  const double compute = dtype == dpmp::DType::f64 ? 0x1p-53 : 0x1p-24,
               least = dtype == dpmp::DType::f16 ? 0x1p-24 : 0x1p-126;
  for (std::size_t k = 0; k < found.size(); ++k) {
    CAPTURE(k);
    CAPTURE(found[k]);
    CAPTURE(expected[k]);
    const double limit = (dpmp::unit_roundoff(dtype) * 1.01 + roundings * compute) * std::fabs(expected[k]) + least;
    CHECK(std::fabs(found[k] - expected[k]) <= limit);
  }
}
}  // namespace test
