// SPDX-License-Identifier: Apache-2.0
// Gradient sinks: what becomes of the sites of a backward pass. One backward, no copies of it.
#pragma once
#include "dpmp/per_sample/gradient_sums.hpp"
#include "dpmp/per_sample/per_sample.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// Non-private training: adds every site to its parameter's sum at once, over all samples in one product, and keeps nothing.
class SumSink final : public GradientSink {
 public:
  explicit SumSink(GradientSums& sums) : sums_(sums) {}
  void accept(Context& ctx, const ParameterSite& site) override {
    const Tensor& sum = sums_.of(*site.parameter);
    dispatch_real(site.parameter->dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      if (site.form == SiteForm::vector || site.one_hot()) {
        const std::vector<float> ones(std::size_t(site.samples()), 1.0f);
        weighted_sum(ctx, {site}, ones, sum);
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

/// A sink that can say every sample's norm and then form the weighted sum of the same stored operands.
class PerSampleSink : public GradientSink {
 public:
  /// Squared norms over all parameters with their certificate. samples: B of the pass.
  virtual NormBounds norms(Context& ctx, index_t samples) const = 0;
  /// sums += sum_i factors_i G_i for every parameter seen.
  virtual void weighted_sum(Context& ctx, std::span<const float> factors, GradientSums& sums) const = 0;
  /// Forgets the pass.
  virtual void clear() = 0;
};

/// Keeps sites by parameter, in the order of their first use in the pass, until clear().
class KeepingSink : public PerSampleSink {
 public:
  NormBounds norms(Context& ctx, index_t samples) const override {
    NormBounds bounds(samples);
    for (const SiteList& sites : lists_) squared_norm(ctx, sites, bounds);
    return bounds;
  }
  void weighted_sum(Context& ctx, std::span<const float> factors, GradientSums& sums) const override {
    for (const SiteList& sites : lists_) per_sample::weighted_sum(ctx, sites, factors, sums.of(*sites[0].parameter));
  }
  void clear() override { lists_.clear(); }
  const std::vector<SiteList>& lists() const { return lists_; }

 protected:
  void keep(const ParameterSite& site) {
    for (SiteList& list : lists_)
      if (list[0].parameter == site.parameter) return list.push_back(site);
    lists_.push_back({site});
  }

 private:
  std::vector<SiteList> lists_;
};

/// Book-keeping (Bu et al. 2022, arXiv 2210.00038): one backward, a and b of every site kept, then norms and one weighted
/// sum.
class BookKeepingSink final : public KeepingSink {
 public:
  void accept(Context&, const ParameterSite& site) override { keep(site); }
};

/// Every per-sample gradient in memory, [B, numel] a parameter: for small models and for tests.
class MaterialisedSink final : public KeepingSink {
 public:
  void accept(Context& ctx, const ParameterSite& site) override {
    keep(ParameterSite::vector(*site.parameter, per_sample_gradient(ctx, {site})));
  }
  /// G_i of one parameter, [B, numel]. Throws when the pass had no site of it.
  Tensor gradients(Context& ctx, const Parameter& parameter) const {
    for (const SiteList& sites : lists())
      if (sites[0].parameter == &parameter) return combined_vectors(ctx, sites)[0].b;
    throw Error("expected a parameter used in the backward pass, got " + parameter.name());
  }
};
}  // namespace dpmp::inline DPMP_ABI::per_sample
