// SPDX-License-Identifier: Apache-2.0
// Physical batches: how a draw is dealt to slots, and what a loss is given of one.
#pragma once
#include <optional>
#include <span>

#include "dpmp/autograd/tape.hpp"
#include "dpmp/core/function_ref.hpp"

namespace dpmp::inline DPMP_ABI::train {
template <class Data>
class Prefetch;
/// The records of the physical batch that comes after this one in the same step. Only a Prefetch reads them, to have their
/// data ready: nothing that is recorded for a batch may depend on what other records there are.
class NextRecords {
 public:
  NextRecords() = default;
  explicit NextRecords(std::span<const index_t> records) : records_(records) {}

 private:
  template <class Data>
  friend class Prefetch;
  std::span<const index_t> records_ = {};
};

/// What a loss is given of a physical batch.
struct Batch {
  /// To record the forward pass on; of records.size() samples.
  Tape& tape;
  /// The record of each sample, always one that exists: an empty slot repeats the first record of the batch, or is record 0
  /// where the batch has none. What a loss computes for an empty slot contributes nothing.
  std::span<const index_t> records;
  /// The step of the run, from 0.
  index_t step = 0;
  /// None for the last physical batch of a step.
  NextRecords next = {};

  index_t size() const { return index_t(records.size()); }
};
/// Records the forward pass of a batch and returns per-sample losses [records]. A callable of the caller's, which lives
/// longer than the call that it is handed to.
using Losses = FunctionRef<Variable(const Batch&)>;

/// Number of an empty slot of a physical batch.
inline constexpr index_t masked_slot = -1;

/// Physical batches that a draw of `records` records needs: max(1, ceil(records / physical)). An empty draw is a batch too.
index_t physical_batches(index_t records, index_t physical);
/// Fills `slots` (its size is the physical batch) with the records of batch `batch` of a draw, in order, then masked_slot.
void fill_physical_batch(std::span<const index_t> draw, index_t batch, std::span<index_t> slots);

/// Slots, as a trainer or a loop of the user's own hands them to accumulate_clipped().
struct PhysicalBatch {
  /// Record numbers; masked_slot for an empty slot.
  std::span<const index_t> slots;
  index_t step = 0;
  /// What dropout is keyed by; not set: a model that drops is refused.
  std::optional<SampleRandomness> randomness = {};
  /// slot_weights() of the slots where they are on the device already; then a GPU step that reads its batch there copies
  /// nothing, and a CudaGraph may capture it. Not defined: made from the slots.
  Tensor weights = {};
  /// Those of the physical batch that comes next; empty where none does, or where nothing is prepared ahead.
  std::span<const index_t> next_slots = {};
};
/// Batch::records of these slots.
std::vector<index_t> records_of(std::span<const index_t> slots);
/// Loss weights [slots]: 1 for a record, 0 for an empty slot.
Tensor slot_weights(Context& ctx, std::span<const index_t> slots, DType dtype);
/// The identities of the slots' records; ids: one for each record of the data set, by its number.
SampleIdentities identities(Context& ctx, std::span<const index_t> slots, std::span<const RecordId> ids);
/// That many empty slots, at least one.
std::vector<index_t> checked_slots(index_t physical_batch);
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline index_t physical_batches(index_t records, index_t physical) {
  DPMP_CHECK(physical >= 1, "expected a physical batch of at least one slot, got ", physical);
  DPMP_CHECK(records >= 0, "expected a number of records >= 0, got ", records);
  return records == 0 ? 1 : (records - 1) / physical + 1;
}

DPMP_KEPT_BODY inline void fill_physical_batch(std::span<const index_t> draw, index_t batch, std::span<index_t> slots) {
  const index_t physical = index_t(slots.size()), records = index_t(draw.size());
  const index_t count = physical_batches(records, physical);
  DPMP_CHECK(batch >= 0 && batch < count, "expected a physical batch in [0, ", count, "), got ", batch);
  const index_t first = batch * physical;
  for (index_t k = 0; k < physical; ++k)
    slots[std::size_t(k)] = first + k < records ? draw[std::size_t(first + k)] : masked_slot;
}

DPMP_KEPT_BODY inline std::vector<index_t> records_of(std::span<const index_t> slots) {
  const auto first = std::find_if(slots.begin(), slots.end(), [](index_t slot) { return slot != masked_slot; });
  std::vector<index_t> records(slots.begin(), slots.end());
  std::replace(records.begin(), records.end(), masked_slot, first == slots.end() ? 0 : *first);
  return records;
}

DPMP_KEPT_BODY inline Tensor slot_weights(Context& ctx, std::span<const index_t> slots, DType dtype) {
  std::vector<double> weights(slots.size());
  for (std::size_t k = 0; k < slots.size(); ++k) weights[k] = slots[k] == masked_slot ? 0 : 1;
  return Tensor::from(ctx, {index_t(slots.size())}, dtype, weights);
}

DPMP_KEPT_BODY inline SampleIdentities identities(Context& ctx, std::span<const index_t> slots,
                                                  std::span<const RecordId> ids) {
  std::vector<RecordId> of_slots;
  for (const index_t record : slots) {
    DPMP_CHECK(record == masked_slot || (record >= 0 && record < index_t(ids.size())),
               "expected an identity for each record, got ", ids.size(), " and a record beyond them");
    of_slots.push_back(record == masked_slot ? RecordId() : ids[std::size_t(record)]);
  }
  return SampleIdentities(ctx, of_slots);
}

DPMP_KEPT_BODY inline std::vector<index_t> checked_slots(index_t physical_batch) {
  DPMP_CHECK(physical_batch >= 1, "expected a physical batch of at least one slot, got ", physical_batch);
  return std::vector<index_t>(std::size_t(physical_batch), masked_slot);
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
