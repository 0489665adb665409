// SPDX-License-Identifier: Apache-2.0
// Per-sample vectors: biases, norm gains, position tables, and anything materialised. The stored vector is the released one,
// so the certificate pays for the norm alone.
#pragma once
#include <span>
#include <vector>

#include "dpmp/core/accumulation.hpp"
#include "dpmp/kernels/per_sample_tile.hpp"
#include "dpmp/per_sample/certificate.hpp"
#include "dpmp/per_sample/norm_bounds.hpp"
#include "dpmp/per_sample/sample_factors.hpp"
#include "dpmp/per_sample/site_list.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// output[i, 0..n) += v_i for every site of one parameter; output [B, numel] in the accumulate dtype.
void per_sample_gradients_vector(Context& ctx, const SiteList& sites, const Tensor& output);

/// One site is normed as it is stored. Several (a bias used twice) are added first, so that the norm is that of their sum.
SiteList merge_vectors(Context& ctx, const SiteList& sites);

/// A combined vector with its squared norms; those that came with it are not taken again.
ParameterSite with_squares(Context& ctx, const ParameterSite& site);

/// Adds the squared norms of the combined vectors of several parameters, which come with them, to bounds.
void add_vector_norms(Context& ctx, std::span<const ParameterSite> sites, NormBounds& bounds);

/// Adds the squared norms of combined vectors to bounds.
void squared_norms_vector(Context& ctx, const ParameterSite& site, NormBounds& bounds);

/// sums[k][0..n) += sum_i c_i v_i for each parameter's combined vectors, in few launches; sums in f64, at most
/// samples_per_chain samples.
void weighted_sums_vector(Context& ctx, std::span<const ParameterSite> sites, const SampleFactors& factors,
                          std::span<const Tensor> sums);
/// The same of one parameter.
void weighted_sum_vector(Context& ctx, const ParameterSite& site, const SampleFactors& factors, const Tensor& sum);
}  // namespace dpmp::inline DPMP_ABI::per_sample

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::per_sample {
DPMP_KEPT_BODY inline void per_sample_gradients_vector(Context& ctx, const SiteList& sites, const Tensor& output) {
  const index_t width = output.shape()[1];
  for (const ParameterSite& site : sites) {
    const index_t n = site.b.shape()[1];
    dispatch_real(site.b.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      launch_library_rows(ctx, site.samples(), n,
                          kernels::AddRow<T>{site.b.data<T>(), output.data<compute_t<T>>(), n, n, width});
    });
  }
}

DPMP_KEPT_BODY inline SiteList merge_vectors(Context& ctx, const SiteList& sites) {
  if (sites.size() == 1) return sites;
  const Tensor total =
      Tensor::zeros(ctx, {sites[0].samples(), sites[0].parameter->numel()}, accumulate_dtype(sites[0].parameter->dtype()));
  per_sample_gradients_vector(ctx, sites, total);
  return {ParameterSite::vector(*sites[0].parameter, total)};
}

DPMP_KEPT_BODY inline ParameterSite with_squares(Context& ctx, const ParameterSite& site) {
  if (site.squares.defined()) return site;
  const Tensor squares = Tensor::empty(ctx, {site.samples()}, DType::f64);
  const index_t n = site.b.shape()[1];
  dispatch_real(site.b.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_library_rows(ctx, site.samples(), n, kernels::VectorSquares<T>{site.b.data<T>(), squares.data<double>(), n});
  });
  return ParameterSite::vector(*site.parameter, site.b, squares);
}

DPMP_KEPT_BODY inline void add_vector_norms(Context& ctx, std::span<const ParameterSite> sites, NormBounds& bounds) {
  std::vector<kernels::NormTerms> terms;
  for (const ParameterSite& site : sites)
    terms.push_back({.squared = site.squares.data<double>(), .certificate = certificate::vector(site)});
  bounds.add(ctx, terms);
}

DPMP_KEPT_BODY inline void squared_norms_vector(Context& ctx, const ParameterSite& site, NormBounds& bounds) {
  const ParameterSite whole = with_squares(ctx, site);
  add_vector_norms(ctx, {&whole, 1}, bounds);
}

DPMP_KEPT_BODY inline void weighted_sums_vector(Context& ctx, std::span<const ParameterSite> sites,
                                                const SampleFactors& factors, std::span<const Tensor> sums) {
  DPMP_CHECK(factors.size() <= samples_per_chain, "expected at most ", samples_per_chain, " samples to sum, got ",
             factors.size());
  for (const DType dtype : real_dtypes)
    dispatch_real(dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      using Kernel = kernels::WeightedVectors<T>;
      std::vector<kernels::VectorTerm<T>> terms;
      for (std::size_t k = 0; k < sites.size(); ++k) {
        if (sites[k].b.dtype() != dtype) continue;
        DPMP_CHECK(factors.size() == sites[k].samples(), "expected ", sites[k].samples(), " factors, got ", factors.size());
        terms.push_back({sites[k].b.data<T>(), sums[k].data<double>(), sites[k].b.shape()[1]});
      }
      launch_many(std::span<const kernels::VectorTerm<T>>(terms), Kernel::rows_of, [&](const auto& some) {
        index_t width = 0;
        for (index_t k = 0; k < some.count; ++k) width += some.jobs[k].width;
        launch_library_rows(ctx, some.rows, width * factors.size() / std::max<index_t>(some.rows, 1),
                            Kernel{factors.on(ctx), factors.size(), some});
      });
    });
}

DPMP_KEPT_BODY inline void weighted_sum_vector(Context& ctx, const ParameterSite& site, const SampleFactors& factors,
                                               const Tensor& sum) {
  weighted_sums_vector(ctx, {&site, 1}, factors, {&sum, 1});
}
}  // namespace dpmp::inline DPMP_ABI::per_sample
#endif
