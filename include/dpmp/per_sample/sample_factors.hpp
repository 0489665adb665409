// SPDX-License-Identifier: Apache-2.0
// One factor a sample: made on the host, or on the device by a kernel and never seen by the host.
#pragma once
#include <span>
#include <utility>
#include <vector>

#include "dpmp/runtime/launch.hpp"
#include "dpmp/tensor/tensor.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
class SampleFactors {
 public:
  SampleFactors() = default;
  SampleFactors(std::vector<float> factors) : host_(std::move(factors)), size_(index_t(host_.size())) {}
  SampleFactors(std::span<const float> factors) : SampleFactors(std::vector<float>(factors.begin(), factors.end())) {}
  /// factors: f32 [B].
  SampleFactors(Tensor factors);
  index_t size() const { return size_; }

  /// For samples that were multiplied by 2^exponents (i32 [B]): factors times 2^-exponents, exactly; 0 where that is no
  /// normal FP32 number.
  SampleFactors unscaled(Context& ctx, const Tensor& exponents) const;
  /// Those of samples [first, last).
  SampleFactors part(index_t first, index_t last) const;
  /// All 1.
  static SampleFactors ones(Context& ctx, index_t samples) { return Tensor::full(ctx, {samples}, DType::f32, 1); }

  /// The factors in the memory of a context's device; they live as long as this object.
  const float* on(Context& ctx) const;

 private:
  std::vector<float> host_;
  mutable Tensor device_;  // of host_, from the first use on a GPU on
  index_t size_ = 0;
};
}  // namespace dpmp::inline DPMP_ABI::per_sample

#if DPMP_BODIES
#include "dpmp/kernels/loss_scale.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
DPMP_KEPT_BODY inline SampleFactors::SampleFactors(Tensor factors) : device_(std::move(factors)) {
  check_dtype("the factors of samples", device_, DType::f32);
  check_shape("the factors of samples", device_, {device_.numel()});
  size_ = device_.numel();
}

DPMP_KEPT_BODY inline SampleFactors SampleFactors::unscaled(Context& ctx, const Tensor& exponents) const {
  check_shape("the exponents of samples", exponents, {size_});
  const Tensor without = Tensor::empty(ctx, {size_}, DType::f32);
  launch_library_elements(ctx, size_,
                          kernels::UnscaleFactors{on(ctx), exponents.data<std::int32_t>(), without.data<float>()});
  return without;
}

DPMP_KEPT_BODY inline SampleFactors SampleFactors::part(index_t first, index_t last) const {
  if (device_.defined()) return device_.rows(first, last);
  return std::span<const float>(host_).subspan(std::size_t(first), std::size_t(last - first));
}

DPMP_KEPT_BODY inline const float* SampleFactors::on(Context& ctx) const {
  if (!ctx.on_cuda() && !device_.defined()) return host_.data();
  if (!device_.defined()) {
    device_ = Tensor::empty(ctx, {size_}, DType::f32);
    device_.copy_from_host(host_.data());
  }
  DPMP_CHECK(device_.device() == ctx.device(), "expected the factors of samples on ", ctx.device(), ", got them on ",
             device_.device());
  return device_.data<float>();
}
}  // namespace dpmp::inline DPMP_ABI::per_sample
#endif
