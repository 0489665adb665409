// SPDX-License-Identifier: Apache-2.0
// Powers of two that samples' backward passes are multiplied by: the largest gradient of each sample's loss, the exponent,
// and the way back, exactly.
#pragma once
#include <cmath>
#include <cstring>

#include "dpmp/kernels/norm_table.hpp"
#include "dpmp/runtime/math.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// Exponents of loss scales. The norms of scaled operands are multiplied by powers of two up to the square of the inverse.
inline constexpr int smallest_scale_exponent = -24, largest_scale_exponent = 40;

/// |x|, and infinity for NaN, which a maximum would hide.
DPMP_ANY_TEAM
template <class Pack>
DPMP_HD Pack magnitude_or_infinity(Pack x) {
  const Pack infinity = Pack::splat(typename Pack::Scalar(HUGE_VAL)), magnitude = abs(x);
  return select_less(magnitude, infinity, magnitude, infinity);
}

/// largest[i] = max(largest[i], |x[i, k]| over k); infinity where some element is not finite. One sample a row.
template <class Real_>
struct LargestMagnitudes {
  using Real = Real_;
  const Real* x;  // [B, width]
  Real* largest;  // [B]
  index_t width;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t sample) const {
    const Real before = largest[sample];
    const Real here =
        team.max(width, Real(0), [&](auto at) DPMP_LAMBDA { return magnitude_or_infinity(at.load(x + sample * width)); });
    team.synchronize();  // every thread has read what one of them is about to overwrite
    largest[sample] = before < here ? here : before;
  }
};

/// The same of the logits' gradient of a cross-entropy, before it is rounded: no element of a row is larger than the
/// target's, weight * factor * (1 - p_target), which is the sum of the others. Ignored rows count as 0, by select.
template <class Real_>
struct LargestCrossEntropyGradients {
  using Real = Real_;
  const Real* missing;          // [B, tokens], 1 - p_target
  const std::int32_t* targets;  // [B, tokens]
  const Real* weights;          // [B], gradient of the losses
  Real* largest;                // [B]
  index_t tokens;
  std::int32_t ignore;
  Real factor;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t sample) const {
    using Pack = typename Team::Pack;
    const std::int32_t* target = targets + sample * tokens;
    const Real most = team.max(tokens, Real(0), [&](auto at) DPMP_LAMBDA {
      Pack x = magnitude_or_infinity(at.load(missing + sample * tokens));
      for (int k = 0; k < at.size(); ++k)
        x = at.select_column(target[at.offset + k] == ignore ? at.offset + k : -1, Pack{}, x);
      return x;
    });
    const Real weight = weights[sample] * factor;
    largest[sample] = most * (weight < 0 ? -weight : weight);
  }
};

/// The same of the gradient of a mean squared error, 2 * factor * weight * |prediction - target|.
template <class T>
struct LargestSquaredErrorGradients {
  using Real = compute_t<T>;
  using Storage = T;
  const T* prediction;  // [B, width]
  const Real* target;   // [B, width]
  const Real* weights;  // [B], gradient of the losses
  Real* largest;        // [B]
  index_t width;
  Real factor;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t sample) const {
    const Real most = team.max(width, Real(0), [&](auto at) DPMP_LAMBDA {
      return magnitude_or_infinity(at.load(prediction + sample * width) - at.load(target + sample * width));
    });
    const Real weight = Real(2) * factor * weights[sample];
    largest[sample] = most * (weight < 0 ? -weight : weight);
  }
};

/// 2^e for -1022 <= e <= 1023.
DPMP_HD double power_of_two(int e) {
  const std::uint64_t bits = std::uint64_t(e + 1023) << 52;
  double x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/// k with x 2^k in (2^(top - 1), 2^top], kept in the range of exponents; 0 where x is 0 or not finite. By select.
DPMP_HD int scale_exponent(double x, int top) {
  std::uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  const int exponent = int((bits >> 52) & 0x7ffu), up = (bits & 0xfffffffffffffu) != 0 ? 1 : 0;
  const int wanted = top - (exponent - 1023 + up);  // top - ceil(log2 x); of a denormal number larger than any that is kept
  const int low = wanted < smallest_scale_exponent ? smallest_scale_exponent : wanted;
  const int kept = low > largest_scale_exponent ? largest_scale_exponent : low;
  return exponent == 0x7ff || x == 0 ? 0 : kept;
}

/// seeds = weights 2^exponents. largest null: every exponent is `top`; otherwise largest 2^exponent is at most 2^top.
template <class Real_>
struct ScaleSeeds {
  using Real = Real_;
  static constexpr int elements_each = 1;
  const Real* largest;  // [B]
  const Real* weights;  // [B]
  Real* seeds;          // [B]
  std::int32_t* exponents;
  int top;

  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    for (int k = 0; k < at.size(); ++k) {
      const index_t i = at.offset + k;
      const int exponent = largest ? scale_exponent(double(largest[i]), top) : top;
      exponents[i] = exponent;
      seeds[i] = weights[i] * Real(power_of_two(exponent));
    }
  }
};

/// The bounds of scaled operands' norms as those of the operands without their scale. Exact but for what leaves the range of
/// double: what becomes denormal there, or 0, moves the norm by at most 2^-536, which is below C 2^-21 for any threshold and
/// any FP32 factor; what overflows makes a norm that is not finite, and a factor of 0.
struct UnscaleNorms {
  using Real = double;
  static constexpr int elements_each = 1;
  NormTable scaled, table;
  const std::int32_t* exponents;

  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    for (int k = 0; k < at.size(); ++k) {
      const index_t i = at.offset + k;
      const double factor = power_of_two(-2 * exponents[i]);
      table.squared[i] = scaled.squared[i] * factor;
      table.quadratic[i] = scaled.quadratic[i] * factor;
      table.linear[i] = scaled.linear[i] * factor;
      table.non_finite[i] = scaled.non_finite[i];
    }
  }
};

/// c 2^-k by adding to the exponent: never rounded. What would not be a normal number, and what was none before, is 0;
/// k = 0 leaves c as it is.
DPMP_HD float unscaled_factor(float c, int k) {
  const std::uint32_t bits = dpmp::detail::bits_of(c);
  const int exponent = int((bits >> 23) & 0xffu), moved = exponent - k;
  const bool exact = exponent >= 1 && exponent <= 254 && moved >= 1 && moved <= 254;
  const std::uint32_t there = exact ? (bits & 0x807fffffu) | (std::uint32_t(moved & 0xff) << 23) : 0u;
  return dpmp::detail::float_of(k == 0 ? bits : there);
}

/// factors of scaled gradients from those of the gradients.
struct UnscaleFactors {
  using Real = float;
  static constexpr int elements_each = 1;
  const float* factors;  // [B]
  const std::int32_t* exponents;
  float* unscaled;  // [B]

  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    for (int k = 0; k < at.size(); ++k) {
      const index_t i = at.offset + k;
      unscaled[i] = unscaled_factor(factors[i], exponents[i]);
    }
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
