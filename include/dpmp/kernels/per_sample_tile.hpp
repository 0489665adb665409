// SPDX-License-Identifier: Apache-2.0
// What is done with one sample's gradient tile, or with its two Gram matrices, before the tile is thrown away.
#pragma once
#include "dpmp/core/low_precision.hpp"
#include "dpmp/runtime/launch_many.hpp"
#include "dpmp/runtime/math.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// sums[row] = sum_j tile[row, j]^2, in double; the caller adds the rows.
template <class T>
struct SquaredRows {
  using Real = compute_t<T>;
  using Storage = T;
  const T* tile;  // [rows, width], stride apart
  double* sums;   // [rows]
  index_t width, stride;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const T* x = tile + row * stride;
    sums[row] = team.sum_of_squares(width, [&](auto at) DPMP_LAMBDA { return at.load(x); });
  }
};

/// kept[row, :] = round(tile[row, :]), sums[row] = sum_j kept[row, j]^2: the norm is that of the rounded numbers.
template <class T>
struct RoundedSquaredRows {
  using Real = compute_t<T>;
  const Real* tile;  // [rows, width]
  T* kept;           // [rows, width]
  double* sums;      // [rows]
  index_t width;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    sums[row] = team.sum_of_squares(width, [&](auto at) DPMP_LAMBDA {
      const auto x = at.load(tile + row * width).template rounded<T>();
      at.store(kept + row * width, x);
      return x;
    });
  }
};

/// sums[row] = sum_j x[row, j], all in double.
struct SumRows {
  using Real = double;
  const double* x;  // [rows, width]
  double* sums;     // [rows]
  index_t width;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    sums[row] = team.sum(width, [&](auto at) DPMP_LAMBDA { return at.load(x + row * width); });
  }
};

/// sums[row] += factor * sum_j x[row, j] * y[row, j], in double: part of a row of the Hadamard product of two Gram matrices.
struct HadamardRows {
  using Real = double;
  const double* x;  // [rows, width], stride apart, as y
  const double* y;
  double* sums;  // [rows]
  index_t width, stride;
  double factor;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    sums[row] +=
        factor * team.sum(width, [&](auto at) DPMP_LAMBDA { return at.load(x + row * stride) * at.load(y + row * stride); });
  }
};

/// output[row, :] += x[row, :], in compute precision; x in storage precision.
template <class T>
struct AddRow {
  using Real = compute_t<T>;
  const T* x;    // [rows, width], x_stride apart
  Real* output;  // [rows, width], output_stride apart
  index_t width, x_stride, output_stride;

  static constexpr bool columns_apart = true;
  DPMP_HD index_t columns() const { return width; }

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    Real* y = output + row * output_stride;
    team.for_each(width, [&](auto at) DPMP_LAMBDA { at.store(y, at.load(y) + at.load(x + row * x_stride)); });
  }
};

/// sum[row, :] += factor * x[row, :]: the factor is applied in compute precision to the per-sample gradient, the sum over
/// samples is in double. By select, so that a factor of 0 removes NaN and Inf.
template <class T>
struct WeightedAdd {
  using Real = compute_t<T>;
  using Storage = double;  // the widest array
  const T* x;              // [rows, x_stride]
  double* sum;             // [rows, sum_stride]
  index_t width, x_stride, sum_stride;
  Real factor;
  static constexpr bool columns_apart = true;
  DPMP_HD index_t columns() const { return width; }

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    using Pack = typename Team::Pack;
    const Pack c = Pack::splat(factor);
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      at.add_to(sum + row * sum_stride, select_less(Pack{}, c, at.load(x + row * x_stride) * factor, Pack{}));
    });
  }
};

/// output[row, :] += x[row, :], in double; x in storage precision.
template <class T>
struct AddRowInDouble {
  using Real = compute_t<T>;
  using Storage = double;
  const T* x;      // [width]
  double* output;  // [width]
  index_t width;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t) const {
    team.for_each(width, [&](auto at) DPMP_LAMBDA { at.add_to(output, at.load(x)); });
  }
};

/// Per-sample vectors of one parameter, and their weighted sum.
template <class T>
struct VectorTerm {
  const T* x;   // [samples, width]
  double* sum;  // [width]
  index_t width;
};
/// sum[:] += sum_i factors_i x[i, :] for each of several parameters; a row is a slice of `slice` columns of one of them. As
/// above: the factor in compute precision, the sum over samples in double, samples of factor 0 removed by select.
template <class T>
struct WeightedVectors {
  using Real = compute_t<T>;
  using Storage = double;
  static constexpr index_t slice = 2048;
  static constexpr int together = 16;  // samples that are added in registers
  const float* factors;                // [samples]
  index_t samples;
  LaunchJobs<VectorTerm<T>> parameters;

  static constexpr bool columns_apart = true;
  DPMP_HD index_t columns() const { return slice; }
  /// Rows of a parameter.
  static index_t rows_of(const VectorTerm<T>& term) { return (term.width + slice - 1) / slice; }

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    using Pack = typename Team::Pack;
    const index_t k = parameters.of_row(row);
    const VectorTerm<T>& term = parameters.jobs[k];
    const index_t first = (row - parameters.first_row[k]) * slice, left = term.width - first;
    for (index_t i = 0; i < samples; i += together) {
      const int some = samples - i < together ? int(samples - i) : together;
      team.for_each(left < slice ? left : slice, [&](auto at) DPMP_LAMBDA {
        at.add_to(term.sum + first, some, [&](int j) DPMP_LAMBDA {
          const Pack c = Pack::splat(Real(factors[i + j]));
          return select_less(Pack{}, c, at.load(term.x + (i + j) * term.width + first) * c, Pack{});
        });
      });
    }
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
