// SPDX-License-Identifier: Apache-2.0
// linear: y = x W^T + bias over the last axis, the weight's use an outer-product site, the bias' a per-sample vector.
#pragma once
#include "dpmp/autograd/tape.hpp"
#include "dpmp/gemm/gemm.hpp"
#include "dpmp/kernels/token_sum.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
struct Linear {
  static constexpr std::string_view name = "linear";
  GradientSlot x;
  Tensor input;  // kept only when the weight is trained: a frozen weight needs no activations
  Parameter* weight;
  Parameter* bias;  // null: none

  std::vector<Parameter*> parameters() const { return {weight, bias}; }
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const index_t p = weight->shape()[0], d = weight->shape()[1], rows = x.shape.numel(0, x.shape.rank() - 1);
    if (weight->trainable()) pass.emit(ParameterSite::outer_product(*weight, input, gradient));
    if (bias && bias->trainable()) pass.emit(ParameterSite::vector(*bias, token_sums(pass.ctx, gradient)));
    if (!pass.needs(x)) return;
    const Tensor g = Tensor::empty(pass.ctx, x.shape, x.dtype);
    gemm(pass.ctx, {.m = rows,
                    .n = d,
                    .k = p,
                    .a = {.data = gradient.raw(), .dtype = x.dtype, .row_stride = p},
                    .b = {.data = weight->value().raw(), .dtype = x.dtype, .row_stride = d},
                    .out = {.data = g.raw(), .dtype = x.dtype, .row_stride = d}});
    pass.accumulate(x, g);
  }
  /// [B, .., p] -> [B, p] in the accumulate dtype.
  static Tensor token_sums(Context& ctx, const Tensor& gradient) {
    const index_t samples = gradient.shape().front(), p = gradient.shape().back();
    const index_t tokens = gradient.shape().numel(1, gradient.shape().rank() - 1);
    const Tensor sums = Tensor::empty(ctx, {samples, p}, accumulate_dtype(gradient.dtype()));
    dispatch_real(gradient.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      launch_rows(ctx, samples, tokens * p, kernels::TokenSum<T>{gradient.data<T>(), sums.data<compute_t<T>>(), tokens, p});
    });
    return sums;
  }
};
}  // namespace rules

/// x [B, .., d] -> [B, .., p] with weight [p, d] and optional bias [p], all of x's dtype.
inline Variable linear(const Variable& x, Parameter& weight, Parameter* bias = nullptr) {
  Tape& tape = x.tape();
  DPMP_CHECK(x.shape().rank() >= 2 && weight.shape().rank() == 2 && x.shape().back() == weight.shape()[1],
             "linear: expected x [B, .., d] and a weight [p, d], got ", x.shape(), " and ", weight.name(), " ",
             weight.shape());
  DPMP_CHECK(weight.dtype() == x.dtype(), "linear: expected the weight ", weight.name(), " in ", x.dtype(), " like x, got ",
             weight.dtype());
  DPMP_CHECK(!bias || (bias->shape() == Shape{weight.shape()[0]} && bias->dtype() == x.dtype()), "linear: expected a bias [",
             weight.shape()[0], "] in ", x.dtype(), ", got ", bias->shape(), " ", bias->dtype());
  check_device("linear: the weight", weight.value(), tape.ctx());
  if (bias) check_device("linear: the bias", bias->value(), tape.ctx());
  const index_t p = weight.shape()[0], d = weight.shape()[1];
  const Tensor y = Tensor::empty(tape.ctx(), x.shape().with(-1, p), x.dtype());
  gemm(tape.ctx(), {.m = x.shape().numel(0, x.shape().rank() - 1),
                    .n = p,
                    .k = d,
                    .a = {.data = x.value().raw(), .dtype = x.dtype(), .row_stride = d},
                    .b = {.data = weight.value().raw(), .dtype = x.dtype(), .row_stride = d, .transposed = true},
                    .out = {.data = y.raw(), .dtype = x.dtype(), .row_stride = p},
                    .bias = bias ? bias->value().raw() : nullptr});
  const bool trains = weight.trainable() || (bias && bias->trainable());
  return tape.record(y, tape.needs_gradient(x) || trains,
                     rules::Linear{x.slot(), weight.trainable() ? x.value() : Tensor(), &weight, bias});
}
}  // namespace dpmp::inline DPMP_ABI
