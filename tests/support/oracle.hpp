// SPDX-License-Identifier: Apache-2.0
// The obviously right answer: per-sample gradients from the stored operands of sites, by triple loops in double.
#pragma once
#include <cmath>
#include <span>
#include <vector>

#include "dpmp/per_sample/site_list.hpp"

namespace test {
/// Gradient of the sites' parameter for one sample, from the stored operands, one product at a time.
inline std::vector<double> oracle_gradient(std::span<const dpmp::ParameterSite> sites, dpmp::index_t sample) {
  using dpmp::index_t;
  std::vector<double> gradient(std::size_t(sites[0].parameter->numel()), 0.0);
  for (const dpmp::ParameterSite& site : sites) {
    const std::vector<double> b = site.b.rows(sample, sample + 1).to_doubles();
    if (site.form == dpmp::SiteForm::vector) {
      for (std::size_t j = 0; j < b.size(); ++j) gradient[j] += b[j];
      continue;
    }
    const std::vector<double> a = site.a.rows(sample, sample + 1).to_doubles();
    const index_t p = site.parameter->shape()[0], d = site.parameter->shape()[1], tokens = site.b.shape()[1];
    for (index_t t = 0; t < tokens; ++t)
      for (index_t r = 0; r < p; ++r) {
        const double row = site.one_hot() ? (b[std::size_t(t)] == double(r) ? 1.0 : 0.0) : b[std::size_t(t * p + r)];
        for (index_t c = 0; c < d; ++c)
          if (!site.one_hot() || row != 0) gradient[std::size_t(r * d + c)] += row * a[std::size_t(t * d + c)];
      }
  }
  return gradient;
}

/// Euclidean norm, scaled so that it neither overflows nor underflows. NaN where there is one: max() would hide it.
inline double norm(std::span<const double> x) {
  double largest = 0;
  for (double v : x) {
    if (std::isnan(v)) return v;
    largest = std::max(largest, std::fabs(v));
  }
  if (largest == 0 || !std::isfinite(largest)) return largest;
  long double sum = 0;
  for (double v : x) sum += static_cast<long double>(v / largest) * static_cast<long double>(v / largest);
  return largest * double(std::sqrt(sum));
}

/// |x - y| in the Euclidean norm.
inline double distance(std::span<const double> x, std::span<const double> y) {
  std::vector<double> difference(x.size());
  for (std::size_t k = 0; k < x.size(); ++k) difference[k] = x[k] - y[k];
  return norm(difference);
}
}  // namespace test
