// SPDX-License-Identifier: Apache-2.0
// One pass over a batch of empty slots: what it costs, and, under a MemoryTrace, what it has in use. Nothing is released.
#pragma once
#include <string>

#include "dpmp/train/accumulate.hpp"
#include "dpmp/train/trainer_options.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// What a step may do in one way or another, for another time and other memory: between norms and clipped sums, with the
/// blocks of a model (Tape::set_checkpointing), and in passes on fewer slots than the physical batch.
struct StepWay {
  per_sample::StrategyOptions strategy = {};
  Checkpointing checkpointing = Checkpointing::none;
  /// The physical batch is worked through in so many passes.
  index_t passes = 1;
  /// Slots of a pass.
  index_t slots(index_t physical_batch) const { return (physical_batch + passes - 1) / passes; }
  /// "automatic, blocks keep all, 2 passes"; of a plain step without the strategy.
  std::string text(bool is_private = true) const;
};

/// What blocks keep: "all", "products", "inputs".
constexpr std::string_view kept_by(Checkpointing how) {
  return how == Checkpointing::none ? "all" : how == Checkpointing::selective ? "products" : "inputs";
}

struct DryPass {
  /// Multiply-adds a sample of what ways differ by: norms, clipped sums, a second walk where sites are not kept, and what
  /// each walk computes again. By the prices of per_sample/cost.hpp.
  double cost = 0;
  /// Whether a part of the model can be checkpointed.
  bool has_parts = false;
  /// Kept as per-sample gradients, a sample.
  index_t gradient_bytes = 0;
};

/// What one pass more costs, in those of DryPass::cost for all its samples together: weights are read in both directions
/// and sums read and written, whatever number of samples share that, and on a GPU each tensor's kernels are launched again.
double price_of_a_pass(const Context& ctx, const per_sample::GradientSums& sums);

/// Runs the losses on a batch, all of whose slots are empty, as a private step does, and adds zeros to sums.
DryPass dry_private_pass(Context& ctx, Losses losses, const PhysicalBatch& batch, const per_sample::Groups& groups,
                         per_sample::GradientSums& sums, const StepWay& way, const LossScaling& scaling);
/// The same as a step without privacy does, whose way is one of checkpointing alone.
DryPass dry_plain_pass(Context& ctx, Losses losses, const PhysicalBatch& batch, per_sample::GradientSums& sums,
                       const StepWay& way, const LossScaling& scaling);
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline std::string StepWay::text(bool is_private) const {
  std::string kept = dpmp::detail::concat("blocks keep ", kept_by(checkpointing));
  if (passes > 1) kept += dpmp::detail::concat(", ", passes, " passes");
  if (!is_private) return kept;
  const bool limited = strategy.strategy == per_sample::Strategy::automatic && strategy.gradient_bytes;
  return dpmp::detail::concat(
      per_sample::name_of(strategy.strategy),
      limited ? dpmp::detail::concat(" (gradients ", *strategy.gradient_bytes, " bytes a sample)") : "", ", ", kept);
}

namespace detail {
/// Of what one walk computes again, a sample.
inline double cost_of(const Context& ctx, const RecomputedWork& again, DType dtype, index_t samples) {
  return per_sample::recomputation_cost(dtype, ctx.on_cuda(), double(again.bytes) / double(samples),
                                        again.multiply_adds / double(samples));
}
}  // namespace detail

DPMP_KEPT_BODY inline double price_of_a_pass(const Context& ctx, const per_sample::GradientSums& sums) {
  // Of a tensor that is trained: about six kernels of 3 microseconds, in which a GPU has done some 10^8 multiply-adds.
  constexpr double of_launches = 6e8;
  double price = 0;
  for (const Parameter* p : sums.parameters()) {
    price += per_sample::recomputation_cost(p->dtype(), ctx.on_cuda(), 2 * double(p->numel()) * sizeof(float), 0);
    if (ctx.on_cuda()) price += of_launches;
  }
  return price;
}

DPMP_KEPT_BODY inline DryPass dry_private_pass(Context& ctx, Losses losses, const PhysicalBatch& batch,
                                               const per_sample::Groups& groups, per_sample::GradientSums& sums,
                                               const StepWay& way, const LossScaling& scaling) {
  const std::vector<dp::FlatClipping> clipping(std::size_t(groups.count()), dp::FlatClipping(1.0));
  DryPass pass;
  double second_walk = 0;
  bool walks_twice = false;
  DType dtype = DType::f32;
  per_sample::ClippedSumSink sink(
      groups, way.strategy, [&](const Parameter&, const per_sample::SiteShape& shape, const per_sample::NormPlan& chosen) {
        pass.cost += chosen.cost;
        if (chosen.keep == per_sample::Keep::gradients)
          pass.gradient_bytes += chosen.kept_bytes / std::max<index_t>(1, shape.samples);
        // Looked-up rows are no product.
        if (!shape.vector && !shape.one_hot_only)
          second_walk += double(shape.tokens) * double(shape.p) * double(shape.d), dtype = shape.dtype;
        walks_twice = walks_twice || chosen.keep == per_sample::Keep::second_walk;
      });
  RecomputedWork again;
  accumulate_clipped(ctx, losses, batch, clipping, sink, sums,
                     {.loss_scaling = scaling, .checkpointing = way.checkpointing, .recomputed = &again});
  if (walks_twice) pass.cost += second_walk;
  pass.cost += (walks_twice ? 2 : 1) * detail::cost_of(ctx, again, dtype, index_t(batch.slots.size()));
  pass.has_parts = again.parts > 0;
  return pass;
}

DPMP_KEPT_BODY inline DryPass dry_plain_pass(Context& ctx, Losses losses, const PhysicalBatch& batch,
                                             per_sample::GradientSums& sums, const StepWay& way,
                                             const LossScaling& scaling) {
  RecomputedWork again;
  accumulate_plain(ctx, losses, batch, sums, scaling, way.checkpointing, &again);
  const DType dtype = sums.parameters().empty() ? DType::f32 : sums.parameters()[0]->dtype();
  return {detail::cost_of(ctx, again, dtype, index_t(batch.slots.size())), again.parts > 0};
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
