// SPDX-License-Identifier: Apache-2.0
// A layer that normalises.
#pragma once
#include "dpmp/autograd/rules/add_norm.hpp"
#include "dpmp/autograd/rules/cast.hpp"
#include "dpmp/nn/parameters.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// Normalisation of the last axis in the scope's Precision::norms(), to which x is cast; gain starts at 1, bias at 0.
/// Throws unless epsilon is finite and > 0.
class LayerNorm {
 public:
  LayerNorm(const Scope& scope, index_t width, double epsilon = 1e-5)
      : gain_(&scope.for_norm().constant("gain", {width}, 1)),
        bias_(&scope.for_norm().constant("bias", {width}, 0)),
        epsilon_(epsilon) {
    DPMP_CHECK(epsilon > 0 && std::isfinite(epsilon), scope, ": expected a finite epsilon > 0 for a norm, got ", epsilon);
  }
  Variable operator()(const Variable& x) const { return layer_norm(cast(x, gain_->dtype()), *gain_, *bias_, epsilon_); }
  /// x + branch, of one dtype, and that normalised: in one pass where it is the norm's dtype, too.
  SumAndNorm operator()(const Variable& x, const Variable& branch) const {
    if (x.dtype() != gain_->dtype()) {
      const Variable sum = add(x, branch);
      return {sum, (*this)(sum)};
    }
    return add_layer_norm(x, branch, *gain_, *bias_, epsilon_);
  }

 private:
  Parameter* gain_;
  Parameter* bias_;
  double epsilon_;
};
}  // namespace dpmp::inline DPMP_ABI::nn
