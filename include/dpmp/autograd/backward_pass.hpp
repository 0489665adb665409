// SPDX-License-Identifier: Apache-2.0
// What a rule sees of the walk that it is a step of.
#pragma once
#include <algorithm>
#include <string_view>
#include <vector>

#include "dpmp/autograd/site.hpp"
#include "dpmp/autograd/variable.hpp"

namespace dpmp::inline DPMP_ABI {
/// What a rule may do while the tape is walked backwards.
class BackwardPass {
 public:
  Context& ctx;
  /// Whether anybody wants the gradient of this input; a rule may leave it out otherwise.
  bool needs(const GradientSlot& input) const;
  /// Whether the tape lets go of what a rule saved as soon as the rule is done: then the rule may overwrite what nobody
  /// shares.
  bool releases() const;
  /// For a rule whose sites need not be stored at a time.
  RowsWanted rows_wanted() const { return sink_.rows_wanted(); }
  /// Adds to the gradient of an input. Shape and dtype must be the input's. Shares in 16 bits are added up in FP32 and
  /// rounded once, however often a value is used.
  void accumulate(const GradientSlot& input, const Tensor& gradient);
  /// Takes away what another rule gave to the gradient of an input (Tensor(): nothing, or more than one share in 16 bits,
  /// which stay), for a rule that adds it to its own share while it computes that, and hands in the total.
  Tensor take(const GradientSlot& input);
  /// Hands over one use of a parameter that the rule's parameters() names, or with site.bias of two. Frozen parameters are
  /// dropped here. A bias comes along with its weight where the sink takes biases, and both are trained and have this one
  /// use on the tape: what was recorded decides it, before the walk. Otherwise it becomes a site of its own.
  void emit(const ParameterSite& site);

 private:
  friend class Tape;
  friend class LossProbe;
  void check_declared(const Parameter& p) const {
    DPMP_CHECK(std::find(declared_->begin(), declared_->end(), &p) != declared_->end(), rule_,
               ": expected a site of a parameter that the rule's parameters() names, got one of ", p.name());
  }
  BackwardPass(Context& context, Tape& tape, GradientSink& sink)
      : ctx(context), tape_(tape), sink_(sink), takes_biases_(sink.takes_biases(context)) {}
  Tape& tape_;
  GradientSink& sink_;
  bool takes_biases_;
  const std::vector<Parameter*>* declared_ = nullptr;  // by the rule that is running
  std::string_view rule_;
};
}  // namespace dpmp::inline DPMP_ABI
