// SPDX-License-Identifier: Apache-2.0
// What is known of each sample's gradient norm: the computed square, and certified bounds of everything rounding did to it.
#pragma once
#include <bit>
#include <cmath>
#include <span>
#include <vector>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// gamma_n = n u / (1 - n u): relative error of a sum of n rounded terms in any order (Higham 2002, section 3.1).
inline double gamma(double n, double u) {
  DPMP_CHECK(n * u < 0.5, "expected an accumulation chain of fewer than ", 0.5 / u, " terms, got ", n);
  return n * u / (1 - n * u);
}

/// Whether the exponent is not all ones, from the bit pattern: a compiler flag cannot optimise it away.
inline bool is_finite(double x) { return (std::bit_cast<std::uint64_t>(x) & 0x7ff0000000000000u) != 0x7ff0000000000000u; }

/// Gathers the parameters' contributions to each sample's norm. For parameter k and sample i:
///   |computed n_k^2 - exact n_k^2| <= quadratic_k   (exact: of the stored operands, in real arithmetic)
///   |released gradient - exact gradient| <= linear_k  (or, for instantiated norms, released and instantiated together)
/// so that the released contribution has norm <= upper() (docs/numerics.md).
class NormBounds {
 public:
  explicit NormBounds(index_t samples)
      : squared_(std::size_t(samples)),
        quadratic_(std::size_t(samples)),
        linear_(std::size_t(samples)),
        ok_(std::size_t(samples), 1) {}
  index_t samples() const { return index_t(squared_.size()); }

  /// Adds one parameter. Whether the sample is finite is read from the raw numbers before max() could hide a NaN.
  void add(index_t sample, double squared, double quadratic, double linear) {
    const auto i = std::size_t(sample);
    ok_[i] = std::uint8_t(ok_[i] & std::uint8_t(is_finite(squared) && is_finite(quadratic) && is_finite(linear)));
    squared_[i] += std::max(0.0, squared);
    quadratic_[i] += quadratic;
    linear_[i] += linear * linear;
  }
  /// The norm as computed, not certified: sqrt(sum_k n_k^2).
  double norm(index_t sample) const { return std::sqrt(squared_[std::size_t(sample)]); }
  /// sum_k quadratic_k.
  double quadratic(index_t sample) const { return quadratic_[std::size_t(sample)]; }
  /// Certified upper bound of the norm of what weighted_sum releases for a factor of 1.
  double upper(index_t sample) const {
    const auto i = std::size_t(sample);
    return (std::sqrt(squared_[i] + quadratic_[i]) + std::sqrt(linear_[i])) * (1 + 0x1p-40);
  }
  /// 0: something of this sample was Inf or NaN; it must contribute nothing.
  const std::vector<std::uint8_t>& finite() const { return ok_; }
  std::vector<double> upper() const {
    std::vector<double> bounds(squared_.size());
    for (std::size_t i = 0; i < bounds.size(); ++i) bounds[i] = upper(index_t(i));
    return bounds;
  }

 private:
  std::vector<double> squared_, quadratic_, linear_;
  std::vector<std::uint8_t> ok_;
};
}  // namespace dpmp::inline DPMP_ABI::per_sample
