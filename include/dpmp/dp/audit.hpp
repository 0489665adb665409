// SPDX-License-Identifier: Apache-2.0
// What runs on two neighbouring data sets prove about a mechanism that is only seen from outside: lower bounds of epsilon
// and of mu with a stated confidence, from the numbers that an adversary made of each release (Jagielski, Ullman, Oprea
// 2020, arXiv 2006.07709; Nasr et al. 2023, arXiv 2302.07956).
#pragma once
#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
/// I_x(a, b), a, b > 0, to about 12 digits: the continued fraction of DLMF 8.17.22 by the modified Lentz method.
double incomplete_beta(double a, double b, double x);
}  // namespace detail

/// Phi^-1(p) to about 14 digits; -inf and +inf at 0 and 1. Abramowitz and Stegun 26.2.23 (off by 4.5e-4), then Halley's
/// steps, each of which triples the digits.
inline double normal_quantile(double p) {
  DPMP_CHECK(p >= 0 && p <= 1, "expected a probability, got ", p);
  if (p == 0 || p == 1) return p == 0 ? -HUGE_VAL : HUGE_VAL;
  const double tail = p < 0.5 ? p : 1 - p, t = std::sqrt(-2 * std::log(tail));
  double x = (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308))) - t;
  for (int k = 0; k < 3; ++k) {
    const double e = (0.5 * std::erfc(-x / std::sqrt(2.0)) - tail) * 2.5066282746310005 * std::exp(x * x / 2);
    x -= e / (1 + x * e / 2);
  }
  return p < 0.5 ? x : -x;
}

/// Clopper and Pearson's one-sided bounds (1934) of a probability of which `hits` of `trials` were seen: the true one is
/// above the upper bound, or below the lower one, with a probability of at most 1 - confidence. Throws unless
/// 0 <= hits <= trials, trials >= 1 and confidence is in (0, 1).
struct BinomialBounds {
  double lower = 0, upper = 1;
};
inline BinomialBounds binomial_bounds(index_t hits, index_t trials, double confidence) {
  DPMP_CHECK(trials >= 1 && hits >= 0 && hits <= trials, "expected 0 <= hits <= trials and a trial, got ", hits, " of ",
             trials);
  DPMP_CHECK(confidence > 0 && confidence < 1, "expected a confidence in (0, 1), got ", confidence);
  const double k = double(hits), n = double(trials), miss = 1 - confidence;
  const auto solve = [&](double a, double b, double level) {
    double low = 0, high = 1;
    for (int step = 0; step < 80; ++step) {
      const double middle = (low + high) / 2;
      (detail::incomplete_beta(a, b, middle) < level ? low : high) = middle;
    }
    return std::pair(low, high);
  };
  return {hits == 0 ? 0 : solve(k, n - k + 1, miss).first, hits == trials ? 1 : solve(k + 1, n - k, 1 - miss).second};
}

/// Numbers that an adversary made of releases: one of each run.
struct AuditScores {
  std::vector<double> without, with;  // the record in question
};
/// What the second half of the runs proves. The two bounds hold with the confidence asked for, each for itself.
struct AuditResult {
  double epsilon = 0;         // lower bound of epsilon at the delta given; 0: nothing shown
  double mu = 0;              // lower bound of mu of Gaussian differential privacy (Dong, Roth, Su 2019, arXiv 1905.02383)
  double false_positive = 1;  // upper bound at the threshold of mu, and
  double true_positive = 0;   // the lower one: what a claimed trade-off function is compared with
  index_t runs = 0;           // in that half, of each data set
};

namespace detail {
/// Runs that a rule says "with" of, as bounds of the two error rates.
struct AuditRates {
  double true_positive, false_positive;
  double epsilon(double delta) const {
    return true_positive > delta ? std::max(0.0, std::log((true_positive - delta) / false_positive)) : 0;
  }
  double mu() const { return std::max(0.0, normal_quantile(true_positive) - normal_quantile(false_positive)); }
};
/// The rule "sign * score >= threshold", or its opposite with the data sets' parts exchanged.
struct AuditRule {
  double sign = 1, threshold = 0;
  bool exchanged = false;
  AuditRates rates(std::span<const double> without, std::span<const double> with, double confidence) const {
    const auto hits = [&](std::span<const double> scores) {
      const index_t said_with = std::count_if(scores.begin(), scores.end(), [&](double s) { return sign * s >= threshold; });
      return exchanged ? index_t(scores.size()) - said_with : said_with;
    };
    const auto present = exchanged ? without : with, absent = exchanged ? with : without;
    // Both have to hold at once.
    const double each = 1 - (1 - confidence) / 2;
    return {binomial_bounds(hits(present), index_t(present.size()), each).lower,
            binomial_bounds(hits(absent), index_t(absent.size()), each).upper};
  }
};
}  // namespace detail

/// Chooses thresholds on the first half of the runs and states what they prove on the second half. candidates: several
/// numbers made of the same runs; the best one is chosen on the first half, too. Throws unless there are at least two runs
/// of each data set, as many with as without, and at least one candidate.
inline AuditResult audit(std::span<const AuditScores> candidates, double delta, double confidence) {
  DPMP_CHECK(!candidates.empty() && candidates[0].with.size() >= 2, "expected scores of at least two runs, got none");
  DPMP_CHECK(delta >= 0 && delta < 1, "expected delta in [0, 1), got ", delta);
  struct Best {
    double value = -1;
    std::size_t candidate = 0;
    detail::AuditRule rule;
  } best_epsilon, best_mu;
  const std::size_t runs = candidates[0].with.size(), half = runs / 2;
  for (std::size_t c = 0; c < candidates.size(); ++c) {
    const AuditScores& s = candidates[c];
    DPMP_CHECK(s.with.size() == runs && s.without.size() == runs, "expected ", runs, " scores with and without, got ",
               s.with.size(), " and ", s.without.size());
    const auto without = std::span(s.without).first(half), with = std::span(s.with).first(half);
    for (const double sign : {1.0, -1.0}) {
      std::vector<double> thresholds;
      for (const auto& part : {without, with})
        for (const double x : part) thresholds.push_back(sign * x);
      std::sort(thresholds.begin(), thresholds.end());
      const std::size_t stride = std::max<std::size_t>(1, thresholds.size() / 200);
      for (std::size_t k = 0; k < thresholds.size(); k += stride)
        for (const bool exchanged : {false, true}) {
          const detail::AuditRule rule{sign, thresholds[k], exchanged};
          const detail::AuditRates rates = rule.rates(without, with, confidence);
          if (const double e = rates.epsilon(delta); e > best_epsilon.value) best_epsilon = {e, c, rule};
          if (const double m = rates.mu(); m > best_mu.value) best_mu = {m, c, rule};
        }
    }
  }
  const auto second = [&](const Best& best) {
    const AuditScores& s = candidates[best.candidate];
    return best.rule.rates(std::span(s.without).subspan(half), std::span(s.with).subspan(half), confidence);
  };
  const detail::AuditRates of_epsilon = second(best_epsilon), of_mu = second(best_mu);
  return {of_epsilon.epsilon(delta), of_mu.mu(), of_mu.false_positive, of_mu.true_positive, index_t(runs - half)};
}
inline AuditResult audit(const AuditScores& scores, double delta, double confidence) {
  return audit(std::span(&scores, 1), delta, confidence);
}
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp::detail {
DPMP_KEPT_BODY inline double incomplete_beta(double a, double b, double x) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  if (x > (a + 1) / (a + b + 2)) return 1 - incomplete_beta(b, a, 1 - x);
  const double front =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x)) / a;
  constexpr double tiny = 1e-300;
  double c = 1, d = 1 - (a + b) * x / (a + 1);
  d = 1 / (std::fabs(d) < tiny ? tiny : d);
  double fraction = d;
  for (int m = 1; m < 10000; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    double step = 1;
    for (const double term : {even, odd}) {
      d = 1 + term * d;
      d = 1 / (std::fabs(d) < tiny ? tiny : d);
      c = 1 + term / c;
      if (std::fabs(c) < tiny) c = tiny;
      step = c * d;
      fraction *= step;
    }
    if (std::fabs(step - 1) < 1e-14) break;
  }
  return front * fraction;
}
}  // namespace dpmp::inline DPMP_ABI::dp::detail
#endif
