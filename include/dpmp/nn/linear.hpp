// SPDX-License-Identifier: Apache-2.0
// A dense layer.
#pragma once
#include "dpmp/autograd/rules/cast.hpp"
#include "dpmp/autograd/rules/linear.hpp"
#include "dpmp/autograd/rules/wide_linear.hpp"
#include "dpmp/nn/parameters.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// y = x W^T + bias in the scope's dtype, to which x is cast.
class Linear {
 public:
  struct Options {
    /// false: none.
    bool bias = true;
    /// How they start.
    Init weight = init::fan_in_normal();
    Init bias_start = init::constant(0);
  };
  Linear(const Scope& scope, index_t inputs, index_t outputs, const Options& options);
  Linear(const Scope& scope, index_t inputs, index_t outputs) : Linear(scope, inputs, outputs, Options{}) {}
  Variable operator()(const Variable& x) const { return linear(cast(x, dtype()), *weight_, bias_); }
  /// The same in the scope's Precision::logits(): by wide_linear where that is wider.
  Variable logits(const Variable& x) const {
    return fp32_logits_ ? wide_linear(cast(x, dtype()), *weight_, bias_) : (*this)(x);
  }
  DType dtype() const { return weight_->dtype(); }
  /// [outputs, inputs].
  Parameter& weight() const { return *weight_; }
  /// [outputs], or null.
  Parameter* bias() const { return bias_; }

 private:
  Parameter* weight_;
  Parameter* bias_;
  bool fp32_logits_;
};
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::nn {
DPMP_KEPT_BODY inline Linear::Linear(const Scope& scope, index_t inputs, index_t outputs, const Options& options)
    : weight_(&scope.add("weight", {outputs, inputs}, options.weight)),
      bias_(options.bias ? &scope.add("bias", {outputs}, options.bias_start) : nullptr),
      fp32_logits_(scope.precision().logits() != scope.dtype()) {}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif
