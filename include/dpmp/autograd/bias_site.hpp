// SPDX-License-Identifier: Apache-2.0
// The per-sample gradient of a bias: its output gradient's sum over tokens.
#pragma once
#include <array>

#include "dpmp/autograd/site.hpp"

namespace dpmp::inline DPMP_ABI {
/// y_gradient [B, .., p] -> the site of a bias [p]: vectors [B, p] in the accumulate dtype, and their squared norms.
ParameterSite bias_site(Context& ctx, Parameter& bias, const Tensor& y_gradient);
/// A site with a bias as two: the weight's alone, and the bias' vectors.
std::array<ParameterSite, 2> separate(Context& ctx, const ParameterSite& site);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/token_sum.hpp"

namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline ParameterSite bias_site(Context& ctx, Parameter& bias, const Tensor& y_gradient) {
  const index_t samples = y_gradient.shape().front(), p = y_gradient.shape().back();
  const index_t tokens = y_gradient.shape().numel(1, y_gradient.shape().rank() - 1);
  TokenSums sums(ctx, {.samples = samples, .tokens = tokens, .width = p, .dtype = accumulate_dtype(y_gradient.dtype())});
  dispatch_real(y_gradient.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_library_rows(ctx, sums.rows(), sums.slices().length * p,
                        kernels::TokenSum<T>{y_gradient.data<T>(), sums.sums<compute_t<T>>(), sums.squares(), tokens, p, p,
                                             tokens * p, sums.slices()});
  });
  sums.join(ctx);
  return ParameterSite::vector(bias, sums);
}

DPMP_KEPT_BODY inline std::array<ParameterSite, 2> separate(Context& ctx, const ParameterSite& site) {
  ParameterSite weight = site;
  weight.bias = nullptr;
  return {weight, bias_site(ctx, *site.bias, site.b)};
}
}  // namespace dpmp::inline DPMP_ABI
#endif
