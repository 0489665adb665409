// SPDX-License-Identifier: Apache-2.0
// A checked mode: whether losses keep the samples of a batch apart. The guarantee rests on it, and no tape can see what a
// program computes from the whole batch before it records anything. For public or made-up records: it copies every number of
// the passes to the host, compares them and says what it saw.
#pragma once
#include <functional>

#include "dpmp/autograd/loss_scale.hpp"
#include "dpmp/per_sample/cost.hpp"
#include "dpmp/train/batch.hpp"

namespace dpmp::inline DPMP_ABI::train {
struct IsolationOptions {
  /// Slots whose record is exchanged, emptied and removed; all of them where there are no more than these.
  index_t slots_tried = 4;
  /// What the run's norms come from. With a memory budget a trainer may choose another one than it was asked for: hand over
  /// Trainer::memory_choice()->chosen().way.strategy.
  per_sample::StrategyOptions strategy = {};
  /// Where the backward passes begin: that of the run (TrainerOptions::loss_scaling).
  LossScaling loss_scaling = {};
  /// What dropout is keyed by for these slots (Trainer::randomness()); a model that drops needs it.
  std::function<std::optional<SampleRandomness>(std::span<const index_t> slots)> randomness = {};
};

/// Runs losses, as a trainer calls them, on a batch of public records again and again: with one record replaced
/// by another, emptied, or removed so that the later ones move up; with all records moved to other slots; with one record in
/// all slots. Every forward value, loss, exponent of a loss scale, site, norm and certificate of the records that did not
/// change must be the same, bit for bit. Throws dpmp::Error naming the first operation or parameter whose numbers changed,
/// in the order of the pass; also where the same call gives other numbers or other operations.
///
/// Found are losses that compute something from the whole batch (negatives, means, statistics, a padded length) and
/// randomness that follows slots. Not found: what depends on how many records the whole data set has, such as dropout ids
/// that are indices into it.
///
/// records: at least three different ones, as a trainer would hand them to losses. The last one is put in the others' place.
/// Parameters must stay as they are meanwhile; nothing is drawn, accounted or updated.
void check_isolation(Context& ctx, Losses losses, std::span<const index_t> records, const IsolationOptions& options = {});
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
#include "dpmp/per_sample/pass_trace.hpp"

namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline void check_isolation(Context& ctx, Losses losses, std::span<const index_t> records,
                                           const IsolationOptions& options) {
  const index_t slots = index_t(records.size()) - 1;
  DPMP_CHECK(slots >= 2, "expected at least three records to tell samples apart by, got ", records.size());
  for (std::size_t i = 0; i < records.size(); ++i)
    DPMP_CHECK(records[i] != masked_slot && std::count(records.begin(), records.end(), records[i]) == 1,
               "expected different records, got ", records[i], " as number ", i);
  const std::vector<index_t> batch(records.begin(), records.end() - 1);
  const auto pass = [&](const std::vector<index_t>& at) {
    std::vector<double> weights;
    for (const index_t record : at) weights.push_back(record == masked_slot ? 0 : 1);
    return per_sample::PassTrace(
        ctx, slots,
        [&](Tape& tape) {
          if (options.randomness)
            if (const auto keyed = options.randomness(at)) tape.key_randomness(*keyed);
          return losses({tape, records_of(at)});
        },
        weights, options.strategy, options.loss_scaling);
  };
  const per_sample::PassTrace whole = pass(batch);
  const auto compare = [&](const std::vector<index_t>& at, const std::string& change, index_t left_out) {
    const per_sample::PassTrace changed = pass(at);
    for (index_t i = 0; i < slots; ++i) {
      const auto place = std::find(batch.begin(), batch.end(), at[std::size_t(i)]);
      if (place == batch.end() || i == left_out) continue;
      const std::optional<std::string> difference = changed.first_difference(i, whole, index_t(place - batch.begin()));
      DPMP_CHECK(!difference, "expected the numbers of a record to depend on that record alone, got others for record ",
                 *place, " ", change, ": first in ", *difference);
    }
  };
  compare(batch, "when the same batch was computed again", -1);
  for (index_t k = 0; k < std::min(slots, options.slots_tried); ++k) {
    const index_t j = k * slots / std::min(slots, options.slots_tried);
    const index_t record = batch[std::size_t(j)];
    std::vector<index_t> at = batch;
    at[std::size_t(j)] = records.back();
    compare(at, dpmp::detail::concat("when record ", record, " was replaced by ", records.back()), j);
    at[std::size_t(j)] = masked_slot;
    compare(at, dpmp::detail::concat("when the slot of record ", record, " was emptied"), j);
    at.erase(at.begin() + j);
    at.push_back(masked_slot);
    compare(at, dpmp::detail::concat("when record ", record, " was removed and the later ones moved up"), -1);
  }
  std::vector<index_t> moved = batch;
  std::rotate(moved.begin(), moved.begin() + 1, moved.end());
  compare(moved, "when all records moved by a slot", -1);
  compare(std::vector<index_t>(batch.size(), batch[0]), "when it was in every slot", -1);
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
