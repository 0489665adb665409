// SPDX-License-Identifier: Apache-2.0
// The certificates of norms on the host: the table of docs/numerics.md, row by row. Norms are taken in double of the stored
// operands, or of the very numbers that are released, so that what is left is the rounding of released tiles.
#pragma once
#include "dpmp/gemm/interface.hpp"
#include "dpmp/per_sample/norm_bounds.hpp"
#include "dpmp/per_sample/site_list.hpp"

namespace dpmp::inline DPMP_ABI::per_sample::host_certificate {
inline constexpr double u_double = 0x1p-53, tiny_double = 0x1p-1022, tiny_float = 0x1p-126;

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
inline kernels::Certificate gram(const Extents& x) {
  return {.constant = 2 * tiny_double * x.tokens * x.tokens,
          .products = gamma(x.p + x.d + 2 * x.tokens + 64, u_double),
          .inputs = 2 * tiny_double * x.p,
          .outputs = 2 * tiny_double * x.d,
          .linear_constant = std::sqrt(x.p * x.d) * 2 * (x.tokens + 2) * x.tiny,
          .linear_products = gamma(x.released_chain, x.u)};
}
/// The squares, in double, of p d numbers that are released as they are.
inline kernels::Certificate released(const Extents& x) {
  return {.constant = x.p * x.d * tiny_double, .square = gamma(x.p + x.d + 64, u_double)};
}
/// A tile that is thrown away where what is released was never rounded to it: of one token, or of looked-up rows alone.
inline kernels::Certificate rounded_tile(const Extents& x) {
  kernels::Certificate c = released(x);
  c.linear_constant = std::sqrt(x.p * x.d) * 2 * x.tiny;
  c.linear_products = gamma(2, x.u);
  return c;
}
/// |a| |b| of one token, whose outer product is formed in double: b c, times a.
inline kernels::Certificate rank_one(const Extents& x) {
  return {.products = gamma(x.p + x.d + 64, u_double),
          .linear_constant = std::sqrt(x.p * x.d) * 4 * tiny_double,
          .linear_products = gamma(4, u_double)};
}
}  // namespace dpmp::inline DPMP_ABI::per_sample::host_certificate
