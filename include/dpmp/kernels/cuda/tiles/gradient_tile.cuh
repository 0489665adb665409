// SPDX-License-Identifier: Apache-2.0
// A tile of G_i = sum_t b_{i,t} a_{i,t}^T in the registers of a thread block, for one sample after another. What becomes of
// a finished tile is its ending: the norm squares it (instantiate_norm.cuh), the clipped sum takes c_i of it
// (weighted_sum_tiles.cuh). They have the same bits, because the same instructions form them.
#pragma once
#include "dpmp/kernels/cuda/tiles/block_product.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
/// The rows of a and b of one sample after another on their way through a ring of stages in shared memory, without a pause
/// between samples. A stage has `depth` tokens: b_columns columns of b, then a_columns columns of a.
template <class T, int depth, int b_columns, int a_columns, int stages, int threads>
class TokenStream {
 public:
  using B = SharedTile<T, depth, b_columns>;
  using A = SharedTile<T, depth, a_columns>;
  static constexpr int stage_bytes = B::bytes + A::bytes, bytes = stages * stage_bytes;

  /// a, b: of the first sample, which has b.rows tokens as each has; those of the next one follow. Starts the first copies.
  __device__ __forceinline__ TokenStream(char* shared, const RowMajor<T>& b, const RowMajor<T>& a, int first_b, int first_a,
                                         int samples)
      : shared_(shared), b_(b), a_(a), first_b_(first_b), first_a_(first_a), samples_left_(samples) {
#pragma unroll 1
    for (int stage = 0; stage < stages - 1; ++stage) load(stage);
  }
  /// The next stage, which arrived. To be called by all threads, once for each chunk of tokens.
  __device__ __forceinline__ const char* next() {
    copy_async_wait<stages - 2>();
    // After this barrier the copies of all threads are there, and all threads have left the stage that is filled next.
    __syncthreads();
    load(stage_ == 0 ? stages - 1 : stage_ - 1);
    const char* const at = shared_ + stage_ * stage_bytes;
    stage_ = stage_ == stages - 1 ? 0 : stage_ + 1;
    return at;
  }

 private:
  /// One group of copies, empty after the last token, so that waits can count groups.
  __device__ __forceinline__ void load(int stage) {
    if (token_ < b_.rows) {
      char* const to = shared_ + stage * stage_bytes;
      B::template load<threads>(to, b_, token_, first_b_);
      A::template load<threads>(to + B::bytes, a_, token_, first_a_);
      token_ += depth;
      if (token_ >= b_.rows && --samples_left_ > 0) {
        token_ = 0;
        b_.data += b_.rows * b_.row_stride;
        a_.data += b_.rows * a_.row_stride;
      }
    }
    copy_async_commit();
  }

  char* shared_;
  RowMajor<T> b_, a_;
  int first_b_, first_a_, samples_left_;
  int token_ = 0, stage_ = 0;  // to be loaded next; to be read next
};

/// side x side FP32 sums. Roundings of one: chain_roundings(tokens).
template <class T, int side_, int stages>
struct GradientTile {
  static constexpr bool by_mma = !std::is_same_v<T, float>;
  static constexpr int side = side_, depth = 32;  // tokens of a stage
  using Product = std::conditional_t<by_mma, MmaProduct<T, side>, FmaProduct>;
  static constexpr int threads = Product::threads;
  using Stream = TokenStream<T, depth, side, side, stages, threads>;

  /// Forms the tiles of `samples` samples. ending.begin(i), before the tokens of sample i; ending.chunk(b), a
  /// SharedTile<T, depth, side> of b's rows for each chunk of them; ending.end(product), with the finished tile.
  template <class Ending>
  static __device__ __forceinline__ void for_each_sample(Stream& stream, int samples, int tokens, Ending& ending) {
    Product product;
#pragma unroll 1
    for (int i = 0; i < samples; ++i) {
      ending.begin(i);
      product.clear();
#pragma unroll 1
      for (int token = 0; token < tokens; token += depth) {
        const char* const at = stream.next();
        product.template add_columns<depth>(at, at + Stream::B::bytes, tokens - token);
        ending.chunk(at);
      }
      ending.end(product);
    }
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
