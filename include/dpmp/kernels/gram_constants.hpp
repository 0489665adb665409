// SPDX-License-Identifier: Apache-2.0
// How a GPU sums products and Gram matrices, for everybody who has to bound what comes out: kernels, certificates, costs.
#pragma once
#include <algorithm>
#include <cmath>

#include "dpmp/core/dtype.hpp"

namespace dpmp::inline DPMP_ABI::kernels {
/// The error of a sum of `length` products of operands of T in FP32 is at most chain_roundings(length) * 2^-24 times the sum
/// of absolute products (to first order). float: fused multiply-adds, one rounding a product. Tensor cores add 8 products at
/// once to the sum (16 since sm_90): all are aligned to the largest and cut off, with one guard bit (two since sm_90), and
/// the result is cut off too, not rounded: 8 + 2 units for 8 products. (Measured, not documented: Fasi, Higham, Mikaitis,
/// Pranesh 2021, "Numerical behavior of NVIDIA tensor cores".) A sum of a column of `length` rows counts as well.
constexpr double chain_roundings(bool tensor_cores, index_t length) {
  return tensor_cores ? 1.25 * double((length + 7) / 8 * 8) : double(length);
}
template <class T>
constexpr double chain_roundings(index_t length) {
  return chain_roundings(!std::is_same_v<T, float>, length);
}

/// Columns after which the Gram matrix of the wider side moves on: a Gram of so many columns is summed in FP32, multiplied
/// with that of the other side, and the products of all blocks meet in double.
inline constexpr index_t gram_block = 1024;
constexpr index_t gram_blocks(index_t width) { return std::max<index_t>(1, (width + gram_block - 1) / gram_block); }

/// gamma_n = n u / (1 - n u), u = 2^-24.
constexpr double gamma_float(double n) { return n * 0x1p-24 / (1 - n * 0x1p-24); }

/// The constants of a sample's bound (ghost_norm.cuh). whole: of a Gram of `narrow` columns in one chain, block: of a block
/// of the other's `wide` columns, sum: of the products of both in a tile.
struct GramBound {
  double whole, block, blocks;
  static constexpr double sum = gamma_float(32);
};
constexpr GramBound gram_bound(bool tensor_cores, index_t narrow, index_t wide) {
  return {gamma_float(chain_roundings(tensor_cores, narrow)),
          gamma_float(chain_roundings(tensor_cores, std::min(wide, gram_block))), double(gram_blocks(wide))};
}

/// What the certificate of a Gram norm on a GPU is expected to cost: its upper bound over the norm, less 1, for random rows
/// of equal size, p x d gradients of `tokens` tokens, released by one FP32 chain over them. The narrower side is whole.
inline double gram_slack_on_cuda(bool tensor_cores, index_t tokens, index_t p, index_t d) {
  const double t = double(tokens), narrow = double(std::max<index_t>(1, std::min(p, d)));
  const GramBound bound = gram_bound(tensor_cores, std::min(p, d), std::max(p, d));
  // |A|_F / |a|^2 for rows of n independent numbers; the blocks of the wide side have wide / blocks columns each.
  const double whole = std::sqrt(t + t * t / narrow),
               block = std::sqrt(t + t * t * bound.blocks / double(std::max<index_t>(1, std::max(p, d))));
  const double quadratic =
      bound.block * whole + bound.whole * block + bound.whole * bound.block * t + bound.sum * whole * block / t;
  return std::sqrt(1 + quadratic) - 1 + gamma_float(chain_roundings(tensor_cores, tokens) + 20) * std::sqrt(t);
}
}  // namespace dpmp::inline DPMP_ABI::kernels
