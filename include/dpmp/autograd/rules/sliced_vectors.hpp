// SPDX-License-Identifier: Apache-2.0
// Per-sample vectors that a kernel sums slice by slice: where the slices' sums are, how they become one, and their norms.
#pragma once
#include "dpmp/autograd/site.hpp"
#include "dpmp/gemm/token_sums.hpp"
#include "dpmp/runtime/launch.hpp"

namespace dpmp::inline DPMP_ABI::rules {
/// `vectors` arrays [B, slices, width] of sums in the accumulate dtype `real`, and the squared norms [B] of the whole sums.
/// Not `wanted`: no memory, and a slice for each token, because nothing is summed over them.
class SlicedVectors {
 public:
  SlicedVectors(Context& ctx, index_t vectors, index_t samples, index_t tokens, index_t width, DType real, bool wanted)
      : vectors_(vectors),
        samples_(samples),
        width_(width),
        slices_(wanted ? dpmp::detail::token_slices_on(ctx, samples, tokens)
                       : kernels::TokenSlices{std::max<index_t>(tokens, 1), 1}) {
    if (!wanted) return;
    sums_ = Tensor::empty(ctx, {vectors, samples, slices_.count, width}, real);
    squares_ = Tensor::empty(ctx, {vectors, samples}, DType::f64);
  }
  const kernels::TokenSlices& slices() const { return slices_; }
  index_t rows() const { return samples_ * slices_.count; }
  /// Vector k for the kernel: null where the sums are not wanted.
  template <class R>
  R* sums(index_t k) const {
    return sums_.defined() ? sums_.data<R>() + k * rows() * width_ : nullptr;
  }
  /// Where the kernel puts the squared norms of vector k: null where it has no whole sums.
  double* squares(index_t k) const {
    return squares_.defined() && slices_.count == 1 ? squares_.data<double>() + k * samples_ : nullptr;
  }
  /// After the kernel: adds the slices up.
  void join(Context& ctx) {
    if (slices_.count == 1) return;
    const Tensor whole = Tensor::empty(ctx, {vectors_, samples_, 1, width_}, sums_.dtype());
    dispatch_real(sums_.dtype(), [&](auto tag) {
      using R = typename decltype(tag)::type;
      if constexpr (std::is_same_v<R, compute_t<R>>)
        launch_library_rows(
            ctx, vectors_ * samples_, slices_.count * width_,
            kernels::JoinSlices<R>{sums_.data<R>(), whole.data<R>(), squares_.data<double>(), slices_.count, width_});
    });
    sums_ = whole;
  }
  /// After join: vector k as a parameter's per-sample gradients.
  ParameterSite site(Parameter& p, index_t k) const {
    return ParameterSite::vector(p, sums_.rows(k, k + 1).reshaped({samples_, width_}), squares_.rows(k, k + 1));
  }

 private:
  index_t vectors_, samples_, width_;
  kernels::TokenSlices slices_;
  Tensor sums_, squares_;
};
}  // namespace dpmp::inline DPMP_ABI::rules
