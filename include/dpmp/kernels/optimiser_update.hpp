// SPDX-License-Identifier: Apache-2.0
// The optimisers' formulas for master values; the gradient is a double sum times a public factor. Each is a functor for a
// span of elements: (span, sums, old weights, numbers of the step) -> new weights; the moments it loads and stores itself.
#pragma once
#include "dpmp/kernels/stochastic_rounding.hpp"
#include "dpmp/runtime/math.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::kernels {
/// What changes from step to step. It is in the memory of the device, so that a captured graph runs with new numbers.
struct UpdateNumbers {
  double gradient_factor = 1;
  double rate = 0;               // SGD, LAMB: the learning rate; AdamW, DP-AdamBC: times 1 / (1 - beta1^t)
  double second_correction = 1;  // AdamW, LAMB: 1 / sqrt(1 - beta2^t); DP-AdamBC: 1 / (1 - beta2^t)
  double decay = 0;              // AdamW, DP-AdamBC: the learning rate times the weight decay; LAMB: the weight decay
  std::uint64_t updates = 0;     // of the parameter, this one included
  double first_correction = 1;   // LAMB: 1 / (1 - beta1^t)
  double noise_share = 0;        // DP-AdamBC: the noise's share of the corrected second moment
};

/// velocity = momentum velocity + g + weight_decay w; w -= rate rate_factor velocity. rate_factor: of this parameter.
/// velocity: null without momentum, when nothing of it is needed later.
template <class Real_>
struct SgdUpdate {
  using Real = Real_;
  Real* velocity;
  Real momentum, weight_decay;
  Real rate_factor = 1;

  DPMP_ANY_TEAM
  template <class Span, class Pack>
  DPMP_HD Pack operator()(const Span& at, const Pack& sum, const Pack& w, const UpdateNumbers& now) const {
    Pack v = sum * Real(now.gradient_factor) + w * weight_decay;
    if (velocity) {
      v = at.load(velocity) * momentum + v;
      at.store(velocity, v);
    }
    return w - v * (Real(now.rate) * rate_factor);
  }
};

/// m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
/// w -= rate rate_factor m / (sqrt(v) second_correction + epsilon) + decay decay_factor w. The factors are of this
/// parameter. Moment: what m and v are stored in; w follows from them as they were computed.
template <class Real_, class Moment_ = Real_>
struct AdamWUpdate {
  using Real = Real_;
  using Moment = Moment_;
  Moment* first;
  Moment* second;
  // share1, share2: 1 - beta1, 1 - beta2, taken in double: in FP32 the subtraction would lose five digits of 1 - 0.999.
  Real beta1, share1, beta2, share2, epsilon;
  Real rate_factor = 1, decay_factor = 1;

  DPMP_ANY_TEAM
  template <class Span, class Pack>
  DPMP_HD Pack operator()(const Span& at, const Pack& sum, const Pack& w, const UpdateNumbers& now) const {
    Pack m, v;
    const Pack updated = apply(at, sum, w, now, m, v);
    at.store(first, m);
    at.store(second, v);
    return updated;
  }

  /// The new weights; m and v: the new moments, which are not stored.
  DPMP_ANY_TEAM
  template <class Span, class Pack>
  DPMP_HD Pack apply(const Span& at, const Pack& sum, const Pack& w, const UpdateNumbers& now, Pack& m, Pack& v) const {
    const Pack g = sum * Real(now.gradient_factor);
    m = at.load(first) * beta1 + g * share1;
    v = at.load(second) * beta2 + g * g * share2;
    return w - w * (Real(now.decay) * decay_factor) -
           m * (Real(now.rate) * rate_factor) / (sqrt(v) * Real(now.second_correction) + epsilon);
  }
};

/// The same with moments in bf16, rounded stochastically.
struct RoundedAdamWUpdate : AdamWUpdate<float, bf16> {
  RoundingWords words;

  DPMP_ANY_TEAM
  template <class Span, class Pack>
  DPMP_HD Pack operator()(const Span& at, const Pack& sum, const Pack& w, const UpdateNumbers& now) const {
    Pack m, v;
    const Pack updated = this->apply(at, sum, w, now, m, v);
    words.round(at, now.updates, m, v);
    at.store(first, m);
    at.store(second, v);
    return updated;
  }
};

/// m and v as AdamW has them; w -= rate rate_factor m / sqrt(max(v second_correction - noise_share, floor)) + decay
/// decay_factor w. By select: an element below the floor is updated like every other one.
template <class Real_>
struct DpAdamBCUpdate {
  using Real = Real_;
  Real* first;
  Real* second;
  Real beta1, share1, beta2, share2, floor;
  Real rate_factor = 1, decay_factor = 1;

  DPMP_ANY_TEAM
  template <class Span, class Pack>
  DPMP_HD Pack operator()(const Span& at, const Pack& sum, const Pack& w, const UpdateNumbers& now) const {
    const Pack g = sum * Real(now.gradient_factor);
    const Pack m = at.load(first) * beta1 + g * share1, v = at.load(second) * beta2 + g * g * share2;
    at.store(first, m);
    at.store(second, v);
    const Pack signal = v * Real(now.second_correction) - Real(now.noise_share), least = Pack::splat(floor);
    return w - w * (Real(now.decay) * decay_factor) -
           m * (Real(now.rate) * rate_factor) / sqrt(select_less(least, signal, signal, least));
  }
};
}  // namespace dpmp::inline DPMP_ABI::kernels
DPMP_KERNELS_END
