// SPDX-License-Identifier: Apache-2.0
// From a bound of a sample's gradient norm to the factor that is wanted. A rule may return anything: the
// clipper (dp/clipping.hpp) never lets a contribution beyond the threshold, so a rule decides about learning, not about
// privacy.
#pragma once
#include <cmath>
#include <functional>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// An immutable rule n -> factor for clip threshold C; n is the certified upper bound of a sample's norm. Rules are public.
class ClipRule {
 public:
  /// The names of the kinds are part of checkpoints (dp/plan_text.hpp): add, never rename.
  enum class Kind : std::uint8_t { abadi, automatic, normalise, global, custom };
  static constexpr std::size_t longest_name = 64;

  /// min(1, C / n): Abadi et al. 2016 (arXiv 1607.00133).
  static ClipRule abadi() { return {Kind::abadi, 0, {}, {}}; }
  /// C / (n + gamma), finite gamma > 0: Bu et al. 2022 (arXiv 2206.07136). Small gradients are amplified, by at most C /
  /// gamma.
  static ClipRule automatic(double gamma = 0.01);
  /// C / n: every gradient gets the norm C, but one of norm 0.
  static ClipRule normalise() { return {Kind::normalise, 0, {}, {}}; }
  /// C / Z where n <= Z, else 0: Bu et al. 2021 (arXiv 2106.07830). Z > 0, finite, public.
  static ClipRule global(double largest_norm);
  /// A user's function of n, called once a sample with a finite n >= 0 (0 for masked and non-finite samples). Whatever it
  /// returns, contributions stay below C: NaN, negative values and exceptions count as 0, larger factors are cut.
  /// It must depend on n alone: a state that remembers other samples would let one record change the contributions of
  /// others, which no threshold bounds. It sees private numbers: printing, timing or throwing on them is a leak of its own.
  /// name: 1 to 64 printable ASCII characters; checkpoints know the rule by it, and rules of equal names count as equal.
  static ClipRule custom(std::string name, std::function<double(double)> function);

  Kind kind() const { return kind_; }
  /// gamma of automatic, Z of global, else 0.
  double parameter() const { return parameter_; }
  /// Of a custom rule, else empty.
  const std::string& custom_name() const { return name_; }
  /// Whether factors never exceed 1.
  bool shrinks_only() const { return kind_ == Kind::abadi; }

  /// The factor asked for by a rule that is a formula, for clip threshold C and n >= 0. A kernel may evaluate it.
  struct Formula {
    Kind kind;
    double C, parameter;
    DPMP_HD double operator()(double n) const {
      const double ratio = C / (kind == Kind::automatic ? n + parameter : kind == Kind::global ? parameter : n);
      if (kind == Kind::abadi) return ratio < 1 ? ratio : 1;
      return kind == Kind::global && !(n <= parameter) ? 0 : ratio;
    }
  };
  /// Throws for a custom rule.
  Formula formula(double C) const;
  /// Calls body(rule), once, with a function object of n for the threshold C. Which one is public; its evaluation for n is a
  /// straight line (but for custom rules).
  template <class Body>
  void with_function(double C, Body&& body) const {
    if (kind_ != Kind::custom) return body(formula(C));
    body([&f = function_](double n) {
      // An error that depended on a private value would be released by being seen.
      try {
        return f(n);
      } catch (...) {
        return 0.0;
      }
    });
  }

  /// The formula, in words of ASCII.
  std::string description() const;
  friend std::ostream& operator<<(std::ostream& out, const ClipRule& rule) { return out << rule.description(); }
  friend bool operator==(const ClipRule& x, const ClipRule& y) {
    return x.kind_ == y.kind_ && x.parameter_ == y.parameter_ && x.name_ == y.name_;
  }

 private:
  ClipRule(Kind kind, double parameter, std::string name, std::function<double(double)> function)
      : kind_(kind), parameter_(parameter), name_(std::move(name)), function_(std::move(function)) {}
  Kind kind_;
  double parameter_;
  std::string name_;
  std::function<double(double)> function_;
};

/// "abadi", "automatic", ..
std::string_view name_of(ClipRule::Kind kind);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline ClipRule ClipRule::automatic(double gamma) {
  DPMP_CHECK(gamma > 0 && std::isfinite(gamma), "expected a finite gamma > 0, got ", gamma);
  return {Kind::automatic, gamma, {}, {}};
}

DPMP_KEPT_BODY inline ClipRule ClipRule::global(double largest_norm) {
  DPMP_CHECK(largest_norm > 0 && std::isfinite(largest_norm), "expected a finite largest norm Z > 0, got ", largest_norm);
  return {Kind::global, largest_norm, {}, {}};
}

DPMP_KEPT_BODY inline ClipRule ClipRule::custom(std::string name, std::function<double(double)> function) {
  bool printable = true;
  for (char c : name) printable = printable && c >= ' ' && c <= '~';
  DPMP_CHECK(printable && !name.empty() && name.size() <= longest_name, "expected a rule's name of 1 to ", longest_name,
             " printable ASCII characters, got ", name.size(), printable ? "" : ", not all of them printable");
  DPMP_CHECK(function != nullptr, "expected a function for the clip rule '", name, "', got none");
  return {Kind::custom, 0, std::move(name), std::move(function)};
}

DPMP_KEPT_BODY inline ClipRule::Formula ClipRule::formula(double C) const {
  DPMP_CHECK(kind_ != Kind::custom, "expected a rule that is a formula, got ", description());
  return {kind_, C, parameter_};
}

DPMP_KEPT_BODY inline std::string_view name_of(ClipRule::Kind kind) {
  switch (kind) {
    case ClipRule::Kind::abadi: return "abadi";
    case ClipRule::Kind::automatic: return "automatic";
    case ClipRule::Kind::normalise: return "normalise";
    case ClipRule::Kind::global: return "global";
    case ClipRule::Kind::custom: return "custom";
  }
  throw Error(dpmp::detail::concat("expected a kind of clip rule, got the value ", int(kind)));
}

DPMP_KEPT_BODY inline std::string ClipRule::description() const {
  using dpmp::detail::concat;
  const std::string_view name = name_of(kind_);
  switch (kind_) {
    case Kind::abadi: return concat(name, ": min(1, C / n)");
    case Kind::automatic: return concat(name, ": C / (n + ", parameter_, ")");
    case Kind::normalise: return concat(name, ": C / n");
    case Kind::global: return concat(name, ": C / ", parameter_, " where n <= ", parameter_, ", else 0");
    case Kind::custom: break;
  }
  return concat(name, ": ", name_);
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
