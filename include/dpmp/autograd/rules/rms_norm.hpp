// SPDX-License-Identifier: Apache-2.0
// rms_norm over the last axis; the gain is a per-sample vector.
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// Divides the last axis of x [B, .., width] by its root mean square and multiplies by gain [width], in x's dtype (Zhang,
/// Sennrich 2019). epsilon > 0 keeps a row of zeros finite.
Variable rms_norm(const Variable& x, Parameter& gain, double epsilon = 1e-5);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/rms_norm.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
struct RmsNorm {
  static constexpr std::string_view name = "rms_norm";
  Variable x;
  Parameter* gain;
  Tensor rstd;  // [rows]

  std::vector<Parameter*> parameters() const { return {gain}; }
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const index_t samples = x.shape().front(), width = x.shape().back();
    const index_t tokens = x.shape().numel(1, x.shape().rank() - 1);
    // What x got as a residual is added here, in place where nobody else holds it: no pass of its own, one rounding less.
    const Tensor other = pass.take(x.slot());
    const bool in_place = other.defined() && !other.shared();
    const Tensor g = !pass.needs(x.slot()) ? Tensor() : in_place ? other : Tensor::empty(pass.ctx, x.shape(), x.dtype());
    TokenSums gains(
        pass.ctx,
        {.samples = samples, .tokens = tokens, .width = width, .dtype = rstd.dtype(), .wanted = gain->trainable()});
    dispatch_real(x.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      using R = compute_t<T>;
      launch_library_rows(
          pass.ctx, gains.rows(), gains.slices().length * width,
          kernels::RmsNormBackward<T>{x.value().data<T>(), gain->value().data<T>(), gradient.data<T>(), rstd.data<R>(),
                                      other.defined() ? other.data<T>() : nullptr, g.defined() ? g.data<T>() : nullptr,
                                      gains.sums<R>(0), gains.squares(0), tokens, width, gains.slices()});
    });
    if (gain->trainable()) {
      gains.join(pass.ctx);
      pass.emit(ParameterSite::vector(*gain, gains));
    }
    if (g.defined()) pass.accumulate(x.slot(), g);
  }
};

/// What a forward pass of RMS norm reads in addition to its input, checked, and what it writes.
class RmsNormPass {
 public:
  /// name: the operation's, for errors. x [B, .., width]: what is normalised, or has its shape and dtype.
  RmsNormPass(std::string_view name, const Variable& x, Parameter& gain, double epsilon) : gain_(&gain), epsilon_(epsilon) {
    DPMP_CHECK(x.shape().rank() >= 2, name, ": expected x [B, .., width], got ", x.shape());
    const index_t width = x.shape().back(), rows = x.shape().numel(0, x.shape().rank() - 1);
    DPMP_CHECK(gain.shape() == Shape{width} && gain.dtype() == x.dtype(), name, ": expected ", gain.name(), " [", width,
               "] in ", x.dtype(), ", got ", gain.shape(), " ", gain.dtype());
    DPMP_CHECK(epsilon > 0, name, ": expected epsilon > 0, got ", epsilon);
    y_ = Tensor::empty(x.tape().ctx(), x.shape(), x.dtype());
    rstd_ = Tensor::empty(x.tape().ctx(), {rows}, accumulate_dtype(x.dtype()));
  }
  template <class T>
  kernels::RmsNormForward<T> kernel(const Tensor& input) const {
    using R = compute_t<T>;
    return {input.data<T>(), gain_->value().data<T>(), y_.data<T>(), rstd_.data<R>(), y_.shape().back(), R(epsilon_)};
  }
  /// The result on x's tape; x holds what the kernel normalised.
  Variable recorded(const Variable& x) const {
    return x.tape().record(y_, x.tape().needs_gradient(x) || gain_->trainable(), RmsNorm{x, gain_, rstd_});
  }

 private:
  Parameter* gain_;
  double epsilon_;
  Tensor y_, rstd_;
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable rms_norm(const Variable& x, Parameter& gain, double epsilon) {
  const rules::RmsNormPass norm("rms_norm", x, gain, epsilon);
  dispatch_real(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_library_rows(x.tape().ctx(), x.shape().numel(0, x.shape().rank() - 1), x.shape().back(),
                        norm.kernel<T>(x.value()));
  });
  return norm.recorded(x);
}
}  // namespace dpmp::inline DPMP_ABI
#endif
