// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "dpmp/autograd/rules/add_norm.hpp"
#include "dpmp/nn/parameters.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// Root-mean-square normalisation of the last axis (Zhang, Sennrich 2019); gain starts at 1, there is no bias.
class RmsNorm {
 public:
  RmsNorm(const Scope& scope, index_t width) : gain_(&scope.constant("gain", {width}, 1)) {}
  Variable operator()(const Variable& x) const { return rms_norm(x, *gain_); }
  /// x + branch, and that normalised.
  SumAndNorm operator()(const Variable& x, const Variable& branch) const { return add_rms_norm(x, branch, *gain_); }

 private:
  Parameter* gain_;
};
}  // namespace dpmp::inline DPMP_ABI::nn
