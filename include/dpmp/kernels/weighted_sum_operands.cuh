// SPDX-License-Identifier: Apache-2.0
// What the kernels of the clipped weighted sum have in common: their operands, which tile a thread block owns, the pipeline
// that brings the tile's operands, and how the sum over samples grows in double and gets to memory.
#pragma once
#include "dpmp/kernels/sample_splits.cuh"
#include "dpmp/kernels/tensor_core.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
/// sum += sum_i c_i G_i with G_i = sum_t b_{i,t} a_{i,t}^T.
template <class T>
struct WeightedSumOperands {
  const T* a;            // [samples, tokens, columns]
  const T* b;            // [samples, tokens, rows]
  const float* factors;  // [samples], c_i; a sample counts where c_i > 0
  double* sum;           // [rows, columns]
  index_t samples, tokens, rows, columns;
};

/// What one launch works on: the operands, and where its thread blocks put their sums.
template <class T>
struct WeightedSumTask {
  WeightedSumOperands<T> in;
  SampleSplits split;
  double* output;             // in.sum, or a slab [rows, columns] for each split
  bool a_vectors, b_vectors;  // rows are 16-byte aligned
  bool pairs;                 // two neighbouring outputs of even column are 16-byte aligned
};

/// The tile and the samples of a thread block. Tiles are numbered in bands of 8 tile rows, column by column, so that the
/// blocks that run together form a patch and share their operands in the L2 cache.
struct OwnedTile {
  index_t first_row, first_column, first_sample, samples;

  template <class T>
  __device__ OwnedTile(const WeightedSumTask<T>& task, int tile_rows, int tile_columns) {
    constexpr index_t band = 8;
    const index_t across = ceil_div(task.in.columns, tile_columns), down = ceil_div(task.in.rows, tile_rows);
    const index_t top = blockIdx.x / (band * across) * band, place = blockIdx.x % (band * across);
    const index_t height = down - top < band ? down - top : band;
    first_row = (top + place % height) * tile_rows;
    first_column = place / height * tile_columns;
    first_sample = index_t(blockIdx.y) * task.split.samples_each;
    const index_t left = task.in.samples - first_sample;
    samples = left < task.split.samples_each ? left : task.split.samples_each;
  }
};

/// This thread's share of the copies of one operand's rows into the stages of kernel K, Width elements of each row from
/// first_column on; zeros after the last column. All but the row is worked out once.
template <class K, class T, int Width>
class StreamedRows {
 public:
  __device__ StreamedRows(const T* x, index_t width, bool vectors, index_t first_row, index_t first_column)
      : from_(x + (first_row + row()) * width + first_column + vector() * elements),
        width_(width),
        to_(K::place(Width, row(), vector())),
        vectors_(vectors) {
    const index_t left = width - first_column - vector() * elements;
    columns_left_ = left < 0 ? 0 : int(left < elements ? left : elements);
  }
  /// Starts the copies of K::chunk rows, `left` of which exist, the others are zeros; `valid` is any address of the operand.
  /// Rows that are not 16-byte aligned are copied element by element, without running ahead: pad such extents where speed
  /// matters.
  __device__ void copy(char* stage, int left, const T* valid) const {
#pragma unroll
    for (int r = 0; r < K::chunk; r += down) {
      if (K::chunk % down != 0 && row() + r >= K::chunk) break;
      const T* const from = from_ + r * width_;
      char* const at = stage + to_ + r * Width * int(sizeof(T));
      const bool inside = row() + r < left;
      if (vectors_) {
        copy_async_16(at, inside && columns_left_ > 0 ? from : valid, inside && columns_left_ > 0);
      } else {
        __align__(16) T values[elements];
#pragma unroll
        for (int k = 0; k < elements; ++k) values[k] = inside && k < columns_left_ ? from[k] : T{};
        *reinterpret_cast<uint4*>(at) = *reinterpret_cast<const uint4*>(values);
      }
    }
  }
  __device__ void advance(int rows) { from_ += rows * width_; }

 private:
  static constexpr int elements = 16 / int(sizeof(T)), across = Width / elements, down = K::threads / across;
  static_assert(down % 8 == 0, "place() differs between rows of different row % 8");
  __device__ static int vector() { return int(threadIdx.x) % across; }
  __device__ static int row() { return int(threadIdx.x) / across; }

  const T* from_;
  index_t width_;
  int to_, columns_left_;
  bool vectors_;
};

/// The pipeline's source: brings the rows of one sample after another, K::chunk tokens a stage, without a pause between
/// samples. K says how: threads, tile_rows, tile_columns, chunk, stages, b_bytes (a stage: rows of b, then rows of a),
/// stage_bytes, and place(width, row, vector), where 16 bytes of a stage's row are.
template <class K, class T>
class TokenStream {
 public:
  /// `samples` samples of `tokens` rows each, from row `first_row` of a and b on.
  __device__ TokenStream(const WeightedSumTask<T>& task, const OwnedTile& tile, char* shared, index_t first_row,
                         index_t samples, index_t tokens)
      : in_(task.in),
        a_(task.in.a, task.in.columns, task.a_vectors, first_row, tile.first_column),
        b_(task.in.b, task.in.rows, task.b_vectors, first_row, tile.first_row),
        shared_(shared),
        samples_left_(int(samples)),
        tokens_(int(tokens)),
        tokens_left_(int(tokens)) {}

  /// Starts the copies of the next stage: one group of copies, empty after the last one, so that waits can count groups.
  __device__ void next() {
    if (samples_left_ > 0) {
      char* const to = shared_ + stage_ * K::stage_bytes;
      b_.copy(to, tokens_left_, in_.b);
      a_.copy(to + K::b_bytes, tokens_left_, in_.a);
      const int rows = tokens_left_ < K::chunk ? tokens_left_ : K::chunk;
      b_.advance(rows);
      a_.advance(rows);
      tokens_left_ -= rows;
      if (tokens_left_ == 0) {
        tokens_left_ = tokens_;
        --samples_left_;
      }
      stage_ = stage_ + 1 == K::stages ? 0 : stage_ + 1;
    }
    copy_async_commit();
  }

 private:
  const WeightedSumOperands<T>& in_;
  StreamedRows<K, T, K::tile_columns> a_;
  StreamedRows<K, T, K::tile_rows> b_;
  char* shared_;
  int samples_left_, tokens_, tokens_left_, stage_ = 0;
};

/// sum += factor x, where factor is an FP32 number: the product is exact, one rounding in all. Kept in program order: the
/// conversions of a whole tile, made ahead of their use, would not fit into the registers.
__device__ __forceinline__ void add_scaled(double& sum, double factor, float x) {
  double wide;
  asm volatile("cvt.f64.f32 %0, %1;" : "=d"(wide) : "f"(x));
  asm volatile("fma.rn.f64 %0, %1, %2, %0;" : "+d"(sum) : "d"(factor), "d"(wide));
}

/// Two neighbouring outputs of a row.
struct OutputPair {
  double* at;
  bool first, second, vector;

  template <class T>
  __device__ OutputPair(const WeightedSumTask<T>& task, double* output, index_t row, index_t column)
      : at(output + row * task.in.columns + column),
        first(row < task.in.rows && column < task.in.columns),
        second(row < task.in.rows && column + 1 < task.in.columns),
        vector(task.pairs) {}
  __device__ double2 load() const {
    if (vector) return first ? *reinterpret_cast<const double2*>(at) : double2{0, 0};
    return {first ? at[0] : 0.0, second ? at[1] : 0.0};
  }
  __device__ void store(double2 x) const {
    if (vector) {
      if (first) *reinterpret_cast<double2*>(at) = x;
    } else {
      if (first) at[0] = x.x;
      if (second) at[1] = x.y;
    }
  }
};

namespace detail {
inline bool is_aligned(const void* p, index_t row_bytes) {
  return reinterpret_cast<std::uintptr_t>(p) % 16 == 0 && row_bytes % 16 == 0;
}

/// Launches a kernel K{WeightedSumTask} over tiles and splits, then adds the slabs.
template <class K, class T>
void launch_weighted_sum(cudaStream_t stream, const WeightedSumOperands<T>& in, const SampleSplits& split, double* scratch,
                         index_t scratch_doubles) {
  const index_t elements = in.rows * in.columns;
  DPMP_CHECK(in.samples < (index_t(1) << 30) && in.tokens < (index_t(1) << 30),
             "expected fewer than 2^30 samples and tokens, got ", in.samples, " samples of ", in.tokens, " tokens");
  DPMP_CHECK(split.splits >= 1 && split.splits <= 65535 && split.splits * split.samples_each >= in.samples &&
                 (split.splits - 1) * split.samples_each < in.samples,
             "expected splits that cover ", in.samples, " samples, got ", split.splits, " splits of ", split.samples_each,
             " samples");
  DPMP_CHECK(in.samples <= samples_per_chain, "expected a sum over at most ", samples_per_chain,
             " samples, the longest chain of additions in double, got ", in.samples, ": cut the batch");
  DPMP_CHECK(scratch_doubles >= split.scratch(elements), "expected scratch of ", split.scratch(elements), " doubles for ",
             split.splits, " splits of ", in.rows, " x ", in.columns, ", got ", scratch_doubles);
  const index_t tiles = ceil_div(in.rows, K::tile_rows) * ceil_div(in.columns, K::tile_columns);
  DPMP_CHECK(tiles < (index_t(1) << 31), "expected fewer than 2^31 output tiles, got ", tiles);
  double* const output = split.splits > 1 ? scratch : in.sum;
  launch_blocks(stream, dim3(unsigned(tiles), unsigned(split.splits)), K::shared_bytes,
                K{{in, split, output, is_aligned(in.a, in.columns * index_t(sizeof(T))),
                   is_aligned(in.b, in.rows * index_t(sizeof(T))), is_aligned(output, in.columns * 8)}});
  if (split.splits > 1) add_slabs(stream, scratch, in.sum, split.splits, elements);
}
}  // namespace detail
}  // namespace dpmp::inline DPMP_ABI::kernels
