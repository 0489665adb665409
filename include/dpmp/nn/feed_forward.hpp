// SPDX-License-Identifier: Apache-2.0
// Feed-forward blocks of a transformer: two linear layers around GELU, or around a SwiGLU gate. Both may carry adapters.
#pragma once
#include <array>

#include "dpmp/autograd/rules/activation.hpp"
#include "dpmp/autograd/rules/feed_forward.hpp"
#include "dpmp/autograd/rules/swiglu.hpp"
#include "dpmp/nn/lora.hpp"

namespace dpmp::inline DPMP_ABI::nn {
/// down(GELU(up(x))), x [B, .., width], `up` and `down`. One operation where there are no adapters and
/// both have one dtype.
class GeluFeedForward {
 public:
  struct Options {
    /// How the weights start.
    Init up = init::fan_in_normal();
    Init down = init::fan_in_normal();
    /// gelu_erf or gelu_tanh.
    GemmActivation form = GemmActivation::gelu_erf;
  };
  GeluFeedForward(const Scope& scope, index_t width, index_t hidden, const Options& options);
  GeluFeedForward(const Scope& scope, index_t width, index_t hidden) : GeluFeedForward(scope, width, hidden, Options{}) {}
  Variable operator()(const Variable& x) const {
    const Linear &up = up_.base(), &down = down_.base();
    if (!up_.adapted() && !down_.adapted() && up.dtype() == down.dtype()) {
      return gelu_feed_forward(cast(x, up.dtype()), up.weight(), up.bias(), down.weight(), down.bias(), form_);
    }
    const Variable hidden = up_(x);
    return down_(form_ == GemmActivation::gelu_tanh ? gelu_tanh(hidden) : gelu(hidden));
  }
  /// The layers that may carry adapters.
  std::array<LoraLinear*, 2> linears() { return {&up_, &down_}; }

 private:
  LoraLinear up_, down_;
  GemmActivation form_;
};

/// down(silu(gate(x)) * up(x)), without biases unless they are asked for (Shazeer 2020, arXiv 2002.05202); `gate_up` and
/// `down`. gate and up have the same input, so they are one packed linear [2 hidden, width], gate first: one product instead
/// of two, and one parameter site, so that per-sample norms form a single Gram matrix of the inputs for both. As one
/// parameter they have one norm; a clip factor for all parameters together is not changed by that.
class SwiGlu {
 public:
  struct Options {
    /// How the weights start.
    Init gate_up = init::fan_in_normal();
    Init down = init::fan_in_normal();
    bool bias = false;
  };
  SwiGlu(const Scope& scope, index_t width, index_t hidden, const Options& options);
  SwiGlu(const Scope& scope, index_t width, index_t hidden) : SwiGlu(scope, width, hidden, Options{}) {}
  Variable operator()(const Variable& x) const { return down_(swiglu(gate_up_(x))); }
  std::array<LoraLinear*, 2> linears() { return {&gate_up_, &down_}; }

 private:
  LoraLinear gate_up_, down_;
};
}  // namespace dpmp::inline DPMP_ABI::nn

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::nn {
DPMP_KEPT_BODY inline GeluFeedForward::GeluFeedForward(const Scope& scope, index_t width, index_t hidden,
                                                       const Options& options)
    : up_(scope / "up", width, hidden, {.weight = options.up}),
      down_(scope / "down", hidden, width, {.weight = options.down}),
      form_(options.form) {
  DPMP_CHECK(form_ != GemmActivation::none, "expected a form of GELU for ", scope, ", got none");
}

DPMP_KEPT_BODY inline SwiGlu::SwiGlu(const Scope& scope, index_t width, index_t hidden, const Options& options)
    : gate_up_(scope / "gate_up", width, 2 * hidden, {.bias = options.bias, .weight = options.gate_up}),
      down_(scope / "down", hidden, width, {.bias = options.bias, .weight = options.down}) {}
}  // namespace dpmp::inline DPMP_ABI::nn
#endif
