// SPDX-License-Identifier: Apache-2.0
// The ghost norm: |G_i|^2 = <A A^T, B B^T> without forming G_i, with the cross terms of every pair of sites. For a one-hot
// site against a dense one the Gram of the b side is a gather: b_t[x_s]; between one-hot sites it is done by segment sums.
#pragma once
#include "dpmp/gemm/gemm.hpp"
#include "dpmp/per_sample/norm_bounds.hpp"
#include "dpmp/per_sample/segments.hpp"

namespace dpmp::inline DPMP_ABI::per_sample::detail {
/// Grams of one pair of sites after another, in the memory of one thread.
template <class T>
class GramPair {
 public:
  using R = compute_t<T>;
  GramPair(Context& ctx, index_t max_tokens)
      : ctx_(ctx),
        grams_(ctx.allocate(2 * max_tokens * max_tokens * index_t(sizeof(R)))),
        sums_(ctx.allocate(max_tokens * 8)),
        max_tokens_(max_tokens) {}

  /// sum over t, s of (a_t . a'_s)(b_t . b'_s) for sample i; the first site is dense.
  double inner_product(const ParameterSite& x, const ParameterSite& y, index_t sample) {
    const index_t rows = x.b.shape()[1], columns = y.b.shape()[1];
    gram(x.a, y.a, sample, first());
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
void norms_by_gram(Context& ctx, const SiteList& sites, const RowNorms& rows, NormBounds& bounds) {
  const index_t p = sites[0].parameter->shape()[0], d = sites[0].parameter->shape()[1], tokens = total_tokens(sites);
  index_t longest = 0;
  bool any_one_hot = false;
  for (const ParameterSite& site : sites) {
    longest = std::max(longest, site.b.shape()[1]);
    any_one_hot = any_one_hot || site.one_hot();
  }
  const double u = unit_roundoff(accumulate_dtype(dtype_of<T>)), w = 0x1p-126;
  // Every term of the double sum over tokens meets the chains of both Grams, its row of the Hadamard sum and, for one-hot
  // pairs, the chain of its segment: gamma_N.
  const double gamma_norm = gamma(double(p + d + tokens + 32), u),
               gamma_release = gamma(double(tokens + index_t(sites.size())), u);
  ctx.team().parallel_for(bounds.samples(), [&](index_t begin, index_t end) {
    GramPair<T> pair(ctx, longest);
    Segments<T> segments(ctx, any_one_hot ? tokens : 0, d);
    for (index_t i = begin; i < end; ++i) {
      double squared = 0;
      for (std::size_t x = 0; x < sites.size(); ++x) {
        if (sites[x].one_hot()) continue;
        for (std::size_t y = 0; y < sites.size(); ++y) {
          if (!sites[y].one_hot() && y < x) continue;  // counted with x and y exchanged
          squared += (x == y ? 1 : 2) * pair.inner_product(sites[x], sites[y], i);
        }
      }
      if (any_one_hot) {
        segments.gather(sites, i);
        squared += segments.squared_norm();
      }
      const double S = rows.product_bound(sites, i), a = rows.input_sum(sites, i), b = rows.output_sum(sites, i),
                   T_ = double(tokens);
      const double eta = 2 * w * (double(d) * b * b + double(p) * a * a + T_ * T_);
      bounds.add(i, squared, gamma_norm * S * S + eta, gamma_release * S + std::sqrt(double(p) * double(d)) * 2 * T_ * w);
    }
  });
}
}  // namespace dpmp::inline DPMP_ABI::per_sample::detail
