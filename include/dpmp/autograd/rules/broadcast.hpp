// SPDX-License-Identifier: Apache-2.0
// broadcast_to: repeats a value along axes after the sample axis, in NumPy's way. The gradient is summed over the copies.
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// x [B, ..] repeated to `shape` [B, ..]: the axes after the sample axis are aligned at the back, and each of x's has the
/// shape's extent, or has extent 1, or is missing. The sample axis is that of both: [B, C] to [B, T, C] repeats each
/// sample's row T times. x itself where the shapes are equal. Gradients are summed in FP32 (double for f64), in an order
/// that depends on the shapes alone. Throws where the shapes do not fit.
Variable broadcast_to(const Variable& x, const Shape& shape);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/tensor/broadcast.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
/// The shape that both values are repeated to; throws where there is none, and where the dtypes differ.
inline Shape common_shape(std::string_view name, const Variable& x, const Variable& y) {
  Tape::common(x, y);
  const Shape &a = x.shape(), &b = y.shape();
  const int rank = std::max(a.rank(), b.rank());
  Shape both{a.front()};
  bool fits = x.dtype() == y.dtype();
  for (int back = rank - 1; back >= 1; --back) {
    const index_t m = back < a.rank() ? a[-back] : 1, n = back < b.rank() ? b[-back] : 1;
    fits = fits && (m == n || m == 1 || n == 1);
    both.push_back(m == 1 ? n : m);
  }
  DPMP_CHECK(fits, name, ": expected two values of one dtype whose axes after the sample axis are equal, 1 or missing, got ",
             a, " ", x.dtype(), " and ", b, " ", y.dtype());
  return both;
}

struct Broadcast {
  static constexpr std::string_view name = "broadcast_to";
  GradientSlot x;
  Shape aligned;  // x's shape with as many axes as the result
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    pass.accumulate(x, sum_to(pass.ctx, gradient, aligned).reshaped(x.shape));
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable broadcast_to(const Variable& x, const Shape& shape) {
  Tape& tape = x.tape();
  const Shape& from = x.shape();
  if (from == shape) return x;
  bool fits = shape.rank() >= from.rank() && shape.front() == from.front();
  Shape aligned{from.front()};
  for (int back = shape.rank() - 1; fits && back >= 1; --back) {
    aligned.push_back(back < from.rank() ? from[-back] : 1);
    fits = aligned.back() == shape[-back] || aligned.back() == 1;
  }
  DPMP_CHECK(fits, "broadcast_to: expected a value whose axes after the sample axis are those of ", shape,
             ", 1 or missing, got ", from);
  return tape.record(broadcast_to(tape.ctx(), x.value().reshaped(aligned), shape), tape.needs_gradient(x),
                     rules::Broadcast{x.slot(), aligned});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
