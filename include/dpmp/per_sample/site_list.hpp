// SPDX-License-Identifier: Apache-2.0
// All sites of one parameter in one backward pass, and the row norms |a_t|, |b_t| that every certificate is made of.
#pragma once
#include <vector>

#include "dpmp/autograd/site.hpp"
#include "dpmp/kernels/row_norm.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// Non-empty, one parameter, one number of samples.
using SiteList = std::vector<ParameterSite>;

/// Rows a sample has over all sites: the T of the formulas when a weight is used several times.
inline index_t total_tokens(const SiteList& sites) {
  index_t tokens = 0;
  for (const ParameterSite& site : sites) tokens += site.b.shape()[1];
  return tokens;
}

/// |a_t| and |b_t| of every row of every site. A one-hot row has norm 1, a padding row 0.
class RowNorms {
 public:
  RowNorms(Context& ctx, const SiteList& sites) {
    for (const ParameterSite& site : sites) {
      a_.push_back(norms_of(ctx, site.a));
      b_.push_back(site.one_hot() ? norms_of_ids(ctx, site.b) : norms_of(ctx, site.b));
    }
  }
  /// S_i = sum over sites and tokens of |a_t| |b_t|, as computed.
  double product_sum(const SiteList& sites, index_t sample) const {
    double total = 0;
    for (std::size_t k = 0; k < sites.size(); ++k) {
      const index_t tokens = sites[k].b.shape()[1];
      const double *a = a_[k].data<double>() + sample * tokens, *b = b_[k].data<double>() + sample * tokens;
      for (index_t t = 0; t < tokens; ++t)
        total += b[t] == 0 ? 0 : a[t] * b[t];  // a padding row counts as 0 whatever it holds
    }
    return total;
  }
  /// An upper bound of S_i: the factor covers the relative error of the row norms up to width 10^5.
  double product_bound(const SiteList& sites, index_t sample) const { return 1.01 * product_sum(sites, sample); }
  /// Upper bounds of sum_t |a_t| and sum_t |b_t|, likewise.
  double input_sum(const SiteList& sites, index_t sample) const { return sum_of(a_, sites, sample); }
  double output_sum(const SiteList& sites, index_t sample) const { return sum_of(b_, sites, sample); }

 private:
  static double sum_of(const std::vector<Tensor>& norms, const SiteList& sites, index_t sample) {
    double total = 0;
    for (std::size_t k = 0; k < sites.size(); ++k) {
      const index_t tokens = sites[k].b.shape()[1];
      const double* x = norms[k].data<double>() + sample * tokens;
      for (index_t t = 0; t < tokens; ++t) total += x[t];
    }
    return 1.01 * total;
  }
  static Tensor norms_of(Context& ctx, const Tensor& x) {
    const index_t width = x.shape().back(), rows = x.shape().numel(0, x.shape().rank() - 1);
    const Tensor norms = Tensor::empty(ctx, {rows}, DType::f64);
    dispatch_real(x.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      launch_rows(ctx, rows, 2 * width, kernels::RowNorm<T>{x.data<T>(), norms.data<double>(), width});
    });
    return norms;
  }
  static Tensor norms_of_ids(Context& ctx, const Tensor& ids) {
    const Tensor norms = Tensor::empty(ctx, {ids.numel()}, DType::f64);
    for (index_t r = 0; r < ids.numel(); ++r) norms.data<double>()[r] = ids.data<std::int32_t>()[r] < 0 ? 0.0 : 1.0;
    return norms;
  }
  std::vector<Tensor> a_, b_;
};
}  // namespace dpmp::inline DPMP_ABI::per_sample
