// SPDX-License-Identifier: Apache-2.0
// The three functions that everything private is built from, for all sites of one parameter, whatever their forms. A bias
// that comes along with a site is left out here: separate() it (autograd/bias_site.hpp).
#pragma once
#include "dpmp/per_sample/outer_product.hpp"
#include "dpmp/per_sample/vector.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// Every form at once is rare (a table used as an embedding and as positions): such a parameter is materialised first.
enum class SiteMix : std::uint8_t { outer_products, vectors, both };
SiteMix mix_of(const SiteList& sites);

/// G_i of every sample: [B, numel] in the accumulate dtype.
Tensor per_sample_gradient(Context& ctx, const SiteList& sites);

/// The same gradients in at most two sites that the form's own functions take as they are: one vector, or dense rows and
/// one-hot rows.
SiteList merge_sites(Context& ctx, const SiteList& sites);

/// Adds |G_i|^2 of one parameter over all its sites, and its certificate, to bounds. Operands are the stored ones.
void squared_norm(Context& ctx, const SiteList& sites, NormBounds& bounds);

/// sum += sum_i factors_i G_i; sum has the parameter's shape, in f64. A factor of 0 removes the sample by select. At most
/// samples_per_chain samples: add_weighted_sum (per_sample/weighted_sum.hpp) takes any number.
void weighted_sum(Context& ctx, const SiteList& sites, const SampleFactors& factors, const Tensor& sum);
}  // namespace dpmp::inline DPMP_ABI::per_sample

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::per_sample {
DPMP_KEPT_BODY inline SiteMix mix_of(const SiteList& sites) {
  DPMP_CHECK(!sites.empty(), "expected at least one site of a parameter, got none");
  bool outer = false, vector = false;
  for (const ParameterSite& s : sites) {
    DPMP_CHECK(s.parameter == sites[0].parameter && s.samples() == sites[0].samples(),
               "expected sites of one parameter and one batch, got ", sites[0].parameter->name(), " (", sites[0].samples(),
               " samples) and ", s.parameter->name(), " (", s.samples(), ")");
    DPMP_CHECK(!s.bias || sites.size() == 1, "expected a bias to come along with the only site of ",
               sites[0].parameter->name(), ", got one of ", sites.size());
    (s.form == SiteForm::outer_product ? outer : vector) = true;
  }
  return outer && vector ? SiteMix::both : outer ? SiteMix::outer_products : SiteMix::vectors;
}

DPMP_KEPT_BODY inline Tensor per_sample_gradient(Context& ctx, const SiteList& sites) {
  const SiteMix mix = mix_of(sites);
  const Tensor gradients =
      Tensor::zeros(ctx, {sites[0].samples(), sites[0].parameter->numel()}, accumulate_dtype(sites[0].parameter->dtype()));
  SiteList outer, vectors;
  for (const ParameterSite& s : sites) (s.form == SiteForm::outer_product ? outer : vectors).push_back(s);
  if (mix != SiteMix::vectors) per_sample_gradients_outer(ctx, outer, gradients);
  if (mix != SiteMix::outer_products) per_sample_gradients_vector(ctx, vectors, gradients);
  return gradients;
}

DPMP_KEPT_BODY inline SiteList merge_sites(Context& ctx, const SiteList& sites) {
  switch (mix_of(sites)) {
    case SiteMix::outer_products: return merge_outer_products(ctx, sites);
    case SiteMix::vectors: return merge_vectors(ctx, sites);
    case SiteMix::both: break;
  }
  return {ParameterSite::vector(*sites[0].parameter, per_sample_gradient(ctx, sites))};
}

DPMP_KEPT_BODY inline void squared_norm(Context& ctx, const SiteList& sites, NormBounds& bounds) {
  const SiteList list = merge_sites(ctx, sites);
  DPMP_CHECK(list[0].samples() == bounds.samples(), "expected sites of ", bounds.samples(), " samples, got ",
             list[0].samples());
  if (list[0].form == SiteForm::vector) return squared_norms_vector(ctx, list[0], bounds);
  squared_norms_outer(ctx, list, bounds, choose_norm_method(list));
}

DPMP_KEPT_BODY inline void weighted_sum(Context& ctx, const SiteList& sites, const SampleFactors& factors,
                                        const Tensor& sum) {
  const SiteList list = merge_sites(ctx, sites);
  DPMP_CHECK(factors.size() == list[0].samples(), "expected ", list[0].samples(), " factors, got ", factors.size());
  check_shape("the sum of " + list[0].parameter->name(), sum, list[0].parameter->shape());
  check_dtype("the sum of " + list[0].parameter->name(), sum, DType::f64);
  if (list[0].form == SiteForm::vector) return weighted_sum_vector(ctx, list[0], factors, sum);
  weighted_sum_outer(ctx, list, factors, sum);
}
}  // namespace dpmp::inline DPMP_ABI::per_sample
#endif
