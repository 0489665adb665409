// SPDX-License-Identifier: Apache-2.0
// A dense layer.
#pragma once
#include "dpmp/autograd/rules/linear.hpp"
#include "dpmp/nn/parameters.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// y = x W^T + bias. Weights start normal with standard_deviation (0: 1 / sqrt(inputs)), biases 0.
class Linear {
 public:
  struct Options {
    bool bias = true;
    double standard_deviation = 0;
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
    : weight_(&scope.normal("weight", {outputs, inputs},
                            options.standard_deviation > 0 ? options.standard_deviation
                                                           : 1 / std::sqrt(double(std::max<index_t>(1, inputs))))),
      bias_(options.bias ? &scope.constant("bias", {outputs}, 0) : nullptr) {}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif
