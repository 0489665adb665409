// SPDX-License-Identifier: Apache-2.0
// Differentially private training (DP-SGD, Abadi et al. 2016, arXiv 1607.00133): clipped sums of Poisson batches plus noise,
// everything that the guarantee rests on taken from one dp::Plan.
#pragma once
#include "dpmp/autograd/tape.hpp"
#include "dpmp/dp/statement.hpp"
#include "dpmp/nn/dropout.hpp"
#include "dpmp/nn/parameters.hpp"
#include "dpmp/per_sample/clipped_sum_sink.hpp"
#include "dpmp/train/batch.hpp"
#include "dpmp/train/clip_factors.hpp"
#include "dpmp/train/fixed_program.hpp"
#include "dpmp/train/isolation.hpp"
#include "dpmp/train/run_fingerprint.hpp"
#include "dpmp/train/trainer_options.hpp"
#include "dpmp/train/validation_report.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// What else a pass is asked to look at.
struct PassChecks {
  FixedProgram* program = nullptr;              // the operations that the pass must record
  std::vector<std::uint8_t>* finite = nullptr;  // [slots], set to 0 where a norm is not finite (a GPU is waited for)
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
                        const Tensor& slot_weights_there = Tensor(), const PassChecks& checks = {}) {
  DPMP_CHECK(index_t(clipping.size()) == sink.groups(), "expected one clip rule for each of ", sink.groups(),
             " groups, got ", clipping.size());
  Tape tape(ctx, index_t(slots.size()));
  const Variable loss = forward_pass(ctx, losses, tape, slots);
  if (checks.program) checks.program->check(tape);
  const Tensor weights = slot_weights_there.defined() ? slot_weights_there : slot_weights(ctx, slots, loss.dtype());
  const auto factors = [&](index_t group, const per_sample::NormBounds& norms) {
    const dp::FlatClipping& rule = clipping[std::size_t(group)];
    if (group == 0 && quantile_count)
      *quantile_count = dp::quantile_count(norms.upper(), counted(norms, slots), rule.clip_threshold());
    if (checks.finite) {
      const std::vector<std::uint8_t> ok = norms.finite();
      for (std::size_t i = 0; i < ok.size(); ++i) (*checks.finite)[i] = std::uint8_t((*checks.finite)[i] & ok[i]);
    }
    return clip_factors(ctx, norms, slots, weights, rule);
  };
  per_sample::clipped_backward(tape, loss, weights, sink, factors, sums);
  if (checks.program) checks.program->take(tape);
}

class PrivateTrainer {
 public:
  /// records: size of the training set, at most the plan's public dataset_size. keys: of dp::random_key() for a real run;
  /// the trainer draws a run nonce of its own, so that trainers of one key draw and add independently (P36).
  PrivateTrainer(Context& ctx, const nn::Parameters& parameters, const dp::Plan& plan, const dp::StreamKeys& keys,
                 index_t records, const TrainerOptions& options = {});

  /// One logical step: as many physical batches as the draw needs (at least one), noise once, one update. Accounted before
  /// anything is drawn; throws when the plan is spent. Nothing private is returned: see plan().epsilon_after(steps()).
  /// Parameters may be frozen and trained again between steps: a frozen one gets no noise and does not move.
  template <class Losses>
  void step(Losses&& losses) {
    dp::StepTicket ticket = ledger_.begin_step();
    const dp::StepNumbers numbers = plan_.at(ticket.step(), clip_threshold());
    sampler_.draw(ticket.step(), draw_);
    sums_.follow_trainable(ctx_);
    sums_.set_zero();
    double count = 0;
    index_t left_out = 0;
    for (index_t k = 0; k < dp::physical_batches(index_t(draw_.size()), index_t(slots_.size())); ++k) {
      dp::fill_physical_batch(draw_, k, slots_);
      double here = 0;
      std::vector<std::uint8_t> finite(options_.unsafe_debug ? slots_.size() : 0, 1);
      accumulate_clipped(ctx_, losses, slots_, numbers.groups, sink_, sums_, threshold_ ? &here : nullptr, Tensor(),
                         {&program_, options_.unsafe_debug ? &finite : nullptr});
      count += here;
      for (std::size_t i = 0; i < finite.size(); ++i) left_out += slots_[i] != dp::masked_slot && finite[i] == 0;
    }
    left_out_ = left_out;
    if (threshold_) threshold_->update(count, ticket.auxiliary_noise());
    const optim::StepNoise noise{ticket.noise(), numbers.noise_standard_deviation};
    optimiser_.step(ctx_, sums_, 1 / plan_.expected_batch(), options_.learning_rate.at(ticket.step()), &noise);
  }

  /// What the next step will do with each parameter, from one pass over a batch of empty slots: nothing private is read,
  /// drawn or accounted. Throws when no parameter can be trained.
  template <class Losses>
  ValidationReport validate(Losses&& losses) {
    ValidationReport report(parameters_, groups_, plan_.at(ledger_.steps(), clip_threshold()), index_t(slots_.size()));
    per_sample::ClippedSumSink sink(groups_, options_.strategy,
                                    [&](const Parameter& p, const per_sample::SiteShape& shape, const per_sample::Way& way) {
                                      report.set(p, shape, way);
                                    });
    const std::vector<index_t> empty(slots_.size(), dp::masked_slot);
    sums_.follow_trainable(ctx_);
    accumulate_clipped(ctx_, losses, empty, plan_.at(ledger_.steps(), clip_threshold()).groups, sink, sums_, nullptr,
                       Tensor(), {&program_, nullptr});
    return report;
  }
  /// The same behind check_isolation() of the losses on these records, at least three of them, which must be public or made
  /// up: every number of theirs is looked at. Throws, naming the first operation or parameter, where samples touch each
  /// other.
  template <class Losses>
  ValidationReport validate(Losses&& losses, std::span<const index_t> public_records) {
    check_isolation(ctx_, losses, public_records, {.strategy = options_.strategy});
    return validate(losses);
  }
  /// Every physical batch must record the operations and shapes of the first one (FixedProgram). This allows one change, as
  /// of the next pass; when it is called must be public (a longer context from step 1000 on, say).
  void program_changes() { program_.forget(); }

  /// For the losses of a step or validate(): what dropout's masks of these slots are keyed by. ids: one for each record of
  /// the data set, made with keys().key(dp::Stream::record_identity) once a checkpoint is loaded. Throws for places in the
  /// data set under add_or_remove_one, where one record less moves the places, and so the masks, of others.
  nn::DropoutRun dropout_run(std::span<const index_t> slots, std::span<const RecordId> ids) const;
  /// Records of the last step that contributed nothing because something of them was not finite: a token id that no table
  /// has, or an overflow. Private, and without noise: throws unless TrainerOptions::unsafe_debug was set.
  index_t records_left_out() const;

  const dp::Plan& plan() const { return plan_; }
  /// Of this run: the root that was given, and a run nonce of its own.
  const dp::StreamKeys& keys() const { return ledger_.keys(); }
  /// Steps accounted so far.
  index_t steps() const { return ledger_.steps(); }
  /// The public clip threshold of the next step of an adaptive plan; 0 for other plans, whose thresholds plan().at() knows.
  double clip_threshold() const { return threshold_ ? threshold_->threshold() : 0; }
  /// What may be said of the run so far.
  std::string privacy_statement() const { return dp::privacy_statement(plan_, steps(), notes_); }
  const dp::StatementNotes& notes() const { return notes_; }
  /// Continues a run at this step, at this threshold (0 unless the plan is adaptive), with draws and noise of its own: what
  /// the run released behind this step is not in the new ledger (privacy_statement() says so). Throws when this trainer has
  /// taken a step or was resumed beyond step 0: a ledger never goes back. before: notes() of that run.
  void resume_at(index_t steps, double clip_threshold = 0, const dp::StatementNotes& before = {});
  /// Continues the very run of these keys: its draws and its noise once more. For the same sums only, see
  /// train/checkpoint.hpp; throws like resume_at().
  void repeat_from(index_t steps, double clip_threshold, const dp::StreamKeys& of_the_run,
                   const dp::StatementNotes& before = {});
  /// run_fingerprint() of this trainer as it is; nothing without TrainerOptions::data_fingerprint.
  std::string fingerprint() const;
  optim::Optimiser& optimiser() { return optimiser_; }
  const optim::Optimiser& optimiser() const { return optimiser_; }

 private:
  void restart(const dp::StreamKeys& keys, index_t steps, double clip_threshold, const dp::StatementNotes& before);
  Context& ctx_;
  dp::Plan plan_;
  dp::StreamKeys given_keys_;
  dp::StepLedger ledger_;
  dp::PoissonSampler sampler_;
  TrainerOptions options_;
  optim::Optimiser optimiser_;
  std::vector<Parameter*> parameters_;
  per_sample::GradientSums sums_;
  per_sample::Groups groups_;
  per_sample::ClippedSumSink sink_;
  FixedProgram program_;
  std::optional<dp::AdaptiveThreshold> threshold_;
  std::vector<index_t> slots_, draw_;
  index_t left_out_ = 0;
  dp::StatementNotes notes_;
};
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline PrivateTrainer::PrivateTrainer(Context& ctx, const nn::Parameters& parameters, const dp::Plan& plan,
                                                     const dp::StreamKeys& keys, index_t records,
                                                     const TrainerOptions& options)
    : ctx_(ctx),
      plan_(plan),
      given_keys_(keys),
      ledger_(plan.ledger(keys)),
      sampler_(plan.sampler(ledger_.keys(), records)),
      options_(options),
      optimiser_(ctx, parameters.all(), options.rule, options.rate_factors),
      parameters_(parameters.all().begin(), parameters.all().end()),
      sums_(ctx, parameters_),
      groups_(options.groups ? *options.groups : per_sample::Groups::flat(parameters_)),
      sink_(groups_, options.strategy),
      slots_(checked_slots(options.physical_batch)) {
  DPMP_CHECK(groups_.count() == plan.groups(), "expected as many clipping groups as the plan has thresholds, ",
             plan.groups(), ", got ", groups_.count());
  for (const Parameter* p : parameters_) groups_.of(*p);
  if (plan.adaptive()) threshold_ = plan.adaptive_threshold();
  notes_.counts_left_out = options.unsafe_debug;
}

DPMP_KEPT_BODY inline nn::DropoutRun PrivateTrainer::dropout_run(std::span<const index_t> slots,
                                                                 std::span<const RecordId> ids) const {
  SampleIdentities records = identities(ctx_, slots, ids);
  DPMP_CHECK(!records.by_place() || plan_.relation() != dp::NeighbouringRelation::add_or_remove_one,
             "expected identities that stay when another record is removed (content_id, stable_id) for ", plan_.relation(),
             ", got places in the data set");
  return nn::DropoutRun(keys().key(dp::Stream::dropout), ledger_.steps(), std::move(records));
}

DPMP_KEPT_BODY inline index_t PrivateTrainer::records_left_out() const {
  DPMP_CHECK(options_.unsafe_debug, "expected TrainerOptions::unsafe_debug for a number about private records, got none");
  return left_out_;
}

DPMP_KEPT_BODY inline void PrivateTrainer::resume_at(index_t steps, double clip_threshold,
                                                     const dp::StatementNotes& before) {
  restart(given_keys_, steps, clip_threshold, before);
  if (!notes_.other_noise_since) notes_.other_noise_since = steps;
}

DPMP_KEPT_BODY inline void PrivateTrainer::repeat_from(index_t steps, double clip_threshold,
                                                       const dp::StreamKeys& of_the_run, const dp::StatementNotes& before) {
  restart(dp::StreamKeys::repeat(of_the_run.root(), of_the_run.run_nonce()), steps, clip_threshold, before);
}

DPMP_KEPT_BODY inline std::string PrivateTrainer::fingerprint() const {
  if (!options_.data_fingerprint) return "";
  return run_fingerprint(ctx_, parameters_, groups_, optimiser_, options_, plan_.steps());
}

DPMP_KEPT_BODY inline void PrivateTrainer::restart(const dp::StreamKeys& keys, index_t steps, double clip_threshold,
                                                   const dp::StatementNotes& before) {
  DPMP_CHECK(ledger_.steps() == 0, "expected a trainer that has taken no step, got one at step ", ledger_.steps(),
             ": its ledger would go back, and noise be drawn again");
  DPMP_CHECK(threshold_ || clip_threshold == 0, "expected no clip threshold for a plan that is not adaptive, got ",
             clip_threshold);
  if (threshold_) threshold_->restore(clip_threshold);
  ledger_ = plan_.ledger(keys, steps);
  sampler_ = plan_.sampler(ledger_.keys(), sampler_.records());
  notes_ = before;
  notes_.counts_left_out = before.counts_left_out || options_.unsafe_debug;
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
