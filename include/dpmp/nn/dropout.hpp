// SPDX-License-Identifier: Apache-2.0
// The place of a dropout in a model: its rate and number.
#pragma once
#include "dpmp/autograd/rules/dropout.hpp"

namespace dpmp::inline DPMP_ABI::nn {
class Dropout {
 public:
  /// layer: a number that no other dropout of the model has. Throws unless rate is in [0, 1).
  Dropout(double rate, std::uint32_t layer);
  /// x itself when the rate is 0 or the tape is for inference; otherwise the tape must know what masks are keyed by
  /// (Tape::randomness()).
  Variable operator()(const Variable& x) const;

 private:
  double rate_;
  std::uint32_t layer_;
};
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::nn {
DPMP_KEPT_BODY inline Dropout::Dropout(double rate, std::uint32_t layer) : rate_(rate), layer_(layer) {
  DPMP_CHECK(rate >= 0 && rate < 1, "expected a dropout rate in [0, 1), got ", rate);
}

DPMP_KEPT_BODY inline Variable Dropout::operator()(const Variable& x) const {
  const Tape& tape = x.tape();
  if (rate_ == 0 || tape.mode() == TapeMode::inference) return x;
  DPMP_CHECK(tape.randomness(), "expected a tape with the records' identities (TrainerOptions::identity) for dropout ",
             rate_, ", got one without");
  const SampleRandomness& r = *tape.randomness();
  return dropout(x, rate_, {.secret = r.secret, .step = r.step, .layer = layer_}, r.records);
}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif
