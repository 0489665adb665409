// SPDX-License-Identifier: Apache-2.0
// The sink of non-private training.
#pragma once
#include "dpmp/per_sample/weighted_sum.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// Adds every site to its parameter's sum, over all samples in one product. Vectors are kept to the end of the pass and
/// added in few launches.
class SumSink final : public GradientSink {
 public:
  explicit SumSink(GradientSums& sums) : sums_(sums) {}
  void accept(Context& ctx, const ParameterSite& site) override;
  /// The bias' gradient comes beside the weight's.
  bool accept_affine(Context& ctx, const ParameterSite& weight, Parameter& bias) override;
  void end(Context& ctx) override;

 private:
  void add_product(Context& ctx, const ParameterSite& site, Parameter* bias);
  GradientSums& sums_;
  std::vector<ParameterSite> vectors_;
  std::vector<ParameterSite> whole_biases_;  // sums over all samples, as of one
};
}  // namespace dpmp::inline DPMP_ABI::per_sample

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::per_sample {
DPMP_KEPT_BODY inline void SumSink::accept(Context& ctx, const ParameterSite& site) {
  if (site.form == SiteForm::vector)
    vectors_.push_back(site);
  else if (site.one_hot())
    add_weighted_sum(ctx, {site}, SampleFactors::ones(ctx, site.samples()), sums_);
  else
    add_product(ctx, site, nullptr);
}

DPMP_KEPT_BODY inline bool SumSink::accept_affine(Context& ctx, const ParameterSite& weight, Parameter& bias) {
  add_product(ctx, weight, &bias);
  return true;
}

DPMP_KEPT_BODY inline void SumSink::end(Context& ctx) {
  for (std::vector<ParameterSite>* sites : {&vectors_, &whole_biases_}) {
    if (sites->empty()) continue;
    add_weighted_vectors(ctx, *sites, SampleFactors::ones(ctx, (*sites)[0].samples()), sums_);
    sites->clear();
  }
}

DPMP_KEPT_BODY inline void SumSink::add_product(Context& ctx, const ParameterSite& site, Parameter* bias) {
  const Shape& w = site.parameter->shape();
  const index_t rows = site.samples() * site.b.shape()[1];
  dispatch_real(site.parameter->dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    using R = compute_t<T>;
    const Tensor product = Tensor::empty(ctx, w, dtype_of<R>),
                 row_sums = bias ? Tensor::empty(ctx, {1, w[0]}, dtype_of<R>) : Tensor();
    gemm(ctx, {.m = w[0],
               .n = w[1],
               .k = rows,
               .a = {.data = site.b.raw(), .dtype = dtype_of<T>, .row_stride = w[0], .transposed = true},
               .b = {.data = site.a.raw(), .dtype = dtype_of<T>, .row_stride = w[1]},
               .out = {.data = product.raw(), .dtype = product.dtype(), .row_stride = w[1]},
               .row_sums = bias ? row_sums.raw() : nullptr,
               .position_free = false});
    launch_library_rows(ctx, w[0], w[1],
                        kernels::WeightedAdd<R>{product.data<R>(), sums_.chain(*site.parameter, 1).template data<double>(),
                                                w[1], w[1], w[1], R(1)});
    if (bias) whole_biases_.push_back(ParameterSite::vector(*bias, row_sums));
  });
}
}  // namespace dpmp::inline DPMP_ABI::per_sample
#endif
