// SPDX-License-Identifier: Apache-2.0
// A layer of one's own, outside of the library: the diagonal linear recurrence
//   h_t = decay * h_{t-1} + x_t,  y_t = h_t,  channel by channel,
// with one trainable decay a channel. docs/adding_a_layer.md goes through it line by line.
#pragma once
#include <dpmp/dpmp.hpp>

namespace own {
using namespace dpmp;

/// One sample a row: a scan over its tokens, all channels of a pack at once.
template <class T>
struct RecurrenceForward {
  using Real = compute_t<T>;
  const T* input;  // [B, tokens, width]
  const T* decay;  // [width]
  T* output;       // [B, tokens, width]
  index_t tokens, width;

  template <class Team>
  void operator()(const Team& team, index_t sample) const {
    const T* x = input + sample * tokens * width;
    T* y = output + sample * tokens * width;
    team.for_each(width, [&](auto at) {
      typename Team::Pack h{};
      for (index_t t = 0; t < tokens; ++t) {
        h = h * at.load(decay) + at.load(x + t * width);
        at.store(y + t * width, h);
      }
    });
  }
};

/// Backwards in time, lambda_t = g_t + decay * lambda_{t+1}: dx_t = lambda_t, and the per-sample gradient of the decay is
/// sum_t lambda_t * h_{t-1}, kept in compute precision.
template <class T>
struct RecurrenceBackward {
  using Real = compute_t<T>;
  const T* output;           // [B, tokens, width]
  const T* decay;            // [width]
  const T* output_gradient;  // [B, tokens, width]
  T* input_gradient;         // [B, tokens, width]
  Real* decay_gradient;      // [B, width]
  index_t tokens, width;

  template <class Team>
  void operator()(const Team& team, index_t sample) const {
    const index_t first = sample * tokens * width;
    team.for_each(width, [&](auto at) {
      typename Team::Pack lambda{}, sum{};
      for (index_t t = tokens - 1; t >= 0; --t) {
        const index_t row = first + t * width;
        lambda = lambda * at.load(decay) + at.load(output_gradient + row);
        if (t > 0) sum = sum + lambda * at.load(output + row - width);
        at.store(input_gradient + row, lambda);
      }
      at.store(decay_gradient + sample * width, sum);
    });
  }
};

struct RecurrenceRule {
  static constexpr std::string_view name = "linear_recurrence";
  GradientSlot x;
  Tensor output;
  Parameter* decay;

  std::vector<Parameter*> parameters() const { return {decay}; }
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const index_t samples = x.shape[0], tokens = x.shape[1], width = x.shape[2];
    const Tensor g = Tensor::empty(pass.ctx, x.shape, x.dtype),
                 decay_gradient = Tensor::empty(pass.ctx, {samples, width}, accumulate_dtype(x.dtype));
    dispatch_real(x.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      launch_rows(pass.ctx, samples, tokens * width,
                  RecurrenceBackward<T>{output.data<T>(), decay->value().data<T>(), gradient.data<T>(), g.data<T>(),
                                        decay_gradient.data<compute_t<T>>(), tokens, width});
    });
    pass.emit(ParameterSite::vector(*decay, decay_gradient));
    pass.accumulate(x, g);
  }
};

/// x [B, T, width] -> [B, T, width]; decay [width] in x's dtype.
inline Variable linear_recurrence(const Variable& x, Parameter& decay) {
  Tape& tape = x.tape();
  DPMP_CHECK(x.shape().rank() == 3 && decay.shape() == Shape{x.shape()[2]} && decay.dtype() == x.dtype(),
             "linear_recurrence: expected x [B, T, width] and a decay [width] of one dtype, got ", x.shape(), " ", x.dtype(),
             " and ", decay.shape(), " ", decay.dtype());
  const Tensor y = Tensor::empty(tape.ctx(), x.shape(), x.dtype());
  dispatch_real(x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch_rows(tape.ctx(), x.shape()[0], x.shape()[1] * x.shape()[2],
                RecurrenceForward<T>{x.value().data<T>(), decay.value().data<T>(), y.data<T>(), x.shape()[1], x.shape()[2]});
  });
  return tape.record(y, tape.needs_gradient(x) || decay.trainable(), RecurrenceRule{x.slot(), y, &decay});
}

/// Projection in, recurrence, projection out.
class RecurrentLayer {
 public:
  RecurrentLayer(const nn::Scope& scope, index_t width)
      : in_(scope / "in", width, width), decay_(&scope.constant("decay", {width}, 0.9)), out_(scope / "out", width, width) {}
  Variable operator()(const Variable& x) const { return out_(linear_recurrence(cast(in_(x), decay_->dtype()), *decay_)); }

 private:
  nn::Linear in_;
  Parameter* decay_;
  nn::Linear out_;
};
}  // namespace own
