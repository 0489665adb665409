// SPDX-License-Identifier: Apache-2.0
// Privacy-loss distributions on a grid: made from a curve by connecting its dots, composed by FFT.
#pragma once
#include <span>
#include <vector>

#include "dpmp/dp/step_mechanism.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// On which side of the truth all results are.
enum class BoundSide : std::uint8_t { pessimistic, optimistic };

/// Where the curve of a step is looked at.
struct LossGrid {
  double interval = 1e-4;  // every loss is a multiple of it
  double tilt = 0;         // lambda >= 0: masses are stored times e^(lambda loss)
  double centre = 0;       // points of the curve are `interval` apart near `centre`, and
  double spread = 0;       // at most resolution * max(spread, |loss - centre|) apart elsewhere
  double resolution = 0;   // 0: `interval` apart everywhere
  double tail = 1e-18;     // the grid ends where the curve is below it; what is beyond counts as an infinite loss
};

/// The distribution of the privacy loss log(P / Q) under P for one ordered pair, or a composition of such. Pessimistic ones
/// bound every delta and epsilon of the pair from above, optimistic ones from below, rounding included.
class PrivacyLossDistribution {
 public:
  struct Atom {
    index_t index = 0;  // loss / interval
    double mass = 0;    // tilted and normalised: e^(tilt loss - log_scale) times the mass under P
  };
  struct Part;

  PrivacyLossDistribution(const PrivacyCurve& curve, BoundSide side, const LossGrid& grid = {});
  /// All of `parts` together; they have the same side, interval and tilt.
  static PrivacyLossDistribution composition(std::span<const Part> parts);
  /// count >= 1 of it in a row.
  PrivacyLossDistribution composed(index_t count) const;
  /// This one and the other.
  PrivacyLossDistribution composed(const PrivacyLossDistribution& other) const;

  /// sup_S P(S) - e^epsilon Q(S), for every finite epsilon.
  double delta(double epsilon) const;
  /// The smallest epsilon >= 0 whose delta is at most `delta` in (0, 1); infinity where there is none.
  double epsilon(double delta) const;
  /// The largest P(S) where Q(S) is at most `false_positive_rate`, in [0, 1].
  double true_positive_rate(double false_positive_rate) const;

  BoundSide side() const { return side_; }
  double interval() const { return interval_; }
  double tilt() const { return tilt_; }
  /// Ascending.
  const std::vector<Atom>& atoms() const { return atoms_; }
  /// P-mass of the infinite loss.
  double infinite_mass() const { return infinite_; }
  double log_scale() const { return log_scale_; }

 private:
  PrivacyLossDistribution() = default;
  BoundSide side_ = BoundSide::pessimistic;
  double interval_ = 0, tilt_ = 0, log_scale_ = 0;
  double infinite_ = 0;  // pessimistic ones
  double excess_ = 0;    // optimistic ones: tilted mass that may be more than there is
  std::vector<Atom> atoms_;
};

struct PrivacyLossDistribution::Part {
  const PrivacyLossDistribution* distribution = nullptr;
  index_t count = 1;
};
}  // namespace dpmp::inline DPMP_ABI::dp
