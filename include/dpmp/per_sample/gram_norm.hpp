// SPDX-License-Identifier: Apache-2.0
// The ghost norm: |G_i|^2 = <A A^T, B B^T> without forming G_i, with the cross terms of every pair of sites. For a one-hot
// site against a dense one the Gram of the b side is a gather: b_t[x_s]; between one-hot sites it is done by segment sums.
#pragma once
#include <initializer_list>
#include <span>

#include "dpmp/gemm/gemm.hpp"
#include "dpmp/per_sample/certificate.hpp"
#include "dpmp/per_sample/norm_bounds.hpp"
#include "dpmp/per_sample/segments.hpp"

namespace dpmp::inline DPMP_ABI::per_sample::detail {
/// The address of an element, whatever the dtype is.
inline const void* element_of(const Tensor& x, index_t k) {
  return static_cast<const char*>(x.raw()) + k * size_of(x.dtype());
}

/// Grams of one sample after another, in double and a block of rows at a time, in the memory of one thread.
class GramPair {
 public:
  GramPair(Context& ctx, index_t max_tokens)
      : ctx_(ctx),
        block_(std::min<index_t>(64, max_tokens)),
        size_(block_ * max_tokens),
        grams_(ctx.allocate(2 * size_ * 8)),
        sums_(ctx.allocate(block_ * 8)) {}

  /// totals[k] = sum over t, s of (a_t . a_s)(b_t . b_s) for the dense first site of each list. One Gram of the inputs,
  /// which all of them share; of both Grams the rows up to the diagonal.
  void squared_norms(std::span<const SiteList> lists, index_t sample, double* totals) {
    const Tensor& a = lists[0][0].a;
    const index_t tokens = a.shape()[1];
    for (std::size_t k = 0; k < lists.size(); ++k) totals[k] = 0;
    for (index_t first = 0; first < tokens; first += block_) {
      const index_t rows = std::min(block_, tokens - first), columns = first + rows;
      gram(a, first, rows, a, columns, sample, left());
      for (std::size_t k = 0; k < lists.size(); ++k) {
        const Tensor& b = lists[k][0].b;
        gram(b, first, rows, b, columns, sample, right());
        totals[k] += hadamard(rows, columns, {{0, first, 2.0}, {first, rows, 1.0}});
      }
    }
  }
  /// sum over t, s of (a_t . a'_s)(b_t . e_{x_s}) for the dense site x and the one-hot site y.
  double cross_term(const ParameterSite& x, const ParameterSite& y, index_t sample) {
    const index_t tokens = x.b.shape()[1], columns = y.b.shape()[1];
    double total = 0;
    for (index_t first = 0; first < tokens; first += block_) {
      const index_t rows = std::min(block_, tokens - first);
      gram(x.a, first, rows, y.a, columns, sample, left());
      gather(x.b, first, rows, y.b, sample, right());
      total += hadamard(rows, columns, {{0, columns, 1.0}});
    }
    return total;
  }

 private:
  struct Part {
    index_t first, width;
    double factor;
  };
  double* left() const { return static_cast<double*>(grams_.data()); }
  double* right() const { return left() + size_; }
  double hadamard(index_t rows, index_t columns, std::initializer_list<Part> parts) {
    double* const of_rows = static_cast<double*>(sums_.data());
    std::fill_n(of_rows, rows, 0.0);
    for (const Part& p : parts)
      run_library_rows(0, rows,
                       kernels::HadamardRows{left() + p.first, right() + p.first, of_rows, p.width, columns, p.factor});
    double total = 0;
    for (index_t t = 0; t < rows; ++t) total += of_rows[t];
    return total;
  }
  /// out [rows, columns]: rows [first, first + rows) of x against the first `columns` rows of y.
  void gram(const Tensor& x, index_t first, index_t rows, const Tensor& y, index_t columns, index_t sample, double* out) {
    const index_t width = x.shape()[2], m = x.shape()[1], n = y.shape()[1];
    gemm(ctx_,
         {.m = rows,
          .n = columns,
          .k = width,
          .a = {.data = element_of(x, (sample * m + first) * width), .dtype = x.dtype(), .row_stride = width},
          .b = {.data = element_of(y, sample * n * width), .dtype = y.dtype(), .row_stride = width, .transposed = true},
          .out = {.data = out, .dtype = DType::f64, .row_stride = columns}});
  }
  static void gather(const Tensor& b, index_t first, index_t rows, const Tensor& ids, index_t sample, double* out) {
    const index_t m = b.shape()[1], n = ids.shape()[1], p = b.shape()[2];
    const std::int32_t* id = ids.data<std::int32_t>() + sample * n;
    dispatch_real(b.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      for (index_t t = 0; t < rows; ++t) {
        const T* row = b.data<T>() + (sample * m + first + t) * p;
        for (index_t s = 0; s < n; ++s) out[t * n + s] = id[s] < 0 ? 0.0 : double(to_float(row[id[s]]));
      }
    });
  }
  Context& ctx_;
  index_t block_, size_;
  Buffer grams_, sums_;
};

/// lists: merged sites of parameters with the same dense inputs; the Gram of those is formed once.
inline void norms_by_gram(Context& ctx, std::span<const SiteList> lists, NormBounds& bounds) {
  const index_t d = lists[0][0].parameter->shape()[1], tokens = total_tokens(lists[0]), samples = bounds.samples();
  const index_t many = index_t(lists.size());
  const bool dense = !lists[0][0].one_hot(), any_one_hot = lists[0].back().one_hot();
  const Tensor squared = Tensor::empty(ctx, {samples, many}, DType::f64);
  ctx.team().parallel_for(samples, [&](index_t begin, index_t end) {
    GramPair pair(ctx, tokens);
    Segments segments(ctx, lists[0][0].a.dtype(), any_one_hot ? tokens : 0, d);
    for (index_t i = begin; i < end; ++i) {
      double* const totals = squared.data<double>() + i * many;
      std::fill_n(totals, many, 0.0);
      if (dense) pair.squared_norms(lists, i, totals);
      if (!any_one_hot) continue;
      for (index_t k = 0; k < many; ++k) {
        const SiteList& sites = lists[std::size_t(k)];
        if (dense) totals[k] += 2 * pair.cross_term(sites[0], sites[1], i);
        segments.gather(sites, i);
        totals[k] += segments.squared_norm();
      }
    }
  });
  std::vector<double> of_one(static_cast<std::size_t>(samples));
  for (index_t k = 0; k < many; ++k) {
    for (index_t i = 0; i < samples; ++i) of_one[std::size_t(i)] = squared.data<double>()[i * many + k];
    const SiteList& sites = lists[std::size_t(k)];
    bounds.add(ctx, of_one.data(), RowNorms(ctx, sites).sums(),
               certificate::on_host::gram(certificate::on_host::extents_of(sites)));
  }
}
}  // namespace dpmp::inline DPMP_ABI::per_sample::detail
