// SPDX-License-Identifier: Apache-2.0
// The place of a dropout in a model: its rate, and the part of the mask's key that does not change from step to step.
#pragma once
#include "dpmp/autograd/rules/dropout.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// What dropout's masks are keyed by besides the layer: the step, and which record each sample is (i32 [B]).
struct DropoutRun {
  std::uint32_t step = 0;
  Tensor sample_ids;
};

class Dropout {
 public:
  /// layer: a number that no other dropout of the model has. Throws unless rate is in [0, 1).
  Dropout(double rate, std::uint64_t seed, std::uint32_t layer) : rate_(rate), seed_(seed), layer_(layer) {
    DPMP_CHECK(rate >= 0 && rate < 1, "expected a dropout rate in [0, 1), got ", rate);
  }
  /// x itself when the rate is 0 or the tape is for inference; otherwise run must be given.
  Variable operator()(const Variable& x, const DropoutRun* run) const {
    if (rate_ == 0 || x.tape().mode() == TapeMode::inference) return x;
    DPMP_CHECK(run, "expected the step and the sample ids for dropout ", rate_, ", got none");
    return dropout(x, rate_, {.seed = seed_, .step = run->step, .layer = layer_}, run->sample_ids);
  }

 private:
  double rate_;
  std::uint64_t seed_;
  std::uint32_t layer_;
};
}  // namespace dpmp::inline DPMP_ABI::nn
