// SPDX-License-Identifier: Apache-2.0
// rope: rotary position embedding of the first heads of packed projections. No parameters; the backward turns back.
#pragma once
#include <cmath>

#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// x [B, T, at least heads * width] with its first `heads` heads of this even width turned by their positions 0..T-1 (Su et
/// al. 2021): columns k and k + width / 2 of a head by the angle t * base^(-2 k / width). The columns after those heads
/// pass unchanged: for packed queries, keys and values, heads = query heads + key heads. Angles are formed in double, their
/// cosines rounded to compute precision.
Variable rope(const Variable& x, index_t heads, index_t width, double base = 10000);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/rope.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
struct Rope {
  static constexpr std::string_view name = "rope";
  GradientSlot x;
  Tensor cosine, sine;  // [tokens, width / 2] in compute precision
  index_t heads;

  void backward(BackwardPass& pass, const Tensor& gradient) const { pass.accumulate(x, turned(pass.ctx, gradient, -1)); }

  Tensor turned(Context& ctx, const Tensor& input, int direction) const {
    const Tensor output = Tensor::empty(ctx, input.shape(), input.dtype());
    const index_t tokens = input.shape()[1], columns = input.shape()[2], half = cosine.shape()[1];
    dispatch_real(input.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      using R = compute_t<T>;
      launch_library_rows(ctx, input.shape().front() * tokens, columns,
                          kernels::Rope<T>{input.data<T>(), output.data<T>(), cosine.data<R>(), sine.data<R>(), tokens,
                                           columns, heads, half, R(direction)});
    });
    return output;
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable rope(const Variable& x, index_t heads, index_t width, double base) {
  Tape& tape = x.tape();
  DPMP_CHECK(x.shape().rank() == 3 && heads >= 1 && width >= 2 && width % 2 == 0 && x.shape()[2] / width >= heads,
             "rope: expected x [B, T, at least heads * width] with heads >= 1 and an even width >= 2, got ", x.shape(), ", ",
             heads, " heads of width ", width);
  DPMP_CHECK(base > 0 && std::isfinite(base), "rope: expected a finite base > 0, got ", base);
  const index_t tokens = x.shape()[1], half = width / 2;
  std::vector<double> cosine(std::size_t(tokens * half)), sine(cosine.size());
  for (index_t k = 0; k < half; ++k) {
    const double frequency = std::pow(base, -2 * double(k) / double(width));
    for (index_t t = 0; t < tokens; ++t) {
      cosine[std::size_t(t * half + k)] = std::cos(double(t) * frequency);
      sine[std::size_t(t * half + k)] = std::sin(double(t) * frequency);
    }
  }
  const DType precision = accumulate_dtype(x.dtype());
  const rules::Rope rule{x.slot(), Tensor::from(tape.ctx(), {tokens, half}, precision, cosine),
                         Tensor::from(tape.ctx(), {tokens, half}, precision, sine), heads};
  return tape.record(rule.turned(tape.ctx(), x.value(), 1), tape.needs_gradient(x), rule);
}
}  // namespace dpmp::inline DPMP_ABI
#endif
