// SPDX-License-Identifier: Apache-2.0
// cross_entropy: per-sample losses over tokens. The divisor is a public constant: dividing by the batch would mix samples.
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
struct CrossEntropyOptions {
  /// Targets of this value add nothing to the loss or the gradient, whatever their logits are. Other libraries' padding is
  /// often -100.
  std::int32_t ignore_index = -1;
  /// The sum over a sample's valid tokens is divided by this public constant (1: the plain sum; T: the padded length).
  double divisor = 1;
};
/// logits [B, .., classes] and targets i32 [B, ..] -> losses [B] in f32 (f64 for f64 logits). Targets outside
/// [0, classes) that are not ignore_index make their sample's loss and gradient NaN, so that private training leaves it out;
/// a tape of open records (RecordsAre) refuses them. Losses and gradients are as exact for logits of 10^4 as for small ones.
Variable cross_entropy(const Variable& logits, const Tensor& targets, CrossEntropyOptions options = {});

/// How many samples of targets i32 [B, ..] have one that is neither a class nor ignored: private training would leave each
/// of them out without a word. For public data, before training: what it says of private records is not protected.
index_t samples_with_bad_targets(const Tensor& targets, index_t classes, CrossEntropyOptions options = {});
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/autograd/open_records.hpp"
#include "dpmp/kernels/cross_entropy.hpp"
#include "dpmp/kernels/loss_scale.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
inline bool is_legal(std::int32_t target, index_t classes, const CrossEntropyOptions& options) {
  return target == options.ignore_index || (target >= 0 && target < classes);
}

/// Throws unless targets fit logits of this shape and the options are sound; of open records, on a bad target.
inline void check_targets(const char* op, const Tape& tape, const Shape& logits, const Tensor& targets,
                          const CrossEntropyOptions& options) {
  DPMP_CHECK(logits.rank() >= 2 && targets.dtype() == DType::i32 && targets.shape().rank() == logits.rank() - 1 &&
                 targets.numel() == logits.numel(0, logits.rank() - 1) && targets.shape().front() == logits.front(),
             op, ": expected logits [B, .., classes] and targets i32 [B, ..], got ", logits, " and ", targets.dtype(), " ",
             targets.shape());
  DPMP_CHECK(options.divisor > 0, op, ": expected a divisor > 0, got ", options.divisor);
  check_device(dpmp::detail::concat(op, ": the targets"), targets, tape.ctx());
  const index_t classes = logits.back(), tokens = targets.shape().numel(1, targets.shape().rank());
  check_open_ids(tape, targets, [&](index_t r, std::int32_t t) {
    DPMP_CHECK(is_legal(t, classes, options), op, ": expected targets in [0, ", classes, ") or ", options.ignore_index,
               " (ignored), got ", t, " at sample ", r / tokens, ", position ", r % tokens,
               ": CrossEntropyOptions::ignore_index says which targets are padding");
  });
}

/// What the largest gradient of a row's logits follows from: targets i32 [B, ..], and 1 - p_target of each row.
struct TargetRows {
  const Tensor &targets, &missing;
  const CrossEntropyOptions& options;
};
/// Of each sample's logits, for these gradients [B] of the losses (autograd/loss_scale.hpp).
inline Tensor largest_gradients(Context& ctx, const TargetRows& rows, const Tensor& gradient) {
  const index_t samples = gradient.numel(), tokens = rows.targets.numel() / std::max<index_t>(1, samples);
  const Tensor largest = Tensor::empty(ctx, {samples}, gradient.dtype());
  dispatch_real(gradient.dtype(), [&](auto tag) {
    using R = typename decltype(tag)::type;
    if constexpr (std::is_same_v<R, compute_t<R>>)
      launch_library_rows(ctx, samples, tokens,
                          kernels::LargestCrossEntropyGradients<R>{rows.missing.data<R>(), rows.targets.data<std::int32_t>(),
                                                                   gradient.data<R>(), largest.data<R>(), tokens,
                                                                   rows.options.ignore_index, R(1 / rows.options.divisor)});
  });
  return largest;
}

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
  Tensor largest_gradients(Context& ctx, const Tensor& gradient) const {
    return rules::largest_gradients(ctx, {targets, missing, options}, gradient);
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline index_t samples_with_bad_targets(const Tensor& targets, index_t classes, CrossEntropyOptions options) {
  DPMP_CHECK(targets.dtype() == DType::i32 && targets.shape().rank() >= 1,
             "samples_with_bad_targets: expected targets i32 [B, ..], got ", targets.dtype(), " ", targets.shape());
  std::vector<std::int32_t> values(std::size_t(targets.numel()));
  targets.copy_to_host(values.data());
  const index_t tokens = targets.shape().numel(1, targets.shape().rank());
  index_t bad = 0;
  for (index_t i = 0; i < targets.shape().front(); ++i)
    bad += !std::all_of(values.begin() + i * tokens, values.begin() + (i + 1) * tokens,
                        [&](std::int32_t t) { return rules::is_legal(t, classes, options); });
  return bad;
}

DPMP_KEPT_BODY inline Variable cross_entropy(const Variable& logits, const Tensor& targets, CrossEntropyOptions options) {
  Tape& tape = logits.tape();
  const Shape& shape = logits.shape();
  rules::check_targets("cross_entropy", tape, shape, targets, options);
  const index_t classes = shape.back(), rows = targets.numel(), tokens = targets.shape().numel(1, targets.shape().rank());
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
