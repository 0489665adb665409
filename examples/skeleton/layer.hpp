// SPDX-License-Identifier: Apache-2.0
// A layer to start from: y = gain * x, channel by channel, with one trainable gain a channel. Kernels, rule, operation and
// layer, for CPU and GPU. Replace the arithmetic; ../../docs/adding_a_layer.md explains each part.
#pragma once
#include <dpmp/dpmp.hpp>

namespace skeleton {
using namespace dpmp;

DPMP_KERNELS_BEGIN
/// A row is a sample: output = gain * input.
template <class T>
struct GainForward {
  using Real = compute_t<T>;  // what is computed in: float for f32, bf16 and f16
  using Storage = T;          // a GPU's accesses are as wide as this type allows
  const T* input;             // [B, tokens, width]
  const T* gain;              // [width]
  T* output;                  // [B, tokens, width]
  index_t tokens, width;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t sample) const {
    const index_t first = sample * tokens * width;
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      const auto g = at.load(gain);
      for (index_t t = 0; t < tokens; ++t) at.store(output + first + t * width, g * at.load(input + first + t * width));
    });
  }
};

/// input_gradient = gain * output_gradient, and this sample's gradient of the gain: sum_t input_t * output_gradient_t.
template <class T>
struct GainBackward {
  using Real = compute_t<T>;
  using Storage = T;
  const T* input;            // [B, tokens, width]
  const T* gain;             // [width]
  const T* output_gradient;  // [B, tokens, width]
  T* input_gradient;         // [B, tokens, width]
  Real* gain_gradient;       // [B, width], in compute precision
  index_t tokens, width;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t sample) const {
    const index_t first = sample * tokens * width;
    team.for_each(width, [&](auto at) DPMP_LAMBDA {
      const auto g = at.load(gain);
      typename Team::Pack sum{};
      for (index_t t = 0; t < tokens; ++t) {
        const index_t row = first + t * width;
        const auto dy = at.load(output_gradient + row);
        sum = sum + dy * at.load(input + row);
        at.store(input_gradient + row, g * dy);
      }
      at.store(gain_gradient + sample * width, sum);
    });
  }
};
DPMP_KERNELS_END

/// What the tape keeps of a use, and its backward pass.
struct GainRule {
  static constexpr std::string_view name = "gain";
  Variable x;
  Parameter* gain;

  std::vector<Parameter*> parameters() const { return {gain}; }
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const index_t samples = x.shape()[0], tokens = x.shape()[1], width = x.shape()[2];
    const Tensor dx = Tensor::empty(pass.ctx, x.shape(), x.dtype()),
                 gain_gradient = Tensor::empty(pass.ctx, {samples, width}, accumulate_dtype(x.dtype()));
    dispatch_real(x.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      launch_rows(pass.ctx, samples, tokens * width,
                  GainBackward<T>{x.value().data<T>(), gain->value().data<T>(), gradient.data<T>(), dx.data<T>(),
                                  gain_gradient.data<compute_t<T>>(), tokens, width});
    });
    pass.emit(ParameterSite::vector(*gain, gain_gradient));  // from here on the library clips it
    pass.accumulate(x.slot(), dx);
  }
};

/// x [B, T, width] -> [B, T, width]; gain [width] in x's dtype. Throws on other shapes and dtypes.
inline Variable gain(const Variable& x, Parameter& gain) {
  Tape& tape = x.tape();
  DPMP_CHECK(x.shape().rank() == 3 && gain.shape() == Shape{x.shape()[2]} && gain.dtype() == x.dtype(),
             "gain: expected x [B, T, width] and a gain [width] of one dtype, got ", x.shape(), " ", x.dtype(), " and ",
             gain.shape(), " ", gain.dtype());
  const Tensor y = Tensor::empty(tape.ctx(), x.shape(), x.dtype());
  dispatch_real(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_rows(tape.ctx(), x.shape()[0], x.shape()[1] * x.shape()[2],
                GainForward<T>{x.value().data<T>(), gain.value().data<T>(), y.data<T>(), x.shape()[1], x.shape()[2]});
  });
  return tape.record(y, tape.needs_gradient(x) || gain.trainable(), GainRule{x, &gain});
}

/// The parameters of the operation, and how they start.
class Gain {
 public:
  Gain(const nn::Scope& scope, index_t width) : gain_(&scope.constant("gain", {width}, 1)) {}
  Variable operator()(const Variable& x) const { return gain(x, *gain_); }

 private:
  Parameter* gain_;
};
}  // namespace skeleton
