// SPDX-License-Identifier: Apache-2.0
// A noise source in words: what a privacy statement and the table of a plan say of it.
#pragma once
#include <string>

#include "dpmp/dp/noise_accounting.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// What is added, as a noun: "Gaussian noise", "noise that is an exact sample of the discrete Gaussian on multiples of
/// 2^-20".
std::string noise_in_words(const PlanOptions& o);
/// How correlated noise is made of normals, and how it is accounted; "" for other noise. Begins with ", ".
std::string correlation_in_words(const PlanOptions& o);
/// What has to be assumed of the noise.
std::string noise_assumption_in_words(const PlanOptions& o);
/// How many mechanisms are composed: ", composed over the steps".
std::string composition_in_words(const PlanOptions& o);
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include "dpmp/dp/rounded_text.hpp"

namespace dpmp::inline DPMP_ABI::dp {
DPMP_KEPT_BODY inline std::string noise_in_words(const PlanOptions& o) {
  if (!o.noise_source.is_discrete()) return "Gaussian noise";
  return dpmp::detail::concat("an exact sample of the discrete Gaussian on the multiples of 2^",
                              std::ilogb(integer_grid_of(o).spacing), ", noise");
}

DPMP_KEPT_BODY inline std::string correlation_in_words(const PlanOptions& o) {
  if (!o.noise_source.is_correlated()) return "";
  TextStream out;
  out << ", correlated over the steps: it is C^-1 z, z of that standard deviation and independent in every step, and C the "
         "public matrix of ";
  if (o.noise_source.kind == NoiseSourceKind::banded)
    out << "the noise source (banded, " << o.noise_source.bands << " bands)";
  else
    out << "the noise source (binary tree)";
  return out.str();
}

DPMP_KEPT_BODY inline std::string noise_assumption_in_words(const PlanOptions& o) {
  if (o.noise_source.is_discrete()) return "sums and noise are whole numbers of a public grid, added without rounding";
  return "the noise is a floating-point number (double precision), released on a public grid of at most 2^-20 of its "
         "standard "
         "deviation, not a sample of an exact discrete distribution";
}

DPMP_KEPT_BODY inline std::string composition_in_words(const PlanOptions& o) {
  const index_t apart = o.sampling.least_separation();
  if (is_one_mechanism(o))
    return dpmp::detail::concat(" of all steps together, whose matrix has the sensitivity ", digits_up(noise_scale(o), 6),
                                " for what takes part in ", apart == 1 ? "all steps" : "steps that are ",
                                apart == 1 ? "" : std::to_string(apart) + " apart");
  if (o.noise_source.is_discrete())
    return ", composed over the steps by divergences of whole orders, which are those of the continuous Gaussian";
  if (o.noise_source.is_correlated())
    return ", composed over the steps that can use one record, which share no row of the matrix";
  return ", composed over the steps";
}

/// line(name, value, remark) for what a plan's table says of a source that is not independent.
template <class Line>
inline void describe_noise_source(const PlanOptions& o, double scale, Line&& line) {
  const NoiseSourceOptions& source = o.noise_source;
  if (source.kind == NoiseSourceKind::independent) return;
  line("noise source", name_of(source.kind),
       source.is_discrete() ? "whole numbers of a grid, exact samples" : "step t adds row t of C^-1 z");
  if (source.bands > 0) line("bands", source.bands, "of C; (bands - 1) * 8 bytes for each trained value are kept");
  if (source.is_correlated())
    line("noise scale", digits_up(scale, 10),
         is_one_mechanism(o) ? "sensitivity of C for all steps of a record" : "length of C's columns, of which no two meet");
  if (!source.is_discrete()) return;
  line("grid", integer_grid_of(o).spacing, "what contributions are rounded to");
  line("dimensions", source.dimensions, "trained values, at most");
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
