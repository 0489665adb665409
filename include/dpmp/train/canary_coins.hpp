// SPDX-License-Identifier: Apache-2.0
// The coins of an audit in one run: which canaries are in the data, and which record of the data is which canary.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "dpmp/dp/plan.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// Canaries beside records of the caller's own. Under add_or_remove_one the canaries that are in come first and the others
/// are not there; under zero_out all are there, and those that are out must be empty records.
class CanaryCoins {
 public:
  /// own_records >= 1. seed: of the coins; not set: fresh ones. Throws where canaries and records are more than the plan's
  /// dataset_size.
  CanaryCoins(const dp::Plan& plan, index_t canaries, index_t own_records, std::optional<std::uint64_t> seed = {});
  /// Of the data set to train on: what the trainer is made for.
  index_t records() const { return index_t(present_.size()) + own_records_; }
  index_t canaries() const { return index_t(included_.size()); }
  /// The canary that a record is, -1 for one of the caller's own.
  index_t canary(index_t record) const { return record < index_t(present_.size()) ? present_[std::size_t(record)] : -1; }
  /// The caller's number of a record; 0 for a canary.
  index_t own(index_t record) const { return record < index_t(present_.size()) ? 0 : record - index_t(present_.size()); }
  /// 1 for in.
  std::span<const std::uint8_t> included() const { return included_; }
  /// Whether this canary counts where it is drawn.
  bool is_in(index_t canary) const { return included_[std::size_t(canary)] != 0; }

 private:
  index_t own_records_;
  std::vector<std::uint8_t> included_;
  std::vector<index_t> present_;  // the canary of each of the first records
};
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
#include "dpmp/core/philox.hpp"
#include "dpmp/dp/entropy.hpp"

namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline CanaryCoins::CanaryCoins(const dp::Plan& plan, index_t canaries, index_t own_records,
                                               std::optional<std::uint64_t> seed)
    : own_records_(own_records) {
  DPMP_CHECK(canaries >= 1 && own_records >= 1, "expected canaries and a record of the caller's own, got ", canaries,
             " canaries and ", own_records, " records");
  const std::uint64_t of_coins = seed ? *seed : dp::random_nonce();
  const bool all_present = plan.options().relation == dp::NeighbouringRelation::zero_out;
  for (index_t k = 0; k < canaries; ++k) {
    included_.push_back(std::uint8_t(philox_block(of_coins, 0, std::uint64_t(k)).word[0] >> 31));
    if (all_present || included_.back()) present_.push_back(k);
  }
  // Whatever the coins are.
  DPMP_CHECK(canaries + own_records <= plan.options().dataset_size, "expected a plan for ", canaries + own_records,
             " records, canaries and the caller's own, got one for ", plan.options().dataset_size);
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
