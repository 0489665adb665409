// SPDX-License-Identifier: Apache-2.0
// Attention by plain loops in double, with bounds on what a kernel may differ by: first-order error analysis of its steps,
// for any order of summation. u = 2^-24; sums of n products are within gamma_2n (tensor cores truncate, which loses up to 2
// u).
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "dpmp/core/low_precision.hpp"

namespace test {
using dpmp::index_t;

struct AttentionCase {
  index_t samples, tokens, heads, key_heads, width;
  bool causal, padded;
  index_t packed() const { return (heads + 2 * key_heads) * width; }
  index_t plain() const { return heads * width; }
};

/// Unit roundoff of storage, and the largest error of a rounding to a denormal.
template <class T>
constexpr double storage_unit = std::is_same_v<T, dpmp::bf16>  ? 0x1p-8
                                : std::is_same_v<T, dpmp::f16> ? 0x1p-11
                                                               : 0x1p-24;
template <class T>
constexpr double storage_floor = std::is_same_v<T, dpmp::f16> ? 0x1p-25 : 0x1p-126;

struct Bounded {
  std::vector<double> value, bound;
  explicit Bounded(index_t n) : value(std::size_t(n)), bound(std::size_t(n)) {}
  void add(index_t at, double v, double error) { value[std::size_t(at)] += v, bound[std::size_t(at)] += error; }
};

template <class T>
class AttentionOracle {
 public:
  AttentionCase c;
  Bounded output, log_sum_exp, gradient;

  /// qkv, output_gradient: what the kernels read; rows of padding are not looked at.
  AttentionOracle(const AttentionCase& c_, const std::vector<T>& qkv, const std::vector<std::int32_t>& keep,
                  const std::vector<T>& output_gradient)
      : c(c_),
        output(c.samples * c.tokens * c.plain()),
        log_sum_exp(c.samples * c.heads * c.tokens),
        gradient(c.samples * c.tokens * c.packed()),
        qkv_(qkv),
        keep_(keep),
        output_gradient_(output_gradient) {
    for (index_t b = 0; b < c.samples; ++b)
      for (index_t h = 0; h < c.heads; ++h)
        for (index_t t = 0; t < c.tokens; ++t) query(b, h, t);
    // The last rounding of what was summed, and second-order terms.
    for (Bounded* x : {&output, &gradient})
      for (std::size_t k = 0; k < x->value.size(); ++k)
        x->bound[k] = 1.1 * (x->bound[k] + unit * std::fabs(x->value[k]) + floor);
  }

 private:
  static constexpr double u = 0x1p-24, unit = storage_unit<T>, floor = storage_floor<T>;
  static double gamma(index_t n) { return 2 * double(n) * u / (1 - 2 * double(n) * u); }
  bool kept(index_t b, index_t t) const { return keep_.empty() || keep_[std::size_t(b * c.tokens + t)] != 0; }
  index_t at(index_t b, index_t t, index_t column) const { return (b * c.tokens + t) * c.packed() + column; }
  double x(index_t k) const { return double(dpmp::to_float(qkv_[std::size_t(k)])); }

  void query(index_t b, index_t h, index_t t) {
    const double none = std::numeric_limits<double>::infinity();
    const index_t row = (b * c.heads + h) * c.tokens + t, w = c.width, key_head = h / (c.heads / c.key_heads);
    const index_t key_column = (c.heads + key_head) * w, value_column = key_column + c.key_heads * w;
    if (!kept(b, t)) {
      log_sum_exp.value[std::size_t(row)] = none;
      return;
    }
    std::vector<index_t> seen;
    for (index_t s = 0; s < (c.causal ? t + 1 : c.tokens); ++s)
      if (kept(b, s)) seen.push_back(s);
    const double scale = 1 / std::sqrt(double(w));
    const index_t q = at(b, t, h * w), n = index_t(seen.size()), out = (b * c.tokens + t) * c.plain() + h * w;
    // Scores, and the error of the exponents: of the products, of the scale, of the subtraction of the maximum.
    std::vector<double> p(seen.size());
    double top = -none, exponent_error = 0, magnitude = 0;
    for (index_t k = 0; k < n; ++k) {
      double sum = 0, size = 0;
      for (index_t d = 0; d < w; ++d) {
        const double product = scale * x(q + d) * x(at(b, seen[std::size_t(k)], key_column + d));
        sum += product, size += std::fabs(product);
      }
      p[std::size_t(k)] = sum, top = std::max(top, sum), magnitude = std::max(magnitude, size);
    }
    exponent_error = magnitude * (gamma(w) + 8 * u);
    double total = 0;
    for (double& e : p) e = std::exp(e - top), total += e;
    for (double& e : p) e /= total;
    // A weight and the total: exponents, exp within 4 u, at most one change of the maximum per 32 keys, additions.
    const index_t changes = c.tokens / 32 + 2;
    const double sum_error = exponent_error + gamma(n + 6 * changes);
    const double weight_error = exponent_error + sum_error + gamma(4);
    log_sum_exp.value[std::size_t(row)] = top + std::log(total);
    log_sum_exp.bound[std::size_t(row)] = 1.1 * (sum_error + 8 * u * (1 + std::fabs(top) + std::fabs(std::log(total))));

    // Output and D = sum dO O.
    double mean = 0, mean_error = 0;
    for (index_t d = 0; d < w; ++d) {
      double sum = 0, error = 0;
      for (index_t k = 0; k < n; ++k) {
        const double v = x(at(b, seen[std::size_t(k)], value_column + d)), weight = p[std::size_t(k)];
        sum += weight * v;
        error += std::fabs(v) * (weight * (weight_error + rounded + gamma(n + changes + 4)) + floor);
      }
      output.add(out + d, sum, error);
      const double g = dpmp::to_float(output_gradient_[std::size_t(out + d)]);
      mean += g * sum;
      mean_error += std::fabs(g) * (error + (unit + gamma(w)) * std::fabs(sum) + floor);
    }
    // Probabilities of the backward pass come from log_sum_exp.
    const double again = exponent_error + log_sum_exp.bound[std::size_t(row)] + 8 * u * (magnitude + std::fabs(top)) + 8 * u;
    for (index_t k = 0; k < n; ++k) {
      const index_t key = at(b, seen[std::size_t(k)], key_column), value = at(b, seen[std::size_t(k)], value_column);
      const double weight = p[std::size_t(k)], long_sum = gamma(c.tokens * (c.heads / c.key_heads));
      double g = 0, size = 0;
      for (index_t d = 0; d < w; ++d) {
        const double o = dpmp::to_float(output_gradient_[std::size_t(out + d)]);
        g += o * x(value + d), size += std::fabs(o * x(value + d));
        gradient.add(value + d, weight * o, std::fabs(o) * (weight * (again + rounded + long_sum) + floor));
      }
      const double ds = scale * weight * (g - mean);
      const double ds_error = std::fabs(ds) * (again + rounded + 8 * u + long_sum) + floor +
                              scale * weight * (gamma(w) * size + mean_error + 2 * u * (size + std::fabs(mean)));
      for (index_t d = 0; d < w; ++d) {
        gradient.add(q + d, ds * x(key + d), ds_error * std::fabs(x(key + d)));
        gradient.add(key + d, ds * x(q + d), ds_error * std::fabs(x(q + d)));
      }
    }
  }
  /// Probabilities and their gradients are rounded to storage before they enter a product.
  static constexpr double rounded = unit;
  const std::vector<T>& qkv_;
  const std::vector<std::int32_t>& keep_;
  const std::vector<T>& output_gradient_;
};
}  // namespace test
