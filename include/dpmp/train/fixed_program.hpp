// SPDX-License-Identifier: Apache-2.0
// Every physical batch of a run records the same operations of the same shapes: what is computed for a record must not
// depend on the other records of the batch. Padding to the longest record of a batch, say, would let one record change how
// all others round.
#pragma once
#include <string>

#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// The operations of a run's first pass, to hold later ones against.
class FixedProgram {
 public:
  /// Keeps what the tape recorded, unless there is a first pass already.
  void take(const Tape& tape);
  /// Throws unless the tape recorded what the first one did. What is said is of the first pass: the size that differs may be
  /// a private record's length.
  void check(const Tape& tape) const;
  /// The next pass is the first one again.
  void forget() { first_.clear(); }
  /// What the first pass recorded; empty before it.
  const std::vector<RecordedValue>& recorded() const { return first_; }

 private:
  static constexpr const char* advice =
      ": neither may depend on the records of a batch (pad to a public length; Trainer::program_changes for a public "
      "change)";
  std::vector<RecordedValue> first_;
};
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline void FixedProgram::take(const Tape& tape) {
  if (first_.empty()) first_ = tape.recorded();
}

DPMP_KEPT_BODY inline void FixedProgram::check(const Tape& tape) const {
  if (first_.empty()) return;
  const std::vector<RecordedValue>& now = tape.recorded();
  for (std::size_t k = 0; k < first_.size(); ++k) {
    const RecordedValue& wanted = first_[k];
    const std::string got = k < now.size() ? difference(wanted, now[k]) : "fewer operations";
    DPMP_CHECK(got.empty(), "expected every physical batch to record the operations and shapes of the first one, number ", k,
               " ", wanted.name, " ", wanted.dtype, wanted.shape, ", got ", got, advice);
  }
  DPMP_CHECK(now.size() == first_.size(), "expected every physical batch to record the ", first_.size(),
             " operations of the first one, got more", advice);
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
