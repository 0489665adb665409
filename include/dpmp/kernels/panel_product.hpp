// SPDX-License-Identifier: Apache-2.0
// Matrix products by panels, on the host: op(a) is packed into panels of a few rows, op(b) into panels of two packs of
// columns, both padded with zeros, and every tile of the output, the last ones included, goes through the same instructions.
// So the bits of an output element follow from its row of op(a), its column of op(b) and k alone (P34): not from its place,
// the other rows, m, n or the threads. Sums over k: blocks of panel_depth terms one after the other in a multiply-add chain,
// then the blocks one after the other.
// The scheme is that of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008.
#pragma once
#include <algorithm>
#include <bit>
#include <utility>

#include "dpmp/core/accumulation.hpp"
#include "dpmp/runtime/team_host.hpp"

namespace dpmp::inline DPMP_ABI::kernels {
/// Extents of a tile, for teams of W floats. R: float or double, what is multiplied and summed inside of a block. Its sums
/// fill the registers: 24 of 32 with AVX-512 (8 x 3 packs measured 12 % faster than 12 x 2), 12 of 16 with AVX2.
template <class R, int W>
struct PanelTile {
  static constexpr int lanes = W * 4 / int(sizeof(R)),
                       rows = W == 16  ? 8
                              : W == 8 ? 6
                                       : 4,
                       packs = W == 16 ? 3 : 2, columns = packs * lanes;
};
/// The same at run time, where W = 4 << isa.
template <class R>
constexpr index_t panel_rows(int W) {
  return W == 16 ? PanelTile<R, 16>::rows : W == 8 ? PanelTile<R, 8>::rows : PanelTile<R, 4>::rows;
}
template <class R>
constexpr index_t panel_columns(int W) {
  return W == 16 ? PanelTile<R, 16>::columns : W == 8 ? PanelTile<R, 8>::columns : PanelTile<R, 4>::columns;
}
/// Elements that packing may write after the last panel.
inline constexpr index_t panel_slack = 16;
/// Terms of a block of the sum over k.
inline constexpr index_t panel_depth = 256;
/// Roundings between a term and a sum of `depth` terms: of its product (where that is not fused into the addition), of its
/// block's chain, and of the blocks after it.
constexpr index_t panel_chain(index_t depth) {
  const index_t blocks = (depth + panel_depth - 1) / panel_depth;
  return 1 + (depth < panel_depth ? depth : panel_depth) + (blocks > 1 ? blocks : 0);
}

namespace detail {
#if !defined(__CUDACC__)  // nvcc's front end does not know the built-in
/// One stage of a transpose: blocks of H x H elements off the diagonal of blocks of 2 H x 2 H change places.
template <int H, class V, int... k>
DPMP_HOST void exchange(V& a, V& b, std::integer_sequence<int, k...>) {
  constexpr int n = int(sizeof...(k));
  const V x = __builtin_shufflevector(a, b, (k & H ? k - H + n : k)...);
  b = __builtin_shufflevector(a, b, (k & H ? k + n : k + H)...);
  a = x;
}
template <int H, std::size_t N, class V>
DPMP_HOST void transpose(V (&v)[N]) {
  if constexpr (H > 0) {
    DPMP_UNROLL(16)
    for (int i = 0; i < int(N); ++i)
      if ((i & H) == 0) exchange<H>(v[i], v[i + H], std::make_integer_sequence<int, int(N)>{});
    transpose<H / 2>(v);
  }
}
#endif
}  // namespace detail

/// Row p: lines [p height, (p + 1) height) of a matrix into one panel, output[p][k][height], in R; lines past the last one
/// are zeros. height: panel rows of the left operand (of_rows) or columns of the right one. A line's elements are side by
/// side and lines line_stride apart, or, `across`, the other way round.
template <class T, class R, bool of_rows>
struct PackPanels {
  using Real = float;  // decides the instruction set only
  const T* input;
  R* output;  // panels panel_stride apart; up to one pack after the last one is written
  index_t lines, depth, stride, panel_stride;
  bool across;

  template <int W>
  DPMP_HOST void operator()(HostTeam<float, W>, index_t panel) const {
    using Tile = PanelTile<R, W>;
    constexpr int height = of_rows ? Tile::rows : Tile::columns;
    constexpr int L = std::min(Tile::lanes, int(std::bit_ceil(unsigned(height))));
    const index_t first = panel * height;
    R* to = output + panel * panel_stride;
    if (across)
      copy<L, height>(input + first, to, lines - first);
    else
      turn<L, height>(input + first * stride, to, lines - first);
  }

 private:
  /// L elements, exactly.
  template <int L>
  static DPMP_HOST HostPack<R, L> load(const T* x) {
    if constexpr (std::is_same_v<R, double> && !std::is_same_v<T, double>) {
      return {__builtin_convertvector(HostPack<float, L>::load(x).v, typename HostPack<R, L>::Vector)};
    } else {
      return HostPack<R, L>::load(x);
    }
  }
  template <int L, int height>
  DPMP_HOST void copy(const T* x, R* to, index_t left) const {
    if (left >= (height + L - 1) / L * L) {
      // Whole packs: what is too much is overwritten by the next line's.
      for (index_t k = 0; k < depth; ++k, x += stride, to += height) DPMP_UNROLL(4)
      for (int j = 0; j < height; j += L) load<L>(x + j).store(to + j);
    } else {
      for (index_t k = 0; k < depth; ++k, x += stride, to += height)
        for (int j = 0; j < height; ++j) to[j] = j < left ? R(to_float(x[j])) : R(0);
    }
  }
  template <int L, int height>
  DPMP_HOST void turn(const T* x, R* to, index_t left) const {
    index_t k = 0;
#if !defined(__CUDACC__)
    using Pack = HostPack<R, L>;
    using Vector = typename Pack::Vector;
    constexpr int parts = (height + L - 1) / L, together = height % L == 0 ? 1 : parts;
    for (; k + L <= depth; k += L)
      for (int first = 0; first < parts; first += together) {
        Vector v[std::size_t(together)][std::size_t(L)];
        DPMP_UNROLL(4)
        for (int p = 0; p < together; ++p) {
          DPMP_UNROLL(16)
          for (int j = 0; j < L; ++j) {
            const int line = (first + p) * L + j;
            v[p][j] = line < left ? load<L>(x + line * stride + k).v : Vector{};
          }
          detail::transpose<L / 2>(v[p]);
        }
        DPMP_UNROLL(16)
        for (int j = 0; j < L; ++j) DPMP_UNROLL(4)
        for (int p = 0; p < together; ++p) Pack{v[p][j]}.store(to + (k + j) * height + (first + p) * L);
      }
#endif
    for (; k < depth; ++k)
      for (int j = 0; j < height; ++j) to[k * height + j] = j < left ? R(to_float(x[j * stride + k])) : R(0);
  }
};

/// Row j: output[:, panel j] (+)= alpha * a b for one block of depth and a block of panels of rows.
template <class R>
struct PanelProduct {
  using Real = float;  // decides the instruction set only
  static constexpr bool wide = true;
  const R* a;  // panels of rows, a_stride apart; in place: rows as they are stored, a_stride apart
  const R* b;  // panels of columns, b_stride apart
  R* output;   // [m, n], output_stride apart
  index_t m, n, depth, a_stride, b_stride, output_stride;
  bool in_place;
  R alpha;
  bool add;

  template <int W>
  DPMP_HOST void operator()(HostTeam<float, W>, index_t panel) const {
    using Tile = PanelTile<R, W>;
    const index_t column = panel * Tile::columns, width = n - column < Tile::columns ? n - column : Tile::columns;
    const R* const right = b + panel * b_stride;
    R* const out = output + column;
    // The last panel may have packs of padding alone.
    const index_t packs = (width + Tile::lanes - 1) / Tile::lanes;
    if (packs == 1) return columns_of<Tile, 1>(right, out, int(width));
    if constexpr (Tile::packs == 3)
      if (packs == 2) return columns_of<Tile, 2>(right, out, int(width));
    columns_of<Tile, Tile::packs>(right, out, int(width));
  }

 private:
  template <class Tile, int packs>
  struct Sums {
    typename HostPack<R, Tile::lanes>::Vector v[std::size_t(Tile::rows)][std::size_t(packs)];

    /// += x(0), x(1), ... times one row of b.
    template <class F>
    DPMP_HOST void add(const R* right, F&& x) {
      typename HostPack<R, Tile::lanes>::Vector y[std::size_t(packs)];
      DPMP_UNROLL(4)
      for (int p = 0; p < packs; ++p) y[p] = HostPack<R, Tile::lanes>::load(right + p * Tile::lanes).v;
      DPMP_UNROLL(16)
      for (int i = 0; i < Tile::rows; ++i) {
        const R factor = x(i);
        DPMP_UNROLL(4)
        for (int p = 0; p < packs; ++p) v[i][p] += factor * y[p];
      }
    }
  };

  template <class Tile, int packs>
  DPMP_HOST void columns_of(const R* right, R* out, int width) const {
    const R* rows = a;
    for (index_t row = 0; row < m; row += Tile::rows, rows += in_place ? Tile::rows * a_stride : a_stride) {
      const int height = m - row < Tile::rows ? int(m - row) : Tile::rows;
      Sums<Tile, packs> sums = {};
      if (in_place) {
        // Rows past the last one repeat it and are not stored.
        const R* line[Tile::rows];
        DPMP_UNROLL(16)
        for (int i = 0; i < Tile::rows; ++i) line[i] = rows + (i < height ? i : height - 1) * a_stride;
        for (index_t k = 0; k < depth; ++k)
          sums.add(right + k * Tile::columns, [&](int i) DPMP_LAMBDA { return line[i][k]; });
      } else {
        for (index_t k = 0; k < depth; ++k)
          sums.add(right + k * Tile::columns, [&](int i) DPMP_LAMBDA { return rows[k * Tile::rows + i]; });
      }
      finish(sums, out + row * output_stride, height, width);
    }
  }
  template <class Tile, int packs>
  DPMP_HOST void finish(const Sums<Tile, packs>& sums, R* out, int height, int width) const {
    using Pack = HostPack<R, Tile::lanes>;
    // A tile that is cut off is finished in a buffer, by the very instructions of a whole one.
    constexpr int line = packs * Tile::lanes;
    alignas(64) R buffer[Tile::rows * line];
    const bool whole = height == Tile::rows && width == line;
    R* const to = whole ? out : buffer;
    const index_t stride = whole ? output_stride : line;
    if (!whole && add)
      for (int i = 0; i < height; ++i)
        for (int j = 0; j < width; ++j) buffer[i * line + j] = out[i * output_stride + j];
    DPMP_UNROLL(16)
    for (int i = 0; i < Tile::rows; ++i) DPMP_UNROLL(4)
    for (int p = 0; p < packs; ++p) put(to + i * stride + p * Tile::lanes, Pack{sums.v[i][p] * alpha});
    if (!whole)
      for (int i = 0; i < height; ++i)
        for (int j = 0; j < width; ++j) out[i * output_stride + j] = buffer[i * line + j];
  }
  template <class Pack>
  DPMP_HOST void put(R* out, Pack x) const {
    (add ? Pack::load(out) + x : x).store(out);
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
