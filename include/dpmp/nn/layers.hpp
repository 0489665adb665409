// SPDX-License-Identifier: Apache-2.0
// Layers: the parameters of an operation and how they start. Calling one records the operation.
#pragma once
#include "dpmp/autograd/rules/add_norm.hpp"
#include "dpmp/autograd/rules/embedding.hpp"
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
  Linear(Parameters& parameters, const std::string& name, index_t inputs, index_t outputs, Options options);
  Linear(Parameters& parameters, const std::string& name, index_t inputs, index_t outputs)
      : Linear(parameters, name, inputs, outputs, Options{}) {}
  Variable operator()(const Variable& x) const { return linear(x, *weight_, bias_); }
  /// [outputs, inputs].
  Parameter& weight() const { return *weight_; }
  /// [outputs], or null.
  Parameter* bias() const { return bias_; }

 private:
  Parameter* weight_;
  Parameter* bias_;
};

/// Normalisation of the last axis; gain starts at 1, bias at 0.
class LayerNorm {
 public:
  LayerNorm(Parameters& parameters, const std::string& name, index_t width)
      : gain_(&parameters.constant(name + ".gain", {width}, 1)), bias_(&parameters.constant(name + ".bias", {width}, 0)) {}
  Variable operator()(const Variable& x) const { return layer_norm(x, *gain_, *bias_); }
  /// x + branch, and that normalised.
  SumAndNorm operator()(const Variable& x, const Variable& branch) const {
    return add_layer_norm(x, branch, *gain_, *bias_);
  }

 private:
  Parameter* gain_;
  Parameter* bias_;
};

/// A table [vocabulary, width] looked up by token id.
class Embedding {
 public:
  Embedding(Parameters& parameters, const std::string& name, index_t vocabulary, index_t width, double standard_deviation)
      : table_(&parameters.normal(name + ".weight", {vocabulary, width}, standard_deviation)) {}
  Variable operator()(Tape& tape, const Tensor& ids) const { return embedding(tape, ids, *table_); }
  /// The same storage as the weight of an output layer: tied weights.
  Parameter& table() const { return *table_; }

 private:
  Parameter* table_;
};
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::nn {
DPMP_KEPT_BODY inline Linear::Linear(Parameters& parameters, const std::string& name, index_t inputs, index_t outputs,
                                     Options options)
    : weight_(&parameters.normal(name + ".weight", {outputs, inputs},
                                 options.standard_deviation > 0 ? options.standard_deviation
                                                                : 1 / std::sqrt(double(std::max<index_t>(1, inputs))))),
      bias_(options.bias ? &parameters.constant(name + ".bias", {outputs}, 0) : nullptr) {}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif
