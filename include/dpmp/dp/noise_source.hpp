// SPDX-License-Identifier: Apache-2.0
// Where a run's noise comes from. independent: fresh Gaussian noise in every step. The others correlate the noise of steps,
// so that much of it cancels in the sum of all steps, which is what a model is made of: step t adds row t of C^-1 z, z
// independent normals, C a lower triangular matrix that is public. What is released is then C^-1 (C G + z), G the clipped
// sums: a Gaussian mechanism on C G (Denisov et al. 2022, arXiv 2202.08312, theorem 2.1: also where each step's gradients
// follow from what was released before).
#pragma once
#include <array>
#include <ostream>
#include <string_view>
#include <vector>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// banded: C is Toeplitz with `bands` bands, the square root of the matrix of prefix sums, cut off and scaled to columns of
/// length 1 (Fichtenberger, Henzinger, Upadhyay 2022, arXiv 2202.11205; Choquette-Choo et al. 2023, arXiv 2306.08153).
/// tree: C sums blocks of 2^k steps as the binary tree of DP-FTRL does (Kairouz et al. 2021, arXiv 2103.00039); of a tree's
/// nodes only those that end a prefix are ever used, one for each step.
/// discrete_gaussian: independent, but of whole numbers: contributions are rounded to a grid, summed as integers, and noised
/// with exact samples of the discrete Gaussian (integer_grid.hpp).
enum class NoiseSourceKind : std::uint8_t { independent, banded, tree, discrete_gaussian };
inline constexpr std::array all_noise_sources{NoiseSourceKind::independent, NoiseSourceKind::banded, NoiseSourceKind::tree,
                                              NoiseSourceKind::discrete_gaussian};

inline std::string_view name_of(NoiseSourceKind kind) {
  switch (kind) {
    case NoiseSourceKind::independent: return "independent";
    case NoiseSourceKind::banded: return "banded";
    case NoiseSourceKind::tree: return "tree";
    case NoiseSourceKind::discrete_gaussian: return "discrete_gaussian";
  }
  throw Error(dpmp::detail::concat("expected a NoiseSourceKind, got the value ", int(kind)));
}
inline std::ostream& operator<<(std::ostream& out, NoiseSourceKind kind) { return out << name_of(kind); }

struct NoiseSourceOptions {
  NoiseSourceKind kind = NoiseSourceKind::independent;
  /// Of banded: each step's noise cancels part of that of the bands - 1 steps before it, which are kept: (bands - 1) *
  /// parameters * 8 bytes. 0 for the others.
  index_t bands = 0;
  /// Of discrete_gaussian: the grid is 2^-grid_bits of the power of two below C, 8 to 24 (20 is fine for models of up to
  /// 10^9 values), and `dimensions` is a public bound on the number of trained values, whose rounding adds up. 0 for the
  /// others.
  index_t grid_bits = 0, dimensions = 0;
  friend bool operator==(const NoiseSourceOptions&, const NoiseSourceOptions&) = default;

  bool is_correlated() const { return kind == NoiseSourceKind::banded || kind == NoiseSourceKind::tree; }
  bool is_discrete() const { return kind == NoiseSourceKind::discrete_gaussian; }
};

/// Most planned steps of a run with correlated noise: its matrix is walked when a plan is made.
inline constexpr index_t max_correlated_steps = index_t(1) << 20;

/// Throws where a field is out of range or does not belong to the kind.
void check_noise_source(const NoiseSourceOptions& o, index_t steps);

/// C of a source. Rows and columns are steps, from 0 on; entries are >= 0, and 0 above the diagonal. Longer matrices begin
/// with the shorter ones: a run that stops early has released what a plan of fewer steps would.
class NoiseMatrix {
 public:
  /// Throws what check_noise_source() does for as many steps as bands.
  explicit NoiseMatrix(const NoiseSourceOptions& o);

  const NoiseSourceOptions& options() const { return options_; }
  /// Of banded: entry(t, t - k) for k < bands.
  const std::vector<double>& bands() const { return bands_; }
  double entry(index_t row, index_t column) const;

  /// max |C u| over all u of 0 and 1, of `steps` steps, whose ones are multiples of `separation` >= 1 steps apart: what a
  /// record that takes part in such steps, any number of them, changes C G by if its gradients have norm 1. (All entries of
  /// C^T C are >= 0: the worst gradients are all the same, and a record that takes part more often changes more.) Rounded
  /// up.
  double sensitivity(index_t steps, index_t separation) const;
  /// Length of the longest column: the sensitivity of one participation. Rounded up.
  double column_norm(index_t steps) const;
  /// Whether no two columns that far apart have a row in common.
  bool columns_are_apart(index_t separation) const {
    return !options_.is_correlated() || (options_.kind == NoiseSourceKind::banded && options_.bands <= separation);
  }

 private:
  NoiseSourceOptions options_;
  std::vector<double> bands_;  // of one step for the other kinds
};
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include <algorithm>
#include <bit>
#include <cmath>

namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
/// Above the rounding of a sum of squares of up to 2^20 terms.
inline constexpr double matrix_rounding = 0x1p-30;
/// Steps that the tree's node of step t (from 0 on) sums: the lowest bit of t + 1.
inline index_t node_length(index_t t) { return (t + 1) & -(t + 1); }

/// max over the first step of |C u|^2, u the steps that are multiples of `separation` after it. Row t sums node_length(t)
/// steps, up to t: every residue of the separation is there m times, and those that one more step has m + 1 times. These are
/// a run of residues, of which the changes at both ends are kept. Time and memory: steps + separation.
inline double largest_tree_square(index_t steps, index_t separation) {
  const index_t residues = std::min(separation, steps);
  std::vector<double> change(std::size_t(residues) + 1, 0);
  for (index_t t = 0; t < steps; ++t) {
    const index_t length = node_length(t), from = (t + 1 - length) % residues, more = length % residues;
    const double m = double(length / residues), step = (m + 1) * (m + 1) - m * m;
    change[0] += m * m;
    change[std::size_t(from)] += step;
    if (from + more > residues) {
      change[0] += step;
      change[std::size_t(from + more - residues)] -= step;
    } else {
      change[std::size_t(from + more)] -= step;
    }
  }
  double square = 0, largest = 0;
  for (index_t first = 0; first < residues; ++first) largest = std::max(largest, square += change[std::size_t(first)]);
  return largest;
}

/// |C u|^2 of a Toeplitz C, u the multiples of `separation`: the columns are the first one, moved down and cut off below, so
/// that the first step is the worst. Row t sums the bands of its residue up to t, all of them from the last band on. Time:
/// the bands.
inline double toeplitz_square(const std::vector<double>& bands, index_t steps, index_t separation) {
  const index_t count = std::min(index_t(bands.size()), steps);
  std::vector<double> sum(bands.begin(), bands.begin() + count);
  double square = 0;
  for (index_t t = 0; t < count; ++t) {
    if (t >= separation) sum[std::size_t(t)] += sum[std::size_t(t - separation)];
    square += sum[std::size_t(t)] * sum[std::size_t(t)];
  }
  // Rows count .. steps - 1: those of residue r have the sum of the last row before `count` with it, if there is one.
  for (index_t t = std::max<index_t>(0, count - separation); t < count; ++t) {
    const index_t next = t + separation, rows = next < steps ? (steps - 1 - next) / separation + 1 : 0;
    square += double(rows) * sum[std::size_t(t)] * sum[std::size_t(t)];
  }
  return square;
}
}  // namespace detail

DPMP_KEPT_BODY inline void check_noise_source(const NoiseSourceOptions& o, index_t steps) {
  name_of(o.kind);  // throws on a value outside of the enumeration
  if (o.kind == NoiseSourceKind::banded)
    DPMP_CHECK(o.bands >= 1 && o.bands <= steps, "expected 1 to ", steps, " bands of the noise, got ", o.bands);
  else
    DPMP_CHECK(o.bands == 0, "expected no bands for ", o.kind, " noise, got ", o.bands);
  DPMP_CHECK(o.is_discrete() || (o.grid_bits == 0 && o.dimensions == 0), "expected no grid for ", o.kind, " noise, got 2^-",
             o.grid_bits, " for ", o.dimensions, " values");
  DPMP_CHECK(!o.is_correlated() || steps <= max_correlated_steps, "expected at most 2^20 steps with correlated noise, got ",
             steps);
}

DPMP_KEPT_BODY inline NoiseMatrix::NoiseMatrix(const NoiseSourceOptions& o) : options_(o), bands_{1} {
  check_noise_source(o, std::max<index_t>(o.bands, 1));
  double square = 1;
  for (index_t k = 1; k < o.bands; ++k) {
    bands_.push_back(bands_.back() * double(2 * k - 1) / double(2 * k));
    square += bands_.back() * bands_.back();
  }
  for (double& c : bands_) c /= std::sqrt(square);
}

DPMP_KEPT_BODY inline double NoiseMatrix::entry(index_t row, index_t column) const {
  DPMP_CHECK(row >= 0 && column >= 0, "expected steps >= 0, got ", row, " and ", column);
  const index_t back = row - column;
  if (options_.kind == NoiseSourceKind::tree) return back >= 0 && back < detail::node_length(row) ? 1 : 0;
  return back >= 0 && back < index_t(bands_.size()) ? bands_[std::size_t(back)] : 0;
}

DPMP_KEPT_BODY inline double NoiseMatrix::sensitivity(index_t steps, index_t separation) const {
  DPMP_CHECK(steps >= 1 && separation >= 1, "expected at least one step and a separation of at least one, got ", steps,
             " and ", separation);
  return std::sqrt(options_.kind == NoiseSourceKind::tree ? detail::largest_tree_square(steps, separation)
                                                          : detail::toeplitz_square(bands_, steps, separation)) *
         (1 + detail::matrix_rounding);
}

DPMP_KEPT_BODY inline double NoiseMatrix::column_norm(index_t steps) const {
  DPMP_CHECK(steps >= 1, "expected at least one step, got ", steps);
  double square = 0;
  if (options_.kind == NoiseSourceKind::tree)
    square = double(std::bit_width(std::uint64_t(steps)));  // of the first column: nodes of 1, 2, 4, .. steps
  else
    for (std::size_t k = 0; k < bands_.size() && index_t(k) < steps; ++k) square += bands_[k] * bands_[k];
  return std::sqrt(square) * (1 + detail::matrix_rounding);
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
