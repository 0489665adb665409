// SPDX-License-Identifier: Apache-2.0
// How much memory a private step will take, before the first one: for each strategy and any physical batch, and what fits
// into a number of bytes.
#pragma once
#include <string>
#include <vector>

#include "dpmp/nn/parameters.hpp"
#include "dpmp/runtime/memory_trace.hpp"
#include "dpmp/train/accumulate.hpp"
#include "dpmp/train/trainer_options.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// What a strategy's step takes of a context's memory.
class MemoryPrediction {
 public:
  /// models: on 2 and 4 samples, on 4 and 8, ..
  MemoryPrediction(per_sample::Strategy strategy, index_t base, std::vector<MemoryModel> models, double cost)
      : strategy_(strategy), base_(base), models_(std::move(models)), cost_(cost) {}
  per_sample::Strategy strategy() const { return strategy_; }
  /// Bytes in use at once on physical batches of so many slots: MemoryStatistics::peak_bytes of a step. What was in use when
  /// the plan was made is a part of it. A context holds about 1.1 to 1.4 times as many, so that no step has to ask the
  /// system; with less (Context::limit_memory) it does.
  index_t peak_bytes(index_t physical_batch) const;
  /// The largest physical batch whose peak_bytes() are within a budget; 0 where one slot is too many.
  index_t largest_batch(index_t budget) const;
  /// Multiply-adds a sample of norms, clipped sums and, where sites are not kept, of the second walk: what strategies differ
  /// by (per_sample/cost.hpp).
  double cost() const { return cost_; }

 private:
  per_sample::Strategy strategy_;
  index_t base_;
  std::vector<MemoryModel> models_;
  double cost_;
};

/// Predictions of several strategies.
class MemoryPlan {
 public:
  explicit MemoryPlan(std::vector<MemoryPrediction> predictions) : predictions_(std::move(predictions)) {}
  const std::vector<MemoryPrediction>& predictions() const { return predictions_; }
  /// Throws for a strategy that the plan was not made for.
  const MemoryPrediction& of(per_sample::Strategy strategy) const;
  /// The cheapest one whose peak_bytes() on such batches are within the budget; of equal ones that of fewer bytes. Throws,
  /// with what the smallest one would take, where none fits.
  const MemoryPrediction& cheapest(index_t budget, index_t physical_batch) const;
  /// A table for that budget and physical batch, one strategy a line, and the choice.
  std::string text(index_t budget, index_t physical_batch) const;

 private:
  std::vector<MemoryPrediction> predictions_;
};

/// Runs the losses, as validate() does, on batches of 2, 4, .. 64 empty slots, as far as they fit, for each strategy, with
/// the sums and the optimiser's state that a trainer of these options makes, and puts a line through the sizes of two
/// neighbours: which moment of a pass takes most may change with the batch. Called before the trainer is made, with the
/// model and the data where they will be; nothing of either is changed, and the context's free memory is given back.
/// options: physical_batch and strategy.strategy do not matter, and a schedule of precision is not looked at: a plan is for
/// the dtypes that the parameters have. Within 2 % of the peak of a step on 32 slots, and within 10 %
/// on other numbers (tests/train/test_memory_plan.cpp); beyond 512 records a step the sums take 12 bytes a trained value
/// more. Throws where 4 slots do not fit, and what the losses throw.
MemoryPlan plan_memory(Context& ctx, const nn::Parameters& parameters, const TrainerOptions& options, Losses losses);
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
#include <iomanip>

namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline index_t MemoryPrediction::peak_bytes(index_t physical_batch) const {
  std::size_t k = 0;
  while (k + 1 < models_.size() && physical_batch >= index_t(4) << k) ++k;
  return base_ + models_[k].peak_bytes(physical_batch);
}

DPMP_KEPT_BODY inline index_t MemoryPrediction::largest_batch(index_t budget) const {
  constexpr index_t most = index_t(1) << 24;
  if (peak_bytes(1) > budget) return 0;
  index_t fits = 1, too_many = most;
  while (too_many - fits > 1) {
    const index_t middle = fits + (too_many - fits) / 2;
    (peak_bytes(middle) <= budget ? fits : too_many) = middle;
  }
  return fits;
}

DPMP_KEPT_BODY inline const MemoryPrediction& MemoryPlan::of(per_sample::Strategy strategy) const {
  for (const MemoryPrediction& p : predictions_)
    if (p.strategy() == strategy) return p;
  throw Error(dpmp::detail::concat("expected a strategy of this plan, got ", per_sample::name_of(strategy)));
}

DPMP_KEPT_BODY inline const MemoryPrediction& MemoryPlan::cheapest(index_t budget, index_t physical_batch) const {
  const auto bytes = [&](const MemoryPrediction& p) { return p.peak_bytes(physical_batch); };
  const MemoryPrediction *best = nullptr, *smallest = nullptr;
  for (const MemoryPrediction& p : predictions_) {
    if (!smallest || bytes(p) < bytes(*smallest)) smallest = &p;
    if (bytes(p) > budget) continue;
    if (!best || p.cost() < best->cost() || (p.cost() == best->cost() && bytes(p) < bytes(*best))) best = &p;
  }
  DPMP_CHECK(smallest, "expected a plan with predictions, got none");
  DPMP_CHECK(best, "expected a budget that a strategy fits into on ", physical_batch, " slots, got ", budget,
             " bytes: ", per_sample::name_of(smallest->strategy()), " takes ", bytes(*smallest), ", and ",
             smallest->largest_batch(budget), " slots would fit");
  return *best;
}

DPMP_KEPT_BODY inline std::string MemoryPlan::text(index_t budget, index_t physical_batch) const {
  TextStream out;
  const auto cell = [&](int width, const auto& value) { out << std::left << std::setw(width) << value; };
  const auto megabytes = [](double bytes) {
    TextStream number;
    number << std::fixed << std::setprecision(3) << bytes / 1e6;
    return number.str();
  };
  const auto line = [&](const auto& a, const auto& b, const auto& c, const auto& d) {
    cell(16, a), cell(14, b), cell(16, c), cell(0, d);
    out << '\n';
  };
  line("strategy", "peak MB", "largest batch", "million multiply-adds a sample");
  for (const MemoryPrediction& p : predictions_)
    line(per_sample::name_of(p.strategy()), megabytes(double(p.peak_bytes(physical_batch))), p.largest_batch(budget),
         megabytes(p.cost()));
  const bool any = std::any_of(predictions_.begin(), predictions_.end(),
                               [&](const auto& p) { return p.peak_bytes(physical_batch) <= budget; });
  out << "within " << megabytes(double(budget)) << " MB on " << physical_batch
      << " slots: " << (any ? per_sample::name_of(cheapest(budget, physical_batch).strategy()) : "none") << '\n';
  return out.str();
}

namespace detail {
/// The requests of one pass over empty slots and of what is there while it runs; cost: of the pass, a sample.
inline std::vector<MemoryEvent> trace_of_pass(Context& ctx, const nn::Parameters& parameters, const TrainerOptions& options,
                                              Losses losses, index_t slots, double& cost) {
  const per_sample::Groups groups = options.groups ? *options.groups : per_sample::Groups::flat(parameters.all());
  const std::vector<dp::FlatClipping> clipping(std::size_t(groups.count()), dp::FlatClipping(1.0));
  const std::vector<index_t> empty(std::size_t(slots), masked_slot);
  std::optional<SampleRandomness> randomness;
  cost = 0;
  double second_walk = 0;
  bool walks_twice = false;
  per_sample::ClippedSumSink sink(
      groups, options.strategy,
      [&](const Parameter&, const per_sample::SiteShape& shape, const per_sample::NormPlan& chosen) {
        cost += chosen.cost;
        second_walk += double(shape.tokens) * double(shape.p) * double(shape.d);
        walks_twice = walks_twice || chosen.keep == per_sample::Keep::second_walk;
      });
  std::vector<MemoryEvent> events;
  {
    const MemoryTrace trace(ctx.arena());
    if (options.identity)
      randomness = SampleRandomness{SecretKey(), 0, SampleIdentities(ctx, std::vector<RecordId>(empty.size()))};
    optim::OptimiserState state(ctx, parameters.all(), options.optimiser, options.rate_factors);
    per_sample::GradientSums sums(ctx, parameters.all());
    state.make_moments(ctx, sums);
    const bool noisy = options.loss_scaling && options.loss_scaling->kind() == LossScaling::Kind::noisy;
    accumulate_clipped(ctx, losses, {.slots = empty, .randomness = randomness}, clipping, sink, sums,
                       {.loss_scaling = noisy ? LossScaling::fixed(1) : loss_scaling_of(options, parameters.all(), true)});
    events = trace.events();
  }
  if (walks_twice) cost += second_walk;
  return events;
}
}  // namespace detail

DPMP_KEPT_BODY inline MemoryPlan plan_memory(Context& ctx, const nn::Parameters& parameters, const TrainerOptions& options,
                                             Losses losses) {
  using per_sample::Strategy;
  constexpr index_t most = 64;
  ctx.trim_memory();
  const index_t base = ctx.memory().live_bytes;
  std::vector<MemoryPrediction> predictions;
  for (const Strategy strategy : {Strategy::automatic, Strategy::book_keeping, Strategy::two_pass, Strategy::materialised}) {
    TrainerOptions with = options;
    with.strategy.strategy = strategy;
    if (strategy != Strategy::automatic) with.strategy.byte_budget.reset();  // of that one alone
    double cost = 0;
    const auto trace_on = [&](index_t slots) { return detail::trace_of_pass(ctx, parameters, with, losses, slots, cost); };
    std::vector<MemoryModel> models;
    std::vector<MemoryEvent> before = trace_on(2);
    for (index_t n = 2; n < most; n *= 2) {
      std::vector<MemoryEvent> now;
      try {
        now = trace_on(2 * n);
      } catch (const Error&) {
        if (n == 2) throw;
        break;  // what does not fit need not be predicted
      }
      models.emplace_back(n, before, now);
      before.swap(now);
    }
    predictions.emplace_back(strategy, base, std::move(models), cost);
  }
  ctx.trim_memory();
  return MemoryPlan(std::move(predictions));
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
