// SPDX-License-Identifier: Apache-2.0
// The RDP accountant: adds the Renyi divergences of all steps and converts the sum into (epsilon, delta).
#pragma once
#include <atomic>
#include <map>
#include <memory>
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

/// Composes steps of possibly different (q, sigma). A divergence is computed when it is first needed, once for each distinct
/// (q, sigma) and order; copies share it. Const members may be called by several threads.
class RdpAccountant {
 public:
  /// orders: finite, > 1; sorted here, each kept once.
  explicit RdpAccountant(std::vector<double> orders = default_orders());
  RdpAccountant(const RdpAccountant& other);
  RdpAccountant& operator=(const RdpAccountant& other);
  ~RdpAccountant();
  /// Ascending.
  const std::vector<double>& orders() const { return orders_; }

  /// Accounts `steps` more steps with sampling probability q in [0, 1] and noise multiplier sigma > 0.
  void add_steps(double q, double sigma, index_t steps);
  /// The accounted steps of all (q, sigma).
  index_t steps() const;
  /// The total divergence at each of orders(), rounded up.
  std::vector<double> rdp() const;
  /// What has been spent at `delta` in (0, 1): rdp_to_epsilon of rdp(), with divergences of some twenty orders only.
  /// near_order: where the search begins; three orders are enough where it is the best one.
  ///
  /// Epsilon has one minimum over the orders a: it is N(a) / (a - 1) with N(a) = log A(a) - log delta + (a - 1) log(a - 1)
  /// - a log a, a convex function, because log A is (the logarithm of a moment of order a) and the second derivative of the
  /// rest is 1 / (a - 1) - 1 / a. So the orders where it is at most some number are neighbours. Whatever order the search
  /// ends at, its epsilon holds.
  PrivacySpent spent(double delta, double near_order = 8) const;
  double epsilon(double delta) const { return spent(delta).epsilon; }
  /// An upper bound of delta at epsilon >= 0, from the order where it is the least one: the conversion of spent(), solved
  /// for delta. At most 1.
  double delta(double epsilon) const;

 private:
  struct Segment {
    index_t steps = 0;
    std::shared_ptr<std::vector<std::atomic<double>>> curve;  // of one step; 0 where it is not computed yet
  };
  double rdp_at(std::size_t order) const;
  std::vector<double> orders_;
  std::map<std::pair<double, double>, Segment> segments_;  // by q and sigma
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

namespace detail {
inline double epsilon_of_order(double a, double rdp, double delta) {
  return rdp + std::log1p(-1 / a) - (std::log(delta) + std::log(a)) / (a - 1);
}
}  // namespace detail

DPMP_KEPT_BODY inline PrivacySpent rdp_to_epsilon(const std::vector<double>& orders, const std::vector<double>& rdp,
                                                  double delta) {
  DPMP_CHECK(delta > 0 && delta < 1, "expected a delta in (0, 1), got ", delta);
  DPMP_CHECK(orders.size() == rdp.size(), "expected one divergence an order, got ", rdp.size(), " for ", orders.size());
  // No step, or steps that never use a record: nothing depends on the data.
  if (std::all_of(rdp.begin(), rdp.end(), [](double r) { return r == 0; })) return {};
  PrivacySpent best{detail::infinity, 0};
  for (std::size_t k = 0; k < orders.size(); ++k) {
    const double epsilon = detail::epsilon_of_order(orders[k], rdp[k], delta);
    if (epsilon < best.epsilon) best = {epsilon, orders[k]};
  }
  best.epsilon = std::max(best.epsilon, 0.0);
  return best;
}

// As a compiler would write them, and out of what every user of a plan compiles.
DPMP_KEPT_BODY inline RdpAccountant::RdpAccountant(const RdpAccountant& other)
    : orders_(other.orders_), segments_(other.segments_) {}
DPMP_KEPT_BODY inline RdpAccountant& RdpAccountant::operator=(const RdpAccountant& other) {
  orders_ = other.orders_;
  segments_ = other.segments_;
  return *this;
}
DPMP_KEPT_BODY inline RdpAccountant::~RdpAccountant() {}
DPMP_KEPT_BODY inline RdpAccountant::RdpAccountant(std::vector<double> orders) : orders_(std::move(orders)) {
  DPMP_CHECK(!orders_.empty(), "expected at least one Renyi order, got none");
  for (double a : orders_) DPMP_CHECK(a > 1 && std::isfinite(a), "expected finite Renyi orders > 1, got ", a);
  std::sort(orders_.begin(), orders_.end());
  orders_.erase(std::unique(orders_.begin(), orders_.end()), orders_.end());
}

DPMP_KEPT_BODY inline void RdpAccountant::add_steps(double q, double sigma, index_t steps) {
  DPMP_CHECK(steps >= 0, "expected a number of steps >= 0, got ", steps);
  detail::check_sampled_gaussian(q, sigma);
  Segment& s = segments_[{q, sigma}];
  if (!s.curve) s.curve = std::make_shared<std::vector<std::atomic<double>>>(orders_.size());
  DPMP_CHECK(steps <= std::numeric_limits<index_t>::max() - s.steps, "expected fewer than 2^63 steps, got ", steps, " more");
  s.steps += steps;
}

DPMP_KEPT_BODY inline index_t RdpAccountant::steps() const {
  index_t total = 0;
  for (const auto& [pair, s] : segments_) total += s.steps;
  return total;
}

DPMP_KEPT_BODY inline std::vector<double> RdpAccountant::rdp() const {
  std::vector<double> total(orders_.size());
  for (std::size_t k = 0; k < total.size(); ++k) total[k] = rdp_at(k);
  return total;
}

DPMP_KEPT_BODY inline double RdpAccountant::rdp_at(std::size_t order) const {
  double total = 0, terms = 1;
  for (const auto& [pair, s] : segments_) {
    if (s.steps == 0) continue;  // the divergence of an unused pair may be infinite
    std::atomic<double>& known = (*s.curve)[order];
    double one = known.load(std::memory_order_relaxed);
    // Whoever else computes it stores the same bits.
    if (one == 0) {
      one = subsampled_gaussian_rdp(pair.first, pair.second, orders_[order]);
      known.store(one, std::memory_order_relaxed);
    }
    total += double(s.steps) * one;
    ++terms;
  }
  // A product and an addition for each term, and this product: less than 2 terms roundings of 2^-53 in a row.
  return total * (1 + 0x1p-52 * terms);
}

DPMP_KEPT_BODY inline PrivacySpent RdpAccountant::spent(double delta, double near_order) const {
  DPMP_CHECK(delta > 0 && delta < 1, "expected a delta in (0, 1), got ", delta);
  // No step, or steps that never use a record: nothing depends on the data.
  const auto uses_records = [](const auto& entry) { return entry.first.first > 0 && entry.second.steps > 0; };
  if (std::none_of(segments_.begin(), segments_.end(), uses_records)) return {};
  const std::size_t last = orders_.size() - 1;
  std::size_t best =
      std::min(last, std::size_t(std::lower_bound(orders_.begin(), orders_.end(), near_order) - orders_.begin()));
  const auto epsilon_at = [&](std::size_t k) { return detail::epsilon_of_order(orders_[k], rdp_at(k), delta); };
  double least = epsilon_at(best);
  const auto goes_to = [&](std::size_t k) {
    const double epsilon = epsilon_at(k);
    const bool lower = epsilon < least;
    if (lower) least = epsilon, best = k;
    return lower;
  };
  // Downhill by strides that grow while they help and shrink where they do not.
  for (std::size_t stride = 1; stride > 0;) {
    const bool moved = (last - best >= stride && goes_to(best + stride)) || (best >= stride && goes_to(best - stride));
    stride = moved ? 2 * stride : stride / 2;
  }
  return {std::max(least, 0.0), orders_[best]};
}

DPMP_KEPT_BODY inline double RdpAccountant::delta(double epsilon) const {
  DPMP_CHECK(epsilon >= 0 && std::isfinite(epsilon), "expected a finite epsilon >= 0, got ", epsilon);
  const auto uses_records = [](const auto& entry) { return entry.first.first > 0 && entry.second.steps > 0; };
  if (std::none_of(segments_.begin(), segments_.end(), uses_records)) return 0;
  double least = 0;
  for (std::size_t k = 0; k < orders_.size(); ++k) {
    const double a = orders_[k];
    least = std::min(least, (a - 1) * (rdp_at(k) - epsilon + std::log1p(-1 / a)) - std::log(a));
  }
  return std::exp(least + 1e-12);
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
