// SPDX-License-Identifier: Apache-2.0
// Losses of records that are public or held out, without a gradient. Nothing of it is private or accounted: never of records
// that a private run is trained on.
#pragma once
#include "dpmp/train/batch.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// Mean of the per-sample losses over these records, physical_batch of them at a time, on tapes for inference. Throws where
/// there are none.
double evaluate(Context& ctx, Losses losses, std::span<const index_t> records, index_t physical_batch = 64);
/// The same of records first .. first + count - 1.
double evaluate(Context& ctx, Losses losses, index_t first, index_t count, index_t physical_batch = 64);
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline double evaluate(Context& ctx, Losses losses, std::span<const index_t> records,
                                      index_t physical_batch) {
  DPMP_CHECK(!records.empty() && physical_batch >= 1,
             "expected at least one record and a physical batch of at least one slot, got ", records.size(), " and ",
             physical_batch);
  double sum = 0;
  for (index_t first = 0; first < index_t(records.size()); first += physical_batch) {
    const auto batch_from = [&](std::size_t at) {
      at = std::min(at, records.size());
      return records.subspan(at, std::min(std::size_t(physical_batch), records.size() - at));
    };
    const auto some = batch_from(std::size_t(first)), next = batch_from(std::size_t(first + physical_batch));
    Tape tape(ctx, index_t(some.size()), TapeMode::inference);
    const Variable loss = losses({tape, some, 0, NextRecords(next)});
    check_shape("evaluate: the losses", loss.value(), {tape.samples()});
    for (const double x : loss.value().to_doubles()) sum += x;
  }
  return sum / double(records.size());
}

DPMP_KEPT_BODY inline double evaluate(Context& ctx, Losses losses, index_t first, index_t count, index_t physical_batch) {
  std::vector<index_t> records;
  for (index_t k = 0; k < count; ++k) records.push_back(first + k);
  return evaluate(ctx, losses, records, physical_batch);
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
