// SPDX-License-Identifier: Apache-2.0
// The norm of a tied table on a GPU, used in a dense product and looked up: squares of both and the cross term
// 2 <sum_t b_t a_t^T, sum_s e_{x_s} a'_s^T> = 2 sum_s a'_s . (sum_t b_t[x_s] a_t), which is one gathered matrix, one product
// and a dot product of rows: nothing of the size of the table.
#pragma once
#include "dpmp/gemm/matmul.hpp"
#include "dpmp/kernels/per_sample_tile.hpp"
#include "dpmp/kernels/row_norm.hpp"
#include "dpmp/per_sample/certificate.hpp"
#include "dpmp/per_sample/site_list.hpp"
#include "dpmp/runtime/launch_cuda.cuh"

namespace dpmp::inline DPMP_ABI::per_sample::detail {
/// output[row, s] = b[row, ids[sample of row, s]], 0 for a padding id. A row is a token of b.
template <class T>
struct GatherColumns {
  using Real = float;
  static constexpr int elements_each = 1;
  const T* b;               // [samples, tokens, width]
  const std::int32_t* ids;  // [samples, columns]
  T* output;                // [samples, tokens, columns]
  index_t tokens, width, columns;

  template <class Team>
  __device__ __forceinline__ void operator()(const Team& team, index_t row) const {
    const std::int32_t* x = ids + row / tokens * columns;
    team.for_each(columns, [&](auto at) {
      const std::int32_t id = x[at.offset];
      const float value = dpmp::detail::widened(b[row * width + (id < 0 ? 0 : id)]);
      output[row * columns + at.offset] = dpmp::detail::narrowed<T>(id < 0 ? 0.0f : value);
    });
  }
};

/// sums[row] = sum_j x[row, j] y[row, j] in double, 0 where ids[row] < 0. y in storage precision.
template <class T>
struct DotRows {
  using Real = double;
  const float* x;
  const T* y;
  const std::int32_t* ids;
  double* sums;
  index_t width;

  template <class Team>
  __device__ __forceinline__ void operator()(const Team& team, index_t row) const {
    const double dot = team.sum(width, [&](auto at) { return at.load(x + row * width) * at.load(y + row * width); });
    sums[row] = ids[row] < 0 ? 0.0 : dot;
  }
};

/// Squares of a sample's numbers [B, ...], in double.
template <class T>
Tensor squares_of_samples(Context& ctx, const Tensor& x) {
  const index_t samples = x.shape()[0], width = x.numel() / std::max<index_t>(1, samples);
  const Tensor squares = Tensor::empty(ctx, {samples}, DType::f64);
  dpmp::detail::launch_library_rows_on_cuda(ctx, samples, width,
                                            kernels::VectorSquares<T>{x.data<T>(), squares.data<double>(), width});
  return squares;
}

/// Inner products X of a dense site's gradients with those of a one-hot site of the same parameter, and the squares of the
/// dense inputs, of the looked-up rows and of the gathered elements of b. All [B].
struct CrossTerms {
  Tensor products, inputs, looked_up, gathered;
};
template <class T>
CrossTerms cross_terms(Context& ctx, const ParameterSite& dense, const ParameterSite& one_hot) {
  const index_t samples = dense.samples(), tokens = dense.b.shape()[1], p = dense.b.shape()[2], d = dense.a.shape()[2],
                columns = one_hot.b.shape()[1];
  const Tensor gathered = Tensor::empty(ctx, {samples, tokens, columns}, dtype_of<T>);
  dpmp::detail::launch_library_rows_on_cuda(
      ctx, samples * tokens, columns,
      GatherColumns<T>{dense.b.data<T>(), one_hot.b.data<std::int32_t>(), gathered.data<T>(), tokens, p, columns});
  const Tensor product = Tensor::empty(ctx, {samples, columns, d}, DType::f32);
  gemm(ctx, product_of({gathered, true}, {dense.a}, product));
  const Tensor rows = Tensor::empty(ctx, {samples, columns}, DType::f64), terms = Tensor::empty(ctx, {samples}, DType::f64);
  dpmp::detail::launch_library_rows_on_cuda(
      ctx, samples * columns, d,
      DotRows<T>{product.data<float>(), one_hot.a.data<T>(), one_hot.b.data<std::int32_t>(), rows.data<double>(), d});
  dpmp::detail::launch_library_rows_on_cuda(ctx, samples, columns,
                                            kernels::SumRows{rows.data<double>(), terms.data<double>(), columns});
  return {terms, squares_of_samples<T>(ctx, dense.a), squares_of_samples<T>(ctx, one_hot.a),
          squares_of_samples<T>(ctx, gathered)};
}

/// squared = dense + 2 cross + segments and the bound of its error in addition to the dense part's, which may have one of
/// its own. With R = sum_s |a'_s| sum_t |b_t[x_s]| |a_t| <= |a|_F |a'|_F |b gathered|_F by Cauchy-Schwarz, twice.
///
/// The two parts of a contribution are added to the sum over samples one after the other, each with a rounding relative to
/// itself: the norm counts as at least half of the sum of theirs, so that parts which cancel each other cost no more than
/// twice what one number would (dp::rounding_share).
struct JoinTied {
  using Real = double;
  static constexpr int elements_each = 1;
  const double *dense, *dense_bound, *segments;                 // dense_bound: null where dense_square says it all
  const double *cross, *inputs, *looked_up, *gathered;          // CrossTerms
  double dense_square, segments_square, cross_bound, constant;  // of certificate::on_cuda
  double inputs_tiny, looked_up_tiny;                           // times those squares: underflow
  double *squared, *quadratic;

  template <class Span>
  __device__ __forceinline__ void operator()(const Span& at) const {
    for (int k = 0; k < at.size(); ++k) {
      const index_t i = at.offset + k;
      const double R = ::sqrt(inputs[i]) * ::sqrt(looked_up[i]) * ::sqrt(gathered[i]) * (1 + 0x1p-30);
      const double of_dense = (dense_bound ? dense_bound[i] : 0) + dense_square * dense[i];
      const double square = dense[i] + 2 * cross[i] + segments[i],
                   bound = of_dense + segments_square * segments[i] + 2 * cross_bound * R + constant +
                           inputs_tiny * inputs[i] + looked_up_tiny * looked_up[i];
      const double both = ::sqrt(dense[i] + of_dense) + ::sqrt(segments[i] * (1 + segments_square));
      const double half = 0.25 * both * both - (square > 0 ? square : 0);
      squared[i] = square;
      quadratic[i] = half > bound ? half : bound;
    }
  }
};
}  // namespace dpmp::inline DPMP_ABI::per_sample::detail
