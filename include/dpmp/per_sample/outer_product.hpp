// SPDX-License-Identifier: Apache-2.0
// Outer-product sites: G_i = sum over sites and tokens of b_t a_t^T, for one parameter [p, d] and all its sites together, so
// that tied and reused weights get their cross terms. Squared norms, per-sample gradients and weighted sums stand side by
// side.
#pragma once
#include <algorithm>
#include <optional>

#include "dpmp/gemm/gemm.hpp"
#include "dpmp/kernels/per_sample_tile.hpp"
#include "dpmp/per_sample/cost.hpp"
#include "dpmp/per_sample/gram_norm.hpp"
#include "dpmp/per_sample/norm_bounds.hpp"
#include "dpmp/per_sample/site_list.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
namespace detail {
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
        run_rows(0, 1, kernels::AddRow<T>{site.a.data<T>() + (sample * tokens + t) * d, tile + (ids[t] - first_row) * d, d});
  }
}

/// stored [B, p d]: keep the tiles there, to be released as they are; not defined: square them and throw them away.
template <class T>
void norms_by_instantiation(Context& ctx, const SiteList& sites, NormBounds& bounds, const Tensor& stored) {
  const index_t p = sites[0].parameter->shape()[0], d = sites[0].parameter->shape()[1],
                chain = total_tokens(sites) + index_t(sites.size());
  const double u = unit_roundoff(accumulate_dtype(dtype_of<T>)), w = 0x1p-126;
  const std::optional<RowNorms> rows = stored.defined() ? std::nullopt : std::optional<RowNorms>(std::in_place, ctx, sites);
  ctx.team().parallel_for(bounds.samples(), [&](index_t begin, index_t end) {
    using R = compute_t<T>;
    const Buffer scratch = ctx.allocate(rows ? p * d * index_t(sizeof(R)) : 0), sums = ctx.allocate(p * 8);
    for (index_t i = begin; i < end; ++i) {
      R* tile = rows ? static_cast<R*>(scratch.data()) : stored.data<R>() + i * p * d;
      instantiate<T>(ctx, sites, i, 0, p, tile);
      run_rows(0, p, kernels::SquaredRows<R>{tile, static_cast<double*>(sums.data()), d});
      double squared = 0;
      for (index_t r = 0; r < p; ++r) squared += static_cast<double*>(sums.data())[r];
      // A tile that is thrown away and the released one are each within gamma_R S of the exact gradient, hence twice; each
      // of their p d elements also loses up to w a rounding step to underflow, and each square up to w.
      const double linear = rows ? 2 * (gamma(double(chain), u) * rows->product_bound(sites, i) +
                                        std::sqrt(double(p) * double(d)) * 2 * double(chain) * w)
                                 : 0;
      bounds.add(i, squared, gamma(double(d + p + 8), u) * squared + double(p) * double(d) * w, linear);
    }
  });
}

template <class T>
void norms_by_segments(Context& ctx, const SiteList& sites, const RowNorms& rows, NormBounds& bounds) {
  const index_t d = sites[0].parameter->shape()[1], tokens = total_tokens(sites);
  const double u = unit_roundoff(accumulate_dtype(dtype_of<T>)), w = 0x1p-126;
  ctx.team().parallel_for(bounds.samples(), [&](index_t begin, index_t end) {
    Segments<T> segments(ctx, tokens, d);
    for (index_t i = begin; i < end; ++i) {
      segments.gather(sites, i);
      const double squared = segments.squared_norm(), S = rows.product_bound(sites, i);
      const double linear =
          2 * (gamma(double(tokens), u) * S + std::sqrt(double(tokens) * double(d)) * 2 * double(tokens) * w);
      bounds.add(i, squared, gamma(double(d + 8), u) * squared + double(tokens) * double(d) * w, linear);
    }
  });
}

template <class T>
void norms_of_rank_one(const SiteList& sites, const RowNorms& rows, NormBounds& bounds) {
  const index_t p = sites[0].parameter->shape()[0], d = sites[0].parameter->shape()[1];
  const double u = unit_roundoff(accumulate_dtype(dtype_of<T>));
  for (index_t i = 0; i < bounds.samples(); ++i) {
    const double S = rows.product_sum(sites, i);  // here the norm itself
    bounds.add(i, S * S, gamma(double(p + d + 32), u) * S * S,
               gamma(3, u) * rows.product_bound(sites, i) + std::sqrt(double(p) * double(d)) * 0x1p-125);
  }
}
}  // namespace detail

/// Adds the squared norms of one parameter's per-sample gradients and their certificate to bounds.
inline void squared_norms_outer(Context& ctx, const SiteList& all_sites, NormBounds& bounds, NormMethod method) {
  const SiteList sites = merged(ctx, all_sites);
  dispatch_real(sites[0].parameter->dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    switch (method) {
      case NormMethod::rank_one: return detail::norms_of_rank_one<T>(sites, RowNorms(ctx, sites), bounds);
      case NormMethod::segments: return detail::norms_by_segments<T>(ctx, sites, RowNorms(ctx, sites), bounds);
      case NormMethod::instantiate: return detail::norms_by_instantiation<T>(ctx, sites, bounds, Tensor());
      case NormMethod::gram: return detail::norms_by_gram<T>(ctx, {&sites, 1}, bounds);
      case NormMethod::stored: break;
    }
    throw Error("expected a method for the norms of outer products, got 'stored'");
  });
}

/// The same for several parameters whose dense rows `a` are one tensor (queries, keys and values of one input): one Gram of
/// a for all of them. Each list is one dense site.
inline void squared_norms_shared_input(Context& ctx, std::span<const SiteList> lists, NormBounds& bounds) {
  dispatch_real(lists[0][0].parameter->dtype(),
                [&](auto tag) { detail::norms_by_gram<typename decltype(tag)::type>(ctx, lists, bounds); });
}

/// Forms and keeps the per-sample gradients of one parameter, [B, p d] in the accumulate dtype, and adds their squared norms
/// and certificate to bounds: what is stored is what will be released.
inline Tensor stored_gradients_outer(Context& ctx, const SiteList& sites, NormBounds& bounds) {
  const Parameter& w = *sites[0].parameter;
  const Tensor stored = Tensor::empty(ctx, {sites[0].samples(), w.numel()}, accumulate_dtype(w.dtype()));
  dispatch_real(w.dtype(),
                [&](auto tag) { detail::norms_by_instantiation<typename decltype(tag)::type>(ctx, sites, bounds, stored); });
  return stored;
}

/// output[i, :] = G_i, [B, p d] in the accumulate dtype.
inline void per_sample_gradients_outer(Context& ctx, const SiteList& sites, const Tensor& output) {
  const index_t p = sites[0].parameter->shape()[0], d = sites[0].parameter->shape()[1];
  dispatch_real(sites[0].parameter->dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    ctx.team().parallel_for(sites[0].samples(), [&](index_t begin, index_t end) {
      for (index_t i = begin; i < end; ++i)
        detail::instantiate<T>(ctx, sites, i, 0, p, output.data<compute_t<T>>() + i * p * d);
    });
  });
}

namespace detail {
/// A tile of the whole table would mostly be zeros: threads share the columns and add the segments.
template <class T>
void sum_by_segments(Context& ctx, const SiteList& sites, std::span<const float> factors, const Tensor& sum) {
  const index_t d = sum.shape()[1], tokens = total_tokens(sites);
  ctx.team().parallel_for(d, [&](index_t begin, index_t end) {
    Segments<T> segments(ctx, tokens, end - begin);
    for (index_t i = 0; i < sites[0].samples(); ++i) {
      segments.gather(sites, i, begin);
      segments.add_to(sum.data<double>() + begin, d, factors[std::size_t(i)]);
    }
  });
}

/// Rows of the parameter in blocks whose tile and sum stay in a core's cache while the samples go by.
template <class T>
void sum_by_tiles(Context& ctx, const SiteList& sites, std::span<const float> factors, const Tensor& sum) {
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
        run_rows(0, rows,
                 kernels::WeightedAdd<R>{tile, sum.data<double>() + first * d, d, d, d, R(factors[std::size_t(i)])});
      }
    }
  });
}
}  // namespace detail

/// sum += sum_i c_i G_i; sum [p, d] in f64. Each sample's gradient is formed in compute precision and scaled by c_i there
/// (c_i b is never rounded); a factor of 0 removes the sample by select, whatever its gradient holds.
inline void weighted_sum_outer(Context& ctx, const SiteList& all_sites, std::span<const float> factors, const Tensor& sum) {
  const SiteList sites = merged(ctx, all_sites);
  const SiteShape shape = shape_of(sites);
  dispatch_real(shape.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (shape.one_hot_only) return detail::sum_by_segments<T>(ctx, sites, factors, sum);
    if (shape.any_one_hot || shape.tokens != 1) return detail::sum_by_tiles<T>(ctx, sites, factors, sum);
    launch_rows(ctx, shape.p, shape.samples * shape.d,
                kernels::RankOneSum<T>{sites[0].a.data<T>(), sites[0].b.data<T>(), factors.data(), sum.data<double>(),
                                       shape.samples, shape.p, shape.d});
  });
}
}  // namespace dpmp::inline DPMP_ABI::per_sample
