// SPDX-License-Identifier: Apache-2.0
// Records to learn from and records to hold out, by a public hash of what each of them is.
#pragma once
#include <span>
#include <string_view>
#include <vector>

#include "dpmp/core/error.hpp"
#include "dpmp/core/siphash.hpp"

namespace dpmp::inline DPMP_ABI::interop {
/// Whether a record is held out, which about one in `one_in` is. identity: what the record says, or a name of its own that
/// it keeps. Its side depends on that alone: chosen by place or by lot, one record less would move others from one side to
/// the other, and the set that is learned from would differ by more than a record. Everybody can compute the side; equal
/// records are on the same one. Throws unless one_in >= 2.
inline bool is_held_out(std::string_view identity, index_t one_in = 20) {
  DPMP_CHECK(one_in >= 2, "expected to hold out one record in two or more, got one in ", one_in);
  return siphash24(0, 0, std::as_bytes(std::span(identity.data(), identity.size()))) % std::uint64_t(one_in) == 0;
}

/// The numbers of records, in their order. What is held out is not protected: measure with it, and treat it as public.
struct Split {
  std::vector<index_t> learned, held_out;
};
/// identity(k) is that of record k < records, something that converts to a std::string_view.
template <class Identity>
Split split_held_out(index_t records, Identity&& identity, index_t one_in = 20) {
  Split split;
  for (index_t k = 0; k < records; ++k) (is_held_out(identity(k), one_in) ? split.held_out : split.learned).push_back(k);
  return split;
}
}  // namespace dpmp::inline DPMP_ABI::interop
