// SPDX-License-Identifier: Apache-2.0
// Weighted sums of any number of samples: in parts that one chain of additions may take.
#pragma once
#include "dpmp/per_sample/gradient_sums.hpp"
#include "dpmp/per_sample/per_sample.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
namespace detail {
/// f(factors, first, last) for parts of at most samples_per_chain samples.
template <class F>
void for_parts(const SampleFactors& factors, const F& f) {
  if (factors.size() <= samples_per_chain) return f(factors, index_t(0), factors.size());
  for (index_t first = 0; first < factors.size(); first += samples_per_chain) {
    const index_t last = std::min(factors.size(), first + samples_per_chain);
    f(factors.part(first, last), first, last);
  }
}
}  // namespace detail

/// The sum of a parameter += sum_i factors_i G_i over all its sites.
void add_weighted_sum(Context& ctx, const SiteList& sites, const SampleFactors& factors, GradientSums& sums);

/// The same for the combined vectors of several parameters, in few launches.
void add_weighted_vectors(Context& ctx, std::span<const ParameterSite> sites, const SampleFactors& factors,
                          GradientSums& sums);
}  // namespace dpmp::inline DPMP_ABI::per_sample

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::per_sample {
DPMP_KEPT_BODY inline void add_weighted_sum(Context& ctx, const SiteList& sites, const SampleFactors& factors,
                                            GradientSums& sums) {
  const SiteList list = merge_sites(ctx, sites);
  detail::for_parts(factors, [&](const SampleFactors& some, index_t first, index_t last) {
    SiteList part;
    for (const ParameterSite& site : list) part.push_back(site.part(first, last));
    weighted_sum(ctx, part, some, sums.chain(*list[0].parameter, last - first));
  });
}

DPMP_KEPT_BODY inline void add_weighted_vectors(Context& ctx, std::span<const ParameterSite> sites,
                                                const SampleFactors& factors, GradientSums& sums) {
  detail::for_parts(factors, [&](const SampleFactors& some, index_t first, index_t last) {
    std::vector<ParameterSite> part;
    std::vector<Tensor> chains;
    for (const ParameterSite& site : sites) {
      part.push_back(site.part(first, last));
      chains.push_back(sums.chain(*site.parameter, last - first));
    }
    weighted_sums_vector(ctx, part, some, chains);
  });
}
}  // namespace dpmp::inline DPMP_ABI::per_sample
#endif
