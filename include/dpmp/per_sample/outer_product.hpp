// SPDX-License-Identifier: Apache-2.0
// Outer-product sites: G_i = sum over sites and tokens of b_t a_t^T, for one parameter [p, d] and all its sites together, so
// that tied and reused weights get their cross terms. Squared norms, per-sample gradients and weighted sums stand side by
// side.
#pragma once
#include <algorithm>

#include "dpmp/gemm/gemm.hpp"
#include "dpmp/kernels/per_sample_tile.hpp"
#include "dpmp/per_sample/gram_norm.hpp"
#include "dpmp/per_sample/norm_bounds.hpp"
#include "dpmp/per_sample/site_list.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// gram: <A A^T, B B^T> (ghost norm). instantiate: form the gradient tile, square it, throw it away. segments: one-hot rows
/// only: sum the input rows of equal ids, square. rank_one: one token: |a|^2 |b|^2.
enum class NormMethod : std::uint8_t { rank_one, segments, instantiate, gram };

/// The cheaper method by multiply-adds; a function of public shapes only. With T tokens over all sites, gram costs
/// T^2 (p + d) and instantiating T p d (Bu et al. 2022, arXiv 2205.10683, mixed ghost clipping, here as a time rule because
/// neither stores anything).
inline NormMethod choose_norm_method(const SiteList& sites) {
  if (std::all_of(sites.begin(), sites.end(), [](const ParameterSite& s) { return s.one_hot(); }))
    return NormMethod::segments;
  const index_t tokens = total_tokens(sites), p = sites[0].parameter->shape()[0], d = sites[0].parameter->shape()[1];
  if (tokens == 1) return NormMethod::rank_one;
  return double(tokens) * double(p + d) < double(p) * double(d) ? NormMethod::gram : NormMethod::instantiate;
}

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

template <class T>
void norms_by_instantiation(Context& ctx, const SiteList& sites, const RowNorms& rows, NormBounds& bounds) {
  const index_t p = sites[0].parameter->shape()[0], d = sites[0].parameter->shape()[1],
                chain = total_tokens(sites) + index_t(sites.size());
  const double u = unit_roundoff(accumulate_dtype(dtype_of<T>));
  ctx.team().parallel_for(bounds.samples(), [&](index_t begin, index_t end) {
    using R = compute_t<T>;
    const Buffer tile = ctx.allocate(p * d * index_t(sizeof(R))), sums = ctx.allocate(p * 8);
    for (index_t i = begin; i < end; ++i) {
      instantiate<T>(ctx, sites, i, 0, p, static_cast<R*>(tile.data()));
      run_rows(0, p, kernels::SquaredRows<R>{static_cast<R*>(tile.data()), static_cast<double*>(sums.data()), d});
      double squared = 0;
      for (index_t r = 0; r < p; ++r) squared += static_cast<double*>(sums.data())[r];
      // Both this tile and the released one are within gamma_R S of the exact gradient, hence twice; each of their p d
      // elements also loses up to w a rounding step to underflow, and each square up to w.
      const double S = rows.product_bound(sites, i), w = 0x1p-126;
      const double linear = 2 * (gamma(double(chain), u) * S + std::sqrt(double(p) * double(d)) * 2 * double(chain) * w);
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
               gamma(3, u) * S + std::sqrt(double(p) * double(d)) * 0x1p-125);
  }
}
}  // namespace detail

/// Adds the squared norms of one parameter's per-sample gradients and their certificate to bounds.
inline void squared_norms_outer(Context& ctx, const SiteList& sites, NormBounds& bounds, NormMethod method) {
  const RowNorms rows(ctx, sites);
  dispatch_real(sites[0].parameter->dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    switch (method) {
      case NormMethod::rank_one: return detail::norms_of_rank_one<T>(sites, rows, bounds);
      case NormMethod::segments: return detail::norms_by_segments<T>(ctx, sites, rows, bounds);
      case NormMethod::instantiate: return detail::norms_by_instantiation<T>(ctx, sites, rows, bounds);
      case NormMethod::gram: return detail::norms_by_gram<T>(ctx, sites, rows, bounds);
    }
  });
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

/// sum += sum_i c_i G_i; sum [p, d] in f64. Each tile is formed in compute precision and scaled by c_i there (c_i b is never
/// rounded); a factor of 0 removes the sample by select, whatever its tile holds.
inline void weighted_sum_outer(Context& ctx, const SiteList& sites, std::span<const float> factors, const Tensor& sum) {
  const index_t p = sites[0].parameter->shape()[0], d = sites[0].parameter->shape()[1], tokens = total_tokens(sites);
  const bool ids_only = choose_norm_method(sites) == NormMethod::segments;
  dispatch_real(sites[0].parameter->dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    using R = compute_t<T>;
    if (ids_only) {
      // A tile of the whole table would mostly be zeros: threads share the columns and add the segments.
      ctx.team().parallel_for(d, [&](index_t begin, index_t end) {
        detail::Segments<T> segments(ctx, tokens, end - begin);
        for (index_t i = 0; i < sites[0].samples(); ++i) {
          segments.gather(sites, i, begin);
          segments.add_to(sum.data<double>() + begin, d, factors[std::size_t(i)]);
        }
      });
      return;
    }
    ctx.team().parallel_for(p, [&](index_t begin, index_t end) {
      const Buffer tile = ctx.allocate((end - begin) * d * index_t(sizeof(R)));
      R* data = static_cast<R*>(tile.data());
      for (index_t i = 0; i < sites[0].samples(); ++i) {
        detail::instantiate<T>(ctx, sites, i, begin, end - begin, data);
        run_rows(0, end - begin,
                 kernels::WeightedAdd<R>{data, sum.data<double>() + begin * d, d, d, d, R(factors[std::size_t(i)])});
      }
    });
  });
}
}  // namespace dpmp::inline DPMP_ABI::per_sample
