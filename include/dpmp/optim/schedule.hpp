// SPDX-License-Identifier: Apache-2.0
// Learning rates as a function of the step: public, so that nothing private steers them.
#pragma once
#include <algorithm>
#include <cmath>
#include <numbers>
#include <ostream>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::optim {
class LearningRate {
 public:
  static LearningRate constant(double rate) { return LearningRate(rate, rate, 0, 1); }
  /// Linear from peak / warm_up to peak over the first warm_up steps, then half a cosine down to final at step `total`.
  static LearningRate cosine(double peak, index_t warm_up, index_t total, double final = 0) {
    return LearningRate(peak, final, warm_up, total);
  }

  /// Rate of step 0, 1, ..; beyond `total` it stays at the final rate.
  double at(index_t step) const {
    if (step < warm_up_) return peak_ * double(step + 1) / double(warm_up_);
    const double done = std::min(1.0, double(step - warm_up_) / double(std::max<index_t>(1, total_ - warm_up_)));
    return final_ + 0.5 * (peak_ - final_) * (1 + std::cos(std::numbers::pi * done));
  }

  /// Its numbers: equal for equal schedules.
  friend std::ostream& operator<<(std::ostream& out, const LearningRate& r) {
    return out << r.peak_ << " to " << r.final_ << ", warm-up " << r.warm_up_ << ", total " << r.total_;
  }

 private:
  LearningRate(double peak, double final, index_t warm_up, index_t total)
      : peak_(peak), final_(final), warm_up_(warm_up), total_(total) {
    DPMP_CHECK(peak >= 0 && final >= 0 && std::isfinite(peak) && std::isfinite(final),
               "expected finite learning rates >= 0, got ", peak, " and ", final);
    DPMP_CHECK(warm_up >= 0 && total >= std::max<index_t>(1, warm_up), "expected 0 <= warm_up <= total and total >= 1, got ",
               warm_up, " and ", total);
  }
  double peak_, final_;
  index_t warm_up_, total_;
};
}  // namespace dpmp::inline DPMP_ABI::optim
