// SPDX-License-Identifier: Apache-2.0
// How much memory a private step will take, before the first one: for each strategy, each choice of checkpointing and any
// physical batch, and what fits into a number of bytes.
#pragma once
#include <string>
#include <vector>

#include "dpmp/nn/parameters.hpp"
#include "dpmp/runtime/memory_trace.hpp"
#include "dpmp/train/dry_pass.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// What a step takes of a context's memory if it is computed in one way.
class MemoryPrediction {
 public:
  /// models: on 2 and 4 samples, on 4 and 8, ..; trained: values
  MemoryPrediction(const StepWay& way, index_t base, std::vector<MemoryModel> models, double cost, index_t trained)
      : way_(way), base_(base), trained_(trained), models_(std::move(models)), cost_(cost) {}
  per_sample::Strategy strategy() const { return way_.strategy.strategy; }
  Checkpointing checkpointing() const { return way_.checkpointing; }
  /// Bytes in use at once on physical batches of so many slots: MemoryStatistics::peak_bytes of a step. What was in use when
  /// the plan was made is a part of it. A context holds about 1.1 to 1.4 times as many, so that no step has to ask the
  /// system; with less (Context::limit_memory) it does. logical_batch: the most records that a step may draw (of a plan,
  /// PlanFacts::batch_bound): of more than samples_per_chain the sums take 12 bytes a trained value more, of however many.
  index_t peak_bytes(index_t physical_batch, index_t logical_batch = 0) const;
  /// The largest physical batch whose peak_bytes() are within a budget; 0 where one slot is too many.
  index_t largest_batch(index_t budget, index_t logical_batch = 0) const;
  /// DryPass::cost: what ways differ by.
  double cost() const { return cost_; }

 private:
  StepWay way_;
  index_t base_, trained_;
  std::vector<MemoryModel> models_;
  double cost_;
};

/// Predictions of several ways.
class MemoryPlan {
 public:
  explicit MemoryPlan(std::vector<MemoryPrediction> predictions) : predictions_(std::move(predictions)) {}
  const std::vector<MemoryPrediction>& predictions() const { return predictions_; }
  /// Throws for a way that the plan was not made for. Of a model without checkpointed parts all choices are none.
  const MemoryPrediction& of(per_sample::Strategy strategy, Checkpointing checkpointing = Checkpointing::none) const;
  /// The cheapest one whose peak_bytes() on such batches are within the budget; of equal ones that of fewer bytes. Throws
  /// OutOfMemory, with what the smallest one would take, where none fits.
  const MemoryPrediction& cheapest(index_t budget, index_t physical_batch, index_t logical_batch = 0) const;
  /// A table for that budget and these batches, one way a line, and the choice.
  std::string text(index_t budget, index_t physical_batch, index_t logical_batch = 0) const;

 private:
  std::vector<MemoryPrediction> predictions_;
};

/// Runs the losses, as validate() does, on batches of 2, 4, .. 64 empty slots, as far as they fit, for each strategy and
/// each choice of checkpointing that the model has parts for, with the sums and the optimiser's state that a trainer of
/// these options makes, and puts a line through the sizes of two neighbours: which moment of a pass takes most may change
/// with the batch. Called before the trainer is made, with the model and the data where they will be; nothing of either is
/// changed, and the context's free memory is given back. options: physical_batch, strategy.strategy, checkpointing and
/// memory_budget do not matter, and a schedule of precision is not looked at: a plan is for the dtypes that the parameters
/// have. Within 2 % of the peak of a step on 32 slots, and within 10 % on other numbers (tests/train/test_memory_plan.cpp).
/// Throws where 4 slots do not fit, and what the losses throw.
MemoryPlan plan_memory(Context& ctx, const nn::Parameters& parameters, const TrainerOptions& options, Losses losses);
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
#include <iomanip>

namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline index_t MemoryPrediction::peak_bytes(index_t physical_batch, index_t logical_batch) const {
  std::size_t k = 0;
  while (k + 1 < models_.size() && physical_batch >= index_t(4) << k) ++k;
  const index_t folds = logical_batch > samples_per_chain ? trained_ * per_sample::GradientSums::bytes_of_folds : 0;
  return base_ + models_[k].peak_bytes(physical_batch) + folds;
}

DPMP_KEPT_BODY inline index_t MemoryPrediction::largest_batch(index_t budget, index_t logical_batch) const {
  constexpr index_t most = index_t(1) << 24;
  if (peak_bytes(1, logical_batch) > budget) return 0;
  index_t fits = 1, too_many = most;
  while (too_many - fits > 1) {
    const index_t middle = fits + (too_many - fits) / 2;
    (peak_bytes(middle, logical_batch) <= budget ? fits : too_many) = middle;
  }
  return fits;
}

DPMP_KEPT_BODY inline const MemoryPrediction& MemoryPlan::of(per_sample::Strategy strategy,
                                                             Checkpointing checkpointing) const {
  const bool has_parts = std::any_of(predictions_.begin(), predictions_.end(),
                                     [](const auto& p) { return p.checkpointing() != Checkpointing::none; });
  const Checkpointing how = has_parts ? checkpointing : Checkpointing::none;
  for (const MemoryPrediction& p : predictions_)
    if (p.strategy() == strategy && p.checkpointing() == how) return p;
  throw Error(dpmp::detail::concat("expected a strategy of this plan, got ", per_sample::name_of(strategy)));
}

DPMP_KEPT_BODY inline const MemoryPrediction& MemoryPlan::cheapest(index_t budget, index_t physical_batch,
                                                                   index_t logical_batch) const {
  const auto bytes = [&](const MemoryPrediction& p) { return p.peak_bytes(physical_batch, logical_batch); };
  const MemoryPrediction *best = nullptr, *smallest = nullptr;
  for (const MemoryPrediction& p : predictions_) {
    if (!smallest || bytes(p) < bytes(*smallest)) smallest = &p;
    if (bytes(p) > budget) continue;
    if (!best || p.cost() < best->cost() || (p.cost() == best->cost() && bytes(p) < bytes(*best))) best = &p;
  }
  DPMP_CHECK(smallest, "expected a plan with predictions, got none");
  if (!best)
    throw OutOfMemory(dpmp::detail::concat("expected a budget that a strategy fits into on ", physical_batch, " slots, got ",
                                           budget, " bytes: ", per_sample::name_of(smallest->strategy()), ", blocks keep ",
                                           kept_by(smallest->checkpointing()), ", takes ", bytes(*smallest), ", and ",
                                           smallest->largest_batch(budget, logical_batch), " slots would fit"));
  return *best;
}

DPMP_KEPT_BODY inline std::string MemoryPlan::text(index_t budget, index_t physical_batch, index_t logical_batch) const {
  TextStream out;
  const auto cell = [&](int width, const auto& value) { out << std::left << std::setw(width) << value; };
  const auto megabytes = [](double bytes) {
    TextStream number;
    number << std::fixed << std::setprecision(3) << bytes / 1e6;
    return number.str();
  };
  const auto line = [&](const auto& strategy, const auto& kept, const auto& bytes, const auto& batch, const auto& cost) {
    cell(16, strategy), cell(14, kept), cell(14, bytes), cell(16, batch), cell(0, cost);
    out << '\n';
  };
  line("strategy", "blocks keep", "peak MB", "largest batch", "million multiply-adds a sample");
  bool any = false;
  for (const MemoryPrediction& p : predictions_) {
    const index_t bytes = p.peak_bytes(physical_batch, logical_batch);
    line(per_sample::name_of(p.strategy()), kept_by(p.checkpointing()), megabytes(double(bytes)),
         p.largest_batch(budget, logical_batch), megabytes(p.cost()));
    any = any || bytes <= budget;
  }
  out << "within " << megabytes(double(budget)) << " MB on " << physical_batch << " slots: ";
  if (any) {
    const MemoryPrediction& p = cheapest(budget, physical_batch, logical_batch);
    out << per_sample::name_of(p.strategy()) << ", blocks keep " << kept_by(p.checkpointing()) << '\n';
  } else {
    out << "none\n";
  }
  return out.str();
}

namespace detail {
/// The requests of one pass over empty slots and of what is there while it runs.
inline std::vector<MemoryEvent> trace_of_pass(Context& ctx, const nn::Parameters& parameters, const TrainerOptions& options,
                                              Losses losses, const StepWay& way, index_t slots, DryPass& pass) {
  const per_sample::Groups groups = options.groups ? *options.groups : per_sample::Groups::flat(parameters.all());
  const std::vector<index_t> empty(std::size_t(slots), masked_slot);
  std::optional<SampleRandomness> randomness;
  const MemoryTrace trace(ctx.arena());
  {
    if (options.identity)
      randomness = SampleRandomness{SecretKey(), 0, SampleIdentities(ctx, std::vector<RecordId>(empty.size()))};
    optim::OptimiserState state(ctx, parameters.all(), options.optimiser, options.rate_factors);
    per_sample::GradientSums sums(ctx, parameters.all());
    state.make_moments(ctx, sums);
    const bool counts = options.precision.follows_overflows() || options.loss_scaling == LossScaling::noisy();
    pass = dry_private_pass(ctx, losses, {.slots = empty, .randomness = randomness}, groups, sums, way,
                            loss_scaling_of(options, parameters.all(), true, counts).of_step(1));
  }
  return trace.events();
}

/// Predictions of one way; nothing for one that the model has no parts for or that does not fit with four slots.
inline std::optional<MemoryPrediction> predicted(Context& ctx, const nn::Parameters& parameters,
                                                 const TrainerOptions& options, Losses losses, const StepWay& way,
                                                 index_t base) {
  constexpr index_t most = 64;
  DryPass pass;
  const auto trace_on = [&](index_t slots) { return trace_of_pass(ctx, parameters, options, losses, way, slots, pass); };
  std::vector<MemoryModel> models;
  std::vector<MemoryEvent> before;
  try {
    before = trace_on(2);
  } catch (const OutOfMemory&) {
    return std::nullopt;
  }
  if (way.checkpointing != Checkpointing::none && !pass.has_parts) return std::nullopt;
  for (index_t n = 2; n < most; n *= 2) {
    std::vector<MemoryEvent> now;
    try {
      now = trace_on(2 * n);
    } catch (const OutOfMemory&) {
      break;  // what does not fit need not be predicted
    }
    models.emplace_back(n, before, now);
    before.swap(now);
  }
  if (models.empty()) return std::nullopt;
  index_t trained = 0;
  for (const Parameter* p : parameters.all()) trained += p->trainable() ? p->numel() : 0;
  return MemoryPrediction(way, base, std::move(models), pass.cost, trained);
}
}  // namespace detail

DPMP_KEPT_BODY inline MemoryPlan plan_memory(Context& ctx, const nn::Parameters& parameters, const TrainerOptions& options,
                                             Losses losses) {
  using per_sample::Strategy;
  ctx.trim_memory();
  const index_t base = ctx.memory().live_bytes;
  std::vector<MemoryPrediction> predictions;
  for (const Strategy strategy : {Strategy::automatic, Strategy::book_keeping, Strategy::two_pass, Strategy::materialised}) {
    StepWay way{.strategy = options.strategy};
    way.strategy.strategy = strategy;
    if (strategy != Strategy::automatic) way.strategy.byte_budget.reset();  // of that one alone
    for (const Checkpointing how : {Checkpointing::none, Checkpointing::selective, Checkpointing::block}) {
      way.checkpointing = how;
      if (auto p = detail::predicted(ctx, parameters, options, losses, way, base)) predictions.push_back(std::move(*p));
    }
  }
  ctx.trim_memory();
  return MemoryPlan(std::move(predictions));
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
