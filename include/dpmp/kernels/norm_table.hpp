// SPDX-License-Identifier: Apache-2.0
// The table of per-sample norms and their certificates (docs/numerics.md), and how one parameter is added to it.
#pragma once
#include <cmath>
#include <cstring>

#include "dpmp/core/low_precision.hpp"
#include "dpmp/runtime/launch_many.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// Whether the exponent is not all ones, from the bit pattern.
DPMP_HD bool finite_bits(double x) {
  std::uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return (bits & 0x7ff0000000000000u) != 0x7ff0000000000000u;
}

/// Four arrays [B].
struct NormTable {
  double *squared, *quadratic, *linear, *non_finite;

  /// Adds one parameter's n^2 and the bounds of its errors. Whether the sample is finite is read from the raw numbers before
  /// a maximum could hide a NaN.
  DPMP_HD void add(index_t i, double square, double quadratic_bound, double linear_bound) const {
    non_finite[i] += finite_bits(square) && finite_bits(quadratic_bound) && finite_bits(linear_bound) ? 0 : 1;
    squared[i] += square > 0 ? square : 0;
    quadratic[i] += quadratic_bound;
    linear[i] += linear_bound * linear_bound;
  }
  /// Certified upper bound of the norm of what a factor of 1 releases.
  DPMP_HD double upper(index_t i) const {
    return (std::sqrt(squared[i] + quadratic[i]) + std::sqrt(linear[i])) * (1 + 0x1p-40);
  }
};

/// Sums over a sample's rows, arrays [B]: |a_t| |b_t|, |a_t|, |b_t|, as computed. Null: not needed.
struct RowNormSums {
  const double *products = nullptr, *inputs = nullptr, *outputs = nullptr;
};

/// Bounds of one way to a norm: with S, a, b upper bounds of a sample's RowNormSums,
/// quadratic = constant + square n^2 + products S^2 + inputs a^2 + outputs b^2; linear = linear_constant + linear_products
/// S.
struct Certificate {
  double constant = 0, square = 0, products = 0, inputs = 0, outputs = 0, linear_constant = 0, linear_products = 0;
};

/// What is known of one parameter's norms.
struct NormTerms {
  const double* squared = nullptr;    // [B]; null: (sum |a_t| |b_t|)^2, the norm of a sample of one token
  const double* quadratic = nullptr;  // [B]; a part of the bound of n^2 that the norm's kernel worked out itself; null: none
  RowNormSums rows = {};
  Certificate certificate = {};
};

/// Parameters into the table, one after the other; an element is a sample.
struct AddNorms {
  using Real = double;
  static constexpr int elements_each = 1;
  NormTable table;
  LaunchJobs<NormTerms> parameters;

  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    for (int k = 0; k < at.size(); ++k)
      for (index_t p = 0; p < parameters.count; ++p) add(at.offset + k, parameters.jobs[p]);
  }

 private:
  DPMP_HD void add(index_t i, const NormTerms& t) const {
    // The factor covers the relative error of the row norms up to width 10^5. Infinite near the largest FP32 number and
    // beyond: the released sum might overflow there though the norm, in another order, did not.
    const double computed = t.rows.products ? t.rows.products[i] : 0, bound = 1.01 * computed;
    const double S = bound < 0x1p127 ? bound : HUGE_VAL;
    const double a = t.rows.inputs ? 1.01 * t.rows.inputs[i] : 0, b = t.rows.outputs ? 1.01 * t.rows.outputs[i] : 0;
    const double n2 = t.squared ? t.squared[i] : computed * computed;
    const Certificate& c = t.certificate;
    const double seen = t.quadratic ? t.quadratic[i] : 0;
    table.add(i, n2, seen + c.constant + c.square * n2 + c.products * S * S + c.inputs * a * a + c.outputs * b * b,
              c.linear_constant + c.linear_products * S);
  }
};

/// The sums of RowNormSums from row norms; one sample a row. Several sites add up, the first one overwrites.
struct SumRowNorms {
  using Real = double;
  const double* a;  // [B, tokens]
  const double* b;  // [B, tokens]
  double* products;
  double* inputs;
  double* outputs;
  index_t tokens;
  bool one_hot;  // b: 1, or 0 for a padding id, which counts as 0 whatever its row holds
  bool first;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t i) const {
    const double *x = a + i * tokens, *y = b + i * tokens;
    const double s = team.sum(tokens, [&](auto at) DPMP_LAMBDA {
      const auto p = at.load(x), q = at.load(y);
      // A dense 0 next to Inf is NaN, here as in the released sum.
      return one_hot ? select_less(decltype(q){}, q, p * q, decltype(q){}) : p * q;
    });
    const double in = team.sum(tokens, [&](auto at) DPMP_LAMBDA { return at.load(x); });
    const double out = team.sum(tokens, [&](auto at) DPMP_LAMBDA { return at.load(y); });
    const double before[] = {first ? 0 : products[i], first ? 0 : inputs[i], first ? 0 : outputs[i]};
    team.synchronize();  // every thread has read what one of them is about to overwrite
    products[i] = before[0] + s;
    inputs[i] = before[1] + in;
    outputs[i] = before[2] + out;
  }
};

/// norms[r] = 1 for an id, 0 for padding (id < 0).
struct OneHotNorms {
  using Real = double;
  static constexpr int elements_each = 1;
  const std::int32_t* ids;
  double* norms;
  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    for (int k = 0; k < at.size(); ++k) norms[at.offset + k] = ids[at.offset + k] < 0 ? 0.0 : 1.0;
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
