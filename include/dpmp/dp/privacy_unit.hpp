// SPDX-License-Identifier: Apache-2.0
// Which datasets count as neighbours. The privacy unit is one record, whatever the training program calls one sample, or one
// user with all of their records (SamplingOptions::records_per_user): "record" below is the unit.
#pragma once
#include <ostream>
#include <string_view>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// add_or_remove_one: one record more or less. replace_one: one record exchanged for any other.
/// zero_out: one record exchanged for an empty one whose contribution is zero.
enum class NeighbouringRelation : std::uint8_t { add_or_remove_one, replace_one, zero_out };

inline std::string_view name_of(NeighbouringRelation relation) {
  switch (relation) {
    case NeighbouringRelation::add_or_remove_one: return "add_or_remove_one";
    case NeighbouringRelation::replace_one: return "replace_one";
    case NeighbouringRelation::zero_out: return "zero_out";
  }
  throw Error(dpmp::detail::concat("expected a NeighbouringRelation, got the value ", int(relation)));
}
inline std::ostream& operator<<(std::ostream& out, NeighbouringRelation r) { return out << name_of(r); }

/// Contributions of norm <= C that can differ between neighbours: 2 when one record is exchanged, else 1.
inline double contributions_changed(NeighbouringRelation relation) {
  name_of(relation);  // throws on a value outside of the enumeration
  return relation == NeighbouringRelation::replace_one ? 2 : 1;
}
}  // namespace dpmp::inline DPMP_ABI::dp
