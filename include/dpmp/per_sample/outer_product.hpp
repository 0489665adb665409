// SPDX-License-Identifier: Apache-2.0
// Outer-product sites: G_i = sum over sites and tokens of b_t a_t^T, for one parameter [p, d] and all its sites together, so
// that tied and reused weights get their cross terms. Squared norms, per-sample gradients and weighted sums stand side by
// side.
#pragma once
#include <span>

#include "dpmp/core/accumulation.hpp"
#include "dpmp/per_sample/certificate.hpp"
#include "dpmp/per_sample/cost.hpp"
#include "dpmp/per_sample/norm_bounds.hpp"
#include "dpmp/per_sample/sample_factors.hpp"
#include "dpmp/per_sample/site_list.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// Sites of biases that came along with their weights' (ParameterSite::bias): vectors [B, p].
using Biases = std::vector<ParameterSite>;

namespace detail {
// The GPU's half, defined in per_sample/outer_product.cuh: norms by any method; norms of parameters with one input;
// gradients [B, p d], in the accumulate dtype or in T, and where bias_sums are defined the sums of the only site's b over
// tokens in the same dtype; weighted sums.
template <class T>
DPMP_KEPT Biases norms_on_cuda(Context& ctx, const SiteList& sites, NormBounds& bounds, NormMethod method);
template <class T>
DPMP_KEPT Biases shared_norms_on_cuda(Context& ctx, std::span<const SiteList> lists, NormBounds& bounds);
template <class T>
DPMP_KEPT void gradients_on_cuda(Context& ctx, const SiteList& sites, const Tensor& output, const Tensor& bias_sums = {});
template <class T>
DPMP_KEPT void weighted_sum_on_cuda(Context& ctx, const SiteList& sites, const SampleFactors& factors, const Tensor& sum);
}  // namespace detail

/// Adds the squared norms of one parameter's per-sample gradients and their certificate to bounds. Returns the bias that
/// came along, if any, whose norms are not added: a GPU sums b's rows in the same pass over b where the norm is by Gram or
/// instantiation.
Biases squared_norms_outer(Context& ctx, const SiteList& all_sites, NormBounds& bounds, NormMethod method);
/// The same for several parameters whose dense rows `a` are one tensor (queries, keys and values of one input): one Gram of
/// a for all of them. Each list is one dense site.
Biases squared_norms_shared_input(Context& ctx, std::span<const SiteList> lists, NormBounds& bounds);
/// Forms and keeps the per-sample gradients of one parameter, [B, p d], and adds their squared norms and certificate to
/// bounds: what is stored, rounded or not, is what is normed and released. dtype: kept_dtype(shape, storage), of the vectors
/// of a bias too where a GPU sums them in the same product. The bias is as above.
struct StoredGradients {
  Tensor gradients;
  Biases biases;
};
StoredGradients stored_gradients_outer(Context& ctx, const SiteList& sites, NormBounds& bounds, DType dtype);
/// output[i, :] = G_i, [B, p d] in the accumulate dtype.
void per_sample_gradients_outer(Context& ctx, const SiteList& sites, const Tensor& output);
/// sum += sum_i c_i G_i; sum [p, d] in f64, at most samples_per_chain samples. Each sample's gradient is formed in compute
/// precision and scaled by c_i there (c_i b is never rounded), or, of one token on a CPU, in double; samples meet in double.
/// A factor of 0 removes the sample by select, whatever its gradient holds.
void weighted_sum_outer(Context& ctx, const SiteList& all_sites, const SampleFactors& factors, const Tensor& sum);
}  // namespace dpmp::inline DPMP_ABI::per_sample

#if DPMP_BODIES
#include <algorithm>

#include "dpmp/autograd/bias_site.hpp"
#include "dpmp/gemm/matmul.hpp"
#include "dpmp/kernels/per_sample_tile.hpp"
#include "dpmp/kernels/widened_rows.hpp"
#include "dpmp/per_sample/gram_norm.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
namespace detail {
/// Forms tiles of per-sample gradients, in compute precision and in the memory of one thread.
template <class R>
class GradientTiles {
 public:
  GradientTiles(Context& ctx, const SiteList& sites)
      : ctx_(ctx),
        sites_(sites),
        any_one_hot_(sites.back().one_hot()),
        segments_(ctx, sites[0].a.dtype(), any_one_hot_ ? sites.back().b.shape()[1] : 0, sites[0].parameter->shape()[1]) {}

  /// tile [rows, d]: rows [first, first + rows) of sample i's gradient. The same bits for the same block of rows, whoever
  /// asks.
  void form(index_t sample, index_t first, index_t rows, R* tile) {
    const ParameterSite& site = sites_[0];
    const index_t d = site.parameter->shape()[1];
    if (site.one_hot()) {
      std::fill(tile, tile + rows * d, R(0));
    } else {
      const index_t tokens = site.b.shape()[1], p = site.b.shape()[2];
      gemm(ctx_, {.m = rows,
                  .n = d,
                  .k = tokens,
                  .a = {.data = element_of(site.b, sample * tokens * p + first),
                        .dtype = site.b.dtype(),
                        .row_stride = p,
                        .transposed = true},
                  .b = {.data = element_of(site.a, sample * tokens * d), .dtype = site.a.dtype(), .row_stride = d},
                  .out = {.data = tile, .dtype = dtype_of<R>, .row_stride = d}});
    }
    if (!any_one_hot_) return;
    if (sample != gathered_) segments_.gather(sites_, sample);
    gathered_ = sample;
    segments_.add_to_tile(tile, first, rows);
  }

 private:
  Context& ctx_;
  const SiteList& sites_;  // merged: dense rows, then one-hot rows
  bool any_one_hot_;
  Segments segments_;
  index_t gathered_ = -1;
};

/// Rows of a parameter whose tile and sum stay in a core's cache while the samples go by. Norms by tiles that are thrown
/// away are taken in the same blocks, so that they are norms of what is released, bit for bit, whoever multiplies.
inline index_t rows_of_tile(index_t p, index_t d, index_t element_bytes) {
  constexpr index_t cache_bytes = index_t(768) << 10, shares = 16;
  const index_t fit = std::max<index_t>(32, cache_bytes / std::max<index_t>(1, d * (8 + element_bytes)));
  const index_t share = (p + shares - 1) / shares;  // so that threads have some each
  return std::min(fit, std::max<index_t>(32, (share + 31) / 32 * 32));
}

/// squared[i] = |G_i|^2 of one dense site, whose gradients are kept in stored: one product, which squares its rows.
inline void keep_gradients(Context& ctx, const ParameterSite& site, const Tensor& stored, const Tensor& squared) {
  const index_t samples = site.samples(), p = site.b.shape()[2], d = site.a.shape()[2];
  const Tensor rows = Tensor::empty(ctx, {samples, p}, DType::f64);
  GemmSpec spec = product_of({site.b, true}, {site.a}, stored.reshaped({samples, p, d}));
  spec.row_squares = rows.data<double>();
  gemm(ctx, spec);
  launch_library_rows(ctx, samples, p, kernels::SumRows{rows.data<double>(), squared.data<double>(), p});
}

/// squared[i] = |G_i|^2 by tiles of some rows, added and looked up. stored: as below.
template <class R>
void square_tiles(Context& ctx, const SiteList& sites, const Tensor& stored, const Tensor& squared) {
  const index_t p = sites[0].parameter->shape()[0], d = sites[0].parameter->shape()[1];
  // Kept tiles are released as they are, whatever blocks they were made in: they are squared while they are in cache.
  const index_t in_cache = std::max<index_t>(32, (index_t(384) << 10) / (std::max<index_t>(1, d) * index_t(sizeof(R))));
  const index_t block = stored.defined() ? std::min(p, in_cache) : rows_of_tile(p, d, sizeof(R));
  const bool in_place = stored.defined() && stored.dtype() == dtype_of<R>;
  ctx.team().parallel_for(sites[0].samples(), [&](index_t begin, index_t end) {
    const Buffer scratch = ctx.allocate(in_place ? 0 : block * d * index_t(sizeof(R))), sums = ctx.allocate(block * 8);
    double* const of_rows = static_cast<double*>(sums.data());
    GradientTiles<R> tiles(ctx, sites);
    for (index_t i = begin; i < end; ++i) {
      double& sum = squared.data<double>()[i];
      sum = 0;
      for (index_t first = 0; first < p; first += block) {
        const index_t rows = std::min(block, p - first);
        const index_t at = (i * p + first) * d;
        R* tile = in_place ? stored.data<R>() + at : static_cast<R*>(scratch.data());
        tiles.form(i, first, rows, tile);
        if (in_place || !stored.defined())
          run_library_rows(0, rows, kernels::SquaredRows<R>{tile, of_rows, d, d});
        else
          dispatch_real(stored.dtype(), [&](auto tag) {
            using T = typename decltype(tag)::type;
            if constexpr (std::is_same_v<compute_t<T>, R> && !std::is_same_v<T, R>)
              run_library_rows(0, rows, kernels::RoundedSquaredRows<T>{tile, stored.data<T>() + at, of_rows, d});
          });
        for (index_t r = 0; r < rows; ++r) sum += of_rows[r];
      }
    }
  });
}

/// stored [B, p d], in the accumulate dtype or rounded to T: keep the tiles there, to be released as they are; not defined:
/// square them and throw them away; the weighted sum forms them again.
inline void norms_by_instantiation(Context& ctx, const SiteList& sites, NormBounds& bounds, const Tensor& stored) {
  const Tensor squared = Tensor::empty(ctx, {bounds.samples()}, DType::f64);
  if (stored.defined() && sites.size() == 1 && !sites[0].one_hot())
    keep_gradients(ctx, sites[0], stored, squared);
  else
    dispatch_computed(sites[0].parameter->dtype(),
                      [&](auto tag) { square_tiles<typename decltype(tag)::type>(ctx, sites, stored, squared); });
  const auto extents = certificate::on_host::extents_of(sites);
  // One token, or looked-up rows alone, are released in double, without a tile.
  if (!stored.defined() && (extents.tokens == 1 || sites[0].one_hot()))
    return bounds.add(ctx, squared.data<double>(), RowNorms(ctx, sites).sums(), certificate::on_host::rounded_tile(extents));
  bounds.add(ctx, squared.data<double>(), {}, certificate::on_host::released(extents));
}

/// Norms of gradients [B, p d] that are there, in any real dtype.
inline void norms_of_stored(Context& ctx, const SiteList& sites, const Tensor& stored, NormBounds& bounds) {
  const index_t p = sites[0].parameter->shape()[0], d = sites[0].parameter->shape()[1], samples = bounds.samples();
  const Tensor rows = Tensor::empty(ctx, {samples, p}, DType::f64), squared = Tensor::empty(ctx, {samples}, DType::f64);
  dispatch_real(stored.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_library_rows(ctx, samples * p, d, kernels::SquaredRows<T>{stored.data<T>(), rows.data<double>(), d, d});
  });
  launch_library_rows(ctx, samples, p, kernels::SumRows{rows.data<double>(), squared.data<double>(), p});
  bounds.add(ctx, squared.data<double>(), {}, certificate::on_host::released(certificate::on_host::extents_of(sites)));
}

inline void norms_by_segments(Context& ctx, const SiteList& sites, NormBounds& bounds) {
  const index_t d = sites[0].parameter->shape()[1], tokens = total_tokens(sites);
  const Tensor squared = Tensor::empty(ctx, {bounds.samples()}, DType::f64);
  ctx.team().parallel_for(bounds.samples(), [&](index_t begin, index_t end) {
    Segments segments(ctx, sites[0].a.dtype(), tokens, d);
    for (index_t i = begin; i < end; ++i) {
      segments.gather(sites, i);
      squared.data<double>()[i] = segments.squared_norm();
    }
  });
  bounds.add(ctx, squared.data<double>(), {}, certificate::on_host::released(certificate::on_host::extents_of(sites)));
}

/// The biases of parameters with one site each, by a pass over b of their own.
inline Biases biases_of(Context& ctx, std::span<const SiteList> lists) {
  Biases biases;
  for (const SiteList& sites : lists)
    if (sites[0].bias) biases.push_back(bias_site(ctx, *sites[0].bias, sites[0].b));
  return biases;
}

/// One token a sample: |a| |b| is the norm itself.
inline void norms_of_rank_one(Context& ctx, const SiteList& sites, NormBounds& bounds) {
  bounds.add(ctx, nullptr, RowNorms(ctx, sites).sums(),
             ctx.on_cuda() ? certificate::on_cuda::rank_one(certificate::on_cuda::extents_of(sites[0]))
                           : certificate::on_host::rank_one(certificate::on_host::extents_of(sites)));
}

/// A tile of the whole table would mostly be zeros: threads share the columns and add the segments.
inline void sum_by_segments(Context& ctx, const SiteList& sites, const float* factors, const Tensor& sum) {
  const index_t d = sum.shape()[1], tokens = total_tokens(sites);
  ctx.team().parallel_for(d, [&](index_t begin, index_t end) {
    Segments segments(ctx, sites[0].a.dtype(), tokens, end - begin);
    for (index_t i = 0; i < sites[0].samples(); ++i) {
      segments.gather(sites, i, begin);
      segments.add_to(sum.data<double>() + begin, d, factors[i]);
    }
  });
}

template <class R>
void sum_by_tiles(Context& ctx, const SiteList& sites, const float* factors, const Tensor& sum) {
  const index_t p = sum.shape()[0], d = sum.shape()[1], block = rows_of_tile(p, d, sizeof(R));
  ctx.team().parallel_for((p + block - 1) / block, [&](index_t begin, index_t end) {
    const Buffer scratch = ctx.allocate(std::min(block, p) * d * index_t(sizeof(R)));
    R* tile = static_cast<R*>(scratch.data());
    GradientTiles<R> tiles(ctx, sites);
    for (index_t first = begin * block; first < std::min(p, end * block); first += block) {
      const index_t rows = std::min(block, p - first);
      for (index_t i = 0; i < sites[0].samples(); ++i) {
        tiles.form(i, first, rows, tile);
        run_library_rows(0, rows, kernels::WeightedAdd<R>{tile, sum.data<double>() + first * d, d, d, d, R(factors[i])});
      }
    }
  });
}

/// One token a sample: a product over the samples, of numbers that are exact in double.
template <class T>
void sum_of_rank_one(Context& ctx, const ParameterSite& site, const float* factors, const Tensor& sum) {
  const index_t samples = site.samples(), p = sum.shape()[0], d = sum.shape()[1];
  const Tensor a = Tensor::empty(ctx, {samples, d}, DType::f64), b = Tensor::empty(ctx, {samples, p}, DType::f64);
  dpmp::detail::launch_rows_on_host(ctx, samples, d,
                                    kernels::WidenedRows<T>{site.a.data<T>(), factors, false, a.data<double>(), d});
  dpmp::detail::launch_rows_on_host(ctx, samples, p,
                                    kernels::WidenedRows<T>{site.b.data<T>(), factors, true, b.data<double>(), p});
  GemmSpec spec = product_of({b, true}, {a}, sum);
  spec.accumulate = true;
  gemm(ctx, spec);
}

/// Gradients [B, p d] of merged sites with rows that are stored, their norms and the bias that comes along, as
/// stored_gradients_outer.
inline Biases store_gradients(Context& ctx, const SiteList& sites, NormBounds& bounds, const Tensor& stored) {
  DPMP_IF_CUDA (ctx.on_cuda()) {
    Parameter* const bias = sites[0].bias;
    const Tensor sums = bias ? Tensor::empty(ctx, {sites[0].samples(), bias->numel()}, stored.dtype()) : Tensor();
    dispatch_real(sites[0].parameter->dtype(),
                  [&](auto tag) { gradients_on_cuda<typename decltype(tag)::type>(ctx, sites, stored, sums); });
    norms_of_stored(ctx, sites, stored, bounds);
    return bias ? Biases{ParameterSite::vector(*bias, sums)} : Biases{};
  }
  norms_by_instantiation(ctx, sites, bounds, stored);
  return biases_of(ctx, {&sites, 1});
}
}  // namespace detail

DPMP_KEPT_BODY inline Biases squared_norms_outer(Context& ctx, const SiteList& all_sites, NormBounds& bounds,
                                                 NormMethod method) {
  if (formed_again(all_sites)) {
    for_formed(ctx, all_sites, [&](const SiteList& some, index_t first, index_t last) {
      NormBounds part = bounds.part(first, last);
      squared_norms_outer(ctx, some, part, method);
    });
    return {};
  }
  const SiteList sites = merge_outer_products(ctx, all_sites);
  if (method == NormMethod::rank_one) {
    detail::norms_of_rank_one(ctx, sites, bounds);
    return detail::biases_of(ctx, {&sites, 1});
  }
  DPMP_IF_CUDA (ctx.on_cuda())
    return dispatch_real(sites[0].parameter->dtype(), [&](auto tag) {
      return detail::norms_on_cuda<typename decltype(tag)::type>(ctx, sites, bounds, method);
    });
  switch (method) {
    case NormMethod::segments: detail::norms_by_segments(ctx, sites, bounds); break;
    case NormMethod::instantiate: detail::norms_by_instantiation(ctx, sites, bounds, Tensor()); break;
    case NormMethod::gram: detail::norms_by_gram(ctx, {&sites, 1}, bounds); break;
    case NormMethod::rank_one:
    case NormMethod::stored: throw Error("expected a method for the norms of outer products, got 'stored'");
  }
  return detail::biases_of(ctx, {&sites, 1});
}

DPMP_KEPT_BODY inline Biases squared_norms_shared_input(Context& ctx, std::span<const SiteList> lists, NormBounds& bounds) {
  if (lists.size() == 1 && formed_again(lists[0])) return squared_norms_outer(ctx, lists[0], bounds, NormMethod::gram);
  DPMP_IF_CUDA (ctx.on_cuda())
    return dispatch_real(lists[0][0].parameter->dtype(), [&](auto tag) {
      return detail::shared_norms_on_cuda<typename decltype(tag)::type>(ctx, lists, bounds);
    });
  detail::norms_by_gram(ctx, lists, bounds);
  return detail::biases_of(ctx, lists);
}

DPMP_KEPT_BODY inline StoredGradients stored_gradients_outer(Context& ctx, const SiteList& sites, NormBounds& bounds,
                                                             DType dtype) {
  const Tensor stored = Tensor::empty(ctx, {sites[0].samples(), sites[0].parameter->numel()}, dtype);
  if (!formed_again(sites)) return {stored, detail::store_gradients(ctx, sites, bounds, stored)};
  for_formed(ctx, sites, [&](const SiteList& some, index_t first, index_t last) {
    NormBounds part = bounds.part(first, last);
    detail::store_gradients(ctx, merge_outer_products(ctx, some), part, stored.rows(first, last));
  });
  return {stored, {}};
}

DPMP_KEPT_BODY inline void per_sample_gradients_outer(Context& ctx, const SiteList& sites, const Tensor& output) {
  if (formed_again(sites))
    return for_formed(ctx, sites, [&](const SiteList& some, index_t first, index_t last) {
      per_sample_gradients_outer(ctx, some, output.rows(first, last));
    });
  const index_t p = sites[0].parameter->shape()[0], d = sites[0].parameter->shape()[1];
  DPMP_IF_CUDA (ctx.on_cuda())
    return dispatch_real(sites[0].parameter->dtype(),
                         [&](auto tag) { detail::gradients_on_cuda<typename decltype(tag)::type>(ctx, sites, output); });
  const SiteList list = merge_outer_products(ctx, sites);
  dispatch_computed(sites[0].parameter->dtype(), [&](auto tag) {
    using R = typename decltype(tag)::type;
    ctx.team().parallel_for(list[0].samples(), [&](index_t begin, index_t end) {
      detail::GradientTiles<R> tiles(ctx, list);
      for (index_t i = begin; i < end; ++i) tiles.form(i, 0, p, output.data<R>() + i * p * d);
    });
  });
}

DPMP_KEPT_BODY inline void weighted_sum_outer(Context& ctx, const SiteList& all_sites, const SampleFactors& factors,
                                              const Tensor& sum) {
  const SiteList sites = merge_outer_products(ctx, all_sites);
  const SiteShape shape = shape_of(sites);
  DPMP_CHECK(shape.samples <= samples_per_chain, "expected at most ", samples_per_chain, " samples to sum, got ",
             shape.samples);
  if (formed_again(sites))
    return for_formed(ctx, sites, [&](const SiteList& some, index_t first, index_t last) {
      weighted_sum_outer(ctx, some, factors.part(first, last), sum);
    });
  DPMP_IF_CUDA (ctx.on_cuda())
    return dispatch_real(shape.dtype, [&](auto tag) {
      detail::weighted_sum_on_cuda<typename decltype(tag)::type>(ctx, sites, factors, sum);
    });
  const float* c = factors.on(ctx);
  if (shape.one_hot_only) return detail::sum_by_segments(ctx, sites, c, sum);
  if (shape.any_one_hot || shape.tokens != 1)
    return dispatch_computed(shape.dtype,
                             [&](auto tag) { detail::sum_by_tiles<typename decltype(tag)::type>(ctx, sites, c, sum); });
  dispatch_real(shape.dtype,
                [&](auto tag) { detail::sum_of_rank_one<typename decltype(tag)::type>(ctx, sites[0], c, sum); });
}
}  // namespace dpmp::inline DPMP_ABI::per_sample
#endif
