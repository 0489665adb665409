// SPDX-License-Identifier: Apache-2.0
// What a tape holds of a recorded operation: its rule, of any type, behind one interface.
#pragma once
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "dpmp/autograd/backward_pass.hpp"

namespace dpmp::inline DPMP_ABI::detail {
/// A rule as Tape::record describes it. Pointers to functions, not virtual ones: a compiler keeps the virtual functions of
/// all classes that it sees, so that a program would compile the kernels of rules that it never records.
class HeldRule {
 public:
  template <class Rule>
  static HeldRule* hold(Rule&& rule);

  void backward(BackwardPass& pass, const Tensor& gradient) const { backward_(*this, pass, gradient); }
  std::vector<Parameter*> parameters() const { return parameters_ ? parameters_(*this) : std::vector<Parameter*>(); }
  std::string_view name() const { return name_; }
  /// Tensor() where the rule is no loss that knows them.
  Tensor largest_gradients(Context& ctx, const Tensor& gradient) const {
    return largest_gradients_ ? largest_gradients_(*this, ctx, gradient) : Tensor();
  }
  struct Delete {
    void operator()(HeldRule* held) const { held->destroy_(held); }
  };

 protected:
  template <class Rule>
  struct Of;
  HeldRule() = default;
  ~HeldRule() = default;

  std::string_view name_;
  void (*destroy_)(HeldRule*) = nullptr;
  void (*backward_)(const HeldRule&, BackwardPass&, const Tensor& gradient) = nullptr;
  std::vector<Parameter*> (*parameters_)(const HeldRule&) = nullptr;
  Tensor (*largest_gradients_)(const HeldRule&, Context&, const Tensor& gradient) = nullptr;
};
using HeldRulePointer = std::unique_ptr<HeldRule, HeldRule::Delete>;

template <class Rule>
struct HeldRule::Of : HeldRule {
  explicit Of(Rule&& r) : rule(std::move(r)) {
    name_ = Rule::name;
    destroy_ = [](HeldRule* held) { delete static_cast<Of*>(held); };
    backward_ = [](const HeldRule& held, BackwardPass& pass, const Tensor& gradient) {
      static_cast<const Of&>(held).rule.backward(pass, gradient);
    };
    if constexpr (requires { rule.parameters(); })
      parameters_ = [](const HeldRule& held) { return static_cast<const Of&>(held).rule.parameters(); };
    if constexpr (requires(Context & ctx, const Tensor& gradient) { rule.largest_gradients(ctx, gradient); })
      largest_gradients_ = [](const HeldRule& held, Context& ctx, const Tensor& gradient) {
        return static_cast<const Of&>(held).rule.largest_gradients(ctx, gradient);
      };
  }
  Rule rule;
};
template <class Rule>
HeldRule* HeldRule::hold(Rule&& rule) {
  return new Of<Rule>(std::move(rule));
}
}  // namespace dpmp::inline DPMP_ABI::detail
