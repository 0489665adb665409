// SPDX-License-Identifier: Apache-2.0
// Which records belong to whom, where the unit of privacy is a user.
#pragma once
#include <span>
#include <vector>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// The records of each user. Users are numbered from 0 in the order of their ids; which number a user has does not matter to
/// the law of a draw, so it may change when another one is removed.
class UserRecords {
 public:
  /// user_of_record[r]: the id of the user whose record r is, any number. Throws when there is no record.
  explicit UserRecords(std::span<const index_t> user_of_record);
  index_t users() const { return index_t(first_.size()) - 1; }
  index_t records() const { return index_t(records_.size()); }
  /// Of user u, ascending; never empty. Throws unless 0 <= u < users().
  std::span<const index_t> of(index_t u) const;

 private:
  std::vector<index_t> first_, records_;  // user u has records_[first_[u] .. first_[u + 1])
};
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include "dpmp/core/sorted_places.hpp"

namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline UserRecords::UserRecords(std::span<const index_t> user_of_record) {
  DPMP_CHECK(!user_of_record.empty(), "expected the user of at least one record, got none");
  const auto user = [&](index_t r) { return user_of_record[std::size_t(r)]; };
  records_ = dpmp::detail::sorted_places(user_of_record.size(), [&](index_t a, index_t b) { return user(a) < user(b); });
  for (std::size_t k = 0; k < records_.size(); ++k)
    if (k == 0 || user(records_[k]) != user(records_[k - 1])) first_.push_back(index_t(k));
  first_.push_back(index_t(records_.size()));
}

DPMP_KEPT_BODY inline std::span<const index_t> UserRecords::of(index_t u) const {
  DPMP_CHECK(u >= 0 && u < users(), "expected a user in [0, ", users(), "), got ", u);
  const std::size_t first = std::size_t(first_[std::size_t(u)]), end = std::size_t(first_[std::size_t(u) + 1]);
  return {records_.data() + first, end - first};
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
