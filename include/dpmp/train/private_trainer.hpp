// SPDX-License-Identifier: Apache-2.0
// Differentially private training (DP-SGD, Abadi et al. 2016, arXiv 1607.00133): clipped sums of Poisson batches plus noise,
// everything that the guarantee rests on taken from one dp::Plan.
#pragma once
#include "dpmp/autograd/tape.hpp"
#include "dpmp/dp/entropy.hpp"
#include "dpmp/dp/noise.hpp"
#include "dpmp/dp/plan.hpp"
#include "dpmp/nn/parameters.hpp"
#include "dpmp/optim/optimiser.hpp"
#include "dpmp/optim/schedule.hpp"
#include "dpmp/per_sample/clipped_sum_sink.hpp"
#include "dpmp/train/batch.hpp"
#include "dpmp/train/clip_factors.hpp"
#include "dpmp/train/validation_report.hpp"

namespace dpmp::inline DPMP_ABI::train {
static_assert(per_sample::samples_per_accumulator <= dp::samples_per_float_block,
              "the sensitivity of dp/clipping.hpp is derived for FP32 sums over at most samples_per_float_block samples");

struct TrainerOptions {
  /// Slots of a physical batch: memory and speed only, the result does not depend on it beyond rounding.
  index_t physical_batch = 64;
  optim::Rule rule = optim::AdamW{};
  optim::LearningRate learning_rate = optim::LearningRate::constant(1e-3);
  /// How norms and clipped sums are computed: speed and memory only.
  per_sample::StrategyOptions strategy = {};
  /// Clipping groups, as many as the plan has; not set: one for all parameters.
  std::optional<per_sample::Groups> groups = {};
};

/// Per-sample losses of one physical batch, recorded on the tape.
template <class Losses>
Variable forward_pass(Context& ctx, Losses&& losses, Tape& tape, std::span<const index_t> slots) {
  const ProfilerRange range(ctx, "forward");
  return losses(tape, slots);
}

/// One physical batch: adds the clipped contributions of its records to sums. losses(tape, slots) records the forward pass
/// and returns per-sample losses [slots]; a slot of dp::masked_slot may compute anything, it contributes nothing.
/// clipping: one rule for each of the sink's groups. quantile_count: if not null, receives, for the first group, how many
/// records have a norm of at most its threshold, each counted as 1/2, and the others as -1/2 (private: what adaptive
/// clipping adds noise to); on a GPU that number is waited for. slot_weights_there: slot_weights() of the slots where they
/// are on the device already; then a GPU step that reads its batch there copies nothing, and a CudaGraph may capture it.
template <class Losses>
void accumulate_clipped(Context& ctx, Losses&& losses, std::span<const index_t> slots,
                        std::span<const dp::FlatClipping> clipping, per_sample::ClippedSumSink& sink,
                        per_sample::GradientSums& sums, double* quantile_count = nullptr,
                        const Tensor& slot_weights_there = Tensor()) {
  DPMP_CHECK(index_t(clipping.size()) == sink.groups(), "expected one clip rule for each of ", sink.groups(),
             " groups, got ", clipping.size());
  Tape tape(ctx, index_t(slots.size()));
  const Variable loss = forward_pass(ctx, losses, tape, slots);
  const Tensor weights = slot_weights_there.defined() ? slot_weights_there : slot_weights(ctx, slots, loss.dtype());
  const auto factors = [&](index_t group, const per_sample::NormBounds& norms) {
    const dp::FlatClipping& rule = clipping[std::size_t(group)];
    if (group == 0 && quantile_count)
      *quantile_count = dp::quantile_count(norms.upper(), counted(norms, slots), rule.clip_threshold());
    return clip_factors(ctx, norms, slots, weights, rule);
  };
  per_sample::clipped_backward(tape, loss, weights, sink, factors, sums);
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
        parameters_(parameters.all().begin(), parameters.all().end()),
        sums_(ctx, parameters_),
        groups_(options.groups ? *options.groups : per_sample::Groups::flat(parameters_)),
        strategy_(options.strategy),
        sink_(groups_, strategy_),
        slots_(checked_slots(options.physical_batch)) {
    DPMP_CHECK(groups_.count() == plan.groups(), "expected as many clipping groups as the plan has thresholds, ",
               plan.groups(), ", got ", groups_.count());
    for (const Parameter* p : parameters_) groups_.of(*p);
    if (plan.adaptive()) threshold_ = plan.adaptive_threshold();
  }

  /// One logical step: as many physical batches as the draw needs (at least one), noise once, one update. Accounted before
  /// anything is drawn; throws when the plan is spent. Nothing private is returned: see plan().epsilon_after(steps()).
  /// Parameters may be frozen and trained again between steps: a frozen one gets no noise and does not move.
  template <class Losses>
  void step(Losses&& losses) {
    const dp::StepTicket ticket = ledger_.begin_step();
    const dp::StepNumbers numbers = plan_.at(ticket.step(), clip_threshold());
    sampler_.draw(ticket.step(), draw_);
    sums_.follow_trainable(ctx_);
    sums_.set_zero();
    double count = 0;
    for (index_t k = 0; k < dp::physical_batches(index_t(draw_.size()), index_t(slots_.size())); ++k) {
      dp::fill_physical_batch(draw_, k, slots_);
      double here = 0;
      accumulate_clipped(ctx_, losses, slots_, numbers.groups, sink_, sums_, threshold_ ? &here : nullptr);
      count += here;
    }
    if (threshold_) threshold_->update(count, ticket.auxiliary_noise(keys_));
    const optim::StepNoise noise{ticket.noise(keys_), numbers.noise_standard_deviation};
    optimiser_.step(ctx_, sums_, 1 / plan_.expected_batch(), rate_.at(ticket.step()), &noise);
  }

  /// What the next step will do with each parameter, from one pass over a batch of empty slots: nothing private is read,
  /// drawn or accounted. Throws when no parameter can be trained.
  template <class Losses>
  ValidationReport validate(Losses&& losses) {
    ValidationReport report(parameters_, groups_, plan_.at(ledger_.steps(), clip_threshold()), index_t(slots_.size()));
    per_sample::ClippedSumSink sink(groups_, strategy_,
                                    [&](const Parameter& p, const per_sample::SiteShape& shape, const per_sample::Way& way) {
                                      report.set(p, shape, way);
                                    });
    const std::vector<index_t> empty(slots_.size(), dp::masked_slot);
    sums_.follow_trainable(ctx_);
    accumulate_clipped(ctx_, losses, empty, plan_.at(ledger_.steps(), clip_threshold()).groups, sink, sums_);
    return report;
  }

  const dp::Plan& plan() const { return plan_; }
  const dp::StreamKeys& keys() const { return keys_; }
  /// Steps accounted so far.
  index_t steps() const { return ledger_.steps(); }
  /// The public clip threshold of the next step of an adaptive plan; 0 for other plans, whose thresholds plan().at() knows.
  double clip_threshold() const { return threshold_ ? threshold_->threshold() : 0; }
  /// Continues a run at this step, at this threshold (0 unless the plan is adaptive): see train/checkpoint.hpp.
  void resume_at(index_t steps, double clip_threshold = 0) {
    DPMP_CHECK(threshold_ || clip_threshold == 0, "expected no clip threshold for a plan that is not adaptive, got ",
               clip_threshold);
    if (threshold_) threshold_->restore(clip_threshold);
    ledger_ = plan_.ledger(steps);
  }
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
  std::vector<Parameter*> parameters_;
  per_sample::GradientSums sums_;
  per_sample::Groups groups_;
  per_sample::StrategyOptions strategy_;
  per_sample::ClippedSumSink sink_;
  std::optional<dp::AdaptiveThreshold> threshold_;
  std::vector<index_t> slots_, draw_;
};
}  // namespace dpmp::inline DPMP_ABI::train
