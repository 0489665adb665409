// SPDX-License-Identifier: Apache-2.0
// What is known of each sample's gradient norm: the computed square, and certified bounds of everything rounding did to it.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>
#include <span>
#include <vector>

#include "dpmp/kernels/norm_table.hpp"
#include "dpmp/runtime/launch.hpp"
#include "dpmp/tensor/tensor.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
/// Whether the exponent is not all ones, from the bit pattern: a compiler flag cannot optimise it away.
inline bool is_finite(double x) { return kernels::finite_bits(x); }

/// Gathers the parameters' contributions to each sample's norm, on the device of a context. For parameter k and sample i:
///   |computed n_k^2 - exact n_k^2| <= quadratic_k   (exact: of the stored operands, in real arithmetic)
///   |released gradient - exact gradient| <= linear_k  (or, for instantiated norms, released and instantiated together)
/// so that the released contribution has norm <= upper() (docs/numerics.md). The numbers of single samples are read on the
/// host: on a GPU that waits and copies, and a training step does not do it.
class NormBounds {
 public:
  explicit NormBounds(index_t samples) : samples_(samples), host_(std::size_t(4 * samples), 0.0) {}
  NormBounds(Context& ctx, index_t samples);
  index_t samples() const { return samples_; }

  /// The same table, of samples [first, last) alone: to add to, as long as this one lives.
  NormBounds part(index_t first, index_t last);
  /// The rows of the table, in the memory of the device.
  kernels::NormTable table() const;
  /// Adds one parameter's numbers of one sample; on the host only.
  void add(index_t sample, double squared, double quadratic, double linear);
  /// Adds one parameter: squared [B] and, where the certificate asks for them, sums of row norms, all on the device.
  void add(Context& ctx, const double* squared, const kernels::RowNormSums& rows, const kernels::Certificate& certificate);
  /// The same for several parameters, in few launches.
  void add(Context& ctx, std::span<const kernels::NormTerms> terms);

  /// Of operands whose samples were multiplied by 2^exponents (i32 [B], at most 64 either way): the bounds without that.
  NormBounds unscaled(Context& ctx, const Tensor& exponents) const;

  /// The norm as computed, not certified: sqrt(sum_k n_k^2).
  double norm(index_t sample) const { return std::sqrt(values()[std::size_t(sample)]); }
  /// sum_k quadratic_k.
  double quadratic(index_t sample) const { return values()[std::size_t(samples_ + sample)]; }
  /// Certified upper bound of the norm of what weighted_sum releases for a factor of 1.
  double upper(index_t sample) const { return upper()[std::size_t(sample)]; }
  /// 0: something of this sample was Inf or NaN; it must contribute nothing.
  std::vector<std::uint8_t> finite() const;
  std::vector<double> upper() const;

 private:
  std::vector<double> values() const { return device_.defined() ? device_.to_doubles() : host_; }
  index_t samples_;
  mutable std::vector<double> host_;        // [4, B]: squared, quadratic, linear^2, how often something was not finite
  Tensor device_;                           // the same, on a GPU
  std::optional<kernels::NormTable> part_;  // of another one
};
}  // namespace dpmp::inline DPMP_ABI::per_sample

#if DPMP_BODIES
#include "dpmp/kernels/loss_scale.hpp"

namespace dpmp::inline DPMP_ABI::per_sample {
DPMP_KEPT_BODY inline NormBounds::NormBounds(Context& ctx, index_t samples) : NormBounds(ctx.on_cuda() ? 0 : samples) {
  samples_ = samples;
  if (ctx.on_cuda()) device_ = Tensor::zeros(ctx, {4, samples}, DType::f64);
}

DPMP_KEPT_BODY inline NormBounds NormBounds::part(index_t first, index_t last) {
  DPMP_CHECK(first >= 0 && first <= last && last <= samples_, "expected samples within [0, ", samples_, "), got [", first,
             ", ", last, ")");
  const kernels::NormTable all = table();
  NormBounds some(0);
  some.samples_ = last - first;
  some.part_ = {all.squared + first, all.quadratic + first, all.linear + first, all.non_finite + first};
  return some;
}

DPMP_KEPT_BODY inline kernels::NormTable NormBounds::table() const {
  if (part_) return *part_;
  double* first = device_.defined() ? device_.data<double>() : host_.data();
  return {first, first + samples_, first + 2 * samples_, first + 3 * samples_};
}

DPMP_KEPT_BODY inline void NormBounds::add(index_t sample, double squared, double quadratic, double linear) {
  DPMP_CHECK(!device_.defined(), "expected norms on the host to add to, got norms on ", device_.device());
  table().add(sample, squared, quadratic, linear);
}

DPMP_KEPT_BODY inline void NormBounds::add(Context& ctx, const double* squared, const kernels::RowNormSums& rows,
                                           const kernels::Certificate& certificate) {
  const kernels::NormTerms terms{.squared = squared, .rows = rows, .certificate = certificate};
  add(ctx, {&terms, 1});
}

DPMP_KEPT_BODY inline void NormBounds::add(Context& ctx, std::span<const kernels::NormTerms> terms) {
  const auto launch = [&](const LaunchJobs<kernels::NormTerms>& some) {
    launch_library_elements(ctx, samples_, kernels::AddNorms{table(), some});
  };
  launch_many(
      terms, [](const kernels::NormTerms&) { return 0; }, launch);
}

DPMP_KEPT_BODY inline NormBounds NormBounds::unscaled(Context& ctx, const Tensor& exponents) const {
  NormBounds without(ctx, samples_);
  launch_library_elements(ctx, samples_, kernels::UnscaleNorms{table(), without.table(), exponents.data<std::int32_t>()});
  return without;
}

DPMP_KEPT_BODY inline std::vector<std::uint8_t> NormBounds::finite() const {
  const std::vector<double> table = values();
  std::vector<std::uint8_t> ok(static_cast<std::size_t>(samples_));
  for (std::size_t i = 0; i < ok.size(); ++i) ok[i] = std::uint8_t(table[3 * ok.size() + i] == 0);
  return ok;
}

DPMP_KEPT_BODY inline std::vector<double> NormBounds::upper() const {
  std::vector<double> table = values(), bounds(static_cast<std::size_t>(samples_));
  const kernels::NormTable view{table.data(), table.data() + samples_, table.data() + 2 * samples_, nullptr};
  for (std::size_t i = 0; i < bounds.size(); ++i) bounds[i] = view.upper(index_t(i));
  return bounds;
}
}  // namespace dpmp::inline DPMP_ABI::per_sample
#endif
