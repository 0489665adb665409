// SPDX-License-Identifier: Apache-2.0
// What one run proves about a mechanism: m canaries are each in the data set or not by a fair coin of their own, an
// adversary looks at what is released and guesses the coins of some of them, and too many right guesses refute a claim.
// Bounds of epsilon by Steinke, Nasr, Jagielski 2023 (arXiv 2305.08846), of whole trade-off functions by Mahloujifar, Melis,
// Chaudhuri 2024 (arXiv 2410.22235). Many runs on two data sets: dp/audit.hpp.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "dpmp/core/error.hpp"
#include "dpmp/core/function_ref.hpp"
#include "dpmp/dp/privacy_curve.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// A claim about one record as a trade-off function f (Dong, Roth, Su 2019, arXiv 1905.02383): whoever tells two
/// neighbouring data sets apart with a false positive rate a in [0, 1] misses at least the share f(a). For an audit f has to
/// be convex, not increasing, at most 1 - a, and its own inverse: it holds in both directions.
using TradeOffFunction = FunctionRef<double(double false_positive)>;

/// f of mu-Gaussian differential privacy: Phi(Phi^-1(1 - a) - mu).
struct GaussianTradeOff {
  double mu = 0;
  double operator()(double false_positive) const;
};
/// f of several (epsilon, delta) at once: the largest of max(0, 1 - delta - e^epsilon a, e^-epsilon (1 - delta - a)).
struct PrivacyPoint {
  double epsilon = 0, delta = 0;
};
struct PointsTradeOff {
  std::vector<PrivacyPoint> points;
  double operator()(double false_positive) const;
};

/// What was guessed of the canaries in one run, and how much of it was right.
struct OneRunGuesses {
  index_t canaries = 0, guesses = 0, right = 0;
};
/// Guesses "in" for the most_in largest scores and "out" for the most_out smallest, and abstains from the others. Ties are
/// broken by place. included: the coins, 1 for in. Throws unless there are as many scores as coins, none of them NaN, and at
/// least most_in + most_out >= 1 of them.
OneRunGuesses guess_one_run(std::span<const double> scores, std::span<const std::uint8_t> included, index_t most_in,
                            index_t most_out);

/// Upper bound of the probability that an (epsilon, delta) mechanism lets at least that many guesses be right, whatever the
/// adversary does: P[W >= right] + 2 m delta max_{i >= 1} P[right > W >= right - i] / i for W binomial with as many trials
/// as guesses and the probability 1 / (1 + e^-epsilon) (Steinke et al., theorem 5.2 and appendix D). The number of guesses
/// must have been fixed before the run. The relation of neighbours is that of the coins: a canary added or removed (or
/// emptied).
double one_run_chance(const OneRunGuesses& g, double epsilon, double delta);
/// The largest epsilon that one_run_chance refutes with this confidence at this delta; 0: nothing shown. It exceeds the true
/// epsilon with a probability of at most 1 - confidence.
double one_run_epsilon(const OneRunGuesses& g, double delta, double confidence);

/// Whether so many right guesses refute the claim f: under it they have a probability below 1 - confidence.
///
/// Why (Mahloujifar et al., algorithm 3; the proof here is ours). Of the n guesses made let N be right, p_i = P[N = i],
/// R_i = sum_{k >= i} k p_k / m and L_i = sum_{k >= i} (n - k) p_k / m. Canary j is guessed right and N >= i where j is
/// right and at least i - 1 others are; wrong and N >= i - 1 where j is wrong and at least i - 1 others are. Given the coins
/// of the others, both are tests of canary j's coin by one rejection region or its complement, so by f the probability of
/// the first is at most F(that of the second), F = 1 - f; F is concave, so the average over j and over the other coins keeps
/// it: L_{i-1} >= G(R_i), with G(y) = F^-1(y) = f(1 - y), as f is its own inverse. Suppose P[N >= c] = t for c right
/// guesses. Masses above c may be moved to c, and any mass that a level i < c does not need for L_i >= G(R_{i+1}) one level
/// down: either lowers R and raises L below it and keeps the total. So the least total probability that is consistent with t
/// is that of R_c = c t / m, L_c = (n - c) t / m and, downwards, L_i = max(L_{i+1}, G(R_{i+1})), R_i = R_{i+1} + i (L_i -
/// L_{i+1}) / (n - i). Where it is above 1, (R_0 + L_0) m / n > 1, P[N >= c] is not t; and not more, because G is convex
/// with G(0) = 0: the total over t does not decrease in t.
bool one_run_refutes(const OneRunGuesses& g, TradeOffFunction claim, double confidence);
/// The largest mu whose Gaussian trade-off function is refuted with this confidence; 0: nothing shown. The mechanism is not
/// mu-GDP for any smaller mu, and if its trade-off function is that of a Gaussian mechanism, its mu is above.
double one_run_mu(const OneRunGuesses& g, double confidence);

/// How many guesses of either kind an audit tries.
struct GuessCounts {
  index_t in = 0, out = 0;
};
/// 1/20, 1/10, 1/5 and 2/5 of the canaries, half of the guesses "in": few guesses at extreme scores show a large epsilon,
/// more of them a small one.
std::vector<GuessCounts> default_guess_counts(index_t canaries);

/// What the scores of one run prove. Each of the three statements holds with the confidence asked for, for itself: 1 -
/// confidence is shared by the guess counts and scores that were tried.
struct OneRunResult {
  double epsilon = 0;  // lower bound at the delta given, of any mechanism
  double mu = 0;       // no claim of a smaller mu of Gaussian differential privacy holds
  bool refuted = false;
  double confidence = 0;
  OneRunGuesses of_epsilon, of_mu,
      of_claim;  // what each is from; of_claim: the largest share of right guesses if not refuted
};
/// scores: one or more numbers of each canary, larger ones where it is rather in; each row is [canaries]. Throws what
/// guess_one_run does, and for a delta outside of [0, 1) or a confidence outside of (0, 1).
OneRunResult audit_one_run(std::span<const std::vector<double>> scores, std::span<const std::uint8_t> included,
                           std::span<const GuessCounts> counts, double delta, double confidence, TradeOffFunction claim);
OneRunResult audit_one_run(const std::vector<double>& scores, std::span<const std::uint8_t> included, double delta,
                           double confidence, TradeOffFunction claim);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include <algorithm>
#include <cmath>

#include "dpmp/core/sorted_places.hpp"
#include "dpmp/dp/audit.hpp"

namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
inline double normal_probability(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }
/// The largest x in [0, high] for which refuted(x), which holds up to some x and not beyond; 0 where it never does.
template <class Refuted>
double largest_refuted(double high, Refuted&& refuted) {
  if (!refuted(0.0)) return 0;
  double low = 0;
  for (double next = 0.125; next < high; next *= 2) {
    if (!refuted(next)) {
      high = next;
      break;
    }
    low = next;
  }
  for (int k = 0; k < 30; ++k) {
    const double middle = (low + high) / 2;
    (refuted(middle) ? low : high) = middle;
  }
  return low;
}
inline void check_guesses(const OneRunGuesses& g) {
  DPMP_CHECK(g.right >= 0 && g.right <= g.guesses && g.guesses >= 1 && g.guesses <= g.canaries,
             "expected right guesses of guesses of canaries, at least one guess, got ", g.right, " of ", g.guesses, " of ",
             g.canaries);
}
inline void check_confidence(double confidence) {
  DPMP_CHECK(confidence > 0 && confidence < 1, "expected a confidence in (0, 1), got ", confidence);
}
}  // namespace detail

DPMP_KEPT_BODY inline double GaussianTradeOff::operator()(double false_positive) const {
  if (false_positive <= 0 || false_positive >= 1) return false_positive <= 0 ? 1 : 0;
  return detail::normal_probability(-normal_quantile(false_positive) - mu);
}

DPMP_KEPT_BODY inline double PointsTradeOff::operator()(double false_positive) const {
  double missed = 0;
  for (const PrivacyPoint& p : points)
    missed = std::max(missed, 1 - true_positive_bound(p.epsilon, p.delta, false_positive));
  return missed;
}

DPMP_KEPT_BODY inline OneRunGuesses guess_one_run(std::span<const double> scores, std::span<const std::uint8_t> included,
                                                  index_t most_in, index_t most_out) {
  const index_t m = index_t(scores.size());
  DPMP_CHECK(index_t(included.size()) == m, "expected a coin for each of ", m, " scores, got ", included.size());
  DPMP_CHECK(most_in >= 0 && most_out >= 0 && most_in + most_out >= 1 && most_in <= m && most_out <= m - most_in,
             "expected 1 to ", m, " guesses, got ", most_in, " in and ", most_out, " out");
  DPMP_CHECK(std::none_of(scores.begin(), scores.end(), [](double s) { return std::isnan(s); }),
             "expected scores that are numbers, got NaN");
  const std::vector<index_t> order = dpmp::detail::sorted_places(
      scores.size(), [&](index_t x, index_t y) { return scores[std::size_t(x)] < scores[std::size_t(y)]; });
  OneRunGuesses g{m, most_in + most_out, 0};
  for (index_t k = 0; k < most_out; ++k) g.right += included[std::size_t(order[std::size_t(k)])] == 0;
  for (index_t k = m - most_in; k < m; ++k) g.right += included[std::size_t(order[std::size_t(k)])] != 0;
  return g;
}

DPMP_KEPT_BODY inline double one_run_chance(const OneRunGuesses& g, double epsilon, double delta) {
  detail::check_guesses(g);
  DPMP_CHECK(epsilon >= 0 && delta >= 0 && delta <= 1, "expected epsilon >= 0 and delta in [0, 1], got ", epsilon, " and ",
             delta);
  const double r = double(g.guesses), v = double(g.right), q = 1 / (1 + std::exp(-epsilon));
  const double tail = g.right == 0 ? 1 : detail::incomplete_beta(v, r - v + 1, q);
  if (delta == 0 || tail >= 1) return std::min(1.0, tail);
  double largest = 0, sum = 0;
  for (index_t i = 1; i <= g.right; ++i) {
    const double k = v - double(i);
    sum += std::exp(std::lgamma(r + 1) - std::lgamma(k + 1) - std::lgamma(r - k + 1) - k * std::log1p(std::exp(-epsilon)) -
                    (r - k) * (epsilon + std::log1p(std::exp(-epsilon))));
    largest = std::max(largest, sum / double(i));
  }
  return std::min(1.0, tail + 2 * double(g.canaries) * delta * largest);
}

DPMP_KEPT_BODY inline double one_run_epsilon(const OneRunGuesses& g, double delta, double confidence) {
  detail::check_guesses(g);
  detail::check_confidence(confidence);
  return detail::largest_refuted(64, [&](double e) { return one_run_chance(g, e, delta) < 1 - confidence; });
}

DPMP_KEPT_BODY inline bool one_run_refutes(const OneRunGuesses& g, TradeOffFunction claim, double confidence) {
  detail::check_guesses(g);
  detail::check_confidence(confidence);
  const double n = double(g.guesses), t = (1 - confidence) / double(g.canaries), limit = n / double(g.canaries);
  double right = double(g.right) * t, wrong = (n - double(g.right)) * t;
  for (index_t i = g.right - 1; i >= 0; --i) {
    const double next = std::max(wrong, claim(1 - right));
    right += double(i) / (n - double(i)) * (next - wrong);
    wrong = next;
    if (right + wrong > limit) return true;  // neither ever decreases
  }
  return false;
}

DPMP_KEPT_BODY inline double one_run_mu(const OneRunGuesses& g, double confidence) {
  return detail::largest_refuted(64, [&](double mu) { return one_run_refutes(g, GaussianTradeOff{mu}, confidence); });
}

DPMP_KEPT_BODY inline std::vector<GuessCounts> default_guess_counts(index_t canaries) {
  DPMP_CHECK(canaries >= 1, "expected at least one canary, got ", canaries);
  std::vector<GuessCounts> counts;
  for (const double share : {0.05, 0.1, 0.2, 0.4}) {
    const index_t guesses = std::max<index_t>(1, index_t(share * double(canaries)));
    counts.push_back({guesses - guesses / 2, guesses / 2});
  }
  return counts;
}

DPMP_KEPT_BODY inline OneRunResult audit_one_run(std::span<const std::vector<double>> scores,
                                                 std::span<const std::uint8_t> included, std::span<const GuessCounts> counts,
                                                 double delta, double confidence, TradeOffFunction claim) {
  DPMP_CHECK(!scores.empty() && !counts.empty(), "expected at least one score and one number of guesses, got ",
             scores.size(), " and ", counts.size());
  DPMP_CHECK(delta >= 0 && delta < 1, "expected delta in [0, 1), got ", delta);
  detail::check_confidence(confidence);
  const double each = 1 - (1 - confidence) / double(scores.size() * counts.size());
  OneRunResult result;
  result.confidence = confidence;
  const auto share = [](const OneRunGuesses& g) { return g.guesses == 0 ? -1 : double(g.right) / double(g.guesses); };
  for (const std::vector<double>& row : scores)
    for (const GuessCounts& c : counts) {
      const OneRunGuesses g = guess_one_run(row, included, c.in, c.out);
      if (const double e = one_run_epsilon(g, delta, each); e > result.epsilon || result.of_epsilon.guesses == 0)
        result.epsilon = e, result.of_epsilon = g;
      if (const double mu = one_run_mu(g, each); mu > result.mu || result.of_mu.guesses == 0)
        result.mu = mu, result.of_mu = g;
      const bool refutes = one_run_refutes(g, claim, each);
      if (refutes > result.refuted || (refutes == result.refuted && share(g) > share(result.of_claim)))
        result.refuted = refutes, result.of_claim = g;
    }
  return result;
}

DPMP_KEPT_BODY inline OneRunResult audit_one_run(const std::vector<double>& scores, std::span<const std::uint8_t> included,
                                                 double delta, double confidence, TradeOffFunction claim) {
  return audit_one_run(std::span(&scores, 1), included, default_guess_counts(index_t(scores.size())), delta, confidence,
                       claim);
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
