// SPDX-License-Identifier: Apache-2.0
// A gradient sum that is released together with noisy counts: how much noise the sum needs so that all of it is the one
// Gaussian mechanism that the accountant sees.
#pragma once
#include <cmath>
#include <span>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// A count that is released in every step with Gaussian noise.
struct NoisyCount {
  double noise = 0;        // standard deviation s > 0
  double sensitivity = 0;  // h > 0: the most that one record changes the count by
};

/// sigma_z = (sigma^-2 - sum_k (h_k / s_k)^2)^(-1/2): the noise multiplier of the gradient sum, so that it and the counts
/// are together one Gaussian mechanism of noise multiplier sigma: in units of the noise a record moves the sum by at most
/// 1 / sigma_z and count k by h_k / s_k, at right angles. Always above sigma. Rounded up by a bound of its rounding errors.
/// Throws unless 0 < sigma < 1 / sqrt(sum_k (h_k / s_k)^2).
///
/// With x = sigma sqrt(sum_k (h_k / s_k)^2) over n counts: sigma_z = sigma / sqrt((1 - x) (1 + x)). A quotient has one
/// rounding of 2^-53 (a sensitivity is a power of two) and each further count adds the two of a hypot, so x has 2 n - 1,
/// which become x / (1 - x) times that in 1 - x and half of it in the root. All else adds 2 n - 1 quarters and 5 roundings:
/// together below (1.5 n + 5) 2^-53 / (1 - x), which is below n 2^-50 / (1 - x). Of one count x is the quotient itself.
double gradient_noise_multiplier(double sigma, std::span<const NoisyCount> counts);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline double gradient_noise_multiplier(double sigma, std::span<const NoisyCount> counts) {
  DPMP_CHECK(sigma > 0 && std::isfinite(sigma), "expected a finite noise multiplier > 0, got ", sigma);
  double x = 0, alone = 0;
  for (const NoisyCount& c : counts) {
    DPMP_CHECK(c.noise > 0 && std::isfinite(c.noise) && c.sensitivity > 0 && std::isfinite(c.sensitivity),
               "expected finite noise > 0 on a count of finite sensitivity > 0, got ", c.noise, " and ", c.sensitivity);
    x = std::hypot(x, c.sensitivity * sigma / c.noise);
    alone = std::hypot(alone, c.sensitivity / c.noise);
  }
  DPMP_CHECK(counts.size() != 1 || x < 1, "expected a noise multiplier below ", counts[0].noise / counts[0].sensitivity,
             " (the count's noise ", counts[0].noise, " over its sensitivity ", counts[0].sensitivity, "), got ", sigma,
             ": the noisy count alone would spend more than the accountant sees");
  DPMP_CHECK(x < 1, "expected a noise multiplier below ", 1 / alone, ", that of ", counts.size(),
             " noisy counts together, got ", sigma, ": they alone would spend more than the accountant sees");
  return sigma / std::sqrt((1 - x) * (1 + x)) * (1 + double(counts.size()) * 0x1p-50 / (1 - x));
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
