// SPDX-License-Identifier: Apache-2.0
// The sink of non-private training.
#pragma once
#include <algorithm>
#include <map>

#include "dpmp/per_sample/weighted_sum.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// Adds every site to its parameter's sum, over all samples in one product, which sums the rows for a bias too. Vectors are
/// kept and added in few launches.
class SumSink final : public GradientSink {
 public:
  explicit SumSink(GradientSums& sums) : sums_(sums) {}
  void accept(Context& ctx, const ParameterSite& site) override;
  bool takes_biases(const Context&) const override { return true; }
  RowsWanted rows_wanted() const override { return RowsWanted::parts; }
  void end(Context& ctx) override;

 private:
  void add_product(Context& ctx, const ParameterSite& site);
  void keep(Context& ctx, const ParameterSite& vector);
  void add_kept(Context& ctx, std::vector<ParameterSite>& vectors);
  GradientSums& sums_;
  std::map<index_t, std::vector<ParameterSite>> vectors_;  // by the number of samples: a bias' sum over all counts as one
};
}  // namespace dpmp::inline DPMP_ABI::per_sample

#if DPMP_BODIES
#include "dpmp/gemm/matmul.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
DPMP_KEPT_BODY inline void SumSink::accept(Context& ctx, const ParameterSite& site) {
  if (site.form == SiteForm::vector)
    keep(ctx, site);
  else if (site.one_hot())
    add_weighted_sum(ctx, {site}, SampleFactors::ones(ctx, site.samples()), sums_);
  else
    add_product(ctx, site);
}

DPMP_KEPT_BODY inline void SumSink::end(Context& ctx) {
  for (auto& [samples, vectors] : vectors_) add_kept(ctx, vectors);
}

DPMP_KEPT_BODY inline void SumSink::keep(Context& ctx, const ParameterSite& vector) {
  std::vector<ParameterSite>& others = vectors_[vector.samples()];
  // One launch adds once to each sum.
  if (std::any_of(others.begin(), others.end(), [&](const ParameterSite& x) { return x.parameter == vector.parameter; }))
    add_kept(ctx, others);
  others.push_back(vector);
}

DPMP_KEPT_BODY inline void SumSink::add_kept(Context& ctx, std::vector<ParameterSite>& vectors) {
  if (!vectors.empty()) add_weighted_vectors(ctx, vectors, SampleFactors::ones(ctx, vectors[0].samples()), sums_);
  vectors.clear();
}

DPMP_KEPT_BODY inline void SumSink::add_product(Context& ctx, const ParameterSite& site) {
  Parameter* const bias = site.bias;
  const Shape& w = site.parameter->shape();
  const index_t rows = site.samples() * site.b.shape()[1];
  dispatch_real(site.parameter->dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    using R = compute_t<T>;
    const Tensor product = Tensor::empty(ctx, w, dtype_of<R>),
                 row_sums = bias ? Tensor::empty(ctx, {1, w[0]}, dtype_of<R>) : Tensor();
    GemmSpec spec = product_of({site.b.reshaped({rows, w[0]}), true}, {site.a.reshaped({rows, w[1]})}, product);
    spec.row_sums = bias ? row_sums.raw() : nullptr;
    spec.position_free = false;
    gemm(ctx, spec);
    launch_library_rows(ctx, w[0], w[1],
                        kernels::WeightedAdd<R>{product.data<R>(), sums_.chain(*site.parameter, 1).template data<double>(),
                                                w[1], w[1], w[1], R(1)});
    if (bias) keep(ctx, ParameterSite::vector(*bias, row_sums));
  });
}
}  // namespace dpmp::inline DPMP_ABI::per_sample
#endif
