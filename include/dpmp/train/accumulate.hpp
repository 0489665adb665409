// SPDX-License-Identifier: Apache-2.0
// One physical batch: forward pass, backward pass, and the sum of its records' gradients, clipped or plain.
#pragma once
#include <optional>

#include "dpmp/per_sample/clipped_sum_sink.hpp"
#include "dpmp/train/batch.hpp"
#include "dpmp/train/clip_factors.hpp"
#include "dpmp/train/fixed_program.hpp"
#include "dpmp/train/unsafe_numbers.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// What else a pass is asked for.
struct PassRequests {
  /// Receives, for the first group, how many records have a norm of at most its threshold, each counted as 1/2, and the
  /// others as -1/2 (private: what adaptive clipping adds noise to); a GPU is waited for.
  double* quantile_count = nullptr;
  /// The operations that the pass must record.
  FixedProgram* program = nullptr;
  /// Receives the norms of all groups (private; a GPU is waited for).
  detail::RecordNorms* norms = nullptr;
  /// Receives how many records have something that is not finite, so that they contribute 0 (private: what a loss scale that
  /// follows overflows adds noise to); a GPU is waited for.
  index_t* overflow_count = nullptr;
  /// Powers of two that the records' backward passes begin at. Not set: LossScaling::per_sample() where the forward pass
  /// recorded something in f16, else none.
  std::optional<LossScaling> loss_scaling = {};
  /// In the place of the model's own choice.
  std::optional<Checkpointing> checkpointing = {};
  /// Receives what each walk computes again.
  RecomputedWork* recomputed = nullptr;
};

/// Adds the clipped contributions of a batch's records to sums. clipping: one rule for each of the sink's groups. Throws
/// what the losses throw, and where they do not return one loss a sample.
void accumulate_clipped(Context& ctx, Losses losses, const PhysicalBatch& batch, std::span<const dp::FlatClipping> clipping,
                        per_sample::ClippedSumSink& sink, per_sample::GradientSums& sums, const PassRequests& requests = {});

/// Adds the plain gradients of a batch's records to sums, without privacy, times the scale of a fixed loss scaling. The
/// records are open: on the CPU a token id that no table has is refused, which would else make the sum NaN. Throws for
/// scales per sample: a product over all samples has no factor for each of them.
void accumulate_plain(Context& ctx, Losses losses, const PhysicalBatch& batch, per_sample::GradientSums& sums,
                      const LossScaling& scaling = {}, std::optional<Checkpointing> checkpointing = {},
                      RecomputedWork* recomputed = nullptr);
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
#include "dpmp/dp/adaptive_clip.hpp"
#include "dpmp/dp/overflow_scale.hpp"
#include "dpmp/per_sample/sum_sink.hpp"

namespace dpmp::inline DPMP_ABI::train {
namespace detail {
inline Variable forward_pass(Context& ctx, Losses losses, Tape& tape, const PhysicalBatch& batch) {
  const ProfilerRange range(ctx, "forward");
  if (batch.randomness) tape.key_randomness(*batch.randomness);
  const std::vector<index_t> records = records_of(batch.slots), next = records_of(batch.next_slots);
  return losses({tape, records, batch.step, NextRecords(next)});
}
inline Tensor weights_of(Context& ctx, const PhysicalBatch& batch, const Variable& loss) {
  return batch.weights.defined() ? batch.weights : slot_weights(ctx, batch.slots, loss.dtype());
}
inline LossScaling usual_scaling(const Tape& tape) {
  const auto& all = tape.recorded();
  return std::any_of(all.begin(), all.end(), [](const RecordedValue& v) { return v.dtype == DType::f16; })
             ? LossScaling::per_sample()
             : LossScaling();
}
}  // namespace detail

DPMP_KEPT_BODY inline void accumulate_clipped(Context& ctx, Losses losses, const PhysicalBatch& batch,
                                              std::span<const dp::FlatClipping> clipping, per_sample::ClippedSumSink& sink,
                                              per_sample::GradientSums& sums, const PassRequests& requests) {
  DPMP_CHECK(index_t(clipping.size()) == sink.groups(), "expected one clip rule for each of ", sink.groups(),
             " groups, got ", clipping.size());
  Tape tape(ctx, index_t(batch.slots.size()));
  tape.set_checkpointing(requests.checkpointing);
  const Variable loss = detail::forward_pass(ctx, losses, tape, batch);
  if (requests.recomputed) *requests.recomputed = tape.recomputed();
  if (requests.program) requests.program->check(tape);
  const Tensor weights = detail::weights_of(ctx, batch, loss);
  std::vector<std::uint8_t> finite(requests.overflow_count ? batch.slots.size() : 0, 1);
  const auto factors = [&](index_t group, const per_sample::NormBounds& norms) {
    const dp::FlatClipping& rule = clipping[std::size_t(group)];
    if (group == 0 && requests.quantile_count)
      *requests.quantile_count = dp::quantile_count(norms.upper(), counted(norms, batch.slots), rule.clip_threshold());
    if (!finite.empty()) {
      const std::vector<std::uint8_t> ok = norms.finite();
      for (std::size_t i = 0; i < ok.size(); ++i) finite[i] = std::uint8_t(finite[i] & ok[i]);
    }
    if (requests.norms) requests.norms->add_group(norms.upper(), norms.finite(), rule.clip_threshold());
    return clip_factors(ctx, norms, batch.slots, weights, rule);
  };
  const LossScaling scaling = requests.loss_scaling ? *requests.loss_scaling : detail::usual_scaling(tape);
  per_sample::clipped_backward(tape, loss, weights, sink, factors, sums, scaling);
  if (requests.overflow_count) {
    std::vector<std::uint8_t> present;
    for (const index_t slot : batch.slots) present.push_back(slot != masked_slot);
    *requests.overflow_count = dp::overflow_count(present, finite);
  }
  if (requests.program) requests.program->take(tape);
}

DPMP_KEPT_BODY inline void accumulate_plain(Context& ctx, Losses losses, const PhysicalBatch& batch,
                                            per_sample::GradientSums& sums, const LossScaling& scaling,
                                            std::optional<Checkpointing> checkpointing, RecomputedWork* recomputed) {
  DPMP_CHECK(scaling.kind() != LossScaling::Kind::per_sample, "expected no or a fixed loss scale for plain gradients, got ",
             scaling.text(), ": a product over all samples has no factor for each of them");
  per_sample::SumSink sink(sums);
  Tape tape(ctx, index_t(batch.slots.size()), TapeMode::training, RecordsAre::open);
  tape.set_checkpointing(checkpointing);
  const Variable loss = detail::forward_pass(ctx, losses, tape, batch);
  if (recomputed) *recomputed = tape.recomputed();
  tape.backward(loss, sink, scaled_seed(tape, loss, detail::weights_of(ctx, batch, loss), scaling).weights);
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
