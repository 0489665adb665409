// SPDX-License-Identifier: Apache-2.0
// A layer that normalises.
#pragma once
#include "dpmp/autograd/rules/add_norm.hpp"
#include "dpmp/nn/parameters.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// Normalisation of the last axis; gain starts at 1, bias at 0. Throws unless epsilon is finite and > 0.
class LayerNorm {
 public:
  LayerNorm(const Scope& scope, index_t width, double epsilon = 1e-5)
      : gain_(&scope.constant("gain", {width}, 1)), bias_(&scope.constant("bias", {width}, 0)), epsilon_(epsilon) {
    DPMP_CHECK(epsilon > 0 && std::isfinite(epsilon), scope, ": expected a finite epsilon > 0 for a norm, got ", epsilon);
  }
  Variable operator()(const Variable& x) const { return layer_norm(x, *gain_, *bias_, epsilon_); }
  /// x + branch, and that normalised.
  SumAndNorm operator()(const Variable& x, const Variable& branch) const {
    return add_layer_norm(x, branch, *gain_, *bias_, epsilon_);
  }

 private:
  Parameter* gain_;
  Parameter* bias_;
  double epsilon_;
};
}  // namespace dpmp::inline DPMP_ABI::nn
