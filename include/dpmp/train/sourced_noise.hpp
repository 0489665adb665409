// SPDX-License-Identifier: Apache-2.0
// What a trainer does for each noise source. Independent noise is drawn in the update itself; correlated noise is added to
// the sums, and of discrete noise the sums are integers, both on the host.
#pragma once
#include "dpmp/dp/correlated_noise.hpp"
#include "dpmp/dp/plan.hpp"
#include "dpmp/optim/optimiser.hpp"
#include "dpmp/train/integer_sums.hpp"

namespace dpmp::inline DPMP_ABI::train {
class SourcedNoise {
 public:
  /// Throws on a GPU unless the plan's noise is independent.
  SourcedNoise(const Context& ctx, const dp::Plan& plan);

  /// Before the passes of a step.
  void begin(const per_sample::GradientSums& sums);
  /// accumulate_clipped(), or the same in whole numbers.
  void accumulate(Context& ctx, Losses losses, const PhysicalBatch& batch, const dp::StepPlan& numbers,
                  per_sample::ClippedSumSink& sink, per_sample::GradientSums& sums, const PassRequests& requests);
  /// The noise of the step, which the sums have already where it is not independent (StepNoise::added), with its standard
  /// deviation in this step.
  optim::StepNoise add(Context& ctx, per_sample::GradientSums& sums, const dp::NoiseStream& stream,
                       const dp::StepPlan& numbers);

 private:
  dp::NoiseSourceOptions source_;
  std::optional<dp::CorrelatedNoise> correlated_;
  IntegerSums integers_;
};
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline SourcedNoise::SourcedNoise(const Context& ctx, const dp::Plan& plan)
    : source_(plan.options().noise_source) {
  DPMP_CHECK(source_.kind == dp::NoiseSourceKind::independent || !ctx.on_cuda(), "expected a context on the CPU for ",
             source_.kind, " noise, got ", ctx.device(), ": it has no kernels for a GPU");
  if (source_.is_correlated()) correlated_.emplace(source_);
}

DPMP_KEPT_BODY inline void SourcedNoise::begin(const per_sample::GradientSums& sums) {
  if (source_.is_discrete()) integers_.begin(sums, source_.dimensions);
}

DPMP_KEPT_BODY inline void SourcedNoise::accumulate(Context& ctx, Losses losses, const PhysicalBatch& batch,
                                                    const dp::StepPlan& numbers, per_sample::ClippedSumSink& sink,
                                                    per_sample::GradientSums& sums, const PassRequests& requests) {
  if (source_.is_discrete())
    integers_.accumulate(ctx, losses, batch, numbers.groups[0], *numbers.grid, sums, requests);
  else
    accumulate_clipped(ctx, losses, batch, numbers.groups, sink, sums, requests);
}

DPMP_KEPT_BODY inline optim::StepNoise SourcedNoise::add(Context& ctx, per_sample::GradientSums& sums,
                                                         const dp::NoiseStream& stream, const dp::StepPlan& numbers) {
  optim::StepNoise noise{stream, numbers.noise_standard_deviation, source_.kind != dp::NoiseSourceKind::independent};
  if (source_.is_discrete()) integers_.release(ctx, numbers.units, stream, *numbers.grid, sums);
  if (!correlated_) return noise;
  for (std::size_t k = 0; k < sums.tensors().size(); ++k) {
    Tensor sum = sums.tensors()[k];
    correlated_->add(ctx.team(), {sum.data<double>(), std::size_t(sum.numel())}, numbers.noise_standard_deviation, stream,
                     sums.places()[k]);
  }
  noise.standard_deviation *= correlated_->relative_deviation(stream.step);
  return noise;
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
