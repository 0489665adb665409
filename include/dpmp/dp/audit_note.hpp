// SPDX-License-Identifier: Apache-2.0
// What a privacy statement may say of an audit.
#pragma once
#include <string>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// The outcome of an audit in one run (dp/one_run_audit.hpp) of the same program and the same kind of plan.
struct AuditNote {
  index_t canaries = 0, steps = 0;
  double claimed_epsilon = 0, delta = 0;  // of the audited run
  double epsilon = 0;                     // lower bound
  double confidence = 0;
  bool refuted = false;  // the claimed trade-off function
};
/// "Audited: ... lower bound of epsilon ... at 95 % confidence ...". Lower bounds and the confidence are rounded down,
/// claims up.
std::string audit_in_words(const AuditNote& note);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include "dpmp/dp/rounded_text.hpp"

namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline std::string audit_in_words(const AuditNote& note) {
  DPMP_CHECK(note.canaries >= 1 && note.confidence > 0 && note.confidence < 1,
             "expected an audit with canaries and a confidence in (0, 1), got ", note.canaries, " and ", note.confidence);
  const std::string confidence = digits_down(100 * note.confidence, 4) + " %";
  return dpmp::detail::concat("Audited: one run of ", note.steps, " steps with ", note.canaries,
                              " canaries, each a record with a gradient of known direction that was in the data with "
                              "probability 1/2; its releases have shown a lower bound of epsilon of ",
                              digits_down(note.epsilon, 4), " at delta ", digits_up(note.delta, 6), ", at ", confidence,
                              " confidence, where epsilon ", digits_up(note.claimed_epsilon, 6), " was claimed; the claim ",
                              note.refuted ? "WAS REFUTED at " : "was not refuted at ", confidence,
                              " confidence. An audit can refute a claim; it proves none.");
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
