// SPDX-License-Identifier: Apache-2.0
// What a trainer does for a noise source whose noise is not drawn in the update itself: correlated noise is added to the
// sums, and of discrete noise the sums are integers. On the host.
#pragma once
#include "dpmp/dp/correlated_noise.hpp"
#include "dpmp/dp/plan.hpp"
#include "dpmp/optim/optimiser.hpp"
#include "dpmp/train/integer_sums.hpp"

namespace dpmp::inline DPMP_ABI::train {
class SourcedNoise {
 public:
  /// Nothing for independent noise. Throws on a GPU for other sources.
  static std::optional<SourcedNoise> of(const Context& ctx, const dp::Plan& plan);

  /// Before the passes of a step.
  void begin(const per_sample::GradientSums& sums);
  /// accumulate_clipped(), or the same in whole numbers.
  void accumulate(Context& ctx, Losses losses, const PhysicalBatch& batch, const dp::StepPlan& numbers,
                  per_sample::ClippedSumSink& sink, per_sample::GradientSums& sums, const PassRequests& requests);
  /// Adds the noise of the step to the sums. What the optimiser is told has the noise's standard deviation in this step.
  optim::StepNoise add(Context& ctx, per_sample::GradientSums& sums, const dp::NoiseStream& stream,
                       const dp::StepPlan& numbers);

  /// What the noise of a step is keyed by in addition to the run, for the set of what is frozen (a hash, 0 for nothing):
  /// before is frozen_history() of the run. Correlated noise has one key for all steps: throws where something else is
  /// frozen than in the first step, and after a step that failed.
  std::uint64_t frozen_facts(index_t step, std::uint64_t before, std::uint64_t frozen) const;
  bool is_correlated() const { return correlated_.has_value(); }

 private:
  explicit SourcedNoise(const dp::NoiseSourceOptions& source);
  dp::NoiseSourceOptions source_;
  std::optional<dp::CorrelatedNoise> correlated_;
  IntegerSums integers_;
};
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline SourcedNoise::SourcedNoise(const dp::NoiseSourceOptions& source) : source_(source) {
  if (source.is_correlated()) correlated_.emplace(source);
}

DPMP_KEPT_BODY inline std::optional<SourcedNoise> SourcedNoise::of(const Context& ctx, const dp::Plan& plan) {
  const dp::NoiseSourceOptions& source = plan.options().noise_source;
  if (source.kind == dp::NoiseSourceKind::independent) return std::nullopt;
  DPMP_CHECK(!ctx.on_cuda(), "expected a context on the CPU for ", source.kind, " noise, got ", ctx.device(),
             ": it has no kernels for a GPU");
  return SourcedNoise(source);
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
  optim::StepNoise noise{stream, numbers.noise_standard_deviation, true};
  if (source_.is_discrete()) {
    integers_.release(ctx, numbers.units, stream, *numbers.grid, sums);
    return noise;
  }
  for (std::size_t k = 0; k < sums.tensors().size(); ++k) {
    Tensor sum = sums.tensors()[k];
    correlated_->add(ctx.team(), {sum.data<double>(), std::size_t(sum.numel())}, numbers.noise_standard_deviation, stream,
                     sums.places()[k]);
  }
  noise.standard_deviation *= correlated_->relative_deviation(stream.step);
  return noise;
}

DPMP_KEPT_BODY inline std::uint64_t SourcedNoise::frozen_facts(index_t step, std::uint64_t before,
                                                               std::uint64_t frozen) const {
  DPMP_CHECK(
      step == 0 || before == frozen,
      "expected the trained parameters of the first step, and no step that failed, with correlated noise, got others: "
      "the noise of a step is made of that of all steps before it");
  return frozen;
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
