// SPDX-License-Identifier: Apache-2.0
// Numbers about private records that no noise is added to, for looking for mistakes in public data
// (TrainerOptions::unsafe_debug). Whoever sees them of private records has no guarantee; the privacy statement says so.
#pragma once
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dpmp/train/batch.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// Of the records that one step drew.
struct UnsafeNumbers {
  index_t drawn = 0;
  index_t left_out = 0;  // contributed nothing because something of them was not finite
  index_t clipped = 0;   // of the others: above the threshold of a group
  /// Of the others: certified upper bounds of the gradient norms over all groups; 0 where there are none.
  double mean_norm = 0, largest_norm = 0;
};

/// What the names of such numbers begin with, in a Progress::more and in a log: a report shows them only if it is asked to.
inline constexpr std::string_view unsafe_prefix = "unsafe_";
/// The numbers by name, for Progress::more: unsafe_drawn, unsafe_left_out, unsafe_clipped_share (of those not left out),
/// unsafe_mean_norm, unsafe_largest_norm.
std::vector<std::pair<std::string, double>> named(const UnsafeNumbers& numbers);

namespace detail {
/// The norms of one physical batch, gathered over the clipping groups.
class RecordNorms {
 public:
  explicit RecordNorms(index_t slots)
      : squared_(std::size_t(slots), 0.0), clipped_(squared_.size()), lost_(squared_.size()) {}
  void add_group(std::span<const double> upper, std::span<const std::uint8_t> finite, double threshold) {
    for (std::size_t i = 0; i < squared_.size(); ++i) {
      squared_[i] += upper[i] * upper[i];
      clipped_[i] |= std::uint8_t(upper[i] > threshold);
      lost_[i] |= std::uint8_t(finite[i] == 0);
    }
  }
  /// mean_norm is a sum until finish().
  void add_to(UnsafeNumbers& all, std::span<const index_t> slots) const {
    for (std::size_t i = 0; i < squared_.size(); ++i) {
      if (slots[i] == masked_slot) continue;
      ++all.drawn;
      all.left_out += lost_[i];
      if (lost_[i]) continue;
      all.clipped += clipped_[i];
      all.mean_norm += std::sqrt(squared_[i]);
      all.largest_norm = std::max(all.largest_norm, std::sqrt(squared_[i]));
    }
  }
  static void finish(UnsafeNumbers& all) {
    if (all.drawn > all.left_out) all.mean_norm /= double(all.drawn - all.left_out);
  }

 private:
  std::vector<double> squared_;
  std::vector<std::uint8_t> clipped_, lost_;
};
}  // namespace detail
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::train {
DPMP_KEPT_BODY inline std::vector<std::pair<std::string, double>> named(const UnsafeNumbers& numbers) {
  const double counted = double(std::max<index_t>(numbers.drawn - numbers.left_out, 1));
  const std::pair<const char*, double> all[] = {{"drawn", double(numbers.drawn)},
                                                {"left_out", double(numbers.left_out)},
                                                {"clipped_share", double(numbers.clipped) / counted},
                                                {"mean_norm", numbers.mean_norm},
                                                {"largest_norm", numbers.largest_norm}};
  std::vector<std::pair<std::string, double>> more;
  for (const auto& [name, value] : all) more.emplace_back(std::string(unsafe_prefix) + name, value);
  return more;
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
