// SPDX-License-Identifier: Apache-2.0
// Physical batches as the trainers hand them to a loss: record indices by slot, dp::masked_slot for an empty one.
#pragma once
#include "dpmp/dp/poisson_sampler.hpp"
#include "dpmp/tensor/tensor.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// Loss weights [slots]: 1 for a record, 0 for an empty slot.
inline Tensor slot_weights(Context& ctx, std::span<const index_t> slots, DType dtype) {
  std::vector<double> weights(slots.size());
  for (std::size_t k = 0; k < slots.size(); ++k) weights[k] = slots[k] == dp::masked_slot ? 0 : 1;
  return Tensor::from(ctx, {index_t(slots.size())}, dtype, weights);
}
inline std::vector<index_t> checked_slots(index_t physical_batch) {
  DPMP_CHECK(physical_batch >= 1, "expected a physical batch of at least one slot, got ", physical_batch);
  return std::vector<index_t>(std::size_t(physical_batch), dp::masked_slot);
}
}  // namespace dpmp::inline DPMP_ABI::train
