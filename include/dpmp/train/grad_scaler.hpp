// SPDX-License-Identifier: Apache-2.0
// The loss scale that plain mixed-precision training usually has: large, halved when a step overflows, which is then
// skipped, and doubled after many steps that did not (Micikevicius et al. 2018, arXiv 1710.03740). Not for private
// training: whether a step was skipped, and every scale after it, tell whether a single record was there.
#pragma once
#include <algorithm>
#include <cmath>
#include <span>

#include "dpmp/kernels/loss_scale.hpp"
#include "dpmp/tensor/tensor.hpp"

namespace dpmp::inline DPMP_ABI::train {
struct GradScalerOptions {
  double start = 65536;            // a power of two in [2^-24, 2^40]
  index_t growth_interval = 2000;  // good steps in a row until the scale is doubled, >= 1
  friend bool operator==(const GradScalerOptions&, const GradScalerOptions&) = default;
};

/// The scale of a plain run, step by step. Its state is two public numbers: scale() and good_steps(), which restore() takes.
class GradScaler {
 public:
  /// Throws on options out of range.
  explicit GradScaler(const GradScalerOptions& options = {});
  const GradScalerOptions& options() const { return options_; }
  /// Of the step to come; a power of two in [2^-24, 2^40].
  double scale() const { return scale_; }
  /// Steps without an overflow since the scale was last changed.
  index_t good_steps() const { return good_steps_; }
  /// Throws unless this is a state that update() can reach.
  void restore(double scale, index_t good_steps);
  /// After a step's gradients are known: whether all of them are finite. Where they are not the step must be skipped.
  void update(bool finite);

 private:
  GradScalerOptions options_;
  double scale_;
  index_t good_steps_ = 0;
};

/// Whether all elements of f64 tensors are finite. Waits for the device.
bool all_finite(Context& ctx, std::span<const Tensor> sums);
}  // namespace dpmp::inline DPMP_ABI::train

DPMP_KERNELS_BEGIN
namespace dpmp::inline DPMP_ABI::train::detail {
/// largest[row] = the largest magnitude of `width` elements from row * width on; infinity where one is not finite.
struct LargestOfPieces {
  using Real = double;
  static constexpr index_t width = 4096;
  const double* x;  // [n]
  double* largest;  // [ceil(n / width)]
  index_t n;

  DPMP_ANY_TEAM
  template <class Team>
  DPMP_HD void operator()(const Team& team, index_t row) const {
    const index_t begin = row * width, left = n - begin;
    largest[row] = team.max(left < width ? left : width, 0.0,
                            [&](auto at) DPMP_LAMBDA { return kernels::magnitude_or_infinity(at.load(x + begin)); });
  }
};
}  // namespace dpmp::inline DPMP_ABI::train::detail
DPMP_KERNELS_END

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::train {
namespace detail {
inline bool is_scale(double scale) {
  int exponent = 0;
  return std::isfinite(scale) && std::frexp(scale, &exponent) == 0.5 && exponent - 1 >= kernels::smallest_scale_exponent &&
         exponent - 1 <= kernels::largest_scale_exponent;
}
}  // namespace detail

DPMP_KEPT_BODY inline GradScaler::GradScaler(const GradScalerOptions& options) : options_(options), scale_(options.start) {
  DPMP_CHECK(detail::is_scale(options.start), "expected a loss scale that is a power of two in [2^-24, 2^40], got ",
             options.start);
  DPMP_CHECK(options.growth_interval >= 1, "expected a growth interval of at least one step, got ", options.growth_interval);
}

DPMP_KEPT_BODY inline void GradScaler::restore(double scale, index_t good_steps) {
  DPMP_CHECK(detail::is_scale(scale) && good_steps >= 0 && good_steps < options_.growth_interval,
             "expected a power of two in [2^-24, 2^40] and good steps in [0, ", options_.growth_interval, "), got ", scale,
             " and ", good_steps);
  scale_ = scale;
  good_steps_ = good_steps;
}

DPMP_KEPT_BODY inline void GradScaler::update(bool finite) {
  constexpr double lowest = 0x1p-24, highest = 0x1p40;
  if (!finite) {
    scale_ = std::max(lowest, scale_ / 2);
    good_steps_ = 0;
  } else if (++good_steps_ == options_.growth_interval) {
    scale_ = std::min(highest, 2 * scale_);
    good_steps_ = 0;
  }
}

DPMP_KEPT_BODY inline bool all_finite(Context& ctx, std::span<const Tensor> sums) {
  bool finite = true;
  for (const Tensor& sum : sums) {
    const index_t pieces = (sum.numel() + detail::LargestOfPieces::width - 1) / detail::LargestOfPieces::width;
    const Tensor largest = Tensor::empty(ctx, {pieces}, DType::f64);
    launch_library_rows(ctx, pieces, detail::LargestOfPieces::width,
                        detail::LargestOfPieces{sum.data<double>(), largest.data<double>(), sum.numel()});
    for (const double x : largest.to_doubles()) finite = finite && std::isfinite(x);
  }
  return finite;
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
