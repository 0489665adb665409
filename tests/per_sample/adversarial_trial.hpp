// SPDX-License-Identifier: Apache-2.0
// One criterion for certified clipping: the released contribution of sample i is the sum with all other factors 0, in the
// same shapes and kernels; its float64 norm is at most C. No tolerance. Verdicts are counted, so that a million of them are
// cheap.
#pragma once
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "dpmp/dp/clipping.hpp"
#include "dpmp/per_sample/cost.hpp"
#include "support/oracle.hpp"
#include "support/random.hpp"

namespace test {
/// What was found, by name of a generator or of a way.
struct Tally {
  struct Counts {
    long contributions = 0, clipped = 0, removed = 0;
    double largest = 0;  // released / C
  };
  long contributions = 0, above = 0, not_removed = 0, given_away = 0, disturbed = 0, non_finite = 0, tight = 0;
  std::map<std::string, Counts> by_adversary, by_way;
  std::map<std::string, std::string> failures;  // the first of each kind, adversary and way

  void fail(long& counter, const std::string& kind, const std::string& what) {
    failures.emplace(kind, what);
    ++counter;
  }
  long failed() const { return above + not_removed + given_away + disturbed; }
  /// All kinds of failures, one a line.
  std::string text() const {
    std::string all;
    for (const auto& [kind, what] : failures) all += "\n  " + kind + ": " + what;
    return all;
  }
  void print(const char* title) const {
    std::printf(
        "%s: %ld contributions, %ld above C, %ld non-finite (%ld of them not removed), %ld tight ones above C (%ld "
        "given away), %ld disturbed by a neighbour\n",
        title, contributions, above, non_finite, not_removed, tight, given_away, disturbed);
    for (const auto* names : {&by_adversary, &by_way})
      for (const auto& [name, c] : *names)
        std::printf("  %-32s %8ld contributions, %8ld clipped, %7ld removed, largest released / C %.9f\n", name.c_str(),
                    c.contributions, c.clipped, c.removed, c.largest);
  }
};

/// A public threshold: over twelve powers of ten, or near the size of some gradient.
inline double random_threshold(Rng& rng, double some_norm) {
  const bool near = rng.integer(0, 1) == 1 && some_norm > 1e-30 && some_norm < 1e30;
  const double C = (near ? some_norm : 1.0) * std::pow(10.0, near ? rng.uniform(-4, 1) : rng.uniform(-6, 6));
  return std::max(C, dpmp::dp::smallest_threshold);
}

/// Every kind of rule; the custom one says anything at all.
inline dpmp::dp::ClipRule random_rule(Rng& rng, double threshold) {
  using dpmp::dp::ClipRule;
  switch (rng.integer(0, 6)) {
    case 0: return ClipRule::automatic(std::pow(10.0, rng.uniform(-8, 1)));
    case 1: return ClipRule::normalise();
    case 2: return ClipRule::global(threshold * std::pow(10.0, rng.uniform(-3, 3)));
    case 3:
      return ClipRule::custom("hostile", [](double n) -> double {
        switch (std::bit_cast<std::uint64_t>(n) % 6) {
          case 0: return NAN;
          case 1: return -1;
          case 2: return INFINITY;
          case 3: return 1e300;
          case 4: throw dpmp::Error("expected a factor, got none");
          default: return 1;
        }
      });
    default: return ClipRule::abadi();
  }
}

/// Euclidean norm of what was released; infinite where anything of it is not finite.
inline double released_norm(const std::vector<double>& x) {
  const bool finite = std::all_of(x.begin(), x.end(), [](double v) { return std::isfinite(v); });
  return finite ? norm(x) : INFINITY;
}

/// What one way released of every sample, alone.
struct Released {
  std::vector<float> factors;
  std::vector<double> upper;
  std::vector<std::uint8_t> ok;
  std::vector<std::vector<double>> alone;  // [samples][coordinates]
  std::vector<double> exponents = {};      // of a loss scale; empty: none
};

/// exact: float64 norm of each sample's gradient of the stored operands, not finite where an operand is not.
inline void judge(Tally& tally, const Released& r, const std::vector<double>& exact, double threshold,
                  const dpmp::dp::ClipRule& rule, const std::string& adversary, const std::string& way,
                  const std::string& what) {
  for (std::size_t i = 0; i < r.alone.size(); ++i) {
    const double released = released_norm(r.alone[i]);
    const bool zero = std::all_of(r.alone[i].begin(), r.alone[i].end(), [](double v) { return v == 0; });
    const auto fail = [&](long& counter, const char* kind) {
      tally.fail(counter, dpmp::detail::concat(kind, ", ", adversary, ", ", way),
                 dpmp::detail::concat(what, ", rule ", rule, ", C ", threshold, ", released ", released, ", exact ",
                                      exact[i], ", upper ", r.upper[i], ", factor ", r.factors[i]));
    };
    ++tally.contributions;
    if (!(released <= threshold)) fail(tally.above, "above C");
    if (!std::isfinite(exact[i])) {
      ++tally.non_finite;
      if (!zero) fail(tally.not_removed, "not removed");
    }
    // Clipping is not a way out: what is above C and has a tight certificate keeps nearly all of C. Not where the norm that
    // was kept is that of an FP32 sum far below the exact one (tokens that cancel), nor for factors below the normal FP32
    // numbers, with a scale or without, which are rounded down coarsely or are 0.
    const bool tight = r.upper[i] < 1.01 * exact[i] && r.upper[i] > 0.99 * exact[i];
    if (r.ok[i] && rule.kind() == dpmp::dp::ClipRule::Kind::abadi && exact[i] > threshold && tight &&
        std::ldexp(threshold / r.upper[i], r.exponents.empty() ? 0 : -std::max(0, int(r.exponents[i]))) > 1e-35) {
      ++tally.tight;
      if (!(released > 0.98 * threshold)) fail(tally.given_away, "given away");
    }
    for (Tally::Counts* c : {&tally.by_adversary[adversary], &tally.by_way[way]}) {
      ++c->contributions;
      c->clipped += r.factors[i] > 0 && r.factors[i] < 1;
      c->removed += r.factors[i] == 0;
      c->largest = std::max(c->largest, released / threshold);
    }
  }
}

/// A changed sample may change itself only.
inline void compare_neighbours(Tally& tally, const Released& before, const Released& after,
                               const std::vector<std::uint8_t>& changed, const std::string& way, const std::string& what) {
  for (std::size_t i = 0; i < changed.size(); ++i)
    if (!changed[i] && (before.factors[i] != after.factors[i] || before.alone[i] != after.alone[i]))
      tally.fail(tally.disturbed, "disturbed by a neighbour, " + way, what);
}

/// Whether the whole million was asked for.
inline bool full() { return std::getenv("DPMP_ADVERSARIAL_FULL") != nullptr; }

/// Contributions of a test whose share of the million is `share`.
inline long target(double share) { return long(share * (full() ? 1e6 : 1e4)); }

inline constexpr dpmp::DType dtypes[] = {dpmp::DType::f32, dpmp::DType::bf16, dpmp::DType::f16};
inline dpmp::DType any_dtype(Rng& rng) { return dtypes[rng.integer(0, 2)]; }

/// The float64 norm of every sample over these sites; NaN where an operand makes it not finite.
inline std::vector<double> exact_norms(const dpmp::per_sample::SiteList& sites) {
  std::vector<double> norms;
  for (dpmp::index_t i = 0; i < sites[0].samples(); ++i) {
    const std::vector<double> g = oracle_gradient(sites, i);
    const bool finite = std::all_of(g.begin(), g.end(), [](double v) { return std::isfinite(v); });
    norms.push_back(finite ? norm(g) : NAN);
  }
  return norms;
}

/// A strategy, in words.
inline std::string text(const dpmp::per_sample::StrategyOptions& o) {
  return dpmp::detail::concat("sink: ", dpmp::per_sample::name_of(o.strategy), o.byte_budget ? ", budget" : "", ", norms ",
                              o.norms == dpmp::per_sample::NormChoice::automatic ? "automatic"
                              : o.norms == dpmp::per_sample::NormChoice::gram    ? "gram"
                                                                                 : "instantiate",
                              o.gradients == dpmp::per_sample::GradientStorage::compute ? ", narrow gradients" : "");
}
/// Every strategy with every choice of norms, and budgets that little fits into.
inline dpmp::per_sample::StrategyOptions any_options(Rng& rng) {
  dpmp::per_sample::StrategyOptions o{.norms = dpmp::per_sample::NormChoice(rng.integer(0, 2)),
                                      .gradients = dpmp::per_sample::GradientStorage(rng.integer(0, 1))};
  if (rng.integer(0, 4) == 0)
    o.byte_budget = rng.integer(0, 4000);
  else
    o.strategy = dpmp::per_sample::Strategy(rng.integer(0, 3));
  return o;
}
/// Prints the counts of a full run, or of a failed one, and checks that nothing failed.
inline void report(const Tally& tally, const char* title) {
  if (full() || tally.failed() > 0) tally.print(title);
  const std::string failures = tally.text();
  CAPTURE(failures);
  CHECK(tally.above == 0);
  CHECK(tally.not_removed == 0);
  CHECK(tally.given_away == 0);
  CHECK(tally.disturbed == 0);
}
}  // namespace test
