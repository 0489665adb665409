// SPDX-License-Identifier: Apache-2.0
// What a trainer is told in addition to the plan: nothing here decides how private a run is, but for unsafe_debug, and for
// user_of_record, which says what the unit of a plan for users is.
#pragma once
#include <algorithm>
#include <functional>
#include <optional>
#include <vector>

#include "dpmp/autograd/checkpointed_part.hpp"
#include "dpmp/autograd/loss_scale.hpp"
#include "dpmp/core/record_id.hpp"
#include "dpmp/dp/plan.hpp"
#include "dpmp/optim/learning_rate.hpp"
#include "dpmp/optim/optimiser.hpp"
#include "dpmp/per_sample/cost.hpp"
#include "dpmp/per_sample/groups.hpp"
#include "dpmp/train/grad_scaler.hpp"
#include "dpmp/train/precision_schedule.hpp"

namespace dpmp::inline DPMP_ABI::train {
struct TrainerOptions {
  /// Slots of a physical batch: memory and speed only, the result does not depend on it beyond rounding.
  index_t physical_batch = 64;
  optim::Optimiser optimiser = optim::AdamW{};
  /// Groups of parameters that learn faster or slower than the others; the first group that has a parameter counts.
  std::vector<optim::RateFactor> rate_factors = {};
  /// A function of the step: of public facts only, whatever else it looks at.
  optim::LearningRate learning_rate = optim::LearningRate::constant(1e-3);
  /// How norms and clipped sums are computed: speed and memory only.
  per_sample::StrategyOptions strategy = {};
  /// What is kept of checkpointed parts of the model, in the place of its own choice: memory and time only.
  std::optional<Checkpointing> checkpointing = {};
  /// Most bytes in use at once (MemoryStatistics::peak_bytes of the context, of which what is in use before is a part).
  /// Before the first step, and again where what is trained, a dtype or the program changes, the cheapest way to compute a
  /// step within them is chosen: a strategy, unless one is given, checkpointing, unless it is given, and up to 8 passes on a
  /// share of the physical batch each (train/memory_choice.hpp); where none fits that step throws OutOfMemory and is not
  /// accounted. The context holds up to 1.4 times as much unless Context::limit_memory says otherwise.
  std::optional<index_t> memory_budget = {};
  /// Powers of two that backward passes begin at. Not set: LossScaling::noisy() where the plan counts overflows; else
  /// private training of a model with f16 parameters has LossScaling::per_sample(), and all else none. Speed and exactness
  /// only: no choice changes what is private.
  std::optional<LossScaling> loss_scaling = {};
  /// Plain training only, instead of loss_scaling: a scale that follows overflows, whose steps are skipped. A trainer with a
  /// plan refuses it: both tell of single records.
  std::optional<GradScalerOptions> grad_scaler = {};
  /// Layers that get a wider dtype at later steps.
  PrecisionSchedule precision = {};
  /// Clipping groups, as many as the plan has; not set: one for all parameters.
  std::optional<per_sample::Groups> groups = {};
  /// A number of everything that decides what is summed and that the trainer cannot see: the records and their order, what
  /// prepares them, the model's settings (dropout rates, say), in which steps which parameters are frozen. Set: a checkpoint
  /// of a run with the same number, on the same kind of machine, is continued bit for bit. Not set: it is continued with
  /// draws and noise of its own.
  std::optional<std::uint64_t> data_fingerprint = {};
  /// What a record is known by to randomness inside of it, which a model with dropout needs: called with a secret of the run
  /// (dp::Stream::record_identity) and the record's number, for example
  /// `[&](const Key256& secret, index_t k) { return content_id(secret, texts[k]); }`.
  std::function<RecordId(const Key256& secret, index_t record)> identity = {};
  /// The id of the user whose each record is, where the plan's unit is a user (SamplingOptions::records_per_user); empty
  /// where it is a record.
  std::vector<index_t> user_of_record = {};
  /// Makes Trainer::unsafe_numbers() and records_left_out() answer: numbers about private records that no noise is added to.
  /// For looking for mistakes in public data; the privacy statement says that it was on.
  bool unsafe_debug = false;
};

/// The sampler of a run of this plan. Throws for users of other records than `records`, for users in a plan whose unit is a
/// record, and like Plan::sampler.
inline dp::Sampler sampler_of(const dp::Plan& plan, const dp::StreamKeys& keys, index_t records,
                              const std::vector<index_t>& user_of_record) {
  if (user_of_record.empty()) return plan.sampler(keys, records);
  DPMP_CHECK(index_t(user_of_record.size()) == records, "expected the user of each of ", records, " records, got ",
             user_of_record.size());
  return plan.sampler(keys, dp::UserRecords(user_of_record));
}

/// The loss scaling of a run: the one asked for, or the default of these parameters. Throws for a GradScaler with
/// privacy, for one next to a loss scaling, for scales per sample without privacy (plain gradients are one product over all
/// samples, which has no factor for each of them), for a noisy scale or a precision schedule that follows overflows without
/// a plan that counts them, and for such a plan where nothing follows its counts. counts_overflows: whether the plan does.
inline LossScaling loss_scaling_of(const TrainerOptions& options, std::span<Parameter* const> parameters, bool is_private,
                                   bool counts_overflows = false) {
  DPMP_CHECK(
      !options.grad_scaler || !is_private,
      "expected no GradScaler in private training, got one: whether a step is skipped, and every scale after it, tell "
      "whether a single record overflowed, and no noise is added to that. LossScaling::per_sample() leaves such a "
      "record out and skips nothing");
  DPMP_CHECK(!options.grad_scaler || !options.loss_scaling, "expected a GradScaler or a loss scaling, got both");
  DPMP_CHECK(counts_overflows || !options.precision.follows_overflows(),
             "expected a plan that counts overflows (dp::PlanOptions::overflow) for a schedule that follows them, got '",
             options.precision.text(), "' without one");
  const bool noisy = options.loss_scaling && options.loss_scaling->kind() == LossScaling::Kind::noisy;
  DPMP_CHECK(!noisy || counts_overflows,
             "expected a plan that counts overflows (dp::PlanOptions::overflow) for a loss scale that follows them, got ",
             is_private ? "one without" : "none",
             ": an exact count would tell whether a single record overflowed. A GradScaler is for plain training");
  DPMP_CHECK(!counts_overflows || !options.loss_scaling || noisy || options.precision.follows_overflows(),
             "expected something that follows the overflows which the plan counts (LossScaling::noisy(), or a precision "
             "schedule that raises layers after alarms), got neither: the gradient would pay for a count that nobody uses");
  if (!options.loss_scaling) {
    if (counts_overflows) return LossScaling::noisy();
    const bool any =
        std::any_of(parameters.begin(), parameters.end(), [](const Parameter* p) { return p->made_in() == DType::f16; });
    return any && is_private ? LossScaling::per_sample() : LossScaling();
  }
  DPMP_CHECK(is_private || options.loss_scaling->kind() != LossScaling::Kind::per_sample,
             "expected no or a fixed loss scale without privacy, got ", options.loss_scaling->text(),
             ": plain gradients are summed over all samples in one product, without a factor for each");
  return *options.loss_scaling;
}
}  // namespace dpmp::inline DPMP_ABI::train
