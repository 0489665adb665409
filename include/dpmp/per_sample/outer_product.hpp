// SPDX-License-Identifier: Apache-2.0
// Outer-product sites: G_i = sum over sites and tokens of b_t a_t^T, for one parameter [p, d] and all its sites together, so
// that tied and reused weights get their cross terms. Squared norms, per-sample gradients and weighted sums stand side by
// side.
#pragma once
#include <algorithm>

#include "dpmp/gemm/gemm.hpp"
#include "dpmp/kernels/per_sample_tile.hpp"
#include "dpmp/per_sample/cost.hpp"
#include "dpmp/per_sample/gram_norm.hpp"
#include "dpmp/per_sample/norm_bounds.hpp"
#include "dpmp/per_sample/sample_factors.hpp"
#include "dpmp/per_sample/site_list.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
namespace detail {
// The GPU's half, defined in per_sample/outer_product.cuh: norms by any method; norms of parameters with one input;
// gradients [B, p d], in the accumulate dtype or in T; weighted sums. The first three fill the vectors of biases too, as
// below.
template <class T>
void norms_on_cuda(Context& ctx, const SiteList& sites, NormBounds& bounds, NormMethod method, const ParameterSite& bias);
template <class T>
void shared_norms_on_cuda(Context& ctx, std::span<const SiteList> lists, NormBounds& bounds,
                          std::span<const ParameterSite> biases);
template <class T>
void gradients_on_cuda(Context& ctx, const SiteList& sites, const Tensor& output, const ParameterSite& bias = {});
template <class T>
void weighted_sum_on_cuda(Context& ctx, const SiteList& sites, const SampleFactors& factors, const Tensor& sum);

/// tile[first_row.. , :] of sample i's gradient, rows [first_row, first_row + rows) of the parameter, in compute precision.
template <class T>
void instantiate(Context& ctx, const SiteList& sites, index_t sample, index_t first_row, index_t rows, compute_t<T>* tile) {
  const index_t d = sites[0].parameter->shape()[1];
  bool started = false;
  for (const ParameterSite& site : sites) {
    if (site.one_hot()) continue;
    const index_t tokens = site.b.shape()[1], p = site.b.shape()[2];
    gemm(ctx, {.m = rows,
               .n = d,
               .k = tokens,
               .a = {.data = site.b.data<T>() + sample * tokens * p + first_row,
                     .dtype = dtype_of<T>,
                     .row_stride = p,
                     .transposed = true},
               .b = {.data = site.a.data<T>() + sample * tokens * d, .dtype = dtype_of<T>, .row_stride = d},
               .out = {.data = tile, .dtype = dtype_of<compute_t<T>>, .row_stride = d},
               .accumulate = started});
    started = true;
  }
  if (!started) std::fill(tile, tile + rows * d, compute_t<T>(0));
  for (const ParameterSite& site : sites) {
    if (!site.one_hot()) continue;
    const index_t tokens = site.b.shape()[1];
    const std::int32_t* ids = site.b.data<std::int32_t>() + sample * tokens;
    for (index_t t = 0; t < tokens; ++t)
      if (ids[t] >= first_row && ids[t] < first_row + rows)
        run_rows(0, 1,
                 kernels::AddRow<T>{site.a.data<T>() + (sample * tokens + t) * d, tile + (ids[t] - first_row) * d, d, d, d});
  }
}

/// The certificate of a norm by instantiation. A tile that is thrown away and the released one are each within gamma_R S of
/// the exact gradient, hence twice; each of their p d elements also loses up to w a rounding step to underflow, and each
/// square up to w. A stored tile is the released one.
inline kernels::Certificate instantiation_certificate(const SiteList& sites, bool stored, const ProductRounding& r) {
  const double p = double(sites[0].parameter->shape()[0]), d = double(sites[0].parameter->shape()[1]),
               chain = r.chain(double(total_tokens(sites))) + double(sites.size()), w = 0x1p-126;
  return {.constant = p * d * w,
          .square = gamma(d + p + 24, r.u),
          .linear_constant = stored ? 0 : 2 * std::sqrt(p) * std::sqrt(d) * 2 * chain * w,
          .linear_products = stored ? 0 : 2 * gamma(chain, r.u)};
}

/// stored [B, p d], in the accumulate dtype or rounded to T: keep the tiles there, to be released as they are; not defined:
/// square them and throw them away.
template <class T>
void norms_by_instantiation(Context& ctx, const SiteList& sites, NormBounds& bounds, const Tensor& stored) {
  using R = compute_t<T>;
  const index_t p = sites[0].parameter->shape()[0], d = sites[0].parameter->shape()[1];
  const bool in_place = stored.defined() && stored.dtype() == dtype_of<R>;
  const Tensor squared = Tensor::empty(ctx, {bounds.samples()}, DType::f64);
  ctx.team().parallel_for(bounds.samples(), [&](index_t begin, index_t end) {
    const Buffer scratch = ctx.allocate(in_place ? 0 : p * d * index_t(sizeof(R))), sums = ctx.allocate(p * 8);
    double* const of_rows = static_cast<double*>(sums.data());
    for (index_t i = begin; i < end; ++i) {
      R* tile = in_place ? stored.data<R>() + i * p * d : static_cast<R*>(scratch.data());
      instantiate<T>(ctx, sites, i, 0, p, tile);
      if (in_place || !stored.defined())
        run_rows(0, p, kernels::SquaredRows<R>{tile, of_rows, d});
      else
        run_rows(0, p, kernels::RoundedSquaredRows<T>{tile, stored.data<T>() + i * p * d, of_rows, d});
      double& sum = squared.data<double>()[i];
      sum = 0;
      for (index_t r = 0; r < p; ++r) sum += of_rows[r];
    }
  });
  const kernels::Certificate certificate = instantiation_certificate(sites, stored.defined(), rounding_on_host<T>());
  if (stored.defined()) return bounds.add(ctx, squared.data<double>(), {}, certificate);
  bounds.add(ctx, squared.data<double>(), RowNorms(ctx, sites).sums(), certificate);
}

/// Norms of gradients [B, p d] that are there, in any real dtype.
inline void norms_of_stored(Context& ctx, const SiteList& sites, const Tensor& stored, NormBounds& bounds) {
  const index_t p = sites[0].parameter->shape()[0], d = sites[0].parameter->shape()[1], samples = bounds.samples();
  const Tensor rows = Tensor::empty(ctx, {samples, p}, DType::f64), squared = Tensor::empty(ctx, {samples}, DType::f64);
  dispatch_real(stored.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_rows(ctx, samples * p, d, kernels::SquaredRows<T>{stored.data<T>(), rows.data<double>(), d});
  });
  launch_rows(ctx, samples, p, kernels::SumRows{rows.data<double>(), squared.data<double>(), p});
  const double u = unit_roundoff(accumulate_dtype(stored.dtype()));
  bounds.add(ctx, squared.data<double>(), {}, instantiation_certificate(sites, true, {.u = u}));
}

inline kernels::Certificate segments_certificate(const SiteList& sites, const ProductRounding& r) {
  const double d = double(sites[0].parameter->shape()[1]), tokens = double(total_tokens(sites)), w = 0x1p-126;
  return {.constant = tokens * d * w,
          .square = gamma(d + 8, r.u),
          .linear_constant = 2 * std::sqrt(tokens * d) * 2 * tokens * w,
          .linear_products = 2 * gamma(tokens, r.u)};
}
template <class T>
void norms_by_segments(Context& ctx, const SiteList& sites, NormBounds& bounds) {
  const index_t d = sites[0].parameter->shape()[1], tokens = total_tokens(sites);
  const Tensor squared = Tensor::empty(ctx, {bounds.samples()}, DType::f64);
  ctx.team().parallel_for(bounds.samples(), [&](index_t begin, index_t end) {
    Segments<T> segments(ctx, tokens, d);
    for (index_t i = begin; i < end; ++i) {
      segments.gather(sites, i);
      squared.data<double>()[i] = segments.squared_norm();
    }
  });
  bounds.add(ctx, squared.data<double>(), RowNorms(ctx, sites).sums(), segments_certificate(sites, rounding_on_host<T>()));
}

inline void check_bias(const Context& ctx, const SiteList& sites, const ParameterSite& bias) {
  if (!bias.parameter) return;
  DPMP_CHECK(ctx.on_cuda() && sites.size() == 1 && !sites[0].one_hot() && bias.samples() == sites[0].samples() &&
                 bias.b.shape()[1] == sites[0].b.shape()[2],
             "expected a bias with vectors ", bias.b.shape(), " to come along with one dense site of as many samples and ",
             "outputs on a GPU, got ", sites.size(), " sites of ", sites[0].parameter->name(), " with rows ",
             sites[0].b.shape(), " on ", ctx.on_cuda() ? "a GPU" : "a CPU");
}

/// One token a sample: |a| |b| is the norm itself.
inline void norms_of_rank_one(Context& ctx, const SiteList& sites, NormBounds& bounds) {
  const Parameter& parameter = *sites[0].parameter;
  const double p = double(parameter.shape()[0]), d = double(parameter.shape()[1]),
               u = unit_roundoff(accumulate_dtype(parameter.dtype()));
  bounds.add(
      ctx, nullptr, RowNorms(ctx, sites).sums(),
      {.products = gamma(p + d + 32, u), .linear_constant = std::sqrt(p * d) * 0x1p-125, .linear_products = gamma(3, u)});
}
}  // namespace detail

/// The site of a bias before its vectors are formed from the rows b of `weight`, and with squares also their squared norms.
inline ParameterSite unfilled_bias(Context& ctx, Parameter& bias, const ParameterSite& weight, DType dtype, bool squares) {
  return ParameterSite::vector(bias, Tensor::empty(ctx, {weight.samples(), weight.b.shape()[2]}, dtype),
                               squares ? Tensor::empty(ctx, {weight.samples()}, DType::f64) : Tensor());
}

/// Adds the squared norms of one parameter's per-sample gradients and their certificate to bounds.
/// bias: nothing, or on a GPU and of one dense site whose norm is by Gram or instantiation, an unfilled_bias that receives
/// the sums of b's rows over tokens and their squared norms, from the same pass over b.
inline void squared_norms_outer(Context& ctx, const SiteList& all_sites, NormBounds& bounds, NormMethod method,
                                const ParameterSite& bias = {}) {
  const SiteList sites = merged(ctx, all_sites);
  detail::check_bias(ctx, sites, bias);
  DPMP_CHECK(!bias.parameter || method == NormMethod::gram || method == NormMethod::instantiate,
             "expected a bias to come along with a norm by Gram or instantiation, got '", name_of(method), "'");
  if (method == NormMethod::rank_one) return detail::norms_of_rank_one(ctx, sites, bounds);
  dispatch_real(sites[0].parameter->dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
#if defined(DPMP_WITH_CUDA) && DPMP_WITH_CUDA
    if (ctx.on_cuda()) return detail::norms_on_cuda<T>(ctx, sites, bounds, method, bias);
#endif
    switch (method) {
      case NormMethod::segments: return detail::norms_by_segments<T>(ctx, sites, bounds);
      case NormMethod::instantiate: return detail::norms_by_instantiation<T>(ctx, sites, bounds, Tensor());
      case NormMethod::gram: return detail::norms_by_gram<T>(ctx, {&sites, 1}, bounds);
      case NormMethod::rank_one:
      case NormMethod::stored: break;
    }
    throw Error("expected a method for the norms of outer products, got 'stored'");
  });
}

/// The same for several parameters whose dense rows `a` are one tensor (queries, keys and values of one input): one Gram of
/// a for all of them. Each list is one dense site. biases: none, or one for each list, as above.
inline void squared_norms_shared_input(Context& ctx, std::span<const SiteList> lists, NormBounds& bounds,
                                       std::span<const ParameterSite> biases = {}) {
  for (std::size_t k = 0; k < biases.size(); ++k) detail::check_bias(ctx, lists[k], biases[k]);
  dispatch_real(lists[0][0].parameter->dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
#if defined(DPMP_WITH_CUDA) && DPMP_WITH_CUDA
    if (ctx.on_cuda()) return detail::shared_norms_on_cuda<T>(ctx, lists, bounds, biases);
#endif
    detail::norms_by_gram<T>(ctx, lists, bounds);
  });
}

/// Forms and keeps the per-sample gradients of one parameter, [B, p d], and adds their squared norms and certificate to
/// bounds: what is stored, rounded or not, is what is normed and released. dtype: kept_dtype(shape, storage).
/// bias: nothing, or on a GPU and of one dense site, vectors in dtype that receive the sums of b's rows over tokens, without
/// norms.
inline Tensor stored_gradients_outer(Context& ctx, const SiteList& sites, NormBounds& bounds, DType dtype,
                                     const ParameterSite& bias = {}) {
  detail::check_bias(ctx, sites, bias);
  const Parameter& w = *sites[0].parameter;
  const Tensor stored = Tensor::empty(ctx, {sites[0].samples(), w.numel()}, dtype);
  dispatch_real(w.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
#if defined(DPMP_WITH_CUDA) && DPMP_WITH_CUDA
    if (ctx.on_cuda()) {
      detail::gradients_on_cuda<T>(ctx, sites, stored, bias);
      detail::norms_of_stored(ctx, sites, stored, bounds);
      return;
    }
#endif
    detail::norms_by_instantiation<T>(ctx, sites, bounds, stored);
  });
  return stored;
}

/// output[i, :] = G_i, [B, p d] in the accumulate dtype.
inline void per_sample_gradients_outer(Context& ctx, const SiteList& sites, const Tensor& output) {
  const index_t p = sites[0].parameter->shape()[0], d = sites[0].parameter->shape()[1];
  dispatch_real(sites[0].parameter->dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
#if defined(DPMP_WITH_CUDA) && DPMP_WITH_CUDA
    if (ctx.on_cuda()) return detail::gradients_on_cuda<T>(ctx, sites, output);
#endif
    ctx.team().parallel_for(sites[0].samples(), [&](index_t begin, index_t end) {
      for (index_t i = begin; i < end; ++i)
        detail::instantiate<T>(ctx, sites, i, 0, p, output.data<compute_t<T>>() + i * p * d);
    });
  });
}

namespace detail {
/// A tile of the whole table would mostly be zeros: threads share the columns and add the segments.
template <class T>
void sum_by_segments(Context& ctx, const SiteList& sites, const float* factors, const Tensor& sum) {
  const index_t d = sum.shape()[1], tokens = total_tokens(sites);
  ctx.team().parallel_for(d, [&](index_t begin, index_t end) {
    Segments<T> segments(ctx, tokens, end - begin);
    for (index_t i = 0; i < sites[0].samples(); ++i) {
      segments.gather(sites, i, begin);
      segments.add_to(sum.data<double>() + begin, d, factors[i]);
    }
  });
}

/// Rows of the parameter in blocks whose tile and sum stay in a core's cache while the samples go by.
template <class T>
void sum_by_tiles(Context& ctx, const SiteList& sites, const float* factors, const Tensor& sum) {
  using R = compute_t<T>;
  constexpr index_t cache_bytes = index_t(768) << 10;
  const index_t p = sum.shape()[0], d = sum.shape()[1];
  const index_t block = std::max<index_t>(32, cache_bytes / std::max<index_t>(1, d * (8 + index_t(sizeof(R)))));
  ctx.team().parallel_for(p, [&](index_t begin, index_t end) {
    const Buffer scratch = ctx.allocate(std::min(block, end - begin) * d * index_t(sizeof(R)));
    R* tile = static_cast<R*>(scratch.data());
    for (index_t first = begin; first < end; first += block) {
      const index_t rows = std::min(block, end - first);
      for (index_t i = 0; i < sites[0].samples(); ++i) {
        instantiate<T>(ctx, sites, i, first, rows, tile);
        run_rows(0, rows, kernels::WeightedAdd<R>{tile, sum.data<double>() + first * d, d, d, d, R(factors[i])});
      }
    }
  });
}
}  // namespace detail

/// sum += sum_i c_i G_i; sum [p, d] in f64. Each sample's gradient is formed in compute precision and scaled by c_i there
/// (c_i b is never rounded); a factor of 0 removes the sample by select, whatever its gradient holds.
inline void weighted_sum_outer(Context& ctx, const SiteList& all_sites, const SampleFactors& factors, const Tensor& sum) {
  const SiteList sites = merged(ctx, all_sites);
  const SiteShape shape = shape_of(sites);
  dispatch_real(shape.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
#if defined(DPMP_WITH_CUDA) && DPMP_WITH_CUDA
    if (ctx.on_cuda()) return detail::weighted_sum_on_cuda<T>(ctx, sites, factors, sum);
#endif
    const float* c = factors.on(ctx);
    if (shape.one_hot_only) return detail::sum_by_segments<T>(ctx, sites, c, sum);
    if (shape.any_one_hot || shape.tokens != 1) return detail::sum_by_tiles<T>(ctx, sites, c, sum);
    launch_rows(ctx, shape.p, shape.samples * shape.d,
                kernels::RankOneSum<T>{sites[0].a.data<T>(), sites[0].b.data<T>(), c, sum.data<double>(), shape.samples,
                                       shape.p, shape.d});
  });
}
}  // namespace dpmp::inline DPMP_ABI::per_sample
