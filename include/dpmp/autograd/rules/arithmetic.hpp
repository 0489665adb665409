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
#include "dpmp/autograd/rules/broadcast.hpp"
#include "dpmp/kernels/arithmetic.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
struct Subtract {
  static constexpr std::string_view name = "subtract";
  GradientSlot x, y;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    pass.accumulate(x, gradient);
    if (pass.needs(y)) pass.accumulate(y, scaled(pass.ctx, gradient, -1));
  }
};

/// round(x / y) into a new tensor.
inline Tensor quotient(Context& ctx, const Tensor& x, const Tensor& y) {
  const Tensor z = Tensor::empty(ctx, x.shape(), x.dtype());
  dispatch_real(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_library_elements(ctx, z.numel(), kernels::Divide<T>{x.data<T>(), y.data<T>(), z.data<T>()});
  });
  return z;
}

struct Divide {
  static constexpr std::string_view name = "divide";
  Variable x, y;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    if (pass.needs(x.slot())) pass.accumulate(x.slot(), quotient(pass.ctx, gradient, y.value()));
    if (!pass.needs(y.slot())) return;
    const Tensor g = Tensor::empty(pass.ctx, y.shape(), y.dtype());
    dispatch_real(y.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      launch_library_elements(
          pass.ctx, g.numel(),
          kernels::DivisorGradient<T>{x.value().data<T>(), y.value().data<T>(), gradient.data<T>(), g.data<T>()});
    });
    pass.accumulate(y.slot(), g);
  }
};

struct Shift {
  static constexpr std::string_view name = "shift";
  GradientSlot x;
  void backward(BackwardPass& pass, const Tensor& gradient) const { pass.accumulate(x, gradient); }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable subtract(const Variable& x, const Variable& y) {
  const Shape shape = rules::common_shape("subtract", x, y);
  const Variable a = broadcast_to(x, shape), b = broadcast_to(y, shape);
  Tape& tape = x.tape();
  const Tensor z = Tensor::empty(tape.ctx(), shape, x.dtype());
  dispatch_real(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_library_elements(tape.ctx(), z.numel(),
                            kernels::Subtract<T>{a.value().data<T>(), b.value().data<T>(), z.data<T>()});
  });
  return tape.record(z, tape.needs_gradient(a) || tape.needs_gradient(b), rules::Subtract{a.slot(), b.slot()});
}

DPMP_KEPT_BODY inline Variable divide(const Variable& x, const Variable& y) {
  const Shape shape = rules::common_shape("divide", x, y);
  const Variable a = broadcast_to(x, shape), b = broadcast_to(y, shape);
  Tape& tape = x.tape();
  return tape.record(rules::quotient(tape.ctx(), a.value(), b.value()), tape.needs_gradient(a) || tape.needs_gradient(b),
                     rules::Divide{a, b});
}

DPMP_KEPT_BODY inline Variable shift(const Variable& x, double constant) {
  Tape& tape = x.tape();
  const Tensor y = Tensor::empty(tape.ctx(), x.shape(), x.dtype());
  dispatch_real(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_library_elements(tape.ctx(), y.numel(),
                            kernels::Shift<T>{x.value().data<T>(), y.data<T>(), compute_t<T>(constant)});
  });
  return tape.record(y, tape.needs_gradient(x), rules::Shift{x.slot()});
}

DPMP_KEPT_BODY inline Variable operator/(const Variable& x, double divisor) {
  DPMP_CHECK(divisor != 0, "divide: expected a constant divisor other than 0, got ", divisor);
  return scale(x, 1 / divisor);
}
}  // namespace dpmp::inline DPMP_ABI
#endif
