// SPDX-License-Identifier: Apache-2.0
// What is done with one sample's gradient tile, or with its two Gram matrices, before the tile is thrown away.
#pragma once
#include "dpmp/core/low_precision.hpp"
#include "dpmp/runtime/math.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// sums[row] = sum_j tile[row, j]^2; the caller adds the rows in double.
template <class T>
struct SquaredRows {
  using Real = compute_t<T>;
  using Storage = T;
  const T* tile;  // [rows, width]
  double* sums;   // [rows]
  index_t width;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const T* x = tile + row * width;
    sums[row] = double(team.sum(width, [&](auto at) DPMP_LAMBDA { return at.load(x) * at.load(x); }));
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
    sums[row] = double(team.sum(width, [&](auto at) DPMP_LAMBDA {
      const auto x = at.load(tile + row * width).template rounded<T>();
      at.store(kept + row * width, x);
      return x * x;
    }));
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

/// sums[row] = sum_j x[row, j] * y[row, j]: a row of the Hadamard product of two Gram matrices.
template <class Real_>
struct HadamardRows {
  using Real = Real_;
  const Real* x;  // [rows, width]
  const Real* y;  // [rows, width]
  double* sums;   // [rows]
  index_t width;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    sums[row] =
        double(team.sum(width, [&](auto at) DPMP_LAMBDA { return at.load(x + row * width) * at.load(y + row * width); }));
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
/// Per-sample vectors of one parameter, and their weighted sum.
template <class T>
struct VectorTerm {
  const T* x;   // [samples, width]
  double* sum;  // [width]
  index_t width;
  index_t row;  // of the launch, the first one of this parameter
};
/// sum[:] += sum_i factors_i x[i, :] for each of several parameters; a row is a slice of `slice` columns of one of them. As
/// above: blocks of `block` samples in compute precision, the blocks in double, samples of factor 0 removed by select.
template <class T>
struct WeightedVectors {
  using Real = compute_t<T>;
  using Storage = double;
  static constexpr index_t block = 4, slice = 4096, most = 24;
  const float* factors;  // [samples]
  index_t samples, count;
  VectorTerm<T> terms[most];

  static constexpr bool columns_apart = true;
  DPMP_HD index_t columns() const { return slice; }
  /// Rows of a parameter.
  static index_t rows(index_t width) { return (width + slice - 1) / slice; }

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    index_t k = 0;
    while (k + 1 < count && terms[k + 1].row <= row) ++k;
    const VectorTerm<T>& term = terms[k];
    const index_t first = (row - term.row) * slice;
    index_t i = 0;
    for (; i + block <= samples; i += block) add<block>(team, term, first, i);
    for (; i < samples; ++i) add<1>(team, term, first, i);
  }

 private:
  DPMP_ANY_TEAM
  template <index_t many, class Team>
  DPMP_HD void add(const Team& team, const VectorTerm<T>& term, index_t first, index_t sample) const {
    using Pack = typename Team::Pack;
    const index_t left = term.width - first;
    team.for_each(left < slice ? left : slice, [&](auto at) DPMP_LAMBDA {
      Pack total{};
      for (index_t k = 0; k < many; ++k) {
        const Real c = Real(factors[sample + k]);
        total = total + select_less(Pack{}, Pack::splat(c), at.load(term.x + (sample + k) * term.width + first) * c, Pack{});
      }
      at.add_to(term.sum + first, total);
    });
  }
};

/// sum[row, :] += sum_i factors_i b[i, row] a[i, :]: samples of one token, of which nothing but the sum is written. Blocks
/// of `block` samples are added up in compute precision, the blocks in double. A factor of 0 removes whatever a and b hold:
/// both are selected, before they meet.
template <class T>
struct RankOneSum {
  using Real = compute_t<T>;
  using Storage = double;
  static constexpr index_t block = 4;
  const T* a;            // [samples, width]
  const T* b;            // [samples, rows]
  const float* factors;  // [samples]
  double* sum;           // [rows, width]
  index_t samples, rows, width;
  static constexpr bool columns_apart = true;
  DPMP_HD index_t columns() const { return width; }

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    index_t first = 0;
    for (; first + block <= samples; first += block) add<block>(team, row, first);
    for (; first < samples; ++first) add<1>(team, row, first);
  }

 private:
  DPMP_ANY_TEAM
  template <index_t count, class Team>
  DPMP_HD void add(const Team& team, index_t row, index_t first) const {
    using Pack = typename Team::Pack;
    Pack c[count], y[count];
    for (index_t k = 0; k < count; ++k) {
      c[k] = Pack::splat(Real(factors[first + k]));
      y[k] = select_less(Pack{}, c[k], Pack::splat(Real(to_float(b[(first + k) * rows + row]))), Pack{});
    }
    const T* x = a + first * width;
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      Pack total{};
      for (index_t k = 0; k < count; ++k)
        total = total + select_less(Pack{}, c[k], at.load(x + k * width), Pack{}) * y[k] * c[k];
      at.add_to(sum + row * width, total);
    });
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
