// SPDX-License-Identifier: Apache-2.0
// add, multiply and scale of values on a tape, element by element.
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// x + y, of one dtype. Axes after the sample axis are broadcast as broadcast_to does (rules/broadcast.hpp).
Variable add(const Variable& x, const Variable& y);
/// x * y element by element, in the same way.
Variable multiply(const Variable& x, const Variable& y);
/// factor * x, factor a public constant.
Variable scale(const Variable& x, double factor);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/autograd/rules/broadcast.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
/// forward of both values, repeated to one shape where theirs differ, recorded with Rule{x, y}.
template <class Rule>
Variable pairwise(Tensor (*forward)(Context&, const Tensor&, const Tensor&), const Variable& x, const Variable& y) {
  if (!(x.shape() == y.shape() && x.dtype() == y.dtype())) {
    const Shape shape = common_shape(Rule::name, x, y);
    return pairwise<Rule>(forward, broadcast_to(x, shape), broadcast_to(y, shape));
  }
  Tape& tape = Tape::common(x, y);
  return tape.record(forward(tape.ctx(), x.value(), y.value()), tape.needs_gradient(x) || tape.needs_gradient(y),
                     Rule{x, y});
}

struct Add {
  static constexpr std::string_view name = "add";
  GradientSlot x, y;
  Add(const Variable& a, const Variable& b) : x(a.slot()), y(b.slot()) {}
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    pass.accumulate(x, gradient);
    pass.accumulate(y, gradient);
  }
};

struct Multiply {
  static constexpr std::string_view name = "multiply";
  Variable x, y;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    if (pass.needs(x.slot())) pass.accumulate(x.slot(), multiply(pass.ctx, gradient, y.value()));
    if (pass.needs(y.slot())) pass.accumulate(y.slot(), multiply(pass.ctx, gradient, x.value()));
  }
};

struct Scale {
  static constexpr std::string_view name = "scale";
  GradientSlot x;
  double factor;
  void backward(BackwardPass& pass, const Tensor& gradient) const { pass.accumulate(x, scale(pass.ctx, gradient, factor)); }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable add(const Variable& x, const Variable& y) { return rules::pairwise<rules::Add>(add, x, y); }
DPMP_KEPT_BODY inline Variable multiply(const Variable& x, const Variable& y) {
  return rules::pairwise<rules::Multiply>(multiply, x, y);
}
DPMP_KEPT_BODY inline Variable scale(const Variable& x, double factor) {
  Tape& tape = x.tape();
  return tape.record(scale(tape.ctx(), x.value(), factor), tape.needs_gradient(x), rules::Scale{x.slot(), factor});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
