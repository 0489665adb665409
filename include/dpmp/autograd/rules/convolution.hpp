// SPDX-License-Identifier: Apache-2.0
// conv2d, conv1d on channels-last data. One group: linear(unfold(x)), the weight's use an outer-product site with a row for
// each output position (Rochette et al. 2019, arXiv 1912.06015). Several groups: per-sample weight gradients as vectors,
// because products of few channels are thin and a sample has many positions.
#pragma once
#include "dpmp/autograd/bias_site.hpp"
#include "dpmp/autograd/rules/linear.hpp"
#include "dpmp/autograd/rules/shape_ops.hpp"
#include "dpmp/autograd/rules/unfold.hpp"

namespace dpmp::inline DPMP_ABI {
struct Convolution2dOptions {
  Size2d kernel = {1, 1}, stride = {1, 1}, padding = {0, 0}, dilation = {1, 1};
  /// Output group g sees input group g only; divides both numbers of channels. As many as input channels: depthwise.
  index_t groups = 1;
  WindowOptions windows() const { return {kernel, stride, padding, dilation}; }
};
struct Convolution1dOptions {
  index_t kernel = 1, stride = 1, padding = 0, dilation = 1, groups = 1;
  /// The same along the width of an image of height 1.
  Convolution2dOptions on_rows() const {
    return {
        .kernel = {1, kernel}, .stride = {1, stride}, .padding = {0, padding}, .dilation = {1, dilation}, .groups = groups};
  }
};
/// Images x [B, H, W, C_in], channels last -> [B, OH, OW, C_out] (OH, OW: rules::windows_of), a correlation as in every
/// neural network: y[o] = bias[o] + sum over taps and the channels of o's group of weight[o, (ky, kx, c)] x. weight [C_out,
/// kernel height * kernel width * C_in / groups], taps row-major, channels innermost; optional bias [C_out]; all of x's
/// dtype. The unfolded images are kept for the backward pass when groups = 1: B * OH * OW * kernel * C_in elements.
Variable conv2d(const Variable& x, Parameter& weight, Parameter* bias, const Convolution2dOptions& options);
/// Sequences x [B, T, C_in], channels last -> [B, T', C_out] with T' = (T + 2 padding - dilation (kernel - 1) - 1) / stride
/// + 1, rounded down (0 for T = 0). weight [C_out, kernel * C_in / groups]; see conv2d.
Variable conv1d(const Variable& x, Parameter& weight, Parameter* bias, const Convolution1dOptions& options);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/grouped_convolution.hpp"
#include "dpmp/tensor/map.hpp"
#include "dpmp/tensor/transpose.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
struct GroupedConvolution {
  static constexpr std::string_view name = "conv2d";
  GradientSlot x;
  Tensor input;  // kept only when the weight is trained
  Parameter* weight;
  Parameter* bias;  // null: none
  kernels::Windows windows;
  index_t groups;

  std::vector<Parameter*> parameters() const { return {weight, bias}; }
  index_t outputs() const { return weight->shape()[0] / groups; }

  Tensor forward(Context& ctx, const Tensor& images) const {
    const Shape& w = weight->shape();
    const Tensor y = Tensor::empty(ctx, {images.shape()[0], windows.y.output, windows.x.output, w[0]}, images.dtype());
    const Tensor by_tap = transpose(ctx, weight->value(), 0, 1);
    dispatch_real(y.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      launch_library_rows(
          ctx, y.shape()[0] * windows.y.output, windows.x.output * w.numel(),
          kernels::GroupedConvolutionForward<T>{images.data<T>(), by_tap.data<T>(), bias ? bias->value().data<T>() : nullptr,
                                                y.data<T>(), windows, groups, outputs()});
    });
    return y;
  }

  void backward(BackwardPass& pass, const Tensor& gradient) const {
    if (weight->trainable()) pass.emit(ParameterSite::vector(*weight, weight_gradients(pass.ctx, gradient)));
    if (bias && bias->trainable()) pass.emit(bias_site(pass.ctx, *bias, gradient));
    if (pass.needs(x)) pass.accumulate(x, input_gradient(pass.ctx, gradient));
  }

 private:
  Tensor input_gradient(Context& ctx, const Tensor& gradient) const {
    const Tensor g = Tensor::empty(ctx, x.shape, x.dtype);
    // [groups, outputs, taps, inputs] -> [taps, outputs, groups, inputs]
    const Tensor by_tap =
        transpose(ctx, weight->value().reshaped({groups, outputs(), windows.taps(), windows.channels / groups}), 0, 2);
    dpmp::detail::map_rows<kernels::GroupedConvolutionBackwardInput>(ctx, x.dtype, x.shape[0] * windows.y.input,
                                                                     windows.x.input * weight->numel(), gradient, by_tap, g,
                                                                     windows, groups, outputs());
    return g;
  }
  /// [B, C_out, taps * inputs of a group] in the accumulate dtype.
  Tensor weight_gradients(Context& ctx, const Tensor& gradient) const {
    const index_t samples = x.shape[0], rows = weight->shape()[1], width = weight->shape()[0];
    const Tensor by_tap = Tensor::empty(ctx, {samples, rows, width}, accumulate_dtype(x.dtype));
    dpmp::detail::map_rows<kernels::GroupedConvolutionBackwardWeight>(
        ctx, x.dtype, samples * rows, windows.positions() * width, input, gradient, by_tap, windows, groups, outputs());
    return transpose(ctx, by_tap, 1, 2);
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable conv2d(const Variable& x, Parameter& weight, Parameter* bias,
                                      const Convolution2dOptions& options) {
  Tape& tape = x.tape();
  const kernels::Windows w = rules::windows_of("conv2d", x.shape(), options.windows());
  const index_t groups = options.groups;
  DPMP_CHECK(groups >= 1 && w.channels % groups == 0, "conv2d: expected groups that divide the ", w.channels,
             " input channels, got ", groups);
  DPMP_CHECK(
      weight.shape().rank() == 2 && weight.shape()[1] == w.taps() * (w.channels / groups) && weight.shape()[0] % groups == 0,
      "conv2d: expected a weight [C_out, ", w.taps() * (w.channels / groups), "] for a kernel of ", options.kernel, ", ",
      w.channels, " input channels and ", groups, " groups that divide C_out, got ", weight.name(), " ", weight.shape());
  DPMP_CHECK(weight.dtype() == x.dtype(), "conv2d: expected the weight ", weight.name(), " in ", x.dtype(), " like x, got ",
             weight.dtype());
  const index_t outputs = weight.shape()[0];
  DPMP_CHECK(!bias || (bias->shape() == Shape{outputs} && bias->dtype() == x.dtype()), "conv2d: expected a bias [", outputs,
             "] in ", x.dtype(), ", got ", bias->shape(), " ", bias->dtype());
  if (groups == 1)
    return reshape(linear(unfold2d(x, options.windows()), weight, bias), {x.shape()[0], w.y.output, w.x.output, outputs});
  const rules::GroupedConvolution rule{x.slot(), weight.trainable() ? x.value() : Tensor(), &weight, bias, w, groups};
  const bool trains = weight.trainable() || (bias && bias->trainable());
  return tape.record(rule.forward(tape.ctx(), x.value()), tape.needs_gradient(x) || trains, rule);
}

DPMP_KEPT_BODY inline Variable conv1d(const Variable& x, Parameter& weight, Parameter* bias,
                                      const Convolution1dOptions& options) {
  DPMP_CHECK(x.shape().rank() == 3, "conv1d: expected sequences x [B, T, C], channels last, got ", x.shape());
  const Shape& s = x.shape();
  const Variable y = conv2d(reshape(x, {s[0], 1, s[1], s[2]}), weight, bias, options.on_rows());
  return reshape(y, {s[0], y.shape()[2], y.shape()[3]});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
