// SPDX-License-Identifier: Apache-2.0
// A dense layer.
#pragma once
#include "dpmp/autograd/rules/linear.hpp"
#include "dpmp/nn/parameters.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// y = x W^T + bias.
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
  Variable operator()(const Variable& x) const { return linear(x, *weight_, bias_); }
  /// [outputs, inputs].
  Parameter& weight() const { return *weight_; }
  /// [outputs], or null.
  Parameter* bias() const { return bias_; }

 private:
  Parameter* weight_;
  Parameter* bias_;
};
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::nn {
DPMP_KEPT_BODY inline Linear::Linear(const Scope& scope, index_t inputs, index_t outputs, const Options& options)
    : weight_(&scope.add("weight", {outputs, inputs}, options.weight)),
      bias_(options.bias ? &scope.add("bias", {outputs}, options.bias_start) : nullptr) {}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif
