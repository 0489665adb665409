// SPDX-License-Identifier: Apache-2.0
// The accountants that a plan can have.
#pragma once
#include <ostream>
#include <string_view>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// pld: privacy-loss distributions (PldAccountant), close to the truth. rdp: Renyi divergences (RdpAccountant), an
/// independent check that is faster and spends 5 to 20 % more of the usual runs, some times as much of very short ones.
enum class Accountant : std::uint8_t { pld, rdp };

inline std::string_view name_of(Accountant accountant) {
  switch (accountant) {
    case Accountant::pld: return "pld";
    case Accountant::rdp: return "rdp";
  }
  throw Error(dpmp::detail::concat("expected an Accountant, got the value ", int(accountant)));
}
inline std::ostream& operator<<(std::ostream& out, Accountant accountant) { return out << name_of(accountant); }
}  // namespace dpmp::inline DPMP_ABI::dp
