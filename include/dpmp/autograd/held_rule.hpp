// SPDX-License-Identifier: Apache-2.0
// What a tape holds of a recorded operation: its rule, of any type, behind one interface.
#pragma once
#include <string_view>
#include <utility>
#include <vector>

#include "dpmp/autograd/backward_pass.hpp"

namespace dpmp::inline DPMP_ABI::detail {
/// A rule as Tape::record describes it. What few rules have is a pointer to a function, so that the others add none.
class HeldRule {
 public:
  virtual ~HeldRule() = default;
  virtual void backward(BackwardPass& pass, const Tensor& gradient) const = 0;
  std::vector<Parameter*> parameters() const { return parameters_ ? parameters_(*this) : std::vector<Parameter*>(); }
  std::string_view name() const { return name_; }
  /// Tensor() where the rule is no loss that knows them.
  Tensor largest_gradients(Context& ctx, const Tensor& gradient) const {
    return largest_gradients_ ? largest_gradients_(*this, ctx, gradient) : Tensor();
  }

 protected:
  explicit HeldRule(std::string_view name) : name_(name) {}
  std::string_view name_;
  std::vector<Parameter*> (*parameters_)(const HeldRule&) = nullptr;
  Tensor (*largest_gradients_)(const HeldRule&, Context&, const Tensor& gradient) = nullptr;
};

template <class Rule>
class Holder final : public HeldRule {
 public:
  explicit Holder(Rule&& rule) : HeldRule(Rule::name), rule_(std::move(rule)) {
    if constexpr (requires { rule_.parameters(); })
      parameters_ = [](const HeldRule& at) { return static_cast<const Holder&>(at).rule_.parameters(); };
    if constexpr (requires(Context & ctx, const Tensor& gradient) { rule_.largest_gradients(ctx, gradient); })
      largest_gradients_ = [](const HeldRule& at, Context& ctx, const Tensor& gradient) {
        return static_cast<const Holder&>(at).rule_.largest_gradients(ctx, gradient);
      };
  }
  void backward(BackwardPass& pass, const Tensor& gradient) const override { rule_.backward(pass, gradient); }

 private:
  Rule rule_;
};
}  // namespace dpmp::inline DPMP_ABI::detail
