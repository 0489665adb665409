// SPDX-License-Identifier: Apache-2.0
// swiglu: silu(gate) * up on rows that hold both, so that one linear makes both and no split copies them.
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// x [B, .., 2 h] (gate, then up) -> silu(gate) * up [B, .., h] (Shazeer 2020), rounded once.
Variable swiglu(const Variable& x);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/kernels/swiglu.hpp"
#include "dpmp/tensor/map.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
struct Swiglu {
  static constexpr std::string_view name = "swiglu";
  Variable x;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const Tensor g = Tensor::empty(pass.ctx, x.shape(), x.dtype());
    const index_t hidden = x.shape().back() / 2, rows = x.shape().numel(0, x.shape().rank() - 1);
    dpmp::detail::map_rows<kernels::SwigluBackward>(pass.ctx, x.dtype(), rows, 2 * hidden, x.value(), gradient, g, hidden);
    pass.accumulate(x.slot(), g);
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable swiglu(const Variable& x) {
  Tape& tape = x.tape();
  DPMP_CHECK(x.shape().rank() >= 2 && x.shape().back() % 2 == 0, "swiglu: expected gate and up packed as [B, .., 2 h], got ",
             x.shape());
  const index_t hidden = x.shape().back() / 2, rows = x.shape().numel(0, x.shape().rank() - 1);
  const Tensor y = Tensor::empty(tape.ctx(), x.shape().with(-1, hidden), x.dtype());
  dpmp::detail::map_rows<kernels::SwigluForward>(tape.ctx(), x.dtype(), rows, 2 * hidden, x.value(), y, hidden);
  return tape.record(y, tape.needs_gradient(x), rules::Swiglu{x});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
