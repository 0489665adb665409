// SPDX-License-Identifier: Apache-2.0
// All sites of one parameter in one backward pass, and the row norms |a_t|, |b_t| that every certificate is made of.
#pragma once
#include <cmath>
#include <cstring>
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

namespace detail {
/// [B, sum of T_k, ..] from tensors [B, T_k, ..]: the rows of each sample one after the other.
inline Tensor joined_rows(Context& ctx, const std::vector<Tensor>& parts) {
  const index_t samples = parts[0].shape()[0];
  index_t tokens = 0;
  for (const Tensor& x : parts) tokens += x.shape()[1];
  const Tensor joined = Tensor::empty(ctx, parts[0].shape().with(1, tokens), parts[0].dtype());
  if (joined.numel() == 0) return joined;
  const index_t row_bytes = joined.numel() / (samples * tokens) * size_of(joined.dtype());
  ctx.team().parallel_for(samples, [&](index_t begin, index_t end) {
    for (index_t i = begin; i < end; ++i) {
      char* to = static_cast<char*>(joined.raw()) + i * tokens * row_bytes;
      for (const Tensor& x : parts) {
        const index_t bytes = x.shape()[1] * row_bytes;
        if (bytes > 0) std::memcpy(to, static_cast<const char*>(x.raw()) + i * bytes, std::size_t(bytes));
        to += bytes;
      }
    }
  });
  return joined;
}
}  // namespace detail

/// The same sum of outer products in at most two sites: the dense rows of all sites one after the other, and the one-hot
/// rows likewise. A weight used k times is then one product of k T rows, with every cross term by construction.
inline SiteList merged(Context& ctx, const SiteList& sites) {
  SiteList result;
  for (const bool one_hot : {false, true}) {
    std::vector<Tensor> a, b;
    for (const ParameterSite& s : sites)
      if (s.one_hot() == one_hot) a.push_back(s.a), b.push_back(s.b);
    if (a.empty()) continue;
    const bool single = a.size() == 1;
    result.push_back({sites[0].parameter, SiteForm::outer_product, single ? a[0] : detail::joined_rows(ctx, a),
                      single ? b[0] : detail::joined_rows(ctx, b)});
  }
  return result;
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
        // A padding id counts as 0 whatever its row holds; a dense 0 beside Inf is NaN, here as in the released sum.
        total += sites[k].one_hot() && b[t] == 0 ? 0 : a[t] * b[t];
    }
    return total;
  }
  /// An upper bound of S_i: the factor covers the relative error of the row norms up to width 10^5. Infinite near the
  /// largest FP32 number and beyond: the released sum might overflow there though the norm, in another order, did not.
  double product_bound(const SiteList& sites, index_t sample) const {
    const double bound = 1.01 * product_sum(sites, sample);
    return bound < 0x1p127 ? bound : HUGE_VAL;
  }
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
