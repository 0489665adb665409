// SPDX-License-Identifier: Apache-2.0
// subtract, divide, and the operators + - * / of values with values and with public constants.
#pragma once
#include "dpmp/autograd/rules/elementwise.hpp"
#include "dpmp/autograd/rules/unary.hpp"

namespace dpmp::inline DPMP_ABI {
/// x - y. Axes after the sample axis are broadcast as broadcast_to does (rules/broadcast.hpp); one dtype.
Variable subtract(const Variable& x, const Variable& y);
/// x / y, broadcast in the same way. Nothing is thrown for a divisor of 0, which is private: that sample alone is not
/// finite.
Variable divide(const Variable& x, const Variable& y);
/// x + constant, the constant public, rounded to compute precision.
Variable shift(const Variable& x, double constant);

inline Variable operator+(const Variable& x, const Variable& y) { return add(x, y); }
inline Variable operator-(const Variable& x, const Variable& y) { return subtract(x, y); }
inline Variable operator*(const Variable& x, const Variable& y) { return multiply(x, y); }
inline Variable operator/(const Variable& x, const Variable& y) { return divide(x, y); }
inline Variable operator-(const Variable& x) { return scale(x, -1); }

// With public constants: they are not protected, so none may be computed from records.
inline Variable operator+(const Variable& x, double constant) { return shift(x, constant); }
inline Variable operator+(double constant, const Variable& x) { return shift(x, constant); }
inline Variable operator-(const Variable& x, double constant) { return shift(x, -constant); }
inline Variable operator-(double constant, const Variable& x) { return shift(-x, constant); }
inline Variable operator*(const Variable& x, double factor) { return scale(x, factor); }
inline Variable operator*(double factor, const Variable& x) { return scale(x, factor); }
/// x times the reciprocal of the divisor, rounded to compute precision. Throws for 0.
Variable operator/(const Variable& x, double divisor);
/// The reciprocal of x, rounded to x's dtype, times the constant.
inline Variable operator/(double constant, const Variable& x) { return scale(reciprocal(x), constant); }
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/elementwise.hpp"
#include "dpmp/tensor/arithmetic.hpp"
#include "dpmp/tensor/map.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
struct Subtract {
  static constexpr std::string_view name = "subtract";
  GradientSlot x, y;
  Subtract(const Variable& a, const Variable& b) : x(a.slot()), y(b.slot()) {}
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    pass.accumulate(x, gradient);
    if (pass.needs(y)) pass.accumulate(y, scale(pass.ctx, gradient, -1));
  }
};

struct Divide {
  static constexpr std::string_view name = "divide";
  Variable x, y;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    if (pass.needs(x.slot())) pass.accumulate(x.slot(), divide(pass.ctx, gradient, y.value()));
    if (pass.needs(y.slot()))
      pass.accumulate(y.slot(), dpmp::detail::map<kernels::DivisorGradient>(pass.ctx, x.value(), y.value(), gradient));
  }
};

struct Shift {
  static constexpr std::string_view name = "shift";
  GradientSlot x;
  void backward(BackwardPass& pass, const Tensor& gradient) const { pass.accumulate(x, gradient); }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable subtract(const Variable& x, const Variable& y) {
  return rules::pairwise<rules::Subtract>(subtract, x, y);
}
DPMP_KEPT_BODY inline Variable divide(const Variable& x, const Variable& y) {
  return rules::pairwise<rules::Divide>(divide, x, y);
}
DPMP_KEPT_BODY inline Variable shift(const Variable& x, double constant) {
  Tape& tape = x.tape();
  return tape.record(shift(tape.ctx(), x.value(), constant), tape.needs_gradient(x), rules::Shift{x.slot()});
}

DPMP_KEPT_BODY inline Variable operator/(const Variable& x, double divisor) {
  DPMP_CHECK(divisor != 0, "divide: expected a constant divisor other than 0, got ", divisor);
  return scale(x, 1 / divisor);
}
}  // namespace dpmp::inline DPMP_ABI
#endif
