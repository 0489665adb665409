// SPDX-License-Identifier: Apache-2.0
// The certificates of norms: the tables of docs/numerics.md, row by row. On a CPU norms are taken in double of the stored
// operands, or of the very numbers that are released, so that what is left is the rounding of released tiles. A GPU releases
// c times FP32 tiles and segments, exact in double, so that only what the FP32 sums over tokens lose is between those and
// the gradient.
#pragma once
#include <cmath>

#include "dpmp/gemm/interface.hpp"
#include "dpmp/kernels/gram_constants.hpp"
#include "dpmp/kernels/norm_table.hpp"
#include "dpmp/per_sample/site_list.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// gamma_n = n u / (1 - n u): relative error of a sum of n rounded terms in any order (Higham 2002, section 3.1).
inline double gamma(double n, double u) {
  DPMP_CHECK(n * u < 0.5, "expected an accumulation chain of fewer than ", 0.5 / u, " terms, got ", n);
  return n * u / (1 - n * u);
}

namespace certificate {
inline constexpr double u_double = 0x1p-53, tiny_double = 0x1p-1022, tiny_float = 0x1p-126;

/// Of a stored vector, on either device: a sum of n squares in double, where squares of f64 numbers alone can underflow;
/// with the accumulate dtype's roundings instead of double's, which leaves room for those that made the vector, though
/// clipping needs none for what is stored.
inline kernels::Certificate vector(const ParameterSite& site) {
  const double n = double(site.b.shape()[1]);
  return {.constant = n * tiny_double, .square = gamma(n + 16, unit_roundoff(accumulate_dtype(site.b.dtype())))};
}

namespace on_host {
/// What a certificate depends on: a parameter [p, d], its tokens over all uses, and how its tiles are released.
struct Extents {
  double p, d, tokens;
  double released_chain;  // roundings between a term and its element of a released tile
  double u, tiny;         // of the type that tiles are formed in
};
inline Extents extents_of(index_t p, index_t d, index_t tokens, DType dtype) {
  const bool wide = dtype == DType::f64;
  // A looked-up row is rounded on its way into the tile, and added to it.
  const double chain = double(product_chain(DeviceKind::cpu, dtype, tokens)) + 2;
  return {double(p), double(d), double(tokens), chain, wide ? u_double : 0x1p-24, wide ? tiny_double : tiny_float};
}
inline Extents extents_of(const SiteList& sites) {
  const Parameter& w = *sites[0].parameter;
  return extents_of(w.shape()[0], w.shape()[1], total_tokens(sites), w.dtype());
}

/// Grams in double: every term meets the chains of both Grams and of the sum over pairs of tokens; between one-hot rows
/// those of two segments and of a square. What is released is a tile in compute precision.
DPMP_HOST kernels::Certificate gram(const Extents& x) {
  return {.constant = 2 * tiny_double * x.tokens * x.tokens,
          .products = gamma(x.p + x.d + 2 * x.tokens + 64, u_double),
          .inputs = 2 * tiny_double * x.p,
          .outputs = 2 * tiny_double * x.d,
          .linear_constant = std::sqrt(x.p * x.d) * 2 * (x.tokens + 2) * x.tiny,
          .linear_products = gamma(x.released_chain, x.u)};
}
/// The squares, in double, of p d numbers that are released as they are.
DPMP_HOST kernels::Certificate released(const Extents& x) {
  return {.constant = x.p * x.d * tiny_double, .square = gamma(x.p + x.d + 64, u_double)};
}
/// A tile that is thrown away where what is released was never rounded to it: of one token, or of looked-up rows alone.
DPMP_HOST kernels::Certificate rounded_tile(const Extents& x) {
  kernels::Certificate c = released(x);
  c.linear_constant = std::sqrt(x.p * x.d) * 2 * x.tiny;
  c.linear_products = gamma(2, x.u);
  return c;
}
/// |a| |b| of one token, whose outer product is formed in double: b c, times a.
DPMP_HOST kernels::Certificate rank_one(const Extents& x) {
  return {.products = gamma(x.p + x.d + 64, u_double),
          .linear_constant = std::sqrt(x.p * x.d) * 4 * tiny_double,
          .linear_products = gamma(4, u_double)};
}
}  // namespace on_host

namespace on_cuda {
/// A parameter [p, d] and the tokens of a sample.
struct Extents {
  double p, d;
  index_t tokens;
  bool tensor_cores;
  /// Of an element of a product over the tokens, ours or the library's: lengths are padded to 16, and one more.
  double chain() const { return kernels::chain_roundings(tensor_cores, tokens) + (tensor_cores ? 20 : 0) + 1; }
};

inline Extents extents_of(const ParameterSite& site) {
  const Parameter& w = *site.parameter;
  return {double(w.shape()[0]), double(w.shape()[1]), site.b.shape()[1], size_of(w.dtype()) == 2};
}

/// Grams. The kernel bounds the rounding of the square (NormTerms::quadratic); here is its underflow, and the distance of
/// the released tile.
inline kernels::Certificate gram(const Extents& x) {
  const double tokens = double(x.tokens);
  return {.constant = 2 * tiny_float * tokens * tokens,
          .inputs = 2 * tiny_float * x.p,
          .outputs = 2 * tiny_float * x.d,
          .linear_constant = std::sqrt(x.p * x.d) * 2 * tokens * tiny_float,
          .linear_products = kernels::gamma_float(x.chain())};
}

/// The squares, in FP32 within a tile and in double beyond, of numbers that are released as they are.
inline constexpr double squares_of_tile = kernels::gamma_float(32);
/// The tile of instantiation is formed by the same instructions as the released one, except of one token: there a product
/// is released that was never rounded, and rows are needed.
inline kernels::Certificate instantiated(const Extents& x) {
  kernels::Certificate certificate{.constant = x.p * x.d * tiny_float, .square = squares_of_tile};
  if (x.tokens == 1) {
    certificate.linear_constant = std::sqrt(x.p * x.d) * 2 * tiny_float;
    certificate.linear_products = kernels::gamma_float(2);
  }
  return certificate;
}

/// Squares of the sums of segments, two at a time in FP32; the very sums are released.
inline constexpr double squares_of_segments = kernels::gamma_float(4);
inline kernels::Certificate segments(const Extents& x) {
  return {.constant = double(x.tokens) * x.d * tiny_float, .square = squares_of_segments};
}

/// |a| |b| of one token, whose outer product is formed in FP32: b c, times a.
inline kernels::Certificate rank_one(const Extents& x) {
  return {.products = gamma(x.p + x.d + 64, u_double),
          .linear_constant = std::sqrt(x.p * x.d) * 2 * tiny_float,
          .linear_products = gamma(3, 0x1p-24)};
}

/// The inner product X of the gradients of dense and of looked-up rows of one table (per_sample/tied_norm.cuh), as computed,
/// of the exact dense gradient or its tile, and of the segments as they are released, is within this times
/// R = sum_s |a'_s| sum_t |b_t[x_s]| |a_t| of the exact one's: the product's chain over the dense tokens, the tile's, and
/// the segments'.
inline double cross_term(const Extents& dense, index_t looked_up) {
  return 2 * kernels::gamma_float(dense.chain()) + 2 * kernels::gamma_float(double(looked_up) + 1);
}
}  // namespace on_cuda
}  // namespace certificate
}  // namespace dpmp::inline DPMP_ABI::per_sample
