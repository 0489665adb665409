// SPDX-License-Identifier: Apache-2.0
// A layer that looks rows of a table up.
#pragma once
#include "dpmp/autograd/rules/embedding.hpp"
#include "dpmp/nn/parameters.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// A table [vocabulary, width] looked up by token id.
class Embedding {
 public:
  Embedding(const Scope& scope, index_t vocabulary, index_t width, double standard_deviation)
      : table_(&scope.normal("weight", {vocabulary, width}, standard_deviation)) {}
  Variable operator()(Tape& tape, const Tensor& ids) const { return embedding(tape, ids, *table_); }
  /// The same storage as the weight of an output layer: tied weights.
  Parameter& table() const { return *table_; }

 private:
  Parameter* table_;
};
}  // namespace dpmp::inline DPMP_ABI::nn
