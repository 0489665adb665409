// SPDX-License-Identifier: Apache-2.0
// where: one of two values by a mask. gather: rows of each sample by number.
#pragma once
#include "dpmp/autograd/tape.hpp"

namespace dpmp::inline DPMP_ABI {
/// mask != 0 ? x : y, of one shape and dtype. mask i32 with the shape of x or its leading axes (at least the sample axis):
/// [B, T] chooses rows of [B, T, C]. No gradient for the mask, which may be private: nothing is skipped because of it. What
/// is not chosen does not matter, NaN included.
Variable where(const Tensor& mask, const Variable& x, const Variable& y);
/// x [B, T, ..] and ids i32 [B, K] -> [B, K, ..]: row ids[b, k] of sample b. Gradients of a row that is picked several times
/// are added up in FP32 (double for f64), in the order of k. A row of an id outside of [0, T) is NaN: that sample alone is
/// not finite. Whether there is one is private, so nothing is thrown; only a tape of open records (RecordsAre) refuses such
/// ids, on the CPU.
Variable gather(const Variable& x, const Tensor& ids);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include "dpmp/autograd/open_records.hpp"
#include "dpmp/kernels/select.hpp"
#include "dpmp/tensor/elementwise.hpp"
#include "dpmp/tensor/map.hpp"

namespace dpmp::inline DPMP_ABI {
namespace rules {
/// mask != 0 ? x : y in a new tensor; either may be Tensor(): zeros.
inline Tensor selected(Context& ctx, const Tensor& mask, const Tensor& x, const Tensor& y) {
  const Tensor& any = x.defined() ? x : y;
  const Tensor z = Tensor::empty(ctx, any.shape(), any.dtype());
  if (z.numel() == 0) return z;
  const index_t inner = z.numel() / mask.numel(), width = inner > 1 ? inner : z.numel() / z.shape().front();
  dpmp::detail::map_rows<kernels::Select>(ctx, z.dtype(), z.numel() / width, width, mask, x, y, z, width, inner);
  return z;
}

struct Where {
  static constexpr std::string_view name = "where";
  Tensor mask;
  GradientSlot x, y;
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    if (pass.needs(x)) pass.accumulate(x, selected(pass.ctx, mask, gradient, Tensor()));
    if (pass.needs(y)) pass.accumulate(y, selected(pass.ctx, mask, Tensor(), gradient));
  }
};

struct Gather {
  static constexpr std::string_view name = "gather";
  GradientSlot x;
  Tensor kept;  // [B, K]; ids outside of x are -1
  void backward(BackwardPass& pass, const Tensor& gradient) const {
    const index_t samples = x.shape[0], rows = x.shape[1], picked = kept.shape()[1],
                  width = x.shape.numel(2, x.shape.rank());
    const Tensor sums = Tensor::zeros(pass.ctx, x.shape, accumulate_dtype(x.dtype));
    dpmp::detail::map_rows<kernels::ScatterRows>(pass.ctx, x.dtype, samples, picked * width, gradient, kept, sums, rows,
                                                 picked, width);
    pass.accumulate(x, cast(pass.ctx, sums, x.dtype));
  }
};
}  // namespace rules

DPMP_KEPT_BODY inline Variable where(const Tensor& mask, const Variable& x, const Variable& y) {
  dpmp::detail::check_alike("where", x.value(), y.value());
  Tape& tape = Tape::common(x, y);
  bool fits = mask.dtype() == DType::i32 && mask.shape().rank() >= 1 && mask.shape().rank() <= x.shape().rank();
  for (int axis = 0; fits && axis < mask.shape().rank(); ++axis) fits = mask.shape()[axis] == x.shape()[axis];
  DPMP_CHECK(fits, "where: expected a mask i32 of the shape ", x.shape(), " or its leading axes, got ", mask.dtype(), " ",
             mask.shape());
  check_device("where: the mask", mask, tape.ctx());
  return tape.record(rules::selected(tape.ctx(), mask, x.value(), y.value()),
                     tape.needs_gradient(x) || tape.needs_gradient(y), rules::Where{mask, x.slot(), y.slot()});
}

DPMP_KEPT_BODY inline Variable gather(const Variable& x, const Tensor& ids) {
  Tape& tape = x.tape();
  const Shape& s = x.shape();
  DPMP_CHECK(s.rank() >= 2 && ids.dtype() == DType::i32 && ids.shape().rank() == 2 && ids.shape().front() == s.front(),
             "gather: expected x [B, T, ..] and ids i32 [B, K], got x ", s, " and ids ", ids.dtype(), " ", ids.shape());
  check_device("gather: the ids", ids, tape.ctx());
  const index_t rows = s[1], picked = ids.shape()[1], width = s.numel(2, s.rank());
  DPMP_CHECK(rows > 0 || picked == 0, "gather: expected at least one row a sample to pick ", picked, " from, got x ", s);
  rules::check_open_ids(tape, ids, [&](index_t r, std::int32_t id) {
    DPMP_CHECK(id >= 0 && id < rows, "gather: expected ids in [0, ", rows, "), got ", id, " at sample ", r / picked,
               ", position ", r % picked);
  });
  const Tensor kept = Tensor::empty(tape.ctx(), ids.shape(), DType::i32),
               y = Tensor::empty(tape.ctx(), s.with(1, picked), x.dtype());
  dpmp::detail::map_rows<kernels::GatherRows>(tape.ctx(), x.dtype(), ids.numel(), width, x.value(), ids, y, kept, rows,
                                              picked, width);
  return tape.record(y, tape.needs_gradient(x), rules::Gather{x.slot(), kept});
}
}  // namespace dpmp::inline DPMP_ABI
#endif
