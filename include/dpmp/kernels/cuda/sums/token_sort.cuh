// SPDX-License-Identifier: Apache-2.0
// Tokens of a batch in the order of their ids: first within each sample, then of all samples together. A bitonic network in
// shared memory sorts runs, merges by rank double them. Both do the same steps whatever the ids are, no thread block waits
// for another, and a key is unique, so there is one right answer; a radix sort would be faster from millions of tokens on,
// where the rows that the order is for cost far more than the order.
#pragma once
#include <bit>
#include <utility>

#include "dpmp/kernels/cuda/sums/sample_splits.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
/// A token: its id in the upper half, as an unsigned number in the order of the signed ones, and its index in [samples,
/// tokens] in the lower half. Keys in order are ids in order, and tokens in order within an id.
using TokenKey = std::uint64_t;
__host__ __device__ constexpr TokenKey token_key(std::int32_t id, std::uint32_t index) {
  return TokenKey(std::uint32_t(id) ^ 0x80000000u) << 32 | index;
}
__host__ __device__ constexpr std::int32_t id_of(TokenKey key) {
  return std::int32_t(std::uint32_t(key >> 32) ^ 0x80000000u);
}
__host__ __device__ constexpr std::uint32_t index_of(TokenKey key) { return std::uint32_t(key); }

/// Two buffers [samples, tokens]: the keys, and room for the next merge.
struct TokenKeys {
  TokenKey* keys;
  TokenKey* spare;
};

/// A thread block sorts one run of one sample: at most `longest` tokens.
struct SortRun {
  static constexpr int threads = 256, blocks_per_multiprocessor = 2, longest = 2048;
  const std::int32_t* ids;  // [samples, tokens]
  TokenKey* keys;           // [samples, tokens]
  index_t tokens;
  unsigned runs;  // of a sample
  int room;       // a power of two: keys of a run and filling

  __device__ void operator()(char* shared) const {
    TokenKey* const x = reinterpret_cast<TokenKey*>(shared);
    const index_t first = index_t(blockIdx.x / runs) * tokens, begin = index_t(blockIdx.x % runs) * longest;
    const int count = int(tokens - begin < longest ? tokens - begin : longest);
    for (int k = int(threadIdx.x); k < room; k += threads)
      x[k] = k < count ? token_key(ids[first + begin + k], std::uint32_t(first + begin + k)) : ~TokenKey(0);
    for (int width = 2; width <= room; width *= 2)
      for (int distance = width / 2; distance > 0; distance /= 2) {
        __syncthreads();
        for (int k = int(threadIdx.x); k < room / 2; k += threads) {
          const int low = k / distance * 2 * distance + k % distance, high = low + distance;
          const TokenKey a = x[low], b = x[high];
          const bool swap = (a > b) == ((low & width) == 0);
          x[low] = swap ? b : a;
          x[high] = swap ? a : b;
        }
      }
    __syncthreads();
    for (int k = int(threadIdx.x); k < count; k += threads) keys[first + begin + k] = x[k];
  }
};

/// Merges neighbouring runs of `run` keys within groups of `group` keys (the last run of a group may be shorter): a key's
/// new place is its own rank and its rank in the other run.
struct MergeRuns {
  static constexpr int threads = 256, blocks_per_multiprocessor = 4;
  const TokenKey* from;  // [keys]
  TokenKey* to;          // [keys]
  index_t keys, group, run;
  int steps;  // halvings until a run's rank is found

  __device__ void operator()(char*) const {
    const index_t e = index_t(blockIdx.x) * threads + threadIdx.x;
    if (e >= keys) return;
    const index_t first = e / group * group, place = e - first, mine = place / run, other = (mine ^ 1) * run;
    const index_t left = group - other, count = left < 0 ? 0 : left < run ? left : run;
    const TokenKey key = from[e];
    const TokenKey* const x = from + first + other;
    index_t low = 0, high = count;  // the rank is in [low, high]
    for (int s = 0; s < steps; ++s) {
      const index_t middle = (low + high) / 2;
      const bool less = low < high && x[middle] < key;
      const bool more = low < high && !less;
      low = less ? middle + 1 : low;
      high = more ? middle : high;
    }
    to[first + mine / 2 * 2 * run + (place - mine * run) + low] = key;
  }
};

namespace detail {
inline void merge_runs(cudaStream_t stream, TokenKeys& keys, index_t count, index_t group, index_t run) {
  for (; run < group; run *= 2) {
    launch_blocks(stream, dim3(unsigned(ceil_div(count, MergeRuns::threads))), 0,
                  MergeRuns{keys.keys, keys.spare, count, group, run, int(std::bit_width(std::uint64_t(run)))});
    std::swap(keys.keys, keys.spare);
  }
}
}  // namespace detail

/// Orders each sample's tokens by (id, position). ids, both buffers: [samples, tokens], fewer than 2^32 tokens in all.
/// Returns the buffers, sorted keys first.
inline TokenKeys sort_tokens(cudaStream_t stream, const std::int32_t* ids, TokenKeys keys, index_t samples, index_t tokens) {
  DPMP_CHECK(samples >= 0 && tokens >= 0 && samples * tokens < (index_t(1) << 32),
             "expected fewer than 2^32 tokens in a batch, got ", samples, " samples of ", tokens);
  if (samples * tokens == 0) return keys;
  const auto runs = unsigned(ceil_div(tokens, SortRun::longest));
  DPMP_CHECK(samples * runs < (index_t(1) << 31), "expected fewer than 2^31 runs of tokens, got ", samples * runs);
  const int room = int(std::bit_ceil(std::uint64_t(std::min<index_t>(tokens, SortRun::longest))));
  launch_blocks(stream, dim3(unsigned(samples) * runs), std::size_t(room) * sizeof(TokenKey),
                SortRun{ids, keys.keys, tokens, runs, room});
  detail::merge_runs(stream, keys, samples * tokens, tokens, SortRun::longest);
  return keys;
}

/// Orders the tokens of all samples by (id, sample, position); keys: what sort_tokens returned.
inline TokenKeys merge_samples(cudaStream_t stream, TokenKeys keys, index_t samples, index_t tokens) {
  if (samples * tokens > 0) detail::merge_runs(stream, keys, samples * tokens, samples * tokens, tokens);
  return keys;
}
}  // namespace dpmp::inline DPMP_ABI::kernels
