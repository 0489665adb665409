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
    if (site.form == SiteForm::vector || site.one_hot())
      weighted_sum(ctx, {site}, SampleFactors::ones(ctx, site.samples()), sums_.of(*site.parameter));
    else
      add_product(ctx, site, nullptr);
  }
  /// On a GPU the bias' gradient is an epilogue of the weight's. On a CPU it would be a pass of its own on one thread.
  bool accept_affine(Context& ctx, const ParameterSite& weight, Parameter& bias) override {
    if (!ctx.on_cuda()) return false;
    add_product(ctx, weight, &bias);
    return true;
  }

 private:
  void add_product(Context& ctx, const ParameterSite& site, const Parameter* bias) {
    const Shape& w = site.parameter->shape();
    const index_t rows = site.samples() * site.b.shape()[1];
    dispatch_real(site.parameter->dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      using R = compute_t<T>;
      const Tensor product = Tensor::empty(ctx, w, dtype_of<R>),
                   row_sums = bias ? Tensor::empty(ctx, {w[0]}, dtype_of<R>) : Tensor();
      gemm(ctx, {.m = w[0],
                 .n = w[1],
                 .k = rows,
                 .a = {.data = site.b.raw(), .dtype = dtype_of<T>, .row_stride = w[0], .transposed = true},
                 .b = {.data = site.a.raw(), .dtype = dtype_of<T>, .row_stride = w[1]},
                 .out = {.data = product.raw(), .dtype = product.dtype(), .row_stride = w[1]},
                 .row_sums = bias ? row_sums.raw() : nullptr});
      const auto add = [&](const Tensor& gradient, const Parameter& p, index_t count, index_t width) {
        launch_rows(
            ctx, count, width,
            kernels::WeightedAdd<R>{gradient.data<R>(), sums_.of(p).template data<double>(), width, width, width, R(1)});
      };
      add(product, *site.parameter, w[0], w[1]);
      if (bias) add(row_sums, *bias, 1, w[0]);
    });
  }
  GradientSums& sums_;
};
}  // namespace dpmp::inline DPMP_ABI::per_sample
