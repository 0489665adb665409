// SPDX-License-Identifier: Apache-2.0
// The ways in which a step's records are chosen. One SamplingOptions in PlanOptions decides what the sampler draws
// (sampler.hpp) and what the accountant composes (sampling_accounting.hpp), so that they cannot disagree (P5).
#pragma once
#include <array>
#include <ostream>
#include <string_view>

#include "dpmp/dp/privacy_unit.hpp"
#include "dpmp/dp/streams.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// poisson: each unit in each step independently with the same probability. truncated_poisson: the same, and of a draw that
/// is larger than batch_size a uniformly random part of that size. without_replacement: a uniformly random set of batch_size
/// units in each step. balls_in_bins: each unit once in an epoch of `period` steps, in a uniformly random one of them.
/// cyclic_poisson: units are split once into `period` groups at random, and step t draws by Poisson from group t mod period:
/// a unit's steps are at least `period` apart. full_batch: all of them in each step.
enum class SamplingKind : std::uint8_t {
  poisson,
  truncated_poisson,
  without_replacement,
  balls_in_bins,
  cyclic_poisson,
  full_batch
};
inline constexpr std::array all_sampling_kinds{
    SamplingKind::poisson,       SamplingKind::truncated_poisson, SamplingKind::without_replacement,
    SamplingKind::balls_in_bins, SamplingKind::cyclic_poisson,    SamplingKind::full_batch};

inline std::string_view name_of(SamplingKind kind) {
  switch (kind) {
    case SamplingKind::poisson: return "poisson";
    case SamplingKind::truncated_poisson: return "truncated_poisson";
    case SamplingKind::without_replacement: return "without_replacement";
    case SamplingKind::balls_in_bins: return "balls_in_bins";
    case SamplingKind::cyclic_poisson: return "cyclic_poisson";
    case SamplingKind::full_batch: return "full_batch";
  }
  throw Error(dpmp::detail::concat("expected a SamplingKind, got the value ", int(kind)));
}
inline std::ostream& operator<<(std::ostream& out, SamplingKind kind) { return out << name_of(kind); }

/// A unit is what neighbouring datasets differ by, and what is drawn: a record, or a user with all of their records.
struct SamplingOptions {
  SamplingKind kind = SamplingKind::poisson;
  /// Units of a step: at most so many for truncated_poisson, exactly for without_replacement; 0 for the others. 0 for
  /// truncated_poisson, too: the smallest size whose truncation costs at most 10^-3 of delta.
  index_t batch_size = 0;
  /// Steps of a round: groups of cyclic_poisson, steps of an epoch of balls_in_bins; 0 for the others.
  index_t period = 0;
  /// 0: the unit is one record. k >= 1: the unit is one user, of whom a step uses at most k records, chosen at random; the
  /// public dataset_size then counts users.
  index_t records_per_user = 0;
  friend bool operator==(const SamplingOptions&, const SamplingOptions&) = default;

  /// Records that one unit brings to a step: at most so many, each clipped alone.
  index_t records_per_unit() const { return records_per_user > 0 ? records_per_user : 1; }
  /// Steps between two that may use the same unit, at least; what correlated noise has to know. 1 where it may be the next.
  index_t least_separation() const { return kind == SamplingKind::cyclic_poisson ? period : 1; }
  /// Whether a step's size is known before it is drawn, so that every step is one program: never more units than this.
  bool has_fixed_size() const {
    return kind == SamplingKind::truncated_poisson || kind == SamplingKind::without_replacement ||
           kind == SamplingKind::full_batch;
  }
};

/// Throws where a field is out of range or does not belong to the kind. units: the public number of units, or a bound.
void check_sampling(const SamplingOptions& o, index_t units);
/// Throws unless the accounting of this kind holds for the relation: add_or_remove_one and zero_out for truncated_poisson
/// and balls_in_bins, replace_one for without_replacement, any for the others.
void check_relation(SamplingKind kind, NeighbouringRelation relation);
/// The probability of each unit in a step that may use it, rounded up: given for the kinds of Poisson, else what the kind
/// makes it (batch_size / units, 1 / period, 1). Throws where `given` is neither 0 nor that, rounded up or to nearest. Of
/// checked options.
double sampling_rate_of(const SamplingOptions& o, double given, index_t units);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include <cmath>

namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline void check_sampling(const SamplingOptions& o, index_t units) {
  using enum SamplingKind;
  name_of(o.kind);  // throws on a value outside of the enumeration
  const bool sized = o.kind == truncated_poisson || o.kind == without_replacement;
  const bool rounds = o.kind == balls_in_bins || o.kind == cyclic_poisson;
  DPMP_CHECK(sized || o.batch_size == 0, "expected no batch size for ", o.kind, ", got ", o.batch_size);
  DPMP_CHECK(o.kind != truncated_poisson || o.batch_size >= 0, "expected a batch size >= 1, or 0 for a chosen one, got ",
             o.batch_size);
  DPMP_CHECK(o.kind != without_replacement || (o.batch_size >= 1 && o.batch_size <= units), "expected a batch size in [1, ",
             units, "], the dataset size, got ", o.batch_size);
  DPMP_CHECK(rounds || o.period == 0, "expected no period for ", o.kind, ", got ", o.period);
  DPMP_CHECK(!rounds || (o.period >= 1 && o.period < max_steps), "expected a period in [1, 2^40) for ", o.kind, ", got ",
             o.period);
  DPMP_CHECK(o.kind != balls_in_bins || o.period <= index_t(1) << 20, "expected epochs of at most 2^20 steps, got ",
             o.period);
  DPMP_CHECK(o.records_per_user >= 0 && o.records_per_user <= (index_t(1) << 20),
             "expected 0 or 1 to 2^20 records of a user in a step, got ", o.records_per_user);
}

DPMP_KEPT_BODY inline void check_relation(SamplingKind kind, NeighbouringRelation relation) {
  name_of(relation);  // throws on a value outside of the enumeration
  const bool replaces = relation == NeighbouringRelation::replace_one;
  if (kind == SamplingKind::without_replacement)
    DPMP_CHECK(replaces, "expected replace_one for ", kind, ", got ", relation,
               ": a set of fixed size has another record in the place of one that is not there; a guarantee for replace_one "
               "covers records that are replaced by empty ones");
  else
    DPMP_CHECK(!replaces || (kind != SamplingKind::truncated_poisson && kind != SamplingKind::balls_in_bins),
               "expected add_or_remove_one or zero_out for ", kind, ", got ", relation,
               ": its analysis has one neighbour whose record is not there");
}

DPMP_KEPT_BODY inline double sampling_rate_of(const SamplingOptions& o, double given, index_t units) {
  const auto fraction_up = [](index_t a, index_t b) {  // both below 2^53
    const double nearest = double(a) / double(b);
    return std::fma(nearest, double(b), -double(a)) < 0 ? std::nextafter(nearest, 2.0) : nearest;
  };
  double rate = 0, nearest = 0;
  const auto is = [&](index_t a, index_t b) { rate = fraction_up(a, b), nearest = double(a) / double(b); };
  if (o.kind == SamplingKind::without_replacement) is(o.batch_size, units);
  if (o.kind == SamplingKind::balls_in_bins) is(1, o.period);
  if (o.kind == SamplingKind::full_batch) is(1, 1);
  if (rate == 0) return given;
  DPMP_CHECK(given == 0 || given == rate || given == nearest, "expected no sampling rate for ", o.kind,
             " or the one that it makes, ", rate, ", got ", given);
  return rate;
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
