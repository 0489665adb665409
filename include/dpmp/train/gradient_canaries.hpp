// SPDX-License-Identifier: Apache-2.0
// An audit of private training in one run, with canaries that are as visible as a record can be: each is a record whose
// gradient points at one weight (one of each clipping group) and is as long as the clip threshold lets through (Steinke,
// Nasr, Jagielski 2023, arXiv 2305.08846, section 6; Nasr et al. 2023, arXiv 2302.07956). The adversary sees the weights
// after every step, so that what it can tell of a canary is what the plan says it can, and no less.
//
//   train::GradientCanaries canaries(ctx, model.parameters(), plan, records, options);
//   train::Trainer trainer(ctx, model.parameters(), plan, keys, canaries.records(), canaries.trainer_options());
//   const auto with_canaries = [&](const train::Batch& batch) { return canaries.losses(batch, losses); };
//   while (trainer.steps() < plan.steps()) {
//     trainer.step(with_canaries);
//     canaries.observe();
//   }
//   std::cout << dp::audit_in_words(canaries.note(canaries.result()));
#pragma once
#include "dpmp/dp/audit_note.hpp"
#include "dpmp/dp/claimed_trade_off.hpp"
#include "dpmp/nn/parameters.hpp"
#include "dpmp/train/batch.hpp"
#include "dpmp/train/canary_coins.hpp"
#include "dpmp/train/trainer_options.hpp"

namespace dpmp::inline DPMP_ABI::train {
struct CanaryOptions {
  index_t canaries = 1000;
  /// How often a canary's loss uses its weight, each time for an equal part of the gradient: what counts is the norm of the
  /// sum of all uses.
  int uses = 2;
  /// Norm of a canary's gradient in each group, in clip thresholds.
  double norm = 256;
  /// Of every step: the audited run is plain descent, so that what a step released can be read from the weights.
  double learning_rate = 1;
  /// Decides coins and weights; not set: fresh ones. Whoever knows it knows which canaries are in.
  std::optional<std::uint64_t> seed = {};
};

/// The canaries of one run of a plan. Which record is which: CanaryCoins; under zero_out those that are out have no
/// gradient.
class GradientCanaries {
 public:
  /// own_records >= 1: of the caller's data, beside the canaries. Their gradients are in the same sums and hide canaries
  /// where they add up along a weight: of a small model, audit with few of them (the bound holds with any). options: of the
  /// run to audit; its clipping groups are kept, its optimiser becomes plain descent. Throws for a plan with an adaptive
  /// threshold, other sampling than Poisson's of records (or all of them), correlated noise or the relation replace_one, for
  /// more records than the plan's dataset_size, and where a group has fewer trained weights than there are canaries.
  GradientCanaries(Context& ctx, const nn::Parameters& parameters, const dp::Plan& plan, index_t own_records,
                   const TrainerOptions& options = {}, const CanaryOptions& canaries = {});
  /// Of the data set to train on, canaries and all: what the trainer is made for.
  index_t records() const { return coins_.records(); }
  const TrainerOptions& trainer_options() const { return options_; }
  /// Of a batch of records(): a canary's own loss in its slots, else those of `own`, which is given the caller's numbers of
  /// the records (record 0 in a canary's slot).
  Variable losses(const Batch& batch, Losses own) const;
  /// Looks at the weights after a step. Throws beyond max_steps of the plan's steps.
  void observe();

  index_t canaries() const { return coins_.canaries(); }
  const CanaryCoins& coins() const { return coins_; }
  /// What step `step` released along each canary, over what a canary adds that is in and was drawn: 1 plus noise of
  /// deviation noise_share(step), or 0 plus the same.
  const std::vector<double>& released(index_t step) const { return released_[std::size_t(step)]; }
  index_t steps() const { return index_t(released_.size()); }
  /// The standard deviation of the plan's noise along a canary, over what the canary adds.
  double noise_share(index_t step) const;
  /// The logarithm of how likely all releases are with each canary, against without: what the best test looks at.
  std::vector<double> scores() const;
  /// What this run proves against the plan. scores: other numbers of each canary, for a mechanism that may be broken in
  /// another way than by too little noise or too large contributions.
  dp::OneRunResult result(double confidence = 0.95) const;
  dp::OneRunResult result(std::span<const std::vector<double>> scores, double confidence) const;
  dp::AuditNote note(const dp::OneRunResult& result) const;

 private:
  struct Place {
    std::size_t parameter = 0;
    index_t element = 0;
  };
  void choose_places();
  /// The loss of the canary in each slot (-1: none).
  Variable canary_losses(Tape& tape, std::span<const index_t> canary_of_slot) const;
  std::vector<double> read_weights() const;

  Context& ctx_;
  std::vector<Parameter*> parameters_;
  dp::Plan plan_;
  TrainerOptions options_;
  CanaryOptions settings_;
  std::uint64_t seed_;
  CanaryCoins coins_;
  std::vector<std::vector<Place>> places_;    // [group][canary]
  std::vector<double> thresholds_, weights_;  // of the first step; [group * canaries + canary], before the next step
  std::vector<std::vector<double>> released_;
};
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
#include "dpmp/autograd/gradcheck.hpp"
#include "dpmp/autograd/rules/cast.hpp"
#include "dpmp/autograd/rules/elementwise.hpp"
#include "dpmp/autograd/rules/embedding.hpp"
#include "dpmp/autograd/rules/parameter_value.hpp"
#include "dpmp/autograd/rules/select.hpp"
#include "dpmp/core/philox.hpp"
#include "dpmp/dp/entropy.hpp"

namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline GradientCanaries::GradientCanaries(Context& ctx, const nn::Parameters& parameters,
                                                         const dp::Plan& plan, index_t own_records,
                                                         const TrainerOptions& options, const CanaryOptions& canaries)
    : ctx_(ctx),
      parameters_(parameters.all().begin(), parameters.all().end()),
      plan_(plan),
      options_(options),
      settings_(canaries),
      seed_(canaries.seed ? *canaries.seed : dp::random_nonce()),
      coins_(plan, canaries.canaries, own_records, seed_) {
  DPMP_CHECK(canaries.uses >= 1, "expected canaries that use their weight, got ", canaries.uses, " uses");
  DPMP_CHECK(canaries.norm > 0 && std::isfinite(canaries.norm) && canaries.learning_rate > 0 &&
                 std::isfinite(canaries.learning_rate),
             "expected a finite gradient norm and learning rate > 0, got ", canaries.norm, " and ", canaries.learning_rate);
  const dp::PlanOptions& o = plan.options();
  DPMP_CHECK(
      (o.sampling.kind == dp::SamplingKind::poisson || o.sampling.kind == dp::SamplingKind::full_batch) &&
          o.sampling.records_per_user == 0 && o.noise_source.kind == dp::NoiseSourceKind::independent &&
          o.relation != dp::NeighbouringRelation::replace_one,
      "expected a plan of records drawn by Poisson sampling (or all of them) that come or go, with independent noise, "
      "got sampling ",
      o.sampling.kind, ", ", o.sampling.records_per_user, " records of a user, the relation ", o.relation, " and noise ",
      o.noise_source.kind);
  const double norm = canaries.norm * o.clip_threshold * o.clip_schedule.largest();
  DPMP_CHECK(o.clip_rule.kind() != dp::ClipRule::Kind::custom &&
                 (o.clip_rule.kind() != dp::ClipRule::Kind::global || norm <= o.clip_rule.parameter()),
             "expected a clip rule that leaves a gradient of norm ", norm, " something, got ", o.clip_rule);
  DPMP_CHECK(!o.adaptive, "expected a plan whose thresholds are known before the run, got an adaptive one");
  choose_places();
  weights_ = read_weights();
  options_.optimiser = optim::Sgd{};
  options_.learning_rate = optim::LearningRate::constant(canaries.learning_rate);
  options_.rate_factors = {};
  if (options_.identity)
    options_.identity = [own = options.identity, coins = coins_](const Key256& secret, index_t record) {
      return own(secret, coins.own(record));
    };
}

DPMP_KEPT_BODY inline void GradientCanaries::choose_places() {
  const per_sample::Groups groups = options_.groups ? *options_.groups : per_sample::Groups::flat(parameters_);
  DPMP_CHECK(groups.count() == plan_.groups(), "expected as many clipping groups as the plan has thresholds, ",
             plan_.groups(), ", got ", groups.count());
  const index_t m = canaries();
  for (index_t g = 0; g < groups.count(); ++g) {
    std::vector<std::size_t> members;
    index_t room = 0;
    for (std::size_t p = 0; p < parameters_.size(); ++p)
      if (parameters_[p]->trainable() && groups.of(*parameters_[p]) == g)
        members.push_back(p), room += parameters_[p]->numel();
    DPMP_CHECK(room >= m, "expected as many trained weights in group ", g, " as there are canaries, ", m, ", got ", room);
    // Parameters take turns until they are full; the weight of each is drawn among those that are free.
    std::vector<std::vector<bool>> taken;
    for (const Parameter* p : parameters_) taken.emplace_back(std::size_t(p->numel()));
    std::vector<index_t> free;
    for (const Parameter* p : parameters_) free.push_back(p->numel());
    std::vector<Place> places;
    std::uint64_t draws = 0;
    while (index_t(places.size()) < m)
      for (const std::size_t p : members) {
        const index_t n = parameters_[p]->numel();
        if (free[p] == 0 || index_t(places.size()) == m) continue;
        index_t element = 0;
        do {
          const PhiloxBlock bits = philox_block(seed_, 1 + std::uint64_t(g), draws++);
          element = index_t((std::uint64_t(bits.word[0]) << 31 | bits.word[1] >> 1) % std::uint64_t(n));
        } while (taken[p][std::size_t(element)]);
        taken[p][std::size_t(element)] = true;
        --free[p];
        places.push_back({p, element});
      }
    places_.push_back(std::move(places));
  }
  for (const dp::FlatClipping& c : plan_.first_step().groups) thresholds_.push_back(c.clip_threshold());
}

DPMP_KEPT_BODY inline Variable GradientCanaries::canary_losses(Tape& tape, std::span<const index_t> canary_of_slot) const {
  const std::size_t slots = canary_of_slot.size(), uses = std::size_t(settings_.uses);
  const bool emptied = plan_.options().relation == dp::NeighbouringRelation::zero_out;
  Variable sum;
  bool first = true;
  for (std::size_t p = 0; p < parameters_.size(); ++p) {
    Parameter& w = *parameters_[p];
    const bool table = w.shape().rank() == 2;
    const std::size_t width = table ? std::size_t(w.shape()[1]) : std::size_t(w.numel());
    const bool used = std::any_of(places_.begin(), places_.end(), [&](const auto& places) {
      return std::any_of(places.begin(), places.end(), [&](const Place& at) { return at.parameter == p; });
    });
    if (!used) continue;
    std::vector<std::int32_t> rows(slots, 0);
    std::vector<double> gradient(slots * width, 0.0);
    for (std::size_t g = 0; g < places_.size(); ++g)
      for (std::size_t i = 0; i < slots; ++i) {
        if (canary_of_slot[i] < 0) continue;
        const Place& at = places_[g][std::size_t(canary_of_slot[i])];
        if (at.parameter != p || (emptied && !coins_.is_in(canary_of_slot[i]))) continue;
        if (table) rows[i] = std::int32_t(at.element / index_t(width));
        gradient[i * width + std::size_t(table ? at.element % index_t(width) : at.element)] +=
            settings_.norm * thresholds_[g] / double(uses);
      }
    for (std::size_t use = 0; use < uses; ++use) {
      const Variable value = table ? embedding(tape, Tensor::from(ctx_, {index_t(slots), 1}, rows), w) : parameter(tape, w);
      const Variable loss = cast(weighted_sum(value, gradient), DType::f32);
      sum = first ? loss : add(sum, loss);
      first = false;
    }
  }
  return sum;
}

DPMP_KEPT_BODY inline Variable GradientCanaries::losses(const Batch& batch, Losses own) const {
  std::vector<index_t> records, canary_of_slot;
  std::vector<std::int32_t> is_canary;
  for (const index_t r : batch.records) {
    canary_of_slot.push_back(coins_.canary(r));
    is_canary.push_back(canary_of_slot.back() >= 0);
    records.push_back(coins_.own(r));
  }
  const Variable theirs = own({batch.tape, records, batch.step});
  const Variable ours = cast(canary_losses(batch.tape, canary_of_slot), theirs.dtype());
  return where(Tensor::from(ctx_, {batch.size()}, is_canary), ours, theirs);
}

DPMP_KEPT_BODY inline std::vector<double> GradientCanaries::read_weights() const {
  std::vector<std::vector<double>> masters;
  for (const Parameter* p : parameters_) masters.push_back(p->master().to_doubles());
  std::vector<double> read;
  for (const auto& places : places_)
    for (const Place& at : places) read.push_back(masters[at.parameter][std::size_t(at.element)]);
  return read;
}

DPMP_KEPT_BODY inline double GradientCanaries::noise_share(index_t step) const {
  const dp::StepPlan numbers = plan_.at(step);
  double squares = 0;
  for (const dp::FlatClipping& c : numbers.groups) squares += c.clip_threshold() * c.clip_threshold();
  return numbers.noise_standard_deviation / std::sqrt(squares);
}

DPMP_KEPT_BODY inline void GradientCanaries::observe() {
  const std::vector<double> after = read_weights();
  const dp::StepPlan numbers = plan_.at(steps());
  double squares = 0;
  for (const dp::FlatClipping& c : numbers.groups) squares += c.clip_threshold() * c.clip_threshold();
  const std::size_t m = std::size_t(canaries());
  std::vector<double> seen(m, 0.0);
  for (std::size_t g = 0; g < numbers.groups.size(); ++g)
    for (std::size_t k = 0; k < m; ++k)
      seen[k] += (weights_[g * m + k] - after[g * m + k]) * numbers.groups[g].clip_threshold() / squares *
                 plan_.expected_batch() / settings_.learning_rate;
  weights_ = after;
  released_.push_back(std::move(seen));
}

DPMP_KEPT_BODY inline std::vector<double> GradientCanaries::scores() const {
  const double q = plan_.options().sampling_rate;
  std::vector<double> all(std::size_t(canaries()), 0.0);
  for (index_t t = 0; t < steps(); ++t) {
    const double variance = std::pow(noise_share(t), 2);
    for (std::size_t k = 0; k < all.size(); ++k) {
      const double drawn = (released(t)[k] - 0.5) / variance;  // log of the ratio where it is drawn
      const double a = std::log(q) + drawn, b = std::log1p(-q), high = std::max(a, b);
      all[k] += high + std::log(std::exp(a - high) + std::exp(b - high));
    }
  }
  return all;
}

DPMP_KEPT_BODY inline dp::OneRunResult GradientCanaries::result(double confidence) const {
  const std::vector<double> best = scores();
  return result(std::span(&best, 1), confidence);
}

DPMP_KEPT_BODY inline dp::OneRunResult GradientCanaries::result(std::span<const std::vector<double>> scores,
                                                                double confidence) const {
  DPMP_CHECK(steps() >= 1, "expected a step to have been observed, got none");
  return dp::audit_one_run(scores, coins_.included(), dp::default_guess_counts(canaries()), plan_.options().delta,
                           confidence, dp::claimed_trade_off(plan_, steps()));
}

DPMP_KEPT_BODY inline dp::AuditNote GradientCanaries::note(const dp::OneRunResult& result) const {
  return {.canaries = canaries(),
          .steps = steps(),
          .claimed_epsilon = plan_.epsilon_after(steps()),
          .delta = plan_.options().delta,
          .epsilon = result.epsilon,
          .confidence = result.confidence,
          .refuted = result.refuted};
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
