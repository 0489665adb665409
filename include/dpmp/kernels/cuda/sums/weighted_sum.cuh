// SPDX-License-Identifier: Apache-2.0
// The clipped weighted sum of outer products, sum += sum_i c_i sum_t b_{i,t} a_{i,t}^T, for every dtype and length: which
// kernel, which tile, how many splits.
#pragma once
#include "dpmp/core/dtype.hpp"
#include "dpmp/kernels/cuda/sums/weighted_sum_rank_one.cuh"
#include "dpmp/kernels/cuda/sums/weighted_sum_tiles.cuh"

namespace dpmp::inline DPMP_ABI::kernels {
/// The kernel of tiles pays for adding each sample up in double, and on tensor cores pads samples to 16 tokens, so one token
/// goes to the rank-one kernel, whose sample tile is a product.
enum class WeightedSumKernel { rank_one, tiles_64, tiles_128 };

struct WeightedSumPlan {
  WeightedSumKernel kernel = WeightedSumKernel::tiles_64;
  SampleSplits split;
  /// Doubles of scratch that the launch needs.
  index_t scratch(index_t rows, index_t columns) const { return split.scratch(rows * columns); }
};

/// Chosen from public extents and the GPU's number of multiprocessors alone. 128 x 128 tiles need half the operand traffic
/// of 64 x 64 ones and are taken where they, with splits, can fill the GPU and are not mostly padding.
template <class T>
WeightedSumPlan plan_weighted_sum(index_t samples, index_t tokens, index_t rows, index_t columns, index_t multiprocessors) {
  const auto plan = [&]<class K>(WeightedSumKernel kernel, TypeTag<K>) -> WeightedSumPlan {
    const index_t tiles = ceil_div(rows, K::tile_rows) * ceil_div(columns, K::tile_columns);
    return {kernel, split_samples(samples, tiles, multiprocessors * K::blocks_per_multiprocessor)};
  };
  if (tokens == 1) return plan(WeightedSumKernel::rank_one, TypeTag<WeightedSumRankOne<T>>{});
  if constexpr (!std::is_same_v<T, float>) {
    const index_t blocks = ceil_div(samples, samples_per_split);
    if (rows > 64 && columns > 64 && ceil_div(rows, 128) * ceil_div(columns, 128) * blocks >= multiprocessors)
      return plan(WeightedSumKernel::tiles_128, TypeTag<WeightedSumTiles<T, 128>>{});
  }
  return plan(WeightedSumKernel::tiles_64, TypeTag<WeightedSumTiles<T, 64>>{});
}

/// sum += sum_i c_i G_i; T: bf16, f16, float. A sample with c_i = 0 vanishes whatever its gradient holds. scratch: doubles
/// of device memory, plan.scratch(rows, columns) of them, contents arbitrary. Empty extents: nothing is launched. Throws
/// when the plan is not one for these operands or the scratch is too small.
template <class T>
void weighted_sum(cudaStream_t stream, const WeightedSumOperands<T>& in, const WeightedSumPlan& plan,
                  double* scratch = nullptr, index_t scratch_doubles = 0) {
  DPMP_CHECK(in.samples >= 0 && in.tokens >= 0 && in.rows >= 0 && in.columns >= 0, "expected extents >= 0, got ", in.samples,
             " samples of ", in.tokens, " tokens, ", in.rows, " rows, ", in.columns, " columns");
  if (in.samples == 0 || in.tokens == 0 || in.rows == 0 || in.columns == 0) return;
  const auto launch = [&]<class K>(TypeTag<K>) {
    detail::launch_weighted_sum<K>(stream, in, plan.split, scratch, scratch_doubles);
  };
  DPMP_CHECK((plan.kernel == WeightedSumKernel::rank_one) == (in.tokens == 1),
             "expected the rank-one kernel for samples of one token and only for them, got ", in.tokens, " tokens");
  if (plan.kernel == WeightedSumKernel::rank_one) return launch(TypeTag<WeightedSumRankOne<T>>{});
  if (plan.kernel == WeightedSumKernel::tiles_64) return launch(TypeTag<WeightedSumTiles<T, 64>>{});
  if constexpr (std::is_same_v<T, float>)
    throw Error("expected a plan of tiles of 64 x 64 for float, got one of 128 x 128");
  else
    launch(TypeTag<WeightedSumTiles<T, 128>>{});
}
}  // namespace dpmp::inline DPMP_ABI::kernels
