// SPDX-License-Identifier: Apache-2.0
// |G_i|^2 of a CUDA device by forming G_i = sum_t b_t a_t^T tile by tile in registers: each tile is squared, summed and
// forgotten. The cheaper way where T is long against the widths. A bias after the parameter has the sums of the same rows
// b_t for gradients, which come along.
#pragma once
#include <algorithm>

#include "dpmp/kernels/cuda/norms/sample_rows.cuh"
#include "dpmp/kernels/cuda/tiles/gradient_tile.cuh"
#include "dpmp/kernels/cuda/tiles/partial_sums.cuh"
#include "dpmp/runtime/launch_blocks.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
/// A block's work: one tile of one sample's gradient, over all tokens.
/// Roundings: chain_roundings(T) in an element of the tile; its square meets at most 16 + 2 + 5 additions in FP32, then
/// warps and tiles are added in double.
template <class T, int side>
struct InstantiateNormTiles {
  using Tile = GradientTile<T, side, std::is_same_v<T, float> ? 2 : 3>;
  using Product = typename Tile::Product;
  static constexpr int threads = Tile::threads, blocks_per_multiprocessor = side == 128 ? 2 : 4;
  /// Ending of the gradient tile, in shared memory: its squares by warps, and the sums of the tokens of b.
  struct Squares {
    double warps[threads / 32];
    float token_sums[side];
  };
  struct SquareTile {
    Squares& squares;
    bool sums_tokens;
    __device__ __forceinline__ void begin(int) {
      if (int(threadIdx.x) < side) squares.token_sums[threadIdx.x] = 0;
    }
    __device__ __forceinline__ void chunk(const char* b) {
      if (sums_tokens)
        Product::template for_each_column_sum<Tile::depth, side>(
            b, [&](int column, float sum) { squares.token_sums[column] += sum; });
    }
    __device__ __forceinline__ void end(Product& product) { store_warp_sums(product.dot(product), squares.warps); }
  };
  static constexpr int shared_bytes = Tile::Stream::bytes + int(sizeof(Squares));

  RowMajor<T> input, output;  // of sample 0: [tokens, d], [tokens, p]
  int input_tiles, tiles;     // of a row of the gradient, of the whole gradient
  double* partial;            // [samples, tiles]
  float* token_sums;          // [samples, p], or null

  __device__ void operator()(char* shared) const {
    const index_t sample = index_t(blockIdx.x) / tiles;
    const int tile = int(blockIdx.x) % tiles;
    const int first_output = tile / input_tiles * side, first_input = tile % input_tiles * side;
    RowMajor<T> a = input, b = output;
    a.data += sample * a.rows * a.row_stride;
    b.data += sample * b.rows * b.row_stride;
    Squares& squares = *reinterpret_cast<Squares*>(shared + Tile::Stream::bytes);
    SquareTile ending{squares, token_sums != nullptr && first_input == 0};  // each tile of b once
    typename Tile::Stream stream(shared, b, a, first_output, first_input, 1);
    Tile::for_each_sample(stream, 1, b.rows, ending);
    __syncthreads();
    if (threadIdx.x == 0) partial[blockIdx.x] = sum_of_warps<threads / 32>(squares.warps);
    const int column = first_output + int(threadIdx.x);
    if (ending.sums_tokens && int(threadIdx.x) < side && column < b.columns)
      token_sums[sample * b.columns + column] = squares.token_sums[threadIdx.x];
  }
};

/// A warp adds up the tiles of one sample.
struct InstantiateNormSums {
  static constexpr int threads = 128, blocks_per_multiprocessor = 8;
  const double* partial;  // [samples, tiles]
  double* squared;        // [samples]
  index_t samples, tiles;

  __device__ void operator()(char*) const {
    const index_t sample = index_t(blockIdx.x) * (threads / 32) + threadIdx.x / 32;
    if (sample >= samples) return;
    const double sum = warp_sum_of(partial + sample * tiles, tiles);
    if (threadIdx.x % 32 == 0) squared[sample] = sum;
  }
};

namespace detail {
/// Tiles of a gradient; some even if there are no inputs, so that each tile of b has a block.
inline index_t gradient_tiles(index_t input_width, index_t output_width, index_t side) {
  return std::max<index_t>(1, tiles_of(input_width, side)) * tiles_of(output_width, side);
}
/// Side of the gradient's tiles, from public extents alone; a 64 x 64 tile is taken to run at three quarters of the speed.
template <class T>
int instantiate_norm_side(index_t input_width, index_t output_width) {
  const auto tiles = [&](index_t side) { return gradient_tiles(input_width, output_width, side); };
  return std::is_same_v<T, float> || tiles(64) <= 3 * tiles(128) ? 64 : 128;
}
template <class T, int side>
void launch_instantiate_norm(cudaStream_t stream, index_t samples, index_t tokens, const SampleRows<T>& input,
                             const SampleRows<T>& output, double* scratch, double* squared, float* token_sums) {
  using Kernel = InstantiateNormTiles<T, side>;
  const index_t input_tiles = std::max<index_t>(1, tiles_of(input.width, side)),
                tiles = gradient_tiles(input.width, output.width, side);
  DPMP_CHECK(samples * tiles < index_t(1) << 31, "expected fewer than 2^31 tiles of gradients, got ", samples,
             " samples of ", output.width, " x ", input.width);
  launch_blocks(stream, dim3(unsigned(samples * tiles)), Kernel::shared_bytes,
                Kernel{row_major(input.data, tokens, input.width, input.row_stride),
                       row_major(output.data, tokens, output.width, output.row_stride), int(input_tiles), int(tiles),
                       scratch, token_sums});
  launch_blocks(stream, dim3(unsigned(tiles_of(samples, InstantiateNormSums::threads / 32))), 0,
                InstantiateNormSums{scratch, squared, samples, tiles});
}
}  // namespace detail

/// Doubles of scratch that instantiate_norm needs.
template <class T>
index_t instantiate_norm_scratch(index_t samples, index_t input_width, index_t output_width) {
  return samples *
         detail::gradient_tiles(input_width, output_width, detail::instantiate_norm_side<T>(input_width, output_width));
}

/// The n with |tile element - exact| <= gamma_n sum_t |b_tj| |a_tk|, gamma_n = n u / (1 - n u), u = 2^-24 (plus 2 T 2^-126
/// by underflow): the "linear" part of the certificate, once for this tile.
template <class T>
double instantiate_norm_roundings(index_t tokens) {
  return chain_roundings<T>(tokens);
}

/// squared[sample] = |sum_t b_t a_t^T|^2 of the FP32 gradient, inputs a [samples, tokens, d], output gradients b
/// [samples, tokens, p]; relative error of the sum of squares at most gamma_24. NaN and Inf propagate. T: bf16, f16 or
/// float. scratch: instantiate_norm_scratch doubles. token_sums [samples, p], or null, receives sum_t b_t (|error| <=
/// (chain_roundings(32) + T / 32 + 1) 2^-24 sum_t |b_t|). All pointers to device memory; runs on the stream, allocates
/// nothing.
template <class T>
void instantiate_norm(cudaStream_t stream, index_t samples, index_t tokens, const SampleRows<T>& input,
                      const SampleRows<T>& output, double* scratch, double* squared, float* token_sums = nullptr) {
  detail::check_sample_rows(samples, tokens, input);
  detail::check_sample_rows(samples, tokens, output);
  if constexpr (!std::is_same_v<T, float>) {
    if (detail::instantiate_norm_side<T>(input.width, output.width) == 128)
      return detail::launch_instantiate_norm<T, 128>(stream, samples, tokens, input, output, scratch, squared, token_sums);
  }
  detail::launch_instantiate_norm<T, 64>(stream, samples, tokens, input, output, scratch, squared, token_sums);
}
}  // namespace dpmp::inline DPMP_ABI::kernels
