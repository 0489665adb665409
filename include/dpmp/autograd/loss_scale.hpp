// SPDX-License-Identifier: Apache-2.0
// Loss scaling for 16-bit gradients: the backward pass of each sample starts at a power of two, so that gradients that
// are small next to the range of f16 are not stored as zero. Which power is a function of that sample alone, or public.
#pragma once
#include <cmath>
#include <string>

#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// How the exponents are chosen.
class LossScaling {
 public:
  enum class Kind : std::uint8_t { none, per_sample, fixed, noisy };
  /// No scale: the default of models without f16.
  LossScaling() = default;
  /// Each sample's own, k = 15 - headroom - ceil(log2 of its largest loss gradient), within [-24, 40]; 0 where that is 0 or
  /// not finite. The gradient of the losses begins at 2^(15 - headroom) at most, and may grow by 2^headroom on its way
  /// before f16 overflows, which leaves the sample out. Throws unless 0 <= headroom <= 30.
  static LossScaling per_sample(int headroom = 6);
  /// The same for all, a public number. Throws unless it is a power of two in [2^-24, 2^40].
  static LossScaling fixed(double scale);
  /// The same for all in one step, and moved between steps by a noisy count of overflows: private training with a plan that
  /// has such a count (dp/overflow_scale.hpp). A pass of one step is given of_step().
  static LossScaling noisy() { return {Kind::noisy, 0}; }
  /// What the passes of a step are given whose public scale is this one: fixed(scale) of a noisy scaling, else *this.
  LossScaling of_step(double scale) const { return kind_ == Kind::noisy ? fixed(scale) : *this; }

  Kind kind() const { return kind_; }
  /// fixed: of the scale; per_sample: of the largest loss gradient after scaling.
  int exponent() const { return exponent_; }
  /// What sums of scaled gradients are divided by; 1 where samples have scales of their own.
  double public_scale() const { return kind_ == Kind::fixed ? std::ldexp(1.0, exponent_) : 1; }
  /// For people: "per sample, headroom 6".
  std::string text() const;
  friend bool operator==(const LossScaling&, const LossScaling&) = default;

 private:
  LossScaling(Kind kind, int exponent) : kind_(kind), exponent_(exponent) {}
  Kind kind_ = Kind::none;
  int exponent_ = 0;
};

/// Where a scaled walk starts. weights [B]: times 2^exponents, exactly; exponents i32 [B], not defined without a scale.
struct ScaledSeed {
  Tensor weights, exponents;
};
/// weights: as for Tape::backward; not defined: all 1. The tape is not walked by this, and may be walked after it.
ScaledSeed scaled_seed(Tape& tape, const Variable& losses, const Tensor& weights, const LossScaling& scaling);

/// max |dL_i| of each sample, [B] in the losses' dtype, where the FP32 part of the losses begins and before anything is
/// rounded to 16 bits; infinity where something is not finite. Of a loss whose rule has
/// largest_gradients(Context&, const Tensor& gradient [B]) -> Tensor [B], the largest gradient of its input for that
/// gradient of the losses, it is the answer. All else is walked back in FP32 as far as the rules have no parameters and read
/// nothing in 16 bits: it is the largest gradient where that ends, at a checkpointed part at the latest. No value on the
/// tape is overwritten.
Tensor largest_loss_gradients(Tape& tape, const Variable& losses, const Tensor& weights);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/loss_scale.hpp"

namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline LossScaling LossScaling::per_sample(int headroom) {
  DPMP_CHECK(headroom >= 0 && headroom <= 30, "expected a headroom of 0 to 30 powers of two, got ", headroom);
  return {Kind::per_sample, 15 - headroom};
}

DPMP_KEPT_BODY inline LossScaling LossScaling::fixed(double scale) {
  int exponent = 0;
  const bool power = std::isfinite(scale) && std::frexp(scale, &exponent) == 0.5;
  DPMP_CHECK(power && exponent - 1 >= kernels::smallest_scale_exponent && exponent - 1 <= kernels::largest_scale_exponent,
             "expected a loss scale that is a power of two in [2^-24, 2^40], got ", scale);
  return {Kind::fixed, exponent - 1};
}

DPMP_KEPT_BODY inline std::string LossScaling::text() const {
  switch (kind_) {
    case Kind::none: return "none";
    case Kind::per_sample: return dpmp::detail::concat("per sample, headroom ", 15 - exponent_);
    case Kind::fixed: return dpmp::detail::concat("2^", exponent_, " for all samples");
    case Kind::noisy: return "one for all samples, moved by noisy counts of overflows";
  }
  throw Error("expected a LossScaling::Kind, got the value " + std::to_string(int(kind_)));
}

/// The walk through the FP32 part of the losses, in the slots of a tape that is walked after it.
class LossProbe {
 public:
  LossProbe(Tape& tape, const Variable& losses, const Tensor& seed)
      : tape_(tape), largest_(Tensor::zeros(tape.ctx_, {tape.samples_}, losses.dtype())) {
    tape_.gradients_.start(losses.slot().index, seed);
    NoSink sink;
    BackwardPass pass(tape_.ctx_, tape_, sink);
    for (auto step = tape_.steps_.rbegin(); step != tape_.steps_.rend(); ++step)
      step->part ? visit(*step->part) : visit(pass, *step);
    tape_.gradients_.start(losses.slot().index, Tensor());
  }
  const Tensor& largest() const { return largest_; }

 private:
  struct NoSink final : GradientSink {
    void accept(Context&, const ParameterSite& site) override {
      throw Error("expected no site of " + site.parameter->name() + " from a rule without parameters");
    }
  };

  void visit(BackwardPass& pass, const Tape::Step& step) {
    const Tensor gradient = tape_.gradients_.collect(tape_.ctx_, step.slot);
    if (!gradient.defined()) return;
    if (const Tensor known = step.rule->largest_gradients(tape_.ctx_, gradient); known.defined()) return take(known);
    const std::vector<Parameter*> parameters = step.rule->parameters();
    if (!parameters.empty()) return take(gradient);
    pass.declared_ = &parameters;
    pass.rule_ = step.rule->name();
    step.rule->backward(pass, gradient);
    // A gradient in 16 bits is too late to look at.
    if (tape_.gradients_.drop_narrow()) take(gradient);
  }
  /// A checkpointed part is not recorded again for this: the walk ends with it.
  void visit(const CheckpointedPart& part) {
    for (index_t slot = part.begin; slot < part.end; ++slot)
      if (const Tensor gradient = tape_.gradients_.collect(tape_.ctx_, slot); gradient.defined()) take(gradient);
  }
  void take(const Tensor& gradient) {
    const index_t width = gradient.shape().numel(1, gradient.shape().rank());
    const auto launch = [&](auto* largest) {
      using R = std::remove_pointer_t<decltype(largest)>;
      launch_library_rows(tape_.ctx_, tape_.samples_, width,
                          kernels::LargestMagnitudes<R>{gradient.data<R>(), largest, width});
    };
    // The losses of an f32 or 16-bit model are f32, and so is every gradient before the first one in 16 bits.
    check_dtype("a gradient in the losses", gradient, largest_.dtype());
    if (largest_.dtype() == DType::f64)
      launch(largest_.data<double>());
    else
      launch(largest_.data<float>());
  }

  Tape& tape_;
  Tensor largest_;
};

DPMP_KEPT_BODY inline Tensor largest_loss_gradients(Tape& tape, const Variable& losses, const Tensor& weights) {
  return LossProbe(tape, losses, weights).largest();
}

DPMP_KEPT_BODY inline ScaledSeed scaled_seed(Tape& tape, const Variable& losses, const Tensor& weights,
                                             const LossScaling& scaling) {
  if (scaling.kind() == LossScaling::Kind::none) return {weights, {}};
  DPMP_CHECK(scaling.kind() != LossScaling::Kind::noisy, "expected the loss scale of a step (LossScaling::of_step), got ",
             scaling.text());
  Context& ctx = tape.ctx();
  DPMP_CHECK(&losses.tape() == &tape, "expected losses that were recorded on this tape, got another tape's");
  check_shape("per-sample losses", losses.value(), {tape.samples()});
  const Tensor before = weights.defined() ? weights : Tensor::full(ctx, {tape.samples()}, losses.dtype(), 1);
  check_shape("loss weights", before, {tape.samples()});
  check_dtype("loss weights", before, losses.dtype());
  check_device("loss weights", before, ctx);
  const Tensor largest =
      scaling.kind() == LossScaling::Kind::per_sample ? largest_loss_gradients(tape, losses, before) : Tensor();
  const ScaledSeed seed{Tensor::empty(ctx, before.shape(), before.dtype()), Tensor::empty(ctx, before.shape(), DType::i32)};
  const auto launch = [&](auto* seeds) {
    using R = std::remove_pointer_t<decltype(seeds)>;
    launch_library_elements(ctx, tape.samples(),
                            kernels::ScaleSeeds<R>{largest.defined() ? largest.data<R>() : nullptr, before.data<R>(), seeds,
                                                   seed.exponents.data<std::int32_t>(), scaling.exponent()});
  };
  if (before.dtype() == DType::f64)
    launch(seed.weights.data<double>());
  else
    launch(seed.weights.data<float>());
  return seed;
}
}  // namespace dpmp::inline DPMP_ABI
#endif
