// SPDX-License-Identifier: Apache-2.0
// The ghost norm on a CUDA device: |G_i|^2 = sum_{t,s} (a_t . a_s)(b_t . b_s) without forming G_i and without storing a
// Gram. Both Gram tiles live in the registers of a block, their Hadamard product is summed there. A bias after the
// parameter has the sums of the same rows b_t for gradients, which come along.
//
// The bound of the result comes from what the kernel sees. With Grams A, B of the two sides, |dA_ts| <= gamma_w |a_t| |a_s|
// and |dB_ts| <= gamma_b |b_t| |b_s|, Cauchy-Schwarz over (t, s) gives
//   |computed - exact| <= gamma_b |A|_F sum_t |b_t|^2 + gamma_w |B|_F sum_t |a_t|^2 + gamma_w gamma_b S^2 + gamma |A|_F
//   |B|_F
// with the computed A, B on the right, where (sum_t |a_t| |b_t|)^2 = S^2 alone would be larger by up to the number of
// tokens. The wider side's Gram is cut into blocks of gram_block columns, B = sum_k B_k, whose products with A meet in
// double: gamma_b is that of a block, and |B|_F, in the terms where the blocks' absolute values are added up, becomes sum_k
// |B_k|_F <= sqrt(blocks sum_k |B_k|_F^2).
#pragma once
#include <span>

#include "dpmp/kernels/cuda/norms/sample_rows.cuh"
#include "dpmp/kernels/cuda/tiles/block_product.cuh"
#include "dpmp/kernels/cuda/tiles/partial_sums.cuh"
#include "dpmp/runtime/launch_blocks.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
/// What is known of the gradients of each parameter and sample, in arrays [outputs, samples]: who adds them up over the
/// samples reads neighbours.
struct GhostNormResults {
  double* squared;      // |G|^2 as computed: sums of a tile and block in FP32, all else in double
  double* quadratic;    // a bound of its error, but for underflow
  double* product_sum;  // upper bounds of sum_t |a_t| |b_t|,
  double* input_sum;    //                 sum_t |a_t|
  double* output_sum;   //             and sum_t |b_t|; Inf where a square overflows FP32

  static constexpr index_t arrays = 5;
  /// In memory [arrays, count], count = outputs * samples.
  static GhostNormResults in(double* memory, index_t count) {
    return {memory, memory + count, memory + 2 * count, memory + 3 * count, memory + 4 * count};
  }
};

/// A block's work: one tile of the upper triangle of the Grams of one sample, for all parameters. Chunks of `depth` columns
/// of a and then of each b_k flow through one ring of stages without a pause between the matrices; on the diagonal only one
/// of the two equal tiles is loaded. The first operand's Gram is whole, those of the others come in blocks of gram_block
/// columns. Roundings after one term of the sum over (t, s) in addition to those of the Grams: at most 16 + 2 + 5 in a tile
/// and block (gram_bound).
template <class T, int side>
struct GhostNormTiles {
  static constexpr bool by_mma = !std::is_same_v<T, float>;
  using Product = std::conditional_t<by_mma, MmaProduct<T, side>, FmaProduct>;
  // 128 x 128: two sets of 64 sums in each of 256 threads, more than half of the registers of a multiprocessor.
  static constexpr int threads = Product::threads, blocks_per_multiprocessor = side == 64 ? 3 : 1;
  static constexpr int depth = 128 / int(sizeof(T)), stages = by_mma ? 3 : 2, max_outputs = 4;
  using Tile = SharedTile<T, side, depth>;
  static constexpr int warp_count = threads / 32;
  struct Epilogue {
    double products[warp_count], input_squares[warp_count], output_squares[warp_count];  // of the elements of the Grams
    double output_rows[side];                                                            // |b_t|^2
    float input_rows[side], block_rows[side];                                            // |a_t|^2; |b_t|^2 of a block
  };
  static_assert(gram_block % depth == 0);
  static constexpr int shared_bytes = stages * 2 * Tile::bytes + int(sizeof(Epilogue));

  struct Operand {
    RowMajor<T> rows;                      // of sample 0: [tokens, width]
    double squares_factor, squares_floor;  // |x_t|^2 <= factor * computed + floor
    float* slice_sums;                     // [samples, tiles_per_side, width], or null: sums of the rows of a tile
  };
  Operand operands[1 + max_outputs];  // a, b_0 .. (or, where there is one b and a is wider: b, a)
  int outputs, tiles_per_side, tiles;
  index_t samples, tokens;
  double* partial;  // [outputs, samples, numbers()]: sums of tiles, then bounds of diagonal tiles

  static constexpr int per_tile = 3, per_slice = 5;
  static __host__ __device__ index_t numbers(index_t tiles, index_t per_side) {
    return per_tile * tiles + per_slice * per_side;
  }

  __device__ void operator()(char* shared) const {
    const index_t sample = index_t(blockIdx.x) / tiles;
    int row_tile = 0, column_tile = int(blockIdx.x) % tiles;  // counted from the diagonal
    while (column_tile >= tiles_per_side - row_tile) column_tile -= tiles_per_side - row_tile++;
    const bool diagonal = column_tile == 0;
    const int first_row = row_tile * side, first_column = first_row + column_tile * side;
    Epilogue& epilogue = *reinterpret_cast<Epilogue*>(shared + stages * 2 * Tile::bytes);

    int next = 0, next_column = 0;  // the chunk to load next: operand and column
    const auto load = [&](int stage) {
      while (next <= outputs && next_column >= operands[next].rows.columns) ++next, next_column = 0;
      if (next <= outputs) {
        RowMajor<T> x = operands[next].rows;
        x.data += sample * tokens * x.row_stride;
        char* const tile = shared + stage * 2 * Tile::bytes;
        Tile::template load<threads>(tile, x, first_row, next_column);
        if (!diagonal) Tile::template load<threads>(tile + Tile::bytes, x, first_column, next_column);
        next_column += depth;
      }
      copy_async_commit();
    };
#pragma unroll 1
    for (int stage = 0; stage < stages - 1; ++stage) load(stage);

    Product input, product;
    int stage = 0;
#pragma unroll 1
    for (int which = 0; which <= outputs; ++which) {
      product.clear();
      if (threadIdx.x % 32 == 0) epilogue.products[threadIdx.x / 32] = epilogue.output_squares[threadIdx.x / 32] = 0;
      if (int(threadIdx.x) < side) epilogue.output_rows[threadIdx.x] = 0;
#pragma unroll 1
      for (int column = 0; column < operands[which].rows.columns; column += depth) {
        copy_async_wait<stages - 2>();
        __syncthreads();
        load(stage == 0 ? stages - 1 : stage - 1);
        const char* const tile = shared + stage * 2 * Tile::bytes;
        product.template add_rows<depth>(tile, diagonal ? tile : tile + Tile::bytes);
        // Each tile of b is once on the diagonal.
        if (diagonal && operands[which].slice_sums != nullptr) {
          const int columns_left = operands[which].rows.columns - column;
          float* const sums =
              operands[which].slice_sums + (sample * tiles_per_side + row_tile) * operands[which].rows.columns + column;
          Product::template for_each_column_sum<side, depth>(tile, [&](int at, float sum) {
            if (at < columns_left) sums[at] = sum;
          });
        }
        stage = stage == stages - 1 ? 0 : stage + 1;
        const int past = column + depth;
        if (which == 0 || (past % int(gram_block) != 0 && past < operands[which].rows.columns)) continue;
        // The end of a block. Each warp has sums of its own.
        const double squares = warp_sum(squares_of(product));
        if (threadIdx.x % 32 == 0) epilogue.output_squares[threadIdx.x / 32] += squares;
        const float of_block = warp_sum(input.dot(product));
        if (threadIdx.x % 32 == 0) epilogue.products[threadIdx.x / 32] += double(of_block);
        if (diagonal) {
          product.store_diagonal(epilogue.block_rows);
          __syncthreads();
          if (int(threadIdx.x) < side) epilogue.output_rows[threadIdx.x] += double(epilogue.block_rows[threadIdx.x]);
        }
        product.clear();
      }
      if (which == 0) {
        input = product;
        const double squares = warp_sum(squares_of(input));
        if (threadIdx.x % 32 == 0) epilogue.input_squares[threadIdx.x / 32] = squares;
        if (diagonal) input.store_diagonal(epilogue.input_rows);
        continue;
      }
      __syncthreads();
      if (threadIdx.x < 32) finish(epilogue, which, sample, row_tile, column_tile);
      __syncthreads();  // epilogue may be written again
    }
  }

 private:
  /// One warp adds up the tile, twice where it stands for its mirror image, and bounds the row norms from the diagonal. Rows
  /// past the last token are zeros and add no more than their floor.
  __device__ __forceinline__ void finish(const Epilogue& epilogue, int which, index_t sample, int row_tile,
                                         int column_tile) const {
    double* const sums = partial + ((which - 1) * samples + sample) * numbers(tiles, tiles_per_side);
    if (threadIdx.x == 0) {
      double* const of_tile = sums + int(blockIdx.x) % tiles * per_tile;
      const double weight = column_tile == 0 ? 1 : 2;
      of_tile[0] = weight * sum_of_warps<warp_count>(epilogue.products);
      of_tile[1] = weight * sum_of_warps<warp_count>(epilogue.input_squares);
      of_tile[2] = weight * sum_of_warps<warp_count>(epilogue.output_squares);
    }
    if (column_tile != 0) return;
    const Operand &a = operands[0], &b = operands[which];
    double bounds[per_slice] = {};
#pragma unroll
    for (int row = int(threadIdx.x); row < side; row += 32) {
      const double x2 = double(epilogue.input_rows[row]) * a.squares_factor + a.squares_floor,
                   y2 = epilogue.output_rows[row] * b.squares_factor + b.squares_floor;
      const double x = ::sqrt(x2), y = ::sqrt(y2);
      bounds[0] += x * y, bounds[1] += x, bounds[2] += y, bounds[3] += x2, bounds[4] += y2;
    }
#pragma unroll
    for (int k = 0; k < per_slice; ++k) {
      bounds[k] = warp_sum(bounds[k]);
      if (threadIdx.x == 0) sums[per_tile * tiles + per_slice * row_tile + k] = bounds[k];
    }
  }
};

/// A warp adds up the tiles of one sample and parameter.
struct GhostNormSums {
  static constexpr int threads = 128, blocks_per_multiprocessor = 8;
  const double* partial;  // [count, numbers]
  GhostNormResults results;
  index_t count, samples, numbers;
  int tiles, tiles_per_side;
  GramBound bound[4];  // of each output

  __device__ void operator()(char*) const {
    const index_t k = index_t(blockIdx.x) * (threads / 32) + threadIdx.x / 32;
    if (k >= count) return;
    constexpr int per_tile = GhostNormTiles<float, 64>::per_tile, per_slice = GhostNormTiles<float, 64>::per_slice;
    const double* const sums = partial + k * numbers;
    const double* const bounds = sums + per_tile * tiles;
    constexpr double up = 1 + 0x1p-30;  // more than all roundings of the sums in double
    const double squared = warp_sum_of(sums, tiles, per_tile), input_gram = warp_sum_of(sums + 1, tiles, per_tile),
                 output_gram = warp_sum_of(sums + 2, tiles, per_tile);
    double slices[per_slice];
#pragma unroll
    for (int j = 0; j < per_slice; ++j) slices[j] = up * warp_sum_of(bounds + j, tiles_per_side, per_slice);
    if (threadIdx.x % 32 != 0) return;
    const GramBound& g = bound[k / samples];
    const double a = ::sqrt(input_gram), b = ::sqrt(output_gram * g.blocks);  // sum_k |B_k|_F <= b
    // The factor is more than the roundings of the squares of Grams in FP32.
    results.quadratic[k] = (1 + 0x1p-16) * (g.block * a * slices[4] + g.whole * b * slices[3] +
                                            g.whole * g.block * slices[0] * slices[0] + GramBound::sum * a * b);
    results.squared[k] = squared, results.product_sum[k] = slices[0];
    results.input_sum[k] = slices[1], results.output_sum[k] = slices[2];
  }
};

namespace detail {
inline index_t triangle(index_t n) { return n * (n + 1) / 2; }
/// Side of the Gram tiles, from public extents alone. A 64 x 64 tile is a quarter of the work of a 128 x 128 one, taken to
/// run at three quarters of its speed (more traffic from shared memory per product), but less of its area is outside of
/// the Gram.
template <class T>
int ghost_norm_side(index_t tokens) {
  return std::is_same_v<T, float> || triangle(tiles_of(tokens, 64)) <= 3 * triangle(tiles_of(tokens, 128)) ? 64 : 128;
}
template <class T, int side>
void launch_ghost_norm(cudaStream_t stream, index_t samples, index_t tokens, const SampleRows<T>& input,
                       std::span<const SampleRows<T>> outputs, double* scratch, const GhostNormResults& results,
                       std::span<float* const> slice_sums) {
  using Kernel = GhostNormTiles<T, side>;
  Kernel kernel{};
  const auto operand = [&](const SampleRows<T>& x, float* sums, index_t chain) -> typename Kernel::Operand {
    // The diagonal sums nonnegative products; each product and each addition may lose 2^-126 to underflow.
    return {row_major(x.data, tokens, x.width, x.row_stride), 1 + gamma_float(2 * chain_roundings<T>(chain) + 1),
            2 * double(x.width) * 0x1p-126, sums};
  };
  const index_t per_side = tiles_of(tokens, side), tiles = triangle(per_side);
  DPMP_CHECK(samples * tiles < index_t(1) << 31, "expected fewer than 2^31 tiles of Gram matrices, got ", samples,
             " samples of ", tokens, " tokens");
  // One output: the narrower side is the one whose Gram is whole.
  const bool swapped = outputs.size() == 1 && outputs[0].width < input.width;
  const SampleRows<T>& whole = swapped ? outputs[0] : input;
  const auto sums_of = [&](std::size_t k) { return slice_sums.empty() ? nullptr : slice_sums[k]; };
  GhostNormSums sums{
      scratch,       results, index_t(outputs.size()) * samples, samples, Kernel::numbers(tiles, per_side), int(tiles),
      int(per_side), {}};
  if (swapped) std::swap(sums.results.input_sum, sums.results.output_sum);
  kernel.operands[0] = operand(whole, swapped ? sums_of(0) : nullptr, whole.width);
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    const SampleRows<T>& blocked = swapped ? input : outputs[k];
    kernel.operands[1 + k] = operand(blocked, swapped ? nullptr : sums_of(k), std::min(blocked.width, gram_block));
    sums.bound[k] = gram_bound(!std::is_same_v<T, float>, whole.width, blocked.width);
  }
  kernel.outputs = int(outputs.size()), kernel.tiles_per_side = int(per_side), kernel.tiles = int(tiles);
  kernel.samples = samples, kernel.tokens = tokens, kernel.partial = scratch;
  launch_blocks(stream, dim3(unsigned(samples * tiles)), Kernel::shared_bytes, kernel);
  launch_blocks(stream, dim3(unsigned(tiles_of(sums.count, GhostNormSums::threads / 32))), 0, sums);
}
}  // namespace detail

/// Slices that ghost_norm cuts a sample's tokens into: tiles on a side of a Gram.
template <class T>
index_t ghost_norm_slices(index_t tokens) {
  return detail::tiles_of(tokens, detail::ghost_norm_side<T>(tokens));
}
/// Doubles of scratch that ghost_norm needs.
template <class T>
index_t ghost_norm_scratch(index_t samples, index_t tokens, index_t outputs) {
  const index_t per_side = ghost_norm_slices<T>(tokens);
  return outputs * samples * GhostNormTiles<T, 64>::numbers(detail::triangle(per_side), per_side);
}

/// Element [k, sample] of the results for parameters k with the same inputs a [samples, tokens, d] and output gradients b_k
/// [samples, tokens, p_k] (queries, keys and values; at most 4): the Gram of a is formed once. T: bf16, f16 or float.
/// scratch: ghost_norm_scratch doubles. slice_sums: empty, or for each parameter null or [samples, ghost_norm_slices, p_k]
/// that receives the sums of b_k over the tokens of each slice, from the same tiles (|error| <=
/// chain_roundings(128) 2^-24 sum_t |b_k| of the slice). All pointers to device memory; runs on the stream, allocates
/// nothing.
template <class T>
void ghost_norm(cudaStream_t stream, index_t samples, index_t tokens, const SampleRows<T>& input,
                std::span<const SampleRows<T>> outputs, double* scratch, const GhostNormResults& results,
                std::span<float* const> slice_sums = {}) {
  constexpr std::size_t most = GhostNormTiles<T, 64>::max_outputs;
  DPMP_CHECK(slice_sums.empty() || slice_sums.size() == outputs.size(), "expected sums of slices for none or each of ",
             outputs.size(), " output gradients, got ", slice_sums.size());
  DPMP_CHECK(outputs.size() >= 1 && outputs.size() <= most, "expected 1 to ", most, " output gradients, got ",
             outputs.size());
  for (std::size_t k = 0; k <= outputs.size(); ++k) {
    const SampleRows<T>& x = k == 0 ? input : outputs[k - 1];
    detail::check_sample_rows(samples, tokens, x);
    DPMP_CHECK(chain_roundings<T>(x.width) < 0x1p22, "expected rows of fewer than 2^21 elements, got ", x.width);
  }
  if constexpr (!std::is_same_v<T, float>) {
    if (detail::ghost_norm_side<T>(tokens) == 128)
      return detail::launch_ghost_norm<T, 128>(stream, samples, tokens, input, outputs, scratch, results, slice_sums);
  }
  detail::launch_ghost_norm<T, 64>(stream, samples, tokens, input, outputs, scratch, results, slice_sums);
}
}  // namespace dpmp::inline DPMP_ABI::kernels
