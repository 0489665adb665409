// SPDX-License-Identifier: Apache-2.0
// A layer that looks rows of a table up.
#pragma once
#include "dpmp/autograd/rules/embedding.hpp"
#include "dpmp/nn/parameters.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// A table [vocabulary, width] looked up by token id; the rows have the scope's dtype.
class Embedding {
 public:
  struct Options {
    /// 1 / sqrt(width): rows start with a length of about 1.
    Init weight = init::fan_in_normal();
  };
  Embedding(const Scope& scope, index_t vocabulary, index_t width, const Options& options)
      : table_(&scope.add("weight", {vocabulary, width}, options.weight)) {}
  Embedding(const Scope& scope, index_t vocabulary, index_t width) : Embedding(scope, vocabulary, width, Options{}) {}
  Variable operator()(Tape& tape, const Tensor& ids) const { return embedding(tape, ids, *table_); }
  /// The same storage as the weight of an output layer: tied weights.
  Parameter& table() const { return *table_; }

 private:
  Parameter* table_;
};
}  // namespace dpmp::inline DPMP_ABI::nn
