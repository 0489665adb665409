// SPDX-License-Identifier: Apache-2.0
// Per-sample vectors that a kernel sums slice by slice: where the slices' sums lie, and how they become one.
#pragma once
#include "dpmp/kernels/token_slices.hpp"
#include "dpmp/runtime/launch.hpp"
#include "dpmp/tensor/tensor.hpp"

namespace dpmp::inline DPMP_ABI::rules {
/// [B, slices, width] sums in the accumulate dtype `real`. Not `wanted`: no memory, and a slice for each token, because
/// nothing is summed over them.
class SlicedVectors {
 public:
  SlicedVectors(Context& ctx, index_t samples, index_t tokens, index_t width, DType real, bool wanted)
      : samples_(samples),
        width_(width),
        slices_(wanted ? kernels::token_slices(samples, tokens, teams(ctx))
                       : kernels::TokenSlices{std::max<index_t>(tokens, 1), 1}) {
    if (wanted) parts_ = Tensor::empty(ctx, {samples, slices_.count, width}, real);
  }
  const kernels::TokenSlices& slices() const { return slices_; }
  index_t rows() const { return samples_ * slices_.count; }
  /// For the kernel: null where the sums are not wanted.
  template <class R>
  R* data() const {
    return parts_.defined() ? parts_.data<R>() : nullptr;
  }
  /// The sums over all tokens, [B, width].
  Tensor joined(Context& ctx) const {
    if (slices_.count == 1) return parts_.reshaped({samples_, width_});
    const Tensor sums = Tensor::empty(ctx, {samples_, width_}, parts_.dtype());
    dispatch_real(parts_.dtype(), [&](auto tag) {
      using R = typename decltype(tag)::type;
      if constexpr (std::is_same_v<R, compute_t<R>>)
        launch_rows(ctx, samples_, slices_.count * width_,
                    kernels::JoinSlices<R>{parts_.data<R>(), sums.data<R>(), slices_.count, width_});
    });
    return sums;
  }

 private:
  // The host's number does not follow its threads: a step gives the same bits on any number of them.
  static index_t teams(Context& ctx) { return ctx.on_cuda() ? 4 * ctx.backend().multiprocessors() : 64; }
  index_t samples_, width_;
  kernels::TokenSlices slices_;
  Tensor parts_;
};
}  // namespace dpmp::inline DPMP_ABI::rules
