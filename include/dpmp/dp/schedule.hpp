// SPDX-License-Identifier: Apache-2.0
// Numbers that change over the steps of a run, fixed before it starts: public, piecewise constant. Few pieces keep the
// accountant fast (one Renyi curve a value) and let a plan print all of it.
#pragma once
#include <algorithm>
#include <cmath>
#include <numbers>
#include <ostream>
#include <vector>

#include "dpmp/dp/streams.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// A multiplier > 0 for every step. Schedules are equal where they say the same for every step.
class Schedule {
 public:
  /// From step first_step on, until the next piece.
  struct Piece {
    index_t first_step = 0;
    double value = 1;
    friend bool operator==(const Piece&, const Piece&) = default;
  };
  static constexpr index_t max_pieces = index_t(1) << 16;

  /// 1 in every step.
  static Schedule constant() { return piecewise({{0, 1.0}}); }
  /// The last piece never ends. Throws unless the first starts at step 0, steps ascend below 2^40 and values are finite
  /// numbers > 0.
  static Schedule piecewise(const std::vector<Piece>& pieces);
  /// From `from` in the first to `to` in the last of `pieces` nearly equal parts of `steps` steps. 2 <= pieces <= steps.
  static Schedule linear(double from, double to, index_t steps, index_t pieces);
  /// The same along half a cosine.
  static Schedule cosine(double from, double to, index_t steps, index_t pieces);

  const std::vector<Piece>& pieces() const { return pieces_; }
  bool is_constant() const { return pieces_.size() == 1; }
  /// The value of step >= 0.
  double at(index_t step) const;
  /// Calls f(value, count) for every run of equal values in steps 0 .. steps - 1; the counts add up to `steps`.
  template <class F>
  void for_each_part(index_t steps, F&& f) const {
    for (std::size_t k = 0; k < pieces_.size() && pieces_[k].first_step < steps; ++k) {
      const index_t end = k + 1 < pieces_.size() ? std::min(steps, pieces_[k + 1].first_step) : steps;
      f(pieces_[k].value, end - pieces_[k].first_step);
    }
  }
  double smallest() const { return std::min_element(pieces_.begin(), pieces_.end(), by_value)->value; }
  double largest() const { return std::max_element(pieces_.begin(), pieces_.end(), by_value)->value; }

  /// "1 from step 0, 0.5 from step 100"
  friend std::ostream& operator<<(std::ostream& out, const Schedule& s) {
    for (std::size_t k = 0; k < s.pieces_.size(); ++k)
      out << (k ? ", " : "") << s.pieces_[k].value << " from step " << s.pieces_[k].first_step;
    return out;
  }
  friend bool operator==(const Schedule&, const Schedule&) = default;

 private:
  Schedule() = default;
  static bool by_value(const Piece& x, const Piece& y) { return x.value < y.value; }
  template <class F>
  static Schedule in_pieces(index_t steps, index_t count, F&& value) {
    DPMP_CHECK(steps >= 2 && steps < max_steps, "expected a schedule over 2 to 2^40 - 1 steps, got ", steps);
    DPMP_CHECK(count >= 2 && count <= std::min(steps, max_pieces), "expected 2 to ", std::min(steps, max_pieces),
               " pieces for ", steps, " steps, got ", count);
    std::vector<Piece> pieces;
    for (index_t k = 0; k < count; ++k) pieces.push_back({k * steps / count, value(double(k) / double(count - 1))});
    return piecewise(pieces);
  }
  std::vector<Piece> pieces_;
};
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline Schedule Schedule::piecewise(const std::vector<Piece>& pieces) {
  DPMP_CHECK(!pieces.empty() && index_t(pieces.size()) <= max_pieces, "expected 1 to ", max_pieces,
             " pieces of a schedule, got ", pieces.size());
  DPMP_CHECK(pieces[0].first_step == 0, "expected a schedule from step 0 on, got one from step ", pieces[0].first_step);
  Schedule s;
  for (std::size_t k = 0; k < pieces.size(); ++k) {
    const Piece& p = pieces[k];
    DPMP_CHECK(p.value > 0 && std::isfinite(p.value), "expected finite values > 0 in a schedule, got ", p.value,
               " from step ", p.first_step, " on");
    DPMP_CHECK(k == 0 || p.first_step > pieces[k - 1].first_step, "expected ascending steps in a schedule, got ",
               p.first_step, " after ", pieces[k - 1].first_step);
    DPMP_CHECK(p.first_step < max_steps, "expected steps below 2^40 in a schedule, got ", p.first_step);
    if (s.pieces_.empty() || s.pieces_.back().value != p.value) s.pieces_.push_back(p);
  }
  return s;
}

DPMP_KEPT_BODY inline Schedule Schedule::linear(double from, double to, index_t steps, index_t pieces) {
  return in_pieces(steps, pieces, [&](double done) { return from + (to - from) * done; });
}

DPMP_KEPT_BODY inline Schedule Schedule::cosine(double from, double to, index_t steps, index_t pieces) {
  return in_pieces(steps, pieces,
                   [&](double done) { return to + 0.5 * (from - to) * (1 + std::cos(std::numbers::pi * done)); });
}

DPMP_KEPT_BODY inline double Schedule::at(index_t step) const {
  DPMP_CHECK(step >= 0, "expected a step >= 0, got ", step);
  const auto after =
      std::upper_bound(pieces_.begin(), pieces_.end(), step, [](index_t s, const Piece& p) { return s < p.first_step; });
  return std::prev(after)->value;
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
