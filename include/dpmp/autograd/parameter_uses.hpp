// SPDX-License-Identifier: Apache-2.0
// How often a walk will meet each trainable parameter, and when it has met one for the last time.
#pragma once
#include <span>
#include <unordered_map>

#include "dpmp/autograd/parameter.hpp"

namespace dpmp::inline DPMP_ABI {
class ParameterUses {
 public:
  /// Counts what a rule names; null and frozen parameters are no uses.
  void add(std::span<Parameter* const> named) {
    for (const Parameter* p : named)
      if (p && p->trainable()) ++counts_[p].all, ++counts_[p].left;
  }
  bool once(const Parameter& p) const {
    const auto at = counts_.find(&p);
    return at == counts_.end() || at->second.all == 1;
  }
  /// One use is done; whether it was the last. p is trainable.
  bool last(const Parameter& p) { return --counts_[&p].left == 0; }

 private:
  struct Count {
    index_t all = 0, left = 0;
  };
  std::unordered_map<const Parameter*, Count> counts_;
};
}  // namespace dpmp::inline DPMP_ABI
