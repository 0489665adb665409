// SPDX-License-Identifier: Apache-2.0
// The ghost norm: |G_i|^2 = <A A^T, B B^T> without forming G_i, with the cross terms of every pair of sites. For a one-hot
// site against a dense one the Gram of the b side is a gather: b_t[x_s]; between one-hot sites it is done by segment sums.
#pragma once
#include <span>

#include "dpmp/gemm/gemm.hpp"
#include "dpmp/per_sample/norm_bounds.hpp"
#include "dpmp/per_sample/segments.hpp"

namespace dpmp::inline DPMP_ABI::per_sample::detail {
/// Grams of one sample after another, in the memory of one thread.
template <class T>
class GramPair {
 public:
  using R = compute_t<T>;
  GramPair(Context& ctx, index_t max_tokens)
      : ctx_(ctx),
        grams_(ctx.allocate(2 * max_tokens * max_tokens * index_t(sizeof(R)))),
        sums_(ctx.allocate(max_tokens * 8)),
        max_tokens_(max_tokens) {}

  /// Takes the inputs' Gram a_t . a'_s of sample i; the first site is dense.
  void set_inputs(const ParameterSite& x, const ParameterSite& y, index_t sample) { gram(x.a, y.a, sample, first()); }
  /// sum over t, s of (a_t . a'_s)(b_t . b'_s) for the inputs that were set.
  double inner_product(const ParameterSite& x, const ParameterSite& y, index_t sample) {
    const index_t rows = x.b.shape()[1], columns = y.b.shape()[1];
    if (y.one_hot())
      gather(x.b, y.b, sample, second());
    else
      gram(x.b, y.b, sample, second());
    run_rows(0, rows, kernels::HadamardRows<R>{first(), second(), static_cast<double*>(sums_.data()), columns});
    double total = 0;
    for (index_t t = 0; t < rows; ++t) total += static_cast<double*>(sums_.data())[t];
    return total;
  }

 private:
  R* first() const { return static_cast<R*>(grams_.data()); }
  R* second() const { return first() + max_tokens_ * max_tokens_; }
  void gram(const Tensor& x, const Tensor& y, index_t sample, R* out) {
    const index_t width = x.shape()[2], m = x.shape()[1], n = y.shape()[1];
    gemm(ctx_,
         {.m = m,
          .n = n,
          .k = width,
          .a = {.data = x.data<T>() + sample * m * width, .dtype = dtype_of<T>, .row_stride = width},
          .b = {.data = y.data<T>() + sample * n * width, .dtype = dtype_of<T>, .row_stride = width, .transposed = true},
          .out = {.data = out, .dtype = dtype_of<R>, .row_stride = n}});
  }
  static void gather(const Tensor& b, const Tensor& ids, index_t sample, R* out) {
    const index_t m = b.shape()[1], n = ids.shape()[1], p = b.shape()[2];
    const std::int32_t* id = ids.data<std::int32_t>() + sample * n;
    for (index_t t = 0; t < m; ++t) {
      const T* row = b.data<T>() + (sample * m + t) * p;
      for (index_t s = 0; s < n; ++s) out[t * n + s] = id[s] < 0 ? R(0) : R(to_float(row[id[s]]));
    }
  }
  Context& ctx_;
  Buffer grams_, sums_;
  index_t max_tokens_;
};

template <class T>
ProductRounding rounding_on_host() {
  return {.u = unit_roundoff(accumulate_dtype(dtype_of<T>))};
}

/// The certificate of a norm by Grams. Every term of the double sum over tokens meets the chains of both Grams and its row
/// of the Hadamard sum, or, for one-hot pairs, the chain of its segment twice and the row of the squares: gamma_N. The
/// released tile: one chain over the tokens of each site.
inline kernels::Certificate gram_certificate(const SiteList& sites, const ProductRounding& r) {
  const double p = double(sites[0].parameter->shape()[0]), d = double(sites[0].parameter->shape()[1]),
               tokens = double(total_tokens(sites)), w = 0x1p-126;
  return {.constant = 2 * w * tokens * tokens,
          .products = gamma(r.chain(p) + r.chain(d) + 2 * r.chain(tokens) + 32, r.u),
          .inputs = 2 * w * p,
          .outputs = 2 * w * d,
          .linear_constant = std::sqrt(p * d) * 2 * tokens * w,
          .linear_products = gamma(r.chain(tokens) + double(sites.size()), r.u)};
}

/// lists: merged sites of parameters with the same dense inputs; the Gram of those is formed once.
template <class T>
void norms_by_gram(Context& ctx, std::span<const SiteList> lists, NormBounds& bounds) {
  const index_t d = lists[0][0].parameter->shape()[1], tokens = total_tokens(lists[0]), samples = bounds.samples();
  const bool dense = !lists[0][0].one_hot(), any_one_hot = lists[0].back().one_hot();
  const Tensor squared = Tensor::empty(ctx, {index_t(lists.size()), samples}, DType::f64);
  ctx.team().parallel_for(samples, [&](index_t begin, index_t end) {
    GramPair<T> pair(ctx, tokens);
    Segments<T> segments(ctx, any_one_hot ? tokens : 0, d);
    for (index_t i = begin; i < end; ++i) {
      if (dense) pair.set_inputs(lists[0][0], lists[0][0], i);
      for (std::size_t k = 0; k < lists.size(); ++k) {
        const SiteList& sites = lists[k];
        double& sum = squared.data<double>()[index_t(k) * samples + i];
        sum = dense ? pair.inner_product(sites[0], sites[0], i) : 0;
        if (any_one_hot) {
          if (dense) {
            pair.set_inputs(sites[0], sites[1], i);
            sum += 2 * pair.inner_product(sites[0], sites[1], i);
          }
          segments.gather(sites, i);
          sum += segments.squared_norm();
        }
      }
    }
  });
  for (std::size_t k = 0; k < lists.size(); ++k)
    bounds.add(ctx, squared.data<double>() + index_t(k) * samples, RowNorms(ctx, lists[k]).sums(),
               gram_certificate(lists[k], rounding_on_host<T>()));
}
}  // namespace dpmp::inline DPMP_ABI::per_sample::detail
