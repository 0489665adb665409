// SPDX-License-Identifier: Apache-2.0
// The kernels' results in double, for samples, rows or elements picked out of a big problem.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace bench {
using Numbers = std::vector<double>;

/// The largest |got - want| seen as a part of the largest |want|.
class LargestError {
 public:
  void add(double got, double want) {
    const double error = std::abs(got - want);
    // A NaN stays.
    error_ = error <= error_ ? error_ : error;
    scale_ = std::max(scale_, std::abs(want));
  }
  double share() const { return scale_ > 0 ? error_ / scale_ : error_; }

 private:
  double error_ = 0, scale_ = 0;
};

inline double dot(const double* x, const double* y, std::size_t n) {
  double sums[4] = {};  // of independent chains
  std::size_t k = 0;
  for (; k + 4 <= n; k += 4)
    for (std::size_t j = 0; j < 4; ++j) sums[j] += x[k + j] * y[k + j];
  for (; k < n; ++k) sums[0] += x[k] * y[k];
  return sums[0] + sums[1] + sums[2] + sums[3];
}

/// |sum_t b_t a_t^T|^2 = <A A^T, B B^T>; a [tokens, d], b [tokens, p].
inline double squared_norm_of_outer_products(const Numbers& a, const Numbers& b, std::size_t tokens) {
  const std::size_t d = a.size() / tokens, p = b.size() / tokens;
  double sum = 0;
  for (std::size_t t = 0; t < tokens; ++t)
    for (std::size_t s = 0; s <= t; ++s)
      sum += (s < t ? 2 : 1) * dot(&a[t * d], &a[s * d], d) * dot(&b[t * p], &b[s * p], p);
  return sum;
}

/// One causal head: q, k, v, output gradient [tokens, width].
class AttentionHead {
 public:
  AttentionHead(Numbers q, Numbers k, Numbers v, Numbers output_gradient, std::size_t tokens)
      : q_(std::move(q)), k_(std::move(k)), v_(std::move(v)), g_(std::move(output_gradient)), tokens_(tokens) {}

  Numbers output(std::size_t query) const {
    const Numbers p = weights(query);
    Numbers y(width());
    for (std::size_t s = 0; s <= query; ++s)
      for (std::size_t c = 0; c < width(); ++c) y[c] += p[s] * v_[s * width() + c];
    return y;
  }
  Numbers query_gradient(std::size_t query) const {
    const Numbers ds = score_gradients(query);
    Numbers dq(width());
    for (std::size_t s = 0; s <= query; ++s)
      for (std::size_t c = 0; c < width(); ++c) dq[c] += scale() * ds[s] * k_[s * width() + c];
    return dq;
  }
  Numbers key_gradient(std::size_t key) const {
    Numbers dk(width());
    for (std::size_t t = key; t < tokens_; ++t) {
      const double ds = score_gradients(t)[key];
      for (std::size_t c = 0; c < width(); ++c) dk[c] += scale() * ds * q_[t * width() + c];
    }
    return dk;
  }
  Numbers value_gradient(std::size_t key) const {
    Numbers dv(width());
    for (std::size_t t = key; t < tokens_; ++t) {
      const double p = weights(t)[key];
      for (std::size_t c = 0; c < width(); ++c) dv[c] += p * g_[t * width() + c];
    }
    return dv;
  }

 private:
  std::size_t width() const { return q_.size() / tokens_; }
  double scale() const { return 1 / std::sqrt(double(width())); }
  Numbers weights(std::size_t query) const {
    Numbers p(query + 1);
    for (std::size_t s = 0; s <= query; ++s) p[s] = scale() * dot(&q_[query * width()], &k_[s * width()], width());
    const double top = *std::max_element(p.begin(), p.end());
    double sum = 0;
    for (double& x : p) sum += x = std::exp(x - top);
    for (double& x : p) x /= sum;
    return p;
  }
  Numbers score_gradients(std::size_t query) const {
    const Numbers p = weights(query);
    Numbers dp(query + 1);
    double mean = 0;
    for (std::size_t s = 0; s <= query; ++s) {
      dp[s] = dot(&g_[query * width()], &v_[s * width()], width());
      mean += p[s] * dp[s];
    }
    for (std::size_t s = 0; s <= query; ++s) dp[s] = p[s] * (dp[s] - mean);
    return dp;
  }
  Numbers q_, k_, v_, g_;
  std::size_t tokens_;
};

/// Mean and 1 / standard deviation of a row.
struct RowStatistics {
  double mean = 0, rstd = 0;
  RowStatistics(const Numbers& x, double epsilon) {
    for (const double v : x) mean += v / double(x.size());
    double variance = 0;
    for (const double v : x) variance += (v - mean) * (v - mean) / double(x.size());
    rstd = 1 / std::sqrt(variance + epsilon);
  }
};
inline Numbers layer_norm_gradient(const Numbers& x, const Numbers& gain, const Numbers& g, double epsilon) {
  const RowStatistics s(x, epsilon);
  const double n = double(x.size());
  double w_mean = 0, wh_mean = 0;
  for (std::size_t k = 0; k < x.size(); ++k) {
    w_mean += g[k] * gain[k] / n;
    wh_mean += g[k] * gain[k] * (x[k] - s.mean) * s.rstd / n;
  }
  Numbers dx(x.size());
  for (std::size_t k = 0; k < x.size(); ++k) dx[k] = s.rstd * (g[k] * gain[k] - w_mean - (x[k] - s.mean) * s.rstd * wh_mean);
  return dx;
}
inline double log_sum_exp(const Numbers& x) {
  const double top = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (const double v : x) sum += std::exp(v - top);
  return top + std::log(sum);
}
}  // namespace bench
