// SPDX-License-Identifier: Apache-2.0
// add, multiply and scale, element by element.
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// x + y, of one dtype. Axes after the sample axis are broadcast as broadcast_to does (rules/broadcast.hpp).
Variable add(const Variable& x, const Variable& y);
/// x * y element by element, in the same way.
Variable multiply(const Variable& x, const Variable& y);
/// factor * x, factor a public constant.
Variable scale(const Variable& x, double factor);

namespace rules {
// For rules of one's own.
/// round(x * y) into a new tensor.
Tensor product(Context& ctx, const Tensor& x, const Tensor& y);
/// round(factor * x) into a new tensor.
Tensor scaled(Context& ctx, const Tensor& x, double factor);
}  // namespace rules
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/autograd/rules/broadcast.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
inline void check_same(std::string_view name, const Variable& x, const Variable& y) {
  DPMP_CHECK(x.shape() == y.shape() && x.dtype() == y.dtype(), name, ": expected two values of one shape and dtype, got ",
             x.shape(), " ", x.dtype(), " and ", y.shape(), " ", y.dtype());
}

struct Add {
  static constexpr std::string_view name = "add";
  GradientSlot x, y;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    pass.accumulate(x, gradient);
    pass.accumulate(y, gradient);
  }
};

DPMP_KEPT_BODY inline Tensor product(Context& ctx, const Tensor& x, const Tensor& y) {
  const Tensor z = Tensor::empty(ctx, x.shape(), x.dtype());
  dispatch_real(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_library_elements(ctx, z.numel(), kernels::Multiply<T>{x.data<T>(), y.data<T>(), z.data<T>()});
  });
  return z;
}

struct Multiply {
  static constexpr std::string_view name = "multiply";
  Variable x, y;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    if (pass.needs(x.slot())) pass.accumulate(x.slot(), product(pass.ctx, gradient, y.value()));
    if (pass.needs(y.slot())) pass.accumulate(y.slot(), product(pass.ctx, gradient, x.value()));
  }
};

DPMP_KEPT_BODY inline Tensor scaled(Context& ctx, const Tensor& x, double factor) {
  const Tensor z = Tensor::empty(ctx, x.shape(), x.dtype());
  dispatch_real(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_library_elements(ctx, z.numel(), kernels::Scale<T>{x.data<T>(), z.data<T>(), compute_t<T>(factor)});
  });
  return z;
}

struct Scale {
  static constexpr std::string_view name = "scale";
  GradientSlot x;
  double factor;
  void backward(BackwardPass& pass, const Tensor& gradient) const { pass.accumulate(x, scaled(pass.ctx, gradient, factor)); }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable add(const Variable& x, const Variable& y) {
  if (!(x.shape() == y.shape())) {
    const Shape shape = rules::common_shape("add", x, y);
    return add(broadcast_to(x, shape), broadcast_to(y, shape));
  }
  rules::check_same("add", x, y);
  Tape& tape = Tape::common(x, y);
  const Tensor z = Tensor::empty(tape.ctx(), x.shape(), x.dtype());
  dispatch_real(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_library_elements(tape.ctx(), z.numel(), kernels::Add<T>{x.value().data<T>(), y.value().data<T>(), z.data<T>()});
  });
  return tape.record(z, tape.needs_gradient(x) || tape.needs_gradient(y), rules::Add{x.slot(), y.slot()});
}

DPMP_KEPT_BODY inline Variable multiply(const Variable& x, const Variable& y) {
  if (!(x.shape() == y.shape())) {
    const Shape shape = rules::common_shape("multiply", x, y);
    return multiply(broadcast_to(x, shape), broadcast_to(y, shape));
  }
  rules::check_same("multiply", x, y);
  Tape& tape = Tape::common(x, y);
  return tape.record(rules::product(tape.ctx(), x.value(), y.value()), tape.needs_gradient(x) || tape.needs_gradient(y),
                     rules::Multiply{x, y});
}

DPMP_KEPT_BODY inline Variable scale(const Variable& x, double factor) {
  Tape& tape = x.tape();
  return tape.record(rules::scaled(tape.ctx(), x.value(), factor), tape.needs_gradient(x), rules::Scale{x.slot(), factor});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
