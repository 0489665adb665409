// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "dpmp/autograd/rules/add_norm.hpp"
#include "dpmp/autograd/rules/cast.hpp"
#include "dpmp/nn/parameters.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// Root-mean-square normalisation of the last axis (Zhang, Sennrich 2019) in the scope's Precision::norms(), to which x is
/// cast; gain starts at 1, there is no bias.
/// Throws unless epsilon is finite and > 0.
class RmsNorm {
 public:
  RmsNorm(const Scope& scope, index_t width, double epsilon = 1e-5)
      : gain_(&scope.for_norm().constant("gain", {width}, 1)), epsilon_(epsilon) {
    DPMP_CHECK(epsilon > 0 && std::isfinite(epsilon), scope, ": expected a finite epsilon > 0 for a norm, got ", epsilon);
  }
  Variable operator()(const Variable& x) const { return rms_norm(cast(x, gain_->dtype()), *gain_, epsilon_); }
  /// x + branch, of one dtype, and that normalised: in one pass where it is the norm's dtype, too.
  SumAndNorm operator()(const Variable& x, const Variable& branch) const {
    if (x.dtype() != gain_->dtype()) {
      const Variable sum = add(x, branch);
      return {sum, (*this)(sum)};
    }
    return add_rms_norm(x, branch, *gain_, epsilon_);
  }

 private:
  Parameter* gain_;
  double epsilon_;
};
}  // namespace dpmp::inline DPMP_ABI::nn
