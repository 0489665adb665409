// SPDX-License-Identifier: Apache-2.0
// Physical batches as the trainers hand them to a loss: record indices by slot, dp::masked_slot for an empty one.
#pragma once
#include "dpmp/autograd/sample_identities.hpp"
#include "dpmp/dp/poisson_sampler.hpp"
#include "dpmp/tensor/tensor.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// Loss weights [slots]: 1 for a record, 0 for an empty slot.
Tensor slot_weights(Context& ctx, std::span<const index_t> slots, DType dtype);
/// The identities of the slots' records; ids: one for each record of the data set, by its index.
SampleIdentities identities(Context& ctx, std::span<const index_t> slots, std::span<const RecordId> ids);
std::vector<index_t> checked_slots(index_t physical_batch);
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline Tensor slot_weights(Context& ctx, std::span<const index_t> slots, DType dtype) {
  std::vector<double> weights(slots.size());
  for (std::size_t k = 0; k < slots.size(); ++k) weights[k] = slots[k] == dp::masked_slot ? 0 : 1;
  return Tensor::from(ctx, {index_t(slots.size())}, dtype, weights);
}

DPMP_KEPT_BODY inline SampleIdentities identities(Context& ctx, std::span<const index_t> slots,
                                                  std::span<const RecordId> ids) {
  std::vector<RecordId> of_slots;
  for (const index_t record : slots) {
    DPMP_CHECK(record == dp::masked_slot || (record >= 0 && record < index_t(ids.size())),
               "expected an identity for each record, got ", ids.size(), " and a record beyond them");
    of_slots.push_back(record == dp::masked_slot ? RecordId() : ids[std::size_t(record)]);
  }
  return SampleIdentities(ctx, of_slots);
}

DPMP_KEPT_BODY inline std::vector<index_t> checked_slots(index_t physical_batch) {
  DPMP_CHECK(physical_batch >= 1, "expected a physical batch of at least one slot, got ", physical_batch);
  return std::vector<index_t>(std::size_t(physical_batch), dp::masked_slot);
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
