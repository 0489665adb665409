// SPDX-License-Identifier: Apache-2.0
// Per-sample vectors: biases, norm gains, position tables, and anything materialised. The stored vector is the released one,
// so the certificate pays for the norm alone.
#pragma once
#include "dpmp/kernels/per_sample_tile.hpp"
#include "dpmp/per_sample/norm_bounds.hpp"
#include "dpmp/per_sample/site_list.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// output[i, 0..n) += v_i for every site of one parameter; output [B, numel] in the accumulate dtype.
inline void per_sample_gradients_vector(Context& ctx, const SiteList& sites, const Tensor& output) {
  const index_t width = output.shape()[1];
  for (const ParameterSite& site : sites) {
    const index_t n = site.b.shape()[1];
    dispatch_real(site.b.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      using R = compute_t<T>;
      ctx.team().parallel_for(site.samples(), [&](index_t begin, index_t end) {
        for (index_t i = begin; i < end; ++i)
          run_rows(0, 1, kernels::AddRow<T>{site.b.data<T>() + i * n, output.data<R>() + i * width, n});
      });
    });
  }
}

/// One site is normed as it is stored. Several (a bias used twice) are added first, so that the norm is that of their sum.
inline SiteList combined_vectors(Context& ctx, const SiteList& sites) {
  if (sites.size() == 1) return sites;
  const Tensor total =
      Tensor::zeros(ctx, {sites[0].samples(), sites[0].parameter->numel()}, accumulate_dtype(sites[0].parameter->dtype()));
  per_sample_gradients_vector(ctx, sites, total);
  return {ParameterSite::vector(*sites[0].parameter, total)};
}

/// Adds the squared norms of combined vectors to bounds: relative error of the sum of n squares only.
inline void squared_norms_vector(Context& ctx, const ParameterSite& site, NormBounds& bounds) {
  const index_t n = site.b.shape()[1];
  const Tensor norms = Tensor::empty(ctx, {site.samples()}, DType::f64);
  dispatch_real(site.b.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_rows(ctx, site.samples(), 2 * n, kernels::RowNorm<T>{site.b.data<T>(), norms.data<double>(), n});
  });
  const double error = gamma(double(n + 16), unit_roundoff(accumulate_dtype(site.b.dtype())));
  for (index_t i = 0; i < site.samples(); ++i) {
    const double squared = norms.data<double>()[i] * norms.data<double>()[i];
    bounds.add(i, squared, error * squared, 0);
  }
}

/// sum[0..n) += sum_i c_i v_i; sum in f64.
inline void weighted_sum_vector(Context& ctx, const ParameterSite& site, std::span<const float> factors, const Tensor& sum) {
  const index_t n = site.b.shape()[1];
  dispatch_real(site.b.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr index_t block = 16384;  // of the sum, to stay in a core's cache while the samples go by
    ctx.team().parallel_for(
        n,
        [&](index_t begin, index_t end) {
          for (index_t first = begin; first < end; first += block)
            for (index_t i = 0; i < site.samples(); ++i)
              run_rows(0, 1,
                       kernels::WeightedAdd<T>{site.b.data<T>() + i * n + first, sum.data<double>() + first,
                                               std::min(block, end - first), 0, 0, compute_t<T>(factors[std::size_t(i)])});
        },
        n * site.samples() < 16384);
  });
}
}  // namespace dpmp::inline DPMP_ABI::per_sample
