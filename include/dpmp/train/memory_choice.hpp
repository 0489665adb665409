// SPDX-License-Identifier: Apache-2.0
// The cheapest way to compute a step within a number of bytes (TrainerOptions::memory_budget): ways are tried on a batch of
// empty slots, from the cheapest on, until one fits.
#pragma once
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "dpmp/core/function_ref.hpp"
#include "dpmp/runtime/memory_trace.hpp"
#include "dpmp/train/dry_pass.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// One way, what it was predicted or seen to take, and whether that is within the budget.
struct TriedWay {
  StepWay way;
  /// DryPass::cost.
  double cost = 0;
  /// Bytes in use at once, MemoryStatistics::peak_bytes of a step: by the line through passes on one and on two samples, or,
  /// measured, of a pass on the physical batch. Not set: not even one sample fits.
  std::optional<index_t> peak_bytes = {};
  bool measured = false, fits = false;
};

struct MemoryChoice {
  index_t budget = 0, physical_batch = 0;
  bool is_private = true;
  /// From the cheapest to the dearest; the chosen one is the first that fits.
  std::vector<TriedWay> ways = {};
  const TriedWay& chosen() const;
  /// A table, one way a line.
  std::string text() const;
};

/// The ways that a trainer with such a strategy has: a strategy other than automatic, or a budget of its own, is kept to,
/// and so is a choice of checkpointing. gradient_bytes: what the automatic strategy keeps as gradients of a sample, of which
/// ways keep shares. The strategy as it is also in 2, 4 and 8 passes, as far as the physical batch has slots for them.
std::vector<StepWay> ways_of(const per_sample::StrategyOptions& strategy, std::optional<Checkpointing> checkpointing,
                             bool is_private, index_t gradient_bytes, index_t physical_batch);

/// Ways of the same cost and memory as another one are left out. pass(way, slots) runs one pass of a step on so many empty
/// slots, and one_more is what each pass more costs (price_of_a_pass); what is in use now is a part of what it takes.
/// Nothing above the budget is held meanwhile, and free memory is given back before and after. Throws OutOfMemory, with what
/// uses most and the batch that would fit, where no way fits, and what pass throws.
MemoryChoice choose_within(Context& ctx, std::span<const StepWay> ways, index_t budget, index_t physical_batch,
                           bool is_private, double one_more, FunctionRef<DryPass(const StepWay&, index_t)> pass);

/// The way of a trainer's steps: what its options say, and what their memory budget came to.
class ChosenWay {
 public:
  /// Throws on a negative budget.
  ChosenWay(const TrainerOptions& options, std::span<Parameter* const> parameters, bool is_private);
  /// Chooses, unless that was done for these parameters as they are now, trained or not, and in their dtypes. Whether it
  /// chose. Throws without a budget.
  bool follow(Context& ctx, index_t physical_batch, double one_more, FunctionRef<DryPass(const StepWay&, index_t)> pass);
  /// What was chosen does not count any more.
  void forget() { choice_.reset(); }
  const MemoryChoice* choice() const { return choice_ ? &*choice_ : nullptr; }
  per_sample::StrategyOptions strategy() const { return choice_ ? choice_->chosen().way.strategy : strategy_; }
  std::optional<Checkpointing> checkpointing() const {
    return choice_ ? choice_->chosen().way.checkpointing : checkpointing_;
  }
  /// Slots of a pass, of those of the physical batch.
  index_t slots(index_t physical_batch) const {
    return choice_ ? choice_->chosen().way.slots(physical_batch) : physical_batch;
  }
  /// What a step's noise depends on, of what it depends on anyway: the same, or with a strategy and passes that were chosen
  /// here mixed in. They decide how sums are rounded, and what else is in memory decides it: continuations of one run that
  /// chose differently share no noise.
  std::uint64_t facts(std::uint64_t history) const;

 private:
  per_sample::StrategyOptions strategy_;
  std::optional<Checkpointing> checkpointing_;
  std::optional<index_t> budget_;
  bool is_private_;
  std::vector<Parameter*> parameters_;
  std::vector<std::uint8_t> chosen_for_;
  std::optional<MemoryChoice> choice_;
};
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
#include <algorithm>
#include <iomanip>

#include "dpmp/core/siphash.hpp"

namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline const TriedWay& MemoryChoice::chosen() const {
  const auto at = std::find_if(ways.begin(), ways.end(), [](const TriedWay& w) { return w.fits; });
  DPMP_CHECK(at != ways.end(), "expected a way that fits, got none");
  return *at;
}

DPMP_KEPT_BODY inline std::string MemoryChoice::text() const {
  TextStream out;
  out << std::fixed << std::setprecision(3) << "memory budget " << double(budget) / 1e6 << " MB on " << physical_batch
      << " slots: " << chosen().way.text(is_private) << '\n';
  const auto line = [&](const auto& way, const auto& bytes, const auto& cost, const auto& verdict) {
    out << std::left << std::setw(68) << way << std::setw(12) << bytes << std::setw(24) << cost << verdict << '\n';
  };
  line("way", "peak MB", "million multiply-adds", "");
  bool found = false;
  for (const TriedWay& w : ways) {
    TextStream bytes;
    bytes << std::fixed << std::setprecision(3);
    if (w.peak_bytes)
      bytes << double(*w.peak_bytes) / 1e6;
    else
      bytes << '-';
    line(w.way.text(is_private), bytes.str(), w.cost / 1e6,
         w.fits       ? "chosen, measured"
         : found      ? "dearer"
         : w.measured ? "does not fit, measured"
                      : "does not fit");
    found = found || w.fits;
  }
  return out.str();
}

DPMP_KEPT_BODY inline std::vector<StepWay> ways_of(const per_sample::StrategyOptions& strategy,
                                                   std::optional<Checkpointing> checkpointing, bool is_private,
                                                   index_t gradient_bytes, index_t physical_batch) {
  using per_sample::Strategy;
  std::vector<per_sample::StrategyOptions> strategies{strategy};
  if (is_private && strategy.strategy == Strategy::automatic && !strategy.byte_budget && !strategy.gradient_bytes) {
    for (const index_t sixteenths : {15, 14, 12, 10, 8, 6, 4, 2, 0}) {
      if (gradient_bytes == 0) break;
      strategies.push_back(strategy);
      strategies.back().gradient_bytes = gradient_bytes / 16 * sixteenths;
    }
    for (const Strategy s : {Strategy::book_keeping, Strategy::two_pass}) {
      strategies.push_back(strategy);
      strategies.back().strategy = s;
    }
  }
  std::vector<StepWay> ways;
  const auto add = [&](const per_sample::StrategyOptions& s, index_t passes) {
    for (const Checkpointing how : {Checkpointing::none, Checkpointing::selective, Checkpointing::block})
      if (!checkpointing || how == *checkpointing) ways.push_back({s, how, passes});
  };
  for (const per_sample::StrategyOptions& s : strategies) add(s, 1);
  for (index_t passes = 2; passes <= std::min<index_t>(8, physical_batch); passes *= 2) add(strategy, passes);
  return ways;
}

namespace detail {
/// While it lives, a context holds no more than so many bytes.
class LimitedMemory {
 public:
  LimitedMemory(Context& ctx, index_t bytes) : ctx_(ctx), before_(ctx.arena().limit()) {
    ctx.limit_memory(std::min(bytes, before_.value_or(bytes)));
  }
  LimitedMemory(const LimitedMemory&) = delete;
  LimitedMemory& operator=(const LimitedMemory&) = delete;
  ~LimitedMemory() { ctx_.arena().limit(before_); }

 private:
  Context& ctx_;
  std::optional<index_t> before_;
};

/// The most slots whose predicted peak is within a budget.
inline index_t most_slots(const MemoryModel& model, index_t base, index_t budget, index_t fewer_than) {
  index_t fits = 0;
  for (index_t n = 1; n < fewer_than && base + model.peak_bytes(n) <= budget; ++n) fits = n;
  return fits;
}
}  // namespace detail

DPMP_KEPT_BODY inline MemoryChoice choose_within(Context& ctx, std::span<const StepWay> ways, index_t budget,
                                                 index_t physical_batch, bool is_private, double one_more,
                                                 FunctionRef<DryPass(const StepWay&, index_t)> pass) {
  DPMP_CHECK(budget >= 0 && physical_batch >= 1, "expected a memory budget >= 0 bytes and a physical batch >= 1, got ",
             budget, " and ", physical_batch);
  DPMP_CHECK(!ways.empty(), "expected ways to choose from, got none");
  struct Candidate {
    TriedWay tried;
    std::optional<MemoryModel> model;
    std::string refused;
  };
  std::vector<Candidate> candidates;
  MemoryChoice choice{budget, physical_batch, is_private, {}};
  ctx.trim_memory();
  const index_t base = ctx.memory().live_bytes;
  {
    const detail::LimitedMemory limited(ctx, budget);
    const auto traced = [&](const StepWay& way, index_t slots, DryPass& of) {
      const MemoryTrace trace(ctx.arena());
      of = pass(way, slots);
      return trace.events();
    };
    const auto alike = [](const TriedWay& x, const TriedWay& y) {
      return x.cost == y.cost && x.peak_bytes == y.peak_bytes && x.way.checkpointing == y.way.checkpointing;
    };
    bool has_parts = true;
    for (const StepWay& way : ways) {
      if (!has_parts && way.checkpointing != Checkpointing::none) continue;
      Candidate c{{.way = way, .cost = std::numeric_limits<double>::infinity()}, {}, {}};
      try {
        DryPass of;
        const index_t slots = way.slots(physical_batch);
        const std::vector<MemoryEvent> one = traced(way, 1, of), two = slots > 1 ? traced(way, 2, of) : one;
        if (way.checkpointing != Checkpointing::none && !of.has_parts) {
          has_parts = false;
          if (!candidates.empty()) continue;  // else the choice was the user's, and changes nothing
        }
        c.model.emplace(1, one, two);
        c.tried.cost = of.cost + double(way.passes - 1) * one_more / double(physical_batch);
        c.tried.peak_bytes = base + c.model->peak_bytes(slots);
      } catch (const OutOfMemory& e) {
        c.refused = e.message();
      }
      if (std::none_of(candidates.begin(), candidates.end(), [&](const Candidate& x) { return alike(x.tried, c.tried); }))
        candidates.push_back(std::move(c));
    }
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Candidate& x, const Candidate& y) { return x.tried.cost < y.tried.cost; });
    bool found = false;
    for (Candidate& c : candidates) {
      if (!found && c.model) {
        ctx.trim_memory();
        try {
          DryPass of;
          const index_t before = ctx.memory().live_bytes;
          c.tried.peak_bytes =
              before + MemoryModel::peak_bytes_of(traced(c.tried.way, c.tried.way.slots(physical_batch), of));
          c.tried.measured = true;
          found = c.tried.fits = *c.tried.peak_bytes <= budget;
        } catch (const OutOfMemory& e) {
          c.refused = e.message();
        }
      }
      choice.ways.push_back(c.tried);
    }
    ctx.trim_memory();
    if (found) return choice;
  }
  // Of the whole batch in one pass: how many slots of it fit is what the user can ask for instead.
  const Candidate* smallest = nullptr;
  for (const Candidate& c : candidates)
    if (c.tried.way.passes == 1 &&
        (!smallest || (c.model && (!smallest->model || *c.tried.peak_bytes < *smallest->tried.peak_bytes))))
      smallest = &c;
  const std::string most =
      smallest->model
          ? dpmp::detail::concat("takes about ", *smallest->tried.peak_bytes, ", and about ",
                                 detail::most_slots(*smallest->model, base, budget, physical_batch), " slots would fit")
          : std::string("does not fit with ") + (physical_batch > 1 ? "two slots" : "one slot");
  throw OutOfMemory(dpmp::detail::concat("expected a memory budget that a step of ", physical_batch,
                                         " slots fits into, got ", budget, " bytes: ", smallest->tried.way.text(is_private),
                                         ", ", most, "; ", smallest->refused));
}

DPMP_KEPT_BODY inline ChosenWay::ChosenWay(const TrainerOptions& options, std::span<Parameter* const> parameters,
                                           bool is_private)
    : strategy_(options.strategy),
      checkpointing_(options.checkpointing),
      budget_(options.memory_budget),
      is_private_(is_private),
      parameters_(parameters.begin(), parameters.end()) {
  DPMP_CHECK(budget_.value_or(0) >= 0, "expected a memory budget >= 0 bytes, got ", *budget_);
}

DPMP_KEPT_BODY inline bool ChosenWay::follow(Context& ctx, index_t physical_batch, double one_more,
                                             FunctionRef<DryPass(const StepWay&, index_t)> pass) {
  DPMP_CHECK(budget_, "expected a memory budget, got none");
  std::vector<std::uint8_t> now;
  for (const Parameter* p : parameters_) now.push_back(std::uint8_t(2 * int(p->dtype()) + p->trainable()));
  if (choice_ && now == chosen_for_) return false;
  choice_.reset();
  index_t gradient_bytes = 0;
  if (strategy_.strategy == per_sample::Strategy::automatic) {
    const detail::LimitedMemory limited(ctx, *budget_);
    try {
      gradient_bytes = pass({strategy_, checkpointing_.value_or(Checkpointing::block)}, 1).gradient_bytes;
    } catch (const OutOfMemory&) {
      // Then it fits with no share of the gradients kept, if at all.
    }
  }
  choice_ = choose_within(ctx, ways_of(strategy_, checkpointing_, is_private_, gradient_bytes, physical_batch), *budget_,
                          physical_batch, is_private_, one_more, pass);
  chosen_for_.swap(now);
  return true;
}

DPMP_KEPT_BODY inline std::uint64_t ChosenWay::facts(std::uint64_t history) const {
  if (!choice_) return history;
  const StepWay& way = choice_->chosen().way;
  const std::byte text[] = {std::byte(way.strategy.strategy), std::byte(way.passes)};
  return siphash24(history, std::uint64_t(way.strategy.gradient_bytes.value_or(-1)), text);
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
