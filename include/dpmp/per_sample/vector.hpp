// SPDX-License-Identifier: Apache-2.0
// Per-sample vectors: biases, norm gains, position tables, and anything materialised. The stored vector is the released one,
// so the certificate pays for the norm alone.
#pragma once
#include "dpmp/kernels/per_sample_tile.hpp"
#include "dpmp/per_sample/norm_bounds.hpp"
#include "dpmp/per_sample/sample_factors.hpp"
#include "dpmp/per_sample/site_list.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// output[i, 0..n) += v_i for every site of one parameter; output [B, numel] in the accumulate dtype.
inline void per_sample_gradients_vector(Context& ctx, const SiteList& sites, const Tensor& output) {
  const index_t width = output.shape()[1];
  for (const ParameterSite& site : sites) {
    const index_t n = site.b.shape()[1];
    dispatch_real(site.b.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      launch_rows(ctx, site.samples(), n, kernels::AddRow<T>{site.b.data<T>(), output.data<compute_t<T>>(), n, n, width});
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

/// Adds the squared norms of combined vectors to bounds: relative error of the sum of n squares only. Norms that came with
/// the vectors are not taken again.
inline void squared_norms_vector(Context& ctx, const ParameterSite& site, NormBounds& bounds) {
  const index_t n = site.b.shape()[1];
  const kernels::Certificate certificate{.square = gamma(double(n + 16), unit_roundoff(accumulate_dtype(site.b.dtype())))};
  if (site.squares.defined()) return bounds.add(ctx, site.squares.data<double>(), {}, certificate);
  const Tensor norms = Tensor::empty(ctx, {site.samples()}, DType::f64);
  dispatch_real(site.b.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_rows(ctx, site.samples(), 2 * n, kernels::RowNorm<T>{site.b.data<T>(), norms.data<double>(), n});
  });
  // A row norm is taken for |a_t| |b_t| of a sample of one token.
  bounds.add(ctx, nullptr, {.products = norms.data<double>()}, certificate);
}

/// sum[0..n) += sum_i c_i v_i; sum in f64.
inline void weighted_sum_vector(Context& ctx, const ParameterSite& site, const SampleFactors& factors, const Tensor& sum) {
  const index_t n = site.b.shape()[1], samples = site.samples();
  constexpr index_t slice = 4096;  // of the sum, to stay in a core's cache while the samples go by
  dispatch_real(site.b.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_rows(ctx, (n + slice - 1) / slice, slice * samples,
                kernels::WeightedVectors<T>{site.b.data<T>(), factors.on(ctx), sum.data<double>(), samples, n, slice});
  });
}
}  // namespace dpmp::inline DPMP_ABI::per_sample
