// SPDX-License-Identifier: Apache-2.0
// Differentially private training (DP-SGD, Abadi et al. 2016, arXiv 1607.00133): clipped sums of Poisson batches plus noise,
// everything that the guarantee rests on taken from one dp::Plan.
#pragma once
#include <memory>

#include "dpmp/autograd/tape.hpp"
#include "dpmp/dp/entropy.hpp"
#include "dpmp/dp/noise.hpp"
#include "dpmp/dp/plan.hpp"
#include "dpmp/nn/parameters.hpp"
#include "dpmp/optim/optimiser.hpp"
#include "dpmp/optim/schedule.hpp"
#include "dpmp/per_sample/sinks.hpp"
#include "dpmp/train/batch.hpp"

namespace dpmp::inline DPMP_ABI::train {
static_assert(per_sample::samples_per_accumulator <= dp::samples_per_float_block,
              "the sensitivity of dp/clipping.hpp is derived for FP32 sums over at most samples_per_float_block samples");

struct TrainerOptions {
  /// Slots of a physical batch: memory and speed only, the result does not depend on it beyond rounding.
  index_t physical_batch = 64;
  optim::Rule rule = optim::AdamW{};
  optim::LearningRate learning_rate = optim::LearningRate::constant(1e-3);
};

/// One physical batch: adds the clipped contributions of its records to sums. losses(tape, slots) records the forward pass
/// and returns per-sample losses [slots]; a slot of dp::masked_slot may compute anything, it contributes nothing.
template <class Losses>
void accumulate_clipped(Context& ctx, Losses&& losses, std::span<const index_t> slots, const dp::FlatClipping& clipping,
                        per_sample::PerSampleSink& sink, per_sample::GradientSums& sums) {
  const index_t samples = index_t(slots.size());
  sink.clear();  // a pass that failed half-way may have left sites of other records
  {
    Tape tape(ctx, samples);
    const Variable loss = losses(tape, slots);
    tape.backward(loss, sink, slot_weights(ctx, slots, loss.dtype()));
  }
  const per_sample::NormBounds norms = sink.norms(ctx, samples);
  std::vector<std::uint8_t> ok = norms.finite();
  for (std::size_t i = 0; i < ok.size(); ++i) ok[i] = std::uint8_t(ok[i] & std::uint8_t(slots[i] != dp::masked_slot));
  std::vector<float> factors(ok.size());
  clipping.factors(norms.upper(), ok, factors);
  sink.weighted_sum(ctx, factors, sums);
  sink.clear();
}

class PrivateTrainer {
 public:
  /// records: size of the training set, at most the plan's public dataset_size. keys: from dp::random_key() for a real run.
  PrivateTrainer(Context& ctx, const nn::Parameters& parameters, const dp::Plan& plan, const dp::StreamKeys& keys,
                 index_t records, const TrainerOptions& options = {})
      : ctx_(ctx),
        plan_(plan),
        keys_(keys),
        sampler_(plan.sampler(keys, records)),
        ledger_(plan.ledger()),
        rate_(options.learning_rate),
        optimiser_(ctx, parameters.all(), options.rule),
        sums_(ctx, parameters.all()),
        sink_(std::make_unique<per_sample::BookKeepingSink>()),
        slots_(checked_slots(options.physical_batch)) {}

  /// One logical step: as many physical batches as the draw needs (at least one), noise once, one update. Accounted before
  /// anything is drawn; throws when the plan is spent. Nothing private is returned: see plan().epsilon_after(steps()).
  template <class Losses>
  void step(Losses&& losses) {
    const dp::StepTicket ticket = ledger_.begin_step();
    sampler_.draw(ticket.step(), draw_);
    sums_.set_zero();
    for (index_t k = 0; k < dp::physical_batches(index_t(draw_.size()), index_t(slots_.size())); ++k) {
      dp::fill_physical_batch(draw_, k, slots_);
      accumulate_clipped(ctx_, losses, slots_, plan_.clipping(), *sink_, sums_);
    }
    for (std::size_t k = 0; k < sums_.tensors().size(); ++k) {
      const Tensor& sum = sums_.tensors()[k];
      dp::add_gaussian_noise(ctx_.team(), {sum.data<double>(), std::size_t(sum.numel())}, plan_.noise_standard_deviation(),
                             ticket.noise(keys_), index_t(k));
    }
    optimiser_.step(ctx_, sums_, 1 / plan_.expected_batch(), rate_.at(ticket.step()));
  }

  const dp::Plan& plan() const { return plan_; }
  const dp::StreamKeys& keys() const { return keys_; }
  /// Steps accounted so far.
  index_t steps() const { return ledger_.steps(); }
  /// Continues a run at this step: see train/checkpoint.hpp.
  void resume_at(index_t steps) { ledger_ = plan_.ledger(steps); }
  optim::Optimiser& optimiser() { return optimiser_; }
  const optim::Optimiser& optimiser() const { return optimiser_; }

 private:
  Context& ctx_;
  dp::Plan plan_;
  dp::StreamKeys keys_;
  dp::PoissonSampler sampler_;
  dp::StepLedger ledger_;
  optim::LearningRate rate_;
  optim::Optimiser optimiser_;
  per_sample::GradientSums sums_;
  std::unique_ptr<per_sample::PerSampleSink> sink_;
  std::vector<index_t> slots_, draw_;
};
}  // namespace dpmp::inline DPMP_ABI::train
