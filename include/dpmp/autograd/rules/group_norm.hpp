// SPDX-License-Identifier: Apache-2.0
// group_norm, instance_norm: statistics of one sample alone, so that per-sample gradients exist, unlike with batch norm.
// Gain and bias are per-sample vectors.
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// Group normalisation (Wu, He 2018, arXiv 1803.08494) of x [B, .., C], channels last: each sample's `groups` groups of C /
/// groups neighbouring channels are normalised over all positions and the channels of the group, then scaled by gain [C] and
/// shifted by bias [C], all in x's dtype. epsilon > 0 keeps a constant group finite. Throws unless groups divides C.
Variable group_norm(const Variable& x, Parameter& gain, Parameter& bias, index_t groups, double epsilon = 1e-5);
/// Instance normalisation (Ulyanov et al. 2016, arXiv 1607.08022): every channel of every sample is a group of its own.
Variable instance_norm(const Variable& x, Parameter& gain, Parameter& bias, double epsilon = 1e-5);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/group_norm.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
struct GroupNorm {
  static constexpr std::string_view name = "group_norm";
  Variable x;
  Parameter* gain;
  Parameter* bias;
  Tensor mean, rstd;  // [B, C], those of the channel's group
  index_t groups;

  std::vector<Parameter*> parameters() const { return {gain, bias}; }
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const Shape& s = x.shape();
    const index_t samples = s.front(), channels = s.back(), positions = s.numel(1, s.rank() - 1);
    const Tensor gain_gradient = Tensor::empty(pass.ctx, mean.shape(), mean.dtype()),
                 bias_gradient = Tensor::empty(pass.ctx, mean.shape(), mean.dtype()),
                 gain_squares = Tensor::empty(pass.ctx, {samples}, DType::f64),
                 bias_squares = Tensor::empty(pass.ctx, {samples}, DType::f64);
    const bool wanted = pass.needs(x.slot());
    const Tensor g = wanted ? Tensor::empty(pass.ctx, s, x.dtype()) : Tensor();
    const index_t fold = kernels::group_norm_fold(positions, channels);
    dispatch_real(x.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      using R = compute_t<T>;
      using Kernel = kernels::GroupNormBackward<T>;
      const Tensor scratch = Tensor::empty(pass.ctx, {samples, Kernel::scratch_rows, fold, channels}, mean.dtype());
      launch_library_rows(
          pass.ctx, samples, positions * channels,
          Kernel{x.value().data<T>(), gain->value().data<T>(), gradient.data<T>(), mean.data<R>(), rstd.data<R>(),
                 gain_gradient.data<R>(), bias_gradient.data<R>(), gain_squares.data<double>(), bias_squares.data<double>(),
                 scratch.data<R>(), wanted ? g.data<T>() : nullptr, positions, channels, groups, fold});
    });
    pass.emit(ParameterSite::vector(*gain, gain_gradient, gain_squares));
    pass.emit(ParameterSite::vector(*bias, bias_gradient, bias_squares));
    if (g.defined()) pass.accumulate(x.slot(), g);
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable group_norm(const Variable& x, Parameter& gain, Parameter& bias, index_t groups,
                                          double epsilon) {
  Tape& tape = x.tape();
  const Shape& s = x.shape();
  DPMP_CHECK(s.rank() >= 2, "group_norm: expected x [B, .., C], channels last, got ", s);
  const index_t samples = s.front(), channels = s.back(), positions = s.numel(1, s.rank() - 1);
  DPMP_CHECK(groups >= 1 && channels % groups == 0, "group_norm: expected groups that divide the ", channels,
             " channels, got ", groups);
  for (const Parameter* p : {&gain, &bias})
    DPMP_CHECK(p->shape() == Shape{channels} && p->dtype() == x.dtype(), "group_norm: expected ", p->name(), " [", channels,
               "] in ", x.dtype(), ", got ", p->shape(), " ", p->dtype());
  DPMP_CHECK(epsilon > 0, "group_norm: expected epsilon > 0, got ", epsilon);
  const Tensor y = Tensor::empty(tape.ctx(), s, x.dtype());
  const Tensor mean = Tensor::empty(tape.ctx(), {samples, channels}, accumulate_dtype(x.dtype())),
               rstd = Tensor::empty(tape.ctx(), {samples, channels}, mean.dtype());
  const index_t fold = kernels::group_norm_fold(positions, channels);
  dispatch_real(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    using R = compute_t<T>;
    using Kernel = kernels::GroupNormForward<T>;
    const Tensor scratch = Tensor::empty(tape.ctx(), {samples, Kernel::scratch_rows, fold, channels}, mean.dtype());
    launch_library_rows(
        tape.ctx(), samples, positions * channels,
        Kernel{x.value().data<T>(), gain.value().data<T>(), bias.value().data<T>(), y.data<T>(), mean.data<R>(),
               rstd.data<R>(), scratch.data<R>(), positions, channels, groups, fold, R(epsilon)});
  });
  return tape.record(y, tape.needs_gradient(x) || gain.trainable() || bias.trainable(),
                     rules::GroupNorm{x, &gain, &bias, mean, rstd, groups});
}

DPMP_KEPT_BODY inline Variable instance_norm(const Variable& x, Parameter& gain, Parameter& bias, double epsilon) {
  DPMP_CHECK(x.shape().rank() >= 2, "instance_norm: expected x [B, .., C], channels last, got ", x.shape());
  return group_norm(x, gain, bias, std::max<index_t>(1, x.shape().back()), epsilon);
}
}  // namespace dpmp::inline DPMP_ABI
#endif
