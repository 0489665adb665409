// SPDX-License-Identifier: Apache-2.0
// Training without privacy, the yardstick of the private kind: the same batches, the plain gradient sum, no clipping, no
// noise.
#pragma once
#include "dpmp/per_sample/sum_sink.hpp"
#include "dpmp/train/private_trainer.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// One physical batch: adds the plain gradient sum of its records to sums. The records are open: on the CPU a token id that
/// no table has is refused, which would else make the sum NaN.
template <class Losses>
void accumulate_plain(Context& ctx, Losses&& losses, std::span<const index_t> slots, per_sample::GradientSums& sums) {
  per_sample::SumSink sink(sums);
  Tape tape(ctx, index_t(slots.size()), TapeMode::training, RecordsAre::open);
  const Variable loss = forward_pass(ctx, losses, tape, slots);
  tape.backward(loss, sink, slot_weights(ctx, slots, loss.dtype()));
}

class PlainTrainer {
 public:
  /// sampling_rate: expected batch / records, drawn as in private training. The sum is divided by sampling_rate * records.
  PlainTrainer(Context& ctx, const nn::Parameters& parameters, double sampling_rate, const dp::StreamKeys& keys,
               index_t records, const TrainerOptions& options = {});

  template <class Losses>
  void step(Losses&& losses) {
    sampler_.draw(steps_, draw_);
    sums_.set_zero();
    for (index_t k = 0; k < dp::physical_batches(index_t(draw_.size()), index_t(slots_.size())); ++k) {
      dp::fill_physical_batch(draw_, k, slots_);
      accumulate_plain(ctx_, losses, slots_, sums_);
    }
    optimiser_.step(ctx_, sums_, 1 / divisor_, rate_.at(steps_));
    ++steps_;
  }
  /// What dropout's masks of these slots are keyed by; ids: one for each record of the data set.
  nn::DropoutRun dropout_run(std::span<const index_t> slots, std::span<const RecordId> ids) const;
  index_t steps() const { return steps_; }
  void resume_at(index_t steps) { steps_ = steps; }
  optim::Optimiser& optimiser() { return optimiser_; }
  const optim::Optimiser& optimiser() const { return optimiser_; }

 private:
  Context& ctx_;
  Key256 dropout_secret_;
  dp::PoissonSampler sampler_;
  double divisor_;
  optim::LearningRate rate_;
  optim::Optimiser optimiser_;
  per_sample::GradientSums sums_;
  std::vector<index_t> slots_, draw_;
  index_t steps_ = 0;
};
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline PlainTrainer::PlainTrainer(Context& ctx, const nn::Parameters& parameters, double sampling_rate,
                                                 const dp::StreamKeys& keys, index_t records, const TrainerOptions& options)
    : ctx_(ctx),
      dropout_secret_(keys.key(dp::Stream::dropout)),
      sampler_(keys.key(dp::Stream::sampler), records, sampling_rate),
      divisor_(sampling_rate * double(records)),
      rate_(options.learning_rate),
      optimiser_(ctx, parameters.all(), options.rule, options.rate_factors),
      sums_(ctx, parameters.all()),
      slots_(checked_slots(options.physical_batch)) {}

DPMP_KEPT_BODY inline nn::DropoutRun PlainTrainer::dropout_run(std::span<const index_t> slots,
                                                               std::span<const RecordId> ids) const {
  return nn::DropoutRun(dropout_secret_, steps_, identities(ctx_, slots, ids));
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
