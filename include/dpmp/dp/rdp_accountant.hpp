// SPDX-License-Identifier: Apache-2.0
// The RDP accountant: adds the Renyi divergences of all steps and converts the sum into (epsilon, delta).
#pragma once
#include <utility>
#include <vector>

#include "dpmp/dp/subsampled_gaussian.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// The orders of Opacus: 1.1, 1.2, ..., 10.9 and 12, 13, ..., 63.
std::vector<double> opacus_orders();

/// opacus_orders() and more: closer to 1 for large epsilons, between tenths, and up to 1024 for small epsilons.
std::vector<double> default_orders();

/// An epsilon and the Renyi order it comes from (0 where no order was needed).
struct PrivacySpent {
  double epsilon = 0, order = 0;
};

/// (epsilon, delta) of total divergences rdp[k] at orders[k], the smallest over the orders of
/// rdp + log((a - 1) / a) - (log delta + log a) / (a - 1), not below 0.
/// Source: Canonne, Kamath, Steinke (2020), proposition 12; Balle et al. (2020), theorem 21.
PrivacySpent rdp_to_epsilon(const std::vector<double>& orders, const std::vector<double>& rdp, double delta);

/// Composes steps of possibly different (q, sigma). The curve of a pair is computed once, at its first step.
class RdpAccountant {
 public:
  explicit RdpAccountant(std::vector<double> orders = default_orders());
  const std::vector<double>& orders() const { return orders_; }

  /// Accounts `steps` more steps with sampling probability q in [0, 1] and noise multiplier sigma > 0.
  void add_steps(double q, double sigma, index_t steps);
  /// The accounted steps of all segments.
  index_t steps() const;
  /// The total divergence at each of orders().
  std::vector<double> rdp() const;
  /// What has been spent at `delta` in (0, 1).
  PrivacySpent spent(double delta) const { return rdp_to_epsilon(orders_, rdp(), delta); }
  double epsilon(double delta) const { return spent(delta).epsilon; }

 private:
  struct Segment {
    double q, sigma;
    std::vector<double> curve;
    index_t steps;
  };
  Segment& segment(double q, double sigma);
  std::vector<double> orders_;
  std::vector<Segment> segments_;
};
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline std::vector<double> opacus_orders() {
  std::vector<double> orders;
  for (int k = 1; k < 100; ++k) orders.push_back(1 + k / 10.0);
  for (int k = 12; k < 64; ++k) orders.push_back(k);
  return orders;
}

DPMP_KEPT_BODY inline std::vector<double> default_orders() {
  std::vector<double> orders = opacus_orders();
  for (int k = 1; k < 10; ++k) orders.push_back(1 + k / 100.0);
  for (int k = 1; k < 40; ++k) orders.push_back(1.05 + k / 10.0);
  for (double order : {11.0, 11.5, 12.5, 13.5, 14.5, 15.5}) orders.push_back(order);
  for (int power = 64; power <= 1024; power *= 2)
    for (int eighth = 8; eighth < 16 && power * eighth / 8 <= 1024; ++eighth) orders.push_back(power * eighth / 8);
  std::sort(orders.begin(), orders.end());
  return orders;
}

DPMP_KEPT_BODY inline PrivacySpent rdp_to_epsilon(const std::vector<double>& orders, const std::vector<double>& rdp,
                                                  double delta) {
  DPMP_CHECK(delta > 0 && delta < 1, "expected a delta in (0, 1), got ", delta);
  DPMP_CHECK(orders.size() == rdp.size(), "expected one divergence an order, got ", rdp.size(), " for ", orders.size());
  // No step, or steps that never use a record: nothing depends on the data.
  if (std::all_of(rdp.begin(), rdp.end(), [](double r) { return r == 0; })) return {};
  PrivacySpent best{detail::infinity, 0};
  for (std::size_t k = 0; k < orders.size(); ++k) {
    const double a = orders[k], epsilon = rdp[k] + std::log1p(-1 / a) - (std::log(delta) + std::log(a)) / (a - 1);
    if (epsilon < best.epsilon) best = {epsilon, a};
  }
  best.epsilon = std::max(best.epsilon, 0.0);
  return best;
}

DPMP_KEPT_BODY inline RdpAccountant::RdpAccountant(std::vector<double> orders) : orders_(std::move(orders)) {
  DPMP_CHECK(!orders_.empty(), "expected at least one Renyi order, got none");
  for (double a : orders_) DPMP_CHECK(a > 1 && std::isfinite(a), "expected finite Renyi orders > 1, got ", a);
}

DPMP_KEPT_BODY inline void RdpAccountant::add_steps(double q, double sigma, index_t steps) {
  DPMP_CHECK(steps >= 0, "expected a number of steps >= 0, got ", steps);
  index_t& count = segment(q, sigma).steps;
  DPMP_CHECK(steps <= std::numeric_limits<index_t>::max() - count, "expected fewer than 2^63 steps, got ", steps, " more");
  count += steps;
}

DPMP_KEPT_BODY inline index_t RdpAccountant::steps() const {
  index_t total = 0;
  for (const Segment& s : segments_) total += s.steps;
  return total;
}

DPMP_KEPT_BODY inline std::vector<double> RdpAccountant::rdp() const {
  std::vector<double> total(orders_.size());
  for (const Segment& s : segments_)
    if (s.steps > 0)  // a divergence of an unused segment may be infinite
      for (std::size_t k = 0; k < total.size(); ++k) total[k] += double(s.steps) * s.curve[k];
  return total;
}

DPMP_KEPT_BODY inline RdpAccountant::Segment& RdpAccountant::segment(double q, double sigma) {
  for (Segment& s : segments_)
    if (s.q == q && s.sigma == sigma) return s;
  std::vector<double> curve;
  for (double a : orders_) curve.push_back(subsampled_gaussian_rdp(q, sigma, a));
  return segments_.emplace_back(Segment{q, sigma, std::move(curve), 0});
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
