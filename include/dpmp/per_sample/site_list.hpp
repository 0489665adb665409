// SPDX-License-Identifier: Apache-2.0
// All sites of one parameter in one backward pass, and the row norms |a_t|, |b_t| that every certificate is made of.
#pragma once
#include <algorithm>
#include <numeric>
#include <vector>

#include "dpmp/autograd/site.hpp"
#include "dpmp/core/function_ref.hpp"
#include "dpmp/kernels/norm_table.hpp"
#include "dpmp/kernels/row_norm.hpp"
#include "dpmp/runtime/launch.hpp"
#include "dpmp/tensor/slices.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// Non-empty, one parameter, one number of samples.
using SiteList = std::vector<ParameterSite>;

/// Rows a sample has over all sites: the T of the formulas when a weight is used several times.
inline index_t total_tokens(const SiteList& sites) {
  index_t tokens = 0;
  for (const ParameterSite& site : sites) tokens += site.tokens();
  return tokens;
}

/// Whether rows of some site are formed when they are asked for.
inline bool formed_again(const SiteList& sites) {
  return std::any_of(sites.begin(), sites.end(), [](const ParameterSite& site) { return site.source != nullptr; });
}

/// f(list, first, last) for some samples [first, last) at a time, with rows that are stored while f runs: what is done with
/// a sample has the same bits, whether it is done with all of them or with these.
inline void for_formed(Context& ctx, const SiteList& sites, FunctionRef<void(const SiteList&, index_t, index_t)> f) {
  index_t each = 0;
  for (const ParameterSite& site : sites)
    if (site.source) each = each == 0 ? site.source->samples_at_once() : std::lcm(each, site.source->samples_at_once());
  for (index_t first = 0; first < sites[0].samples(); first += each) {
    SiteList some;
    for (const ParameterSite& site : sites) some.push_back(site.part(first, first + each).stored(ctx));
    f(some, first, first + each);
  }
}

/// The same sum of outer products in at most two sites: the dense rows of all sites one after the other, and the one-hot
/// rows likewise. A weight used k times is then one product of k T rows, with every cross term by construction. Dense sites
/// of which one has to be formed stay apart until it is.
inline SiteList merge_outer_products(Context& ctx, const SiteList& sites) {
  if (sites.size() == 1) return sites;
  SiteList result;
  for (const bool one_hot : {false, true}) {
    SiteList alike;
    for (const ParameterSite& s : sites)
      if (s.one_hot() == one_hot) alike.push_back(s);
    if (alike.size() <= 1 || formed_again(alike)) {
      result.insert(result.end(), alike.begin(), alike.end());
      continue;
    }
    std::vector<Tensor> a, b;
    for (const ParameterSite& s : alike) a.push_back(s.a), b.push_back(s.b);
    result.push_back({sites[0].parameter, SiteForm::outer_product, concat(ctx, a, 1), concat(ctx, b, 1)});
  }
  return result;
}

/// S_i = sum |a_t| |b_t|, sum |a_t| and sum |b_t| over all rows of all sites, for each sample, on the device. A one-hot row
/// has norm 1, a padding row 0.
class RowNorms {
 public:
  RowNorms(Context& ctx, const SiteList& sites);
  kernels::RowNormSums sums() const;
  /// The numbers of one sample, on the host.
  double product_sum(index_t sample) const { return value(0, sample); }
  double input_sum(index_t sample) const { return value(1, sample); }
  double output_sum(index_t sample) const { return value(2, sample); }

 private:
  static Tensor norms_of(Context& ctx, const Tensor& x);
  static Tensor norms_of_ids(Context& ctx, const Tensor& ids);
  double value(index_t row, index_t sample) const;
  Tensor sums_;  // [3, B]
};
}  // namespace dpmp::inline DPMP_ABI::per_sample

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::per_sample {
DPMP_KEPT_BODY inline RowNorms::RowNorms(Context& ctx, const SiteList& sites)
    : sums_(Tensor::empty(ctx, {3, sites[0].samples()}, DType::f64)) {
  const index_t samples = sites[0].samples();
  double* first = sums_.data<double>();
  for (const ParameterSite& site : sites) {
    const Tensor a = norms_of(ctx, site.a), b = site.one_hot() ? norms_of_ids(ctx, site.b) : norms_of(ctx, site.b);
    const index_t tokens = site.tokens();
    launch_library_rows(ctx, samples, 3 * tokens,
                        kernels::SumRowNorms{a.data<double>(), b.data<double>(), first, first + samples, first + 2 * samples,
                                             tokens, site.one_hot(), &site == &sites[0]});
  }
}

DPMP_KEPT_BODY inline kernels::RowNormSums RowNorms::sums() const {
  const double* first = sums_.data<double>();
  const index_t samples = sums_.shape()[1];
  return {first, first + samples, first + 2 * samples};
}

DPMP_KEPT_BODY inline Tensor RowNorms::norms_of(Context& ctx, const Tensor& x) {
  const index_t width = x.shape().back(), rows = x.shape().numel(0, x.shape().rank() - 1);
  const Tensor norms = Tensor::empty(ctx, {rows}, DType::f64);
  dispatch_real(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_library_rows(ctx, rows, 2 * width, kernels::RowNorm<T>{x.data<T>(), norms.data<double>(), width});
  });
  return norms;
}

DPMP_KEPT_BODY inline Tensor RowNorms::norms_of_ids(Context& ctx, const Tensor& ids) {
  const Tensor norms = Tensor::empty(ctx, {ids.numel()}, DType::f64);
  launch_library_elements(ctx, ids.numel(), kernels::OneHotNorms{ids.data<std::int32_t>(), norms.data<double>()});
  return norms;
}

DPMP_KEPT_BODY inline double RowNorms::value(index_t row, index_t sample) const {
  return sums_.to_doubles()[std::size_t(row * sums_.shape()[1] + sample)];
}
}  // namespace dpmp::inline DPMP_ABI::per_sample
#endif
