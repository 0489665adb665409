// SPDX-License-Identifier: Apache-2.0
// Training, private or not. Private: DP-SGD (Abadi et al. 2016, arXiv 1607.00133), clipped sums of Poisson batches plus
// noise, everything that the guarantee rests on taken from one dp::Plan. Without privacy: the same batches, plain sums, no
// noise.
#pragma once
#include "dpmp/nn/parameters.hpp"
#include "dpmp/train/continuation.hpp"
#include "dpmp/train/guarantee.hpp"
#include "dpmp/train/memory_choice.hpp"
#include "dpmp/train/trainer_options.hpp"
#include "dpmp/train/validation_report.hpp"

namespace dpmp::inline DPMP_ABI::train {
class Trainer {
 public:
  /// records: size of the training set, at most the plan's public dataset_size (of users where the unit is a user, who are
  /// in TrainerOptions::user_of_record; exactly that for sampling without replacement). keys: of dp::random_key() for a real
  /// run; a private trainer draws a run nonce of its own, so that trainers of one key draw and add independently (P36).
  /// Throws what Parameters::check_precision does.
  Trainer(Context& ctx, const nn::Parameters& parameters, const Privacy& privacy, const dp::StreamKeys& keys,
          index_t records, const TrainerOptions& options = {});

  /// One logical step: as many physical batches as the draw needs (at least one; where the plan's sampling has a fixed size,
  /// always as many as that), noise once, one update. Accounted before
  /// anything is drawn; throws when the plan is spent. Nothing private is returned: see plan().epsilon_after(steps()).
  /// Parameters may be frozen and trained again between steps: a frozen one gets no noise and does not move, and the state
  /// that the optimiser has of it stays as it is.
  void step(Losses losses);

  /// What the next step will do with each parameter, from one pass over a batch of empty slots: nothing is drawn, accounted
  /// or released. Throws when no parameter can be trained, and for a trainer without privacy.
  ValidationReport validate(Losses losses);
  /// The same after check_isolation() of the losses, in the run's loss scaling, on these records, at least three of them,
  /// which must be public or made up: every number of theirs is looked at. Throws, naming the first operation or parameter,
  /// where samples touch each other.
  ValidationReport validate(Losses losses, std::span<const index_t> public_records);
  /// Every physical batch of a private run must record the operations and shapes of the first one (FixedProgram). This
  /// allows one change, as of the next pass; when it is called must be public (a longer context from step 1000 on, say).
  void program_changes() {
    program_.forget();
    way_.forget();
    ctx_.arena().sizes_change();
  }
  /// What TrainerOptions::memory_budget came to; null before the first step or validate(), and without a budget.
  const MemoryChoice* memory_choice() const { return way_.choice(); }

  bool is_private() const { return guarantee_.has_value(); }
  /// Throws for a trainer without privacy, as do notes(), repeat_from() and privacy_statement().
  const dp::Plan& plan() const { return guarantee().plan; }
  /// Of this run: the root that was given, and of a private run a nonce of its own.
  const dp::StreamKeys& keys() const { return guarantee_ ? guarantee_->ledger.keys() : given_keys_; }
  /// Steps taken so far; of a private run, accounted.
  index_t steps() const { return guarantee_ ? guarantee_->ledger.steps() : steps_; }
  /// The public clip threshold of the next step of an adaptive plan; 0 for others, whose thresholds plan().at() knows.
  double clip_threshold() const { return guarantee_ ? guarantee_->counted.clip_threshold() : 0; }
  /// The loss scale of the next step and its state, all of it public, where the plan counts overflows; else nothing.
  std::optional<dp::OverflowScale> overflow_scale() const {
    return guarantee_ ? guarantee_->counted.overflow_scale() : std::optional<dp::OverflowScale>();
  }
  /// Records of the last step that contributed nothing because something of them was not finite: a token id that no table
  /// has, or an overflow. Private, and without noise: throws unless TrainerOptions::unsafe_debug was set.
  index_t records_left_out() const { return unsafe_numbers().left_out; }
  /// The same, of how many were drawn and clipped and of their gradient norms; all 0 before the first step.
  const UnsafeNumbers& unsafe_numbers() const;
  /// What may be said of the run so far.
  std::string privacy_statement() const { return dp::privacy_statement(plan(), steps(), notes()); }
  const dp::StatementNotes& notes() const { return guarantee().notes; }
  /// Continues a run at this step, in this state (clip_threshold(), state of overflow_scale()), with draws and noise of its
  /// own: what the run released after this step is not in the new ledger (privacy_statement() says so). Throws when this
  /// trainer has taken a step or was resumed beyond step 0: a ledger never goes back; and for balls_in_bins within an epoch,
  /// where a record would be drawn twice. The keys given must have the root of that run for cyclic_poisson. before: notes()
  /// of that run. Without privacy only the step is set.
  void resume_at(index_t steps, const dp::RunState& state = {}, const dp::StatementNotes& before = {});
  /// Continues the very run of these keys: its draws and its noise once more. For the same sums only, see
  /// train/checkpoint.hpp; throws like resume_at(). frozen_before: frozen_history() of that run.
  void repeat_from(index_t steps, const dp::RunState& state, const dp::StreamKeys& of_the_run,
                   const dp::StatementNotes& before = {}, std::uint64_t frozen_before = 0);
  /// FrozenHistory::value(): the noise of a step depends on it, so that continuations of one run that freeze different
  /// parameters, or of which one had a step that failed, share none from then on.
  std::uint64_t frozen_history() const { return frozen_history_.value(); }
  /// run_fingerprint() of this trainer; empty without TrainerOptions::data_fingerprint or without privacy.
  std::string fingerprint() const;
  /// run_description() of this trainer.
  std::string description() const;
  /// What dropout's masks of these slots are keyed by in that step; nothing without TrainerOptions::identity. Throws for
  /// identities that are places in the data set under add_or_remove_one: one record less moves those of others.
  std::optional<SampleRandomness> randomness(std::span<const index_t> slots, index_t step) const;
  /// Where backward passes begin: TrainerOptions::loss_scaling or its default.
  const LossScaling& loss_scaling() const { return *options_.loss_scaling; }
  /// The moving scale of a plain run: of TrainerOptions::grad_scaler, which must have been set. Store and restore its state
  /// with the weights to go on where a run ended.
  GradScaler& grad_scaler();
  /// All that it was made for, trained or frozen.
  std::span<Parameter* const> parameters() const { return parameters_; }
  optim::OptimiserState& optimiser_state() { return optimiser_state_; }
  const optim::OptimiserState& optimiser_state() const { return optimiser_state_; }

 private:
  const Guarantee& guarantee() const;
  /// Sums and moments for what is trained now, before the passes: they would take the memory of later ones.
  void follow_trainable();
  /// Stores parameters in the dtypes that TrainerOptions::precision has for this step.
  void follow_precision(index_t step, const std::optional<dp::OverflowScale>& overflow) {
    if (options_.precision.apply(ctx_, parameters_, step, overflow ? overflow->alarms() : 0)) program_.forget();
  }
  /// Chooses how steps are computed from here on, for TrainerOptions::memory_budget.
  void follow_budget(Losses losses);
  /// loss_scaling() of the next step.
  LossScaling scaling_now() const { return loss_scaling().of_step(overflow_scale() ? overflow_scale()->scale() : 1); }
  void private_step(Losses losses);
  void run_accounted_step(dp::StepTicket ticket, Losses losses);
  void plain_step(Losses losses);
  /// Calls f(PhysicalBatch) for each physical batch of what draw_ holds.
  void for_each_batch(index_t step, FunctionRef<void(const PhysicalBatch&)> f);
  void restart(const dp::StreamKeys& keys, index_t steps, const dp::RunState& state, const dp::StatementNotes& before);

  Context& ctx_;
  dp::StreamKeys given_keys_;
  std::optional<Guarantee> guarantee_;
  dp::Sampler sampler_;
  TrainerOptions options_;
  optim::OptimiserState optimiser_state_;
  std::vector<Parameter*> parameters_;
  std::string precision_;
  per_sample::GradientSums sums_;
  per_sample::Groups groups_;
  per_sample::ClippedSumSink sink_;
  ChosenWay way_;
  FixedProgram program_;
  std::vector<index_t> slots_, next_slots_, draw_;
  index_t steps_ = 0;  // without privacy
  std::optional<GradScaler> grad_scaler_;
  UnsafeNumbers unsafe_numbers_;
  FrozenHistory frozen_history_;
};
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
#include <algorithm>

#include "dpmp/train/isolation.hpp"
#include "dpmp/train/run_fingerprint.hpp"

namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline Trainer::Trainer(Context& ctx, const nn::Parameters& parameters, const Privacy& privacy,
                                       const dp::StreamKeys& keys, index_t records, const TrainerOptions& options)
    : ctx_(ctx),
      given_keys_(keys),
      guarantee_(Guarantee::of(ctx, privacy, keys, {.counts_left_out = options.unsafe_debug})),
      sampler_(guarantee_ ? sampler_of(guarantee_->plan, guarantee_->ledger.keys(), records, options.user_of_record)
                          : dp::Sampler(keys, {}, std::get<NoPrivacy>(privacy).sampling_rate, records)),
      options_(options),
      optimiser_state_(ctx, parameters.all(), options.optimiser, options.rate_factors),
      parameters_(parameters.all().begin(), parameters.all().end()),
      precision_(parameters.precision_text() + (options.precision.empty() ? "" : "; raised: " + options.precision.text())),
      sums_(ctx, parameters_),
      groups_(options.groups ? *options.groups : per_sample::Groups::flat(parameters_)),
      sink_(groups_, options.strategy),
      way_(options, parameters_, is_private()),
      slots_(checked_slots(options.physical_batch)) {
  parameters.check_precision();
  options_.precision.check(parameters_);
  for (const Parameter* p : parameters_) groups_.of(*p);
  options_.loss_scaling = loss_scaling_of(options, parameters_, is_private(), overflow_scale().has_value());
  if (options.grad_scaler) grad_scaler_.emplace(*options.grad_scaler);
  DPMP_CHECK(guarantee_ || options.user_of_record.empty(), "expected no users without privacy, got those of ",
             options.user_of_record.size(), " records");
  if (!guarantee_) return;
  const dp::NoiseSourceKind noise = plan().options().noise_source.kind;
  DPMP_CHECK(!options.memory_budget || noise == dp::NoiseSourceKind::independent,
             "expected independent noise with a memory budget, got ", noise);
  DPMP_CHECK(groups_.count() == plan().groups(), "expected as many clipping groups as the plan has thresholds, ",
             plan().groups(), ", got ", groups_.count());
}

DPMP_KEPT_BODY inline const Guarantee& Trainer::guarantee() const {
  DPMP_CHECK(guarantee_, "expected a trainer with a plan, got one without privacy");
  return *guarantee_;
}

DPMP_KEPT_BODY inline void Trainer::step(Losses losses) {
  follow_precision(steps(), overflow_scale());
  follow_budget(losses);
  if (guarantee_)
    private_step(losses);
  else
    plain_step(losses);
}

DPMP_KEPT_BODY inline void Trainer::for_each_batch(index_t step, FunctionRef<void(const PhysicalBatch&)> f) {
  const index_t batches = physical_batches(index_t(draw_.size()), index_t(slots_.size()));
  next_slots_.resize(slots_.size());
  fill_physical_batch(draw_, 0, slots_);
  for (index_t k = 0; k < batches; ++k) {
    if (k > 0) slots_.swap(next_slots_);
    const bool more = k + 1 < batches;
    if (more) fill_physical_batch(draw_, k + 1, next_slots_);
    f({.slots = slots_,
       .step = step,
       .randomness = randomness(slots_, step),
       .next_slots = more ? std::span<const index_t>(next_slots_) : std::span<const index_t>()});
  }
}

DPMP_KEPT_BODY inline void Trainer::follow_trainable() {
  sums_.follow_trainable(ctx_);
  // By what is public, not when a draw happens to need it.
  const index_t bound =
      guarantee_ ? plan().facts().batch_bound : dp::poisson_batch_bound(sampler_.records(), sampler_.probability(), 1e-9);
  sums_.prepare(physical_batches(std::max(bound, sampler_.fixed_slots()), index_t(slots_.size())) * index_t(slots_.size()));
  optimiser_state_.make_moments(ctx_, sums_);
}

DPMP_KEPT_BODY inline void Trainer::follow_budget(Losses losses) {
  if (!options_.memory_budget) return;
  follow_trainable();
  const auto pass = [&](const StepWay& way, index_t slots) {
    const std::vector<index_t> empty(std::size_t(slots), masked_slot);
    const PhysicalBatch batch{.slots = empty, .step = steps(), .randomness = randomness(empty, steps())};
    sums_.set_zero();
    return guarantee_ ? dry_private_pass(ctx_, losses, batch, groups_, sums_, way, scaling_now())
                      : dry_plain_pass(ctx_, losses, batch, sums_, way, loss_scaling());
  };
  if (!way_.follow(ctx_, options_.physical_batch, price_of_a_pass(ctx_, sums_), pass)) return;
  sink_ = per_sample::ClippedSumSink(groups_, way_.strategy());
  const index_t slots = way_.slots(options_.physical_batch);
  if (slots != index_t(slots_.size())) program_.forget();
  slots_.assign(std::size_t(slots), masked_slot);
}

DPMP_KEPT_BODY inline void Trainer::private_step(Losses losses) {
  frozen_history_.begin_step(steps(), parameters(), plan().options().noise_source.is_correlated(), way_.facts(0));
  dp::StepTicket ticket = guarantee_->ledger.begin_step(way_.facts(frozen_history_.value()));
  const index_t step = ticket.step();
  try {
    run_accounted_step(std::move(ticket), losses);
  } catch (...) {
    frozen_history_.step_failed(step);
    throw;
  }
}

DPMP_KEPT_BODY inline void Trainer::run_accounted_step(dp::StepTicket ticket, Losses losses) {
  const index_t step = ticket.step();
  const dp::StepPlan numbers = plan().at(step, clip_threshold());
  sampler_.draw(step, draw_);
  // A fixed size: as many slots in every step, empty where fewer were drawn.
  if (index_t(draw_.size()) < sampler_.fixed_slots()) draw_.resize(std::size_t(sampler_.fixed_slots()), masked_slot);
  follow_trainable();
  sums_.set_zero();
  guarantee_->source.begin(sums_);
  dp::CountedState& counted = guarantee_->counted;
  dp::StepCounts counts;
  UnsafeNumbers unsafe;
  for_each_batch(step, [&](const PhysicalBatch& batch) {
    dp::StepCounts here;
    detail::RecordNorms norms(options_.unsafe_debug ? index_t(batch.slots.size()) : 0);
    const PassRequests requests{.quantile_count = counted.counts_norms() ? &here.quantile : nullptr,
                                .program = &program_,
                                .norms = options_.unsafe_debug ? &norms : nullptr,
                                .overflow_count = counted.counts_overflows() ? &here.overflows : nullptr,
                                .loss_scaling = scaling_now(),
                                .checkpointing = way_.checkpointing()};
    guarantee_->source.accumulate(ctx_, losses, batch, numbers, sink_, sums_, requests);
    counts += here;
    norms.add_to(unsafe, batch.slots);
  });
  detail::RecordNorms::finish(unsafe);
  unsafe_numbers_ = unsafe;
  counted.update(counts, ticket.auxiliary_noise());
  const optim::StepNoise noise = guarantee_->source.add(ctx_, sums_, ticket.noise(), numbers);
  optimiser_state_.step(ctx_, sums_, 1 / plan().expected_batch(), options_.learning_rate.at(step), &noise);
}

DPMP_KEPT_BODY inline void Trainer::plain_step(Losses losses) {
  sampler_.draw(steps_, draw_);
  follow_trainable();
  sums_.set_zero();
  const LossScaling scaling = grad_scaler_ ? LossScaling::fixed(grad_scaler_->scale()) : loss_scaling();
  for_each_batch(steps_, [&](const PhysicalBatch& batch) {
    accumulate_plain(ctx_, losses, batch, sums_, scaling, way_.checkpointing());
  });
  if (grad_scaler_) {
    const bool finite = all_finite(ctx_, sums_.tensors());
    grad_scaler_->update(finite);
    if (!finite) return void(++steps_);
  }
  optimiser_state_.step(ctx_, sums_, 1 / (scaling.public_scale() * sampler_.probability() * double(sampler_.records())),
                        options_.learning_rate.at(steps_));
  ++steps_;
}

DPMP_KEPT_BODY inline GradScaler& Trainer::grad_scaler() {
  DPMP_CHECK(grad_scaler_, "expected a trainer made with TrainerOptions::grad_scaler, got one without");
  return *grad_scaler_;
}

DPMP_KEPT_BODY inline ValidationReport Trainer::validate(Losses losses) {
  follow_precision(steps(), overflow_scale());
  const dp::StepPlan numbers = plan().at(steps(), clip_threshold());
  follow_budget(losses);
  ValidationReport report(parameters_, groups_, numbers, index_t(slots_.size()), loss_scaling());
  if (memory_choice()) report.set_memory(memory_choice()->text());
  per_sample::ClippedSumSink sink(groups_, way_.strategy(),
                                  [&](const Parameter& p, const per_sample::SiteShape& shape,
                                      const per_sample::NormPlan& chosen) { report.set(p, shape, chosen); });
  const std::vector<index_t> empty(slots_.size(), masked_slot);
  sums_.follow_trainable(ctx_);
  accumulate_clipped(ctx_, losses, {.slots = empty, .step = steps(), .randomness = randomness(empty, steps())},
                     numbers.groups, sink, sums_,
                     {.program = &program_, .loss_scaling = scaling_now(), .checkpointing = way_.checkpointing()});
  report.set_operations(program_.recorded());
  return report;
}

DPMP_KEPT_BODY inline ValidationReport Trainer::validate(Losses losses, std::span<const index_t> public_records) {
  follow_precision(steps(), overflow_scale());
  check_isolation(ctx_, losses, public_records,
                  {.strategy = options_.strategy,
                   .loss_scaling = scaling_now(),
                   .randomness = [&](std::span<const index_t> slots) { return randomness(slots, steps()); }});
  return validate(losses);
}

DPMP_KEPT_BODY inline const UnsafeNumbers& Trainer::unsafe_numbers() const {
  DPMP_CHECK(options_.unsafe_debug, "expected TrainerOptions::unsafe_debug for a number about private records, got none");
  return unsafe_numbers_;
}

DPMP_KEPT_BODY inline std::optional<SampleRandomness> Trainer::randomness(std::span<const index_t> slots,
                                                                          index_t step) const {
  if (!options_.identity) return std::nullopt;
  const SecretKey of_records = keys().key(dp::Stream::record_identity);
  std::vector<RecordId> ids;
  for (const index_t record : slots)
    ids.push_back(record == masked_slot ? RecordId() : options_.identity(of_records, record));
  SampleIdentities records(ctx_, ids);
  DPMP_CHECK(!records.by_place() || !guarantee_ || plan().options().relation != dp::NeighbouringRelation::add_or_remove_one,
             "expected identities that stay when another record is removed (content_id, stable_id) for ",
             plan().options().relation, ", got places in the data set");
  return SampleRandomness{keys().key(dp::Stream::dropout), step, std::move(records)};
}

DPMP_KEPT_BODY inline void Trainer::resume_at(index_t steps, const dp::RunState& state, const dp::StatementNotes& before) {
  if (!guarantee_) {
    steps_ = steps;
    return follow_precision(steps, {});
  }
  check_own_noise_from(plan().options(), steps);
  restart(given_keys_, steps, state, before);
  if (!guarantee_->notes.other_noise_since) guarantee_->notes.other_noise_since = steps;
}

DPMP_KEPT_BODY inline void Trainer::repeat_from(index_t steps, const dp::RunState& state, const dp::StreamKeys& of_the_run,
                                                const dp::StatementNotes& before, std::uint64_t frozen_before) {
  restart(dp::StreamKeys::repeat(of_the_run.root(), of_the_run.run_nonce()), steps, state, before);
  frozen_history_.restore(frozen_before);
}

DPMP_KEPT_BODY inline std::string Trainer::fingerprint() const {
  // What is measured decides the strategy of a memory budget, and may do so otherwise after a resume: a run of its own.
  if (!options_.data_fingerprint || !guarantee_ || options_.memory_budget) return "";
  return run_fingerprint(ctx_, options_, plan().steps());
}

DPMP_KEPT_BODY inline std::string Trainer::description() const {
  return run_description(parameters_, precision_, groups_, optimiser_state_);
}

DPMP_KEPT_BODY inline void Trainer::restart(const dp::StreamKeys& keys, index_t steps, const dp::RunState& state,
                                            const dp::StatementNotes& before) {
  Guarantee again = guarantee().restarted(ctx_, keys, steps, state, before);
  follow_precision(steps, again.counted.overflow_scale());
  sampler_ = sampler_.with_keys(again.ledger.keys());
  guarantee_ = std::move(again);
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
