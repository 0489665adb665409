// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "dpmp/autograd/rules/add_norm.hpp"
#include "dpmp/nn/parameters.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// Root-mean-square normalisation of the last axis (Zhang, Sennrich 2019); gain starts at 1, there is no bias.
/// Throws unless epsilon is finite and > 0.
class RmsNorm {
 public:
  RmsNorm(const Scope& scope, index_t width, double epsilon = 1e-5)
      : gain_(&scope.constant("gain", {width}, 1)), epsilon_(epsilon) {
    DPMP_CHECK(epsilon > 0 && std::isfinite(epsilon), scope, ": expected a finite epsilon > 0 for a norm, got ", epsilon);
  }
  Variable operator()(const Variable& x) const { return rms_norm(x, *gain_, epsilon_); }
  /// x + branch, and that normalised.
  SumAndNorm operator()(const Variable& x, const Variable& branch) const {
    return add_rms_norm(x, branch, *gain_, epsilon_);
  }

 private:
  Parameter* gain_;
  double epsilon_;
};
}  // namespace dpmp::inline DPMP_ABI::nn
