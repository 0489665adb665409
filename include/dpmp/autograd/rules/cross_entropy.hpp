// SPDX-License-Identifier: Apache-2.0
// cross_entropy: per-sample losses over tokens. The divisor is a public constant: dividing by the batch would mix samples.
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
struct CrossEntropyOptions {
  /// Targets of this value add nothing to the loss or the gradient.
  std::int32_t ignore_index = -1;
  /// The sum over a sample's valid tokens is divided by this public constant (1: the plain sum; T: the padded length).
  double divisor = 1;
};
/// logits [B, .., classes] and targets i32 [B, ..] -> losses [B] in f32 (f64 for f64 logits). Targets outside
/// [0, classes) that are not ignore_index make their sample's loss and gradient NaN, so that private training leaves it out;
/// a tape of open records (RecordsAre) refuses them, on the CPU.
Variable cross_entropy(const Variable& logits, const Tensor& targets, CrossEntropyOptions options = {});
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/cross_entropy.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
struct CrossEntropy {
  static constexpr std::string_view name = "cross_entropy";
  Variable logits;
  Tensor targets, top, scale, missing;  // of kernels::CrossEntropyRows
  CrossEntropyOptions options;

  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const index_t classes = logits.shape().back(), rows = targets.numel();
    const index_t tokens = targets.shape().numel(1, targets.shape().rank());
    // The largest tensor of a language model: its gradient takes its place where nobody will read it any more.
    const bool in_place = pass.releases() && !logits.value().shared();
    const Tensor g = in_place ? logits.value() : Tensor::empty(pass.ctx, logits.shape(), logits.dtype());
    dispatch_real(logits.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      using R = compute_t<T>;
      launch_library_rows(pass.ctx, rows, classes,
                          kernels::CrossEntropyBackward<T>{logits.value().data<T>(),
                                                           targets.data<std::int32_t>(),
                                                           {top.data<R>(), scale.data<R>(), missing.data<R>()},
                                                           gradient.data<R>(),
                                                           g.data<T>(),
                                                           tokens,
                                                           classes,
                                                           options.ignore_index,
                                                           R(1 / options.divisor)});
    });
    pass.accumulate(logits.slot(), g);
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable cross_entropy(const Variable& logits, const Tensor& targets, CrossEntropyOptions options) {
  Tape& tape = logits.tape();
  const Shape& shape = logits.shape();
  DPMP_CHECK(shape.rank() >= 2 && targets.dtype() == DType::i32 && targets.shape().rank() == shape.rank() - 1 &&
                 targets.numel() == shape.numel(0, shape.rank() - 1) && targets.shape().front() == shape.front(),
             "cross_entropy: expected logits [B, .., classes] and targets i32 [B, ..], got ", shape, " and ",
             targets.dtype(), " ", targets.shape());
  DPMP_CHECK(options.divisor > 0, "cross_entropy: expected a divisor > 0, got ", options.divisor);
  check_device("cross_entropy: the targets", targets, tape.ctx());
  const index_t classes = shape.back(), rows = targets.numel(), tokens = targets.shape().numel(1, targets.shape().rank());
  if (tape.records() == RecordsAre::open && !tape.ctx().on_cuda())
    for (index_t r = 0; r < rows; ++r) {
      const std::int32_t t = targets.data<std::int32_t>()[r];
      DPMP_CHECK(t == options.ignore_index || (t >= 0 && t < classes), "cross_entropy: expected targets in [0, ", classes,
                 ") or ", options.ignore_index, " (ignored), got ", t, " at sample ", r / tokens);
    }
  const DType real = accumulate_dtype(logits.dtype());
  const auto of_rows = [&] { return Tensor::empty(tape.ctx(), {rows}, real); };
  const Tensor loss = of_rows(), top = of_rows(), scale = of_rows(), missing = of_rows();
  const Tensor losses = Tensor::empty(tape.ctx(), {shape.front()}, real);
  dispatch_real(logits.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    using R = compute_t<T>;
    launch_library_rows(tape.ctx(), rows, classes,
                        kernels::CrossEntropyForward<T>{logits.value().data<T>(),
                                                        targets.data<std::int32_t>(),
                                                        loss.data<R>(),
                                                        {top.data<R>(), scale.data<R>(), missing.data<R>()},
                                                        classes,
                                                        options.ignore_index});
    launch_library_rows(tape.ctx(), shape.front(), tokens,
                        kernels::SampleSum<R>{loss.data<R>(), losses.data<R>(), tokens, 1 / options.divisor});
  });
  return tape.record(losses, tape.needs_gradient(logits),
                     rules::CrossEntropy{logits, targets, top, scale, missing, options});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
