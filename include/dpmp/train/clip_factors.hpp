// SPDX-License-Identifier: Apache-2.0
// From the norms of a physical batch to its clip factors, where the norms are: on a GPU no norm is seen by the host.
#pragma once
#include "dpmp/dp/clipping.hpp"
#include "dpmp/per_sample/norm_bounds.hpp"
#include "dpmp/per_sample/sample_factors.hpp"
#include "dpmp/train/batch.hpp"

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::train {
namespace detail {
/// An element is a sample: its clip factor, 0 for an empty slot and where something was not finite.
template <class R>
struct ClipSamples {
  using Real = double;
  static constexpr int elements_each = 1;
  kernels::NormTable table;
  const R* weights;  // [B], 0 for an empty slot
  float* factors;    // [B]
  double bound;
  dp::ClipRule::Formula rule;

  DPMP_ANY_TEAM
  template <class Span>
  DPMP_HD void operator()(const Span& at) const {
    for (int k = 0; k < at.size(); ++k) {
      const index_t i = at.offset + k;
      factors[i] = dp::clip_factor(table.upper(i), table.non_finite[i] == 0 && weights[i] != R(0), bound, rule);
    }
  }
};
}  // namespace detail

/// 1 for slots that hold a record with finite norms, on the host.
std::vector<std::uint8_t> counted(const per_sample::NormBounds& norms, std::span<const index_t> slots);

/// One factor a slot. weights: slot_weights() of the slots, f32 or f64 [B]. A custom rule is a function of the host: on a
/// GPU it makes the step wait for the norms.
per_sample::SampleFactors clip_factors(Context& ctx, const per_sample::NormBounds& norms, std::span<const index_t> slots,
                                       const Tensor& weights, const dp::FlatClipping& clipping);
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline std::vector<std::uint8_t> counted(const per_sample::NormBounds& norms,
                                                        std::span<const index_t> slots) {
  std::vector<std::uint8_t> ok = norms.finite();
  for (std::size_t i = 0; i < ok.size(); ++i) ok[i] = std::uint8_t(ok[i] & std::uint8_t(slots[i] != masked_slot));
  return ok;
}

DPMP_KEPT_BODY inline per_sample::SampleFactors clip_factors(Context& ctx, const per_sample::NormBounds& norms,
                                                             std::span<const index_t> slots, const Tensor& weights,
                                                             const dp::FlatClipping& clipping) {
  if (!ctx.on_cuda() || clipping.rule().kind() == dp::ClipRule::Kind::custom) {
    std::vector<float> factors(slots.size());
    clipping.factors(norms.upper(), counted(norms, slots), factors);
    return factors;
  }
  const Tensor factors = Tensor::empty(ctx, {norms.samples()}, DType::f32);
  const auto launch = [&](auto* w) {
    launch_library_elements(
        ctx, norms.samples(),
        detail::ClipSamples<std::remove_const_t<std::remove_pointer_t<decltype(w)>>>{
            norms.table(), w, factors.data<float>(), clipping.bound(), clipping.rule().formula(clipping.clip_threshold())});
  };
  if (weights.dtype() == DType::f64)
    launch(static_cast<const double*>(weights.data<double>()));
  else
    launch(static_cast<const float*>(weights.data<float>()));
  return factors;
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
