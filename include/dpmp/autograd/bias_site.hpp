// SPDX-License-Identifier: Apache-2.0
// The per-sample gradient of a bias: its output gradient's sum over tokens.
#pragma once
#include <array>

#include "dpmp/autograd/site.hpp"
#include "dpmp/gemm/token_sums.hpp"

namespace dpmp::inline DPMP_ABI {
/// y_gradient [B, .., p] -> the site of a bias [p]: vectors [B, p] in the accumulate dtype, and their squared norms.
ParameterSite bias_site(Context& ctx, Parameter& bias, const Tensor& y_gradient);
/// A site with a bias as two: the weight's alone, and the bias' vectors.
std::array<ParameterSite, 2> separate(Context& ctx, const ParameterSite& site);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline ParameterSite bias_site(Context& ctx, Parameter& bias, const Tensor& y_gradient) {
  const index_t samples = y_gradient.shape().front(), p = y_gradient.shape().back();
  const index_t tokens = y_gradient.shape().numel(1, y_gradient.shape().rank() - 1);
  const Tensor sums = Tensor::empty(ctx, {samples, p}, accumulate_dtype(y_gradient.dtype())),
               squares = Tensor::empty(ctx, {samples}, DType::f64);
  dispatch_real(y_gradient.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    detail::sum_tokens<T, compute_t<T>>(ctx, {y_gradient.data<T>(), samples, tokens, p, p, tokens * p},
                                        sums.data<compute_t<T>>(), squares.data<double>());
  });
  return ParameterSite::vector(bias, sums, squares);
}

DPMP_KEPT_BODY inline std::array<ParameterSite, 2> separate(Context& ctx, const ParameterSite& site) {
  ParameterSite weight = site;
  weight.bias = nullptr;
  return {weight, bias_site(ctx, *site.bias, site.b)};
}
}  // namespace dpmp::inline DPMP_ABI
#endif
