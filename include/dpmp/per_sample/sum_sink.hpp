// SPDX-License-Identifier: Apache-2.0
// The sink of non-private training.
#pragma once
#include "dpmp/per_sample/gradient_sums.hpp"
#include "dpmp/per_sample/per_sample.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// Adds every site to its parameter's sum at once, over all samples in one product, and keeps nothing.
class SumSink final : public GradientSink {
 public:
  explicit SumSink(GradientSums& sums) : sums_(sums) {}
  void accept(Context& ctx, const ParameterSite& site) override {
    const Tensor& sum = sums_.of(*site.parameter);
    dispatch_real(site.parameter->dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      if (site.form == SiteForm::vector || site.one_hot()) {
        weighted_sum(ctx, {site}, SampleFactors::ones(ctx, site.samples()), sum);
        return;
      }
      const Shape& w = site.parameter->shape();
      const index_t rows = site.samples() * site.b.shape()[1];
      const Tensor batch = Tensor::empty(ctx, w, accumulate_dtype(dtype_of<T>));
      gemm(ctx, {.m = w[0],
                 .n = w[1],
                 .k = rows,
                 .a = {.data = site.b.raw(), .dtype = dtype_of<T>, .row_stride = w[0], .transposed = true},
                 .b = {.data = site.a.raw(), .dtype = dtype_of<T>, .row_stride = w[1]},
                 .out = {.data = batch.raw(), .dtype = batch.dtype(), .row_stride = w[1]}});
      using R = compute_t<T>;
      launch_rows(ctx, w[0], w[1], kernels::WeightedAdd<R>{batch.data<R>(), sum.data<double>(), w[1], w[1], w[1], R(1)});
    });
  }

 private:
  GradientSums& sums_;
};
}  // namespace dpmp::inline DPMP_ABI::per_sample
