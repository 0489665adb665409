// SPDX-License-Identifier: Apache-2.0
// The place of a dropout in a model: its rate and number, and what masks are keyed by in one pass.
#pragma once
#include "dpmp/autograd/rules/dropout.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// What the masks of one pass are keyed by besides the layer. Trainers hand it out (PrivateTrainer::dropout_run): they know
/// the secret and the step, and refuse identities that do not serve the plan's neighbouring relation.
class DropoutRun {
 public:
  /// secret: dp::StreamKeys::key(dp::Stream::dropout) of the run. step: 0 .. 2^40 - 1, as the losses of a step see it.
  DropoutRun(const Key256& secret, index_t step, SampleIdentities records)
      : secret_(secret), step_(step), records_(std::move(records)) {}
  DropoutKey key(std::uint32_t layer) const { return {.secret = secret_, .step = step_, .layer = layer}; }
  const SampleIdentities& records() const { return records_; }

 private:
  Key256 secret_;
  index_t step_;
  SampleIdentities records_;
};

class Dropout {
 public:
  /// layer: a number that no other dropout of the model has. Throws unless rate is in [0, 1).
  Dropout(double rate, std::uint32_t layer);
  /// x itself when the rate is 0 or the tape is for inference; otherwise run must be given.
  Variable operator()(const Variable& x, const DropoutRun* run) const {
    if (rate_ == 0 || x.tape().mode() == TapeMode::inference) return x;
    DPMP_CHECK(run, "expected the step and the records' identities for dropout ", rate_, ", got none");
    return dropout(x, rate_, run->key(layer_), run->records());
  }

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
}  // namespace dpmp::inline DPMP_ABI::nn
#endif
