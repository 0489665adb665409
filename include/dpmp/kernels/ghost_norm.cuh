// SPDX-License-Identifier: Apache-2.0
// The ghost norm on a CUDA device: |G_i|^2 = sum_{t,s} (a_t . a_s)(b_t . b_s) without forming G_i and without storing a
// Gram. Both Gram tiles live in the registers of a block, their Hadamard product is summed there. A bias behind the
// parameter has the sums of the same rows b_t for gradients, which come along.
#pragma once
#include <span>

#include "dpmp/kernels/block_product.cuh"
#include "dpmp/kernels/partial_sums.cuh"
#include "dpmp/kernels/sample_rows.cuh"
#include "dpmp/runtime/launch_blocks.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
/// What is known of the gradients of each parameter and sample, in arrays [outputs, samples]: who adds them up over the
/// samples reads neighbours.
struct GhostNormResults {
  double* squared;      // |G|^2 as computed: sums of a tile in FP32, across tiles in double
  double* product_sum;  // upper bounds of sum_t |a_t| |b_t|,
  double* input_sum;    //                 sum_t |a_t|
  double* output_sum;   //             and sum_t |b_t|; Inf where a square overflows FP32

  static constexpr index_t arrays = 4;
  /// In memory [arrays, count], count = outputs * samples.
  static GhostNormResults in(double* memory, index_t count) {
    return {memory, memory + count, memory + 2 * count, memory + 3 * count};
  }
};

/// A block's work: one tile of the upper triangle of the Grams of one sample, for all parameters. Chunks of `depth` columns
/// of a and then of each b_k flow through one ring of stages without a pause between the matrices; on the diagonal only one
/// of the two equal tiles is loaded.
/// Roundings behind one term of the sum over (t, s): chain_roundings(d) in one Gram, chain_roundings(p) in the other, and at
/// most 16 + 2 + 5 additions in the tile, whatever T is: ghost_norm_roundings.
template <class T, int side>
struct GhostNormTiles {
  static constexpr bool by_mma = !std::is_same_v<T, float>;
  using Product = std::conditional_t<by_mma, MmaProduct<T, side>, FmaProduct>;
  // 128 x 128: two sets of 64 sums in each of 256 threads, more than half of the registers of a multiprocessor.
  static constexpr int threads = Product::threads, blocks_per_multiprocessor = side == 64 ? 3 : 1;
  static constexpr int depth = 128 / int(sizeof(T)), stages = by_mma ? 3 : 2, max_outputs = 4;
  using Tile = SharedTile<T, side, depth>;
  struct Epilogue {
    double warps[threads / 32];
    float input_squares[side], output_squares[side];
  };
  static constexpr int shared_bytes = stages * 2 * Tile::bytes + int(sizeof(Epilogue));

  struct Operand {
    RowMajor<T> rows;                      // of sample 0: [tokens, width]
    double squares_factor, squares_floor;  // |x_t|^2 <= factor * computed + floor
    float* slice_sums;                     // [samples, tiles_per_side, width], or null: sums of the rows of a tile
  };
  Operand operands[1 + max_outputs];  // a, b_0 ..
  int outputs, tiles_per_side, tiles;
  index_t samples, tokens;
  double* partial;  // [outputs, samples, tiles + 3 tiles_per_side]: sums of tiles, then bounds of diagonal tiles

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
      }
      if (diagonal)
        product.for_each([&](int row, int column, float sum) {
          if (row == column) (which == 0 ? epilogue.input_squares : epilogue.output_squares)[row] = sum;
        });
      if (which == 0) {
        input = product;
        continue;
      }
      store_warp_sums(input.dot(product), epilogue.warps);
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
    double* const sums = partial + ((which - 1) * samples + sample) * (tiles + 3 * tiles_per_side);
    const double total = sum_of_warps<threads / 32>(epilogue.warps);
    if (threadIdx.x == 0) sums[int(blockIdx.x) % tiles] = column_tile == 0 ? total : 2 * total;
    if (column_tile != 0) return;
    const Operand &a = operands[0], &b = operands[which];
    double product_sum = 0, input_sum = 0, output_sum = 0;
#pragma unroll
    for (int row = int(threadIdx.x); row < side; row += 32) {
      const double x = ::sqrt(double(epilogue.input_squares[row]) * a.squares_factor + a.squares_floor);
      const double y = ::sqrt(double(epilogue.output_squares[row]) * b.squares_factor + b.squares_floor);
      product_sum += x * y, input_sum += x, output_sum += y;
    }
    product_sum = warp_sum(product_sum), input_sum = warp_sum(input_sum), output_sum = warp_sum(output_sum);
    if (threadIdx.x == 0) {
      double* const bounds = sums + tiles + 3 * row_tile;
      bounds[0] = product_sum, bounds[1] = input_sum, bounds[2] = output_sum;
    }
  }
};

/// A warp adds up the tiles of one sample and parameter.
struct GhostNormSums {
  static constexpr int threads = 128, blocks_per_multiprocessor = 8;
  const double* partial;  // [count, tiles + 3 tiles_per_side]
  GhostNormResults results;
  index_t count;
  int tiles, tiles_per_side;

  __device__ void operator()(char*) const {
    const index_t k = index_t(blockIdx.x) * (threads / 32) + threadIdx.x / 32;
    if (k >= count) return;
    const double* const sums = partial + k * (tiles + 3 * tiles_per_side);
    const double* const bounds = sums + tiles;
    constexpr double up = 1 + 0x1p-30;  // more than all roundings of the sums in double
    const double squared = warp_sum_of(sums, tiles), product_sum = up * warp_sum_of(bounds, tiles_per_side, 3),
                 input_sum = up * warp_sum_of(bounds + 1, tiles_per_side, 3),
                 output_sum = up * warp_sum_of(bounds + 2, tiles_per_side, 3);
    if (threadIdx.x % 32 != 0) return;
    results.squared[k] = squared, results.product_sum[k] = product_sum;
    results.input_sum[k] = input_sum, results.output_sum[k] = output_sum;
  }
};

/// The n of gamma_n = n u / (1 - n u), u = 2^-24: |squared - exact| <= gamma_n S^2 + eta, S and eta as in docs/numerics.md.
template <class T>
double ghost_norm_roundings(index_t input_width, index_t output_width) {
  return chain_roundings<T>(input_width) + chain_roundings<T>(output_width) + 32;
}

namespace detail {
inline index_t triangle(index_t n) { return n * (n + 1) / 2; }
/// Side of the Gram tiles, from public extents alone. A 64 x 64 tile is a quarter of the work of a 128 x 128 one, taken to
/// run at three quarters of its speed (more traffic from shared memory per product), but less of its area lies outside of
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
  const auto operand = [&](const SampleRows<T>& x, float* sums) -> typename Kernel::Operand {
    // The diagonal sums nonnegative products; each product and each addition may lose 2^-126 to underflow.
    const double n = chain_roundings<T>(x.width) * 0x1p-24;
    return {row_major(x.data, tokens, x.width, x.row_stride), 1 / (1 - n) + 0x1p-40, 2 * double(x.width) * 0x1p-126, sums};
  };
  const index_t per_side = tiles_of(tokens, side), tiles = triangle(per_side);
  DPMP_CHECK(samples * tiles < index_t(1) << 31, "expected fewer than 2^31 tiles of Gram matrices, got ", samples,
             " samples of ", tokens, " tokens");
  kernel.operands[0] = operand(input, nullptr);
  for (std::size_t k = 0; k < outputs.size(); ++k)
    kernel.operands[1 + k] = operand(outputs[k], slice_sums.empty() ? nullptr : slice_sums[k]);
  kernel.outputs = int(outputs.size()), kernel.tiles_per_side = int(per_side), kernel.tiles = int(tiles);
  kernel.samples = samples, kernel.tokens = tokens, kernel.partial = scratch;
  launch_blocks(stream, dim3(unsigned(samples * tiles)), Kernel::shared_bytes, kernel);
  const index_t count = index_t(outputs.size()) * samples;
  launch_blocks(stream, dim3(unsigned(tiles_of(count, GhostNormSums::threads / 32))), 0,
                GhostNormSums{scratch, results, count, int(tiles), int(per_side)});
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
  return outputs * samples * (detail::triangle(per_side) + 3 * per_side);
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
