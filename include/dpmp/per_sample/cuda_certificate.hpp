// SPDX-License-Identifier: Apache-2.0
// The certificates of norms on a GPU: the table of docs/numerics.md, row by row. A contribution there is c times FP32 tiles
// and segments, exact in double, so that only what the FP32 sums over tokens lose lies between it and the gradient.
#pragma once
#include <cmath>

#include "dpmp/kernels/gram_constants.hpp"
#include "dpmp/kernels/norm_table.hpp"

namespace dpmp::inline DPMP_ABI::per_sample::cuda_certificate {
inline constexpr double tiny = 0x1p-126;

/// A parameter [p, d] and the tokens of a sample.
struct Extents {
  double p, d;
  index_t tokens;
  bool tensor_cores;
  /// Of an element of a product over the tokens, ours or the library's: lengths are padded to 16, and one more.
  double chain() const { return kernels::chain_roundings(tensor_cores, tokens) + (tensor_cores ? 20 : 0) + 1; }
};

/// Grams. The kernel bounds the rounding of the square (NormTerms::quadratic); here is its underflow, and the distance of
/// the released tile.
inline kernels::Certificate gram(const Extents& x) {
  const double tokens = double(x.tokens);
  return {.constant = 2 * tiny * tokens * tokens,
          .inputs = 2 * tiny * x.p,
          .outputs = 2 * tiny * x.d,
          .linear_constant = std::sqrt(x.p * x.d) * 2 * tokens * tiny,
          .linear_products = kernels::gamma_float(x.chain())};
}

/// The squares, in FP32 within a tile and in double beyond, of numbers that are released as they are.
inline constexpr double squares_of_tile = kernels::gamma_float(32);
/// The tile of instantiation is formed by the same instructions as the released one, except of one token: there a product
/// is released that was never rounded, and rows are needed.
inline kernels::Certificate instantiated(const Extents& x) {
  kernels::Certificate certificate{.constant = x.p * x.d * tiny, .square = squares_of_tile};
  if (x.tokens == 1) {
    certificate.linear_constant = std::sqrt(x.p * x.d) * 2 * tiny;
    certificate.linear_products = kernels::gamma_float(2);
  }
  return certificate;
}

/// Squares of the sums of segments, two at a time in FP32; the very sums are released.
inline constexpr double squares_of_segments = kernels::gamma_float(4);
inline kernels::Certificate segments(const Extents& x) {
  return {.constant = double(x.tokens) * x.d * tiny, .square = squares_of_segments};
}

/// The inner product X of the gradients of dense and of looked-up rows of one table (per_sample/tied_norm.cuh), as computed,
/// of the exact dense gradient or its tile, and of the segments as they are released, is within this times
/// R = sum_s |a'_s| sum_t |b_t[x_s]| |a_t| of the exact one's: the product's chain over the dense tokens, the tile's, and
/// the segments'.
inline double cross_term(const Extents& dense, index_t looked_up) {
  return 2 * kernels::gamma_float(dense.chain()) + 2 * kernels::gamma_float(double(looked_up) + 1);
}
}  // namespace dpmp::inline DPMP_ABI::per_sample::cuda_certificate
