// SPDX-License-Identifier: Apache-2.0
// A plan as names and values: what a checkpoint stores and a resumed run compares (P20).
#pragma once
#include <map>
#include <optional>
#include <string>

#include "dpmp/dp/plan_options.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// Names and values of a plan, all of them public. A double is written as the 16 hexadecimal digits of its bits after "0x",
/// so that what is read is what was written; everything else is written in words and decimal numbers. A list has its length
/// under "<name> count" and its entries under "<name> <index>".
using PlanText = std::map<std::string, std::string>;

/// The entries that differ, one a line, doubles in decimal ("delta: 1e-05, 1e-06"; "none" where a text lacks the entry);
/// empty where there are none.
std::string difference(const PlanText& x, const PlanText& y);

namespace detail {
/// A double as an entry has it.
std::string bits_text(double x);
}  // namespace detail
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include <bit>
#include <charconv>

namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
/// Calls f(name, field) for every field of PlanOptions: the one list of their names.
template <class Options, class F>
void for_each_option(Options& o, F&& f) {
  f("relation", o.relation);
  f("target epsilon", o.epsilon);
  f("delta", o.delta);
  f("sampling rate", o.sampling_rate);
  f("steps", o.steps);
  f("dataset size", o.dataset_size);
  f("clip threshold", o.clip_threshold);
  f("clip rule", o.clip_rule);
  f("group threshold", o.group_thresholds);
  f("adaptive", o.adaptive);
  f("clip schedule", o.clip_schedule);
  f("noise schedule", o.noise_schedule);
  f("sampling", o.sampling);
  f("noise source", o.noise_source);
  f("overflow", o.overflow);
  f("accountant", o.accountant);
}
template <class Options, class F>
void for_each_adaptive_option(Options& o, F&& f) {
  f("adaptive quantile", o.quantile);
  f("adaptive learning rate", o.learning_rate);
  f("adaptive count noise", o.count_noise);
  f("adaptive lowest", o.lowest);
  f("adaptive highest", o.highest);
  f("adaptive initial threshold", o.initial_threshold);
}
template <class Options, class F>
void for_each_sampling_option(Options& o, F&& f) {
  f("sampling batch size", o.batch_size);
  f("sampling period", o.period);
  f("sampling records per user", o.records_per_user);
}
template <class Options, class F>
void for_each_noise_source_option(Options& o, F&& f) {
  f("noise source bands", o.bands);
  f("noise source grid bits", o.grid_bits);
  f("noise source dimensions", o.dimensions);
}
template <class Options, class F>
void for_each_overflow_option(Options& o, F&& f) {
  f("overflow count noise", o.count_noise);
  f("overflow share", o.share);
  f("overflow growth interval", o.growth_interval);
  f("overflow lowest scale", o.lowest);
  f("overflow highest scale", o.highest);
  f("overflow initial scale", o.initial_scale);
  f("overflow alarm after", o.alarm_after);
}
inline std::string entry_name(const std::string& list, std::size_t k) { return list + ' ' + std::to_string(k); }

DPMP_KEPT_BODY inline std::string bits_text(double x) {
  const auto bits = std::bit_cast<std::uint64_t>(x);
  std::string text = "0x";
  for (int shift = 60; shift >= 0; shift -= 4) text += "0123456789abcdef"[bits >> shift & 15];
  return text;
}
/// The double of bits_text(); none for any other text.
inline std::optional<double> double_of(const std::string& text) {
  std::uint64_t bits = 0;
  const char* end = text.data() + text.size();
  if (text.size() != 18 || !text.starts_with("0x")) return std::nullopt;
  const auto parsed = std::from_chars(text.data() + 2, end, bits, 16);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return std::bit_cast<double>(bits);
}

inline constexpr std::string_view custom_rule_prefix = "custom: ";
inline std::string rule_text(const ClipRule& rule) {
  if (rule.kind() == ClipRule::Kind::custom) return std::string(custom_rule_prefix) + rule.custom_name();
  return std::string(name_of(rule.kind()));
}

/// Writes a field to its entries.
struct PlanWriter {
  PlanText& text;

  void operator()(const std::string& name, double value) const { text[name] = bits_text(value); }
  void operator()(const std::string& name, index_t value) const { text[name] = std::to_string(value); }
  void operator()(const std::string& name, NeighbouringRelation relation) const { text[name] = name_of(relation); }
  void operator()(const std::string& name, const ClipRule& rule) const {
    text[name] = rule_text(rule);
    (*this)(name + " parameter", rule.parameter());
  }
  void operator()(const std::string& name, const std::vector<double>& values) const {
    (*this)(name + " count", index_t(values.size()));
    for (std::size_t k = 0; k < values.size(); ++k) (*this)(entry_name(name, k), values[k]);
  }
  void operator()(const std::string& name, const Schedule& schedule) const {
    const auto& pieces = schedule.pieces();
    (*this)(name + " count", index_t(pieces.size()));
    for (std::size_t k = 0; k < pieces.size(); ++k) {
      (*this)(entry_name(name, k) + " step", pieces[k].first_step);
      (*this)(entry_name(name, k) + " value", pieces[k].value);
    }
  }
  void operator()(const std::string& name, const std::optional<AdaptiveOptions>& adaptive) const {
    text[name] = adaptive ? "yes" : "no";
    if (adaptive) for_each_adaptive_option(*adaptive, *this);
  }
  /// Poisson sampling of records has no entries, as before there was any other.
  void operator()(const std::string& name, const SamplingOptions& sampling) const {
    if (sampling == SamplingOptions{}) return;
    text[name] = name_of(sampling.kind);
    for_each_sampling_option(sampling, *this);
  }
  /// Plans that were stored before there was a choice have no entry and are accounted by Renyi divergences.
  void operator()(const std::string& name, Accountant accountant) const {
    if (accountant != Accountant::rdp) text[name] = name_of(accountant);
  }
  /// Independent noise has none, either.
  void operator()(const std::string& name, const NoiseSourceOptions& source) const {
    if (source == NoiseSourceOptions{}) return;
    text[name] = name_of(source.kind);
    for_each_noise_source_option(source, *this);
  }
  /// Plans that were stored before there were such counts have no entry, as plans without them.
  void operator()(const std::string& name, const std::optional<OverflowOptions>& overflow) const {
    if (!overflow) return;
    text[name] = "yes";
    for_each_overflow_option(*overflow, *this);
  }
};

/// Reads a field from its entries. Throws, naming the entry, where one is missing or is no value of its kind.
struct PlanReader {
  const PlanText& text;
  const std::optional<ClipRule>& custom;  // a function cannot be stored: the rule of that name

  const std::string& at(const std::string& name) const {
    const auto entry = text.find(name);
    DPMP_CHECK(entry != text.end(), "expected an entry '", name, "' of a plan, got none");
    return entry->second;
  }
  void operator()(const std::string& name, double& value) const {
    const std::optional<double> read = double_of(at(name));
    DPMP_CHECK(read, "expected the bits of a double in '", name, "' of a plan, got '", at(name), "'");
    value = *read;
  }
  void operator()(const std::string& name, index_t& value) const {
    const std::string& digits = at(name);
    const char* end = digits.data() + digits.size();
    const auto parsed = std::from_chars(digits.data(), end, value);
    DPMP_CHECK(parsed.ec == std::errc() && parsed.ptr == end, "expected a whole number in '", name, "' of a plan, got '",
               digits, "'");
  }
  void operator()(const std::string& name, Accountant& accountant) const {
    accountant = Accountant::rdp;
    if (!text.contains(name)) return;
    DPMP_CHECK(at(name) == name_of(Accountant::pld), "expected the accountant pld or no entry in '", name,
               "' of a plan, got '", at(name), "'");
    accountant = Accountant::pld;
  }
  void operator()(const std::string& name, NeighbouringRelation& relation) const {
    using enum NeighbouringRelation;
    for (const NeighbouringRelation r : {add_or_remove_one, replace_one, zero_out})
      if (at(name) == name_of(r)) {
        relation = r;
        return;
      }
    throw Error(dpmp::detail::concat("expected a neighbouring relation in '", name, "' of a plan, got '", at(name), "'"));
  }
  void operator()(const std::string& name, ClipRule& rule) const {
    const std::string& kind = at(name);
    double parameter = 0;
    (*this)(name + " parameter", parameter);
    if (kind.starts_with(custom_rule_prefix)) {
      DPMP_CHECK(custom && rule_text(*custom) == kind, "expected the clip rule of the stored plan, ", kind, ", got ",
                 custom ? custom->description() : "none: a function cannot be stored");
      rule = *custom;
      return;
    }
    DPMP_CHECK(!custom, "expected no clip rule for a stored plan with the rule ", kind, ", got ",
               custom ? custom->description() : "");
    if (kind == name_of(ClipRule::Kind::abadi))
      rule = ClipRule::abadi();
    else if (kind == name_of(ClipRule::Kind::automatic))
      rule = ClipRule::automatic(parameter);
    else if (kind == name_of(ClipRule::Kind::normalise))
      rule = ClipRule::normalise();
    else if (kind == name_of(ClipRule::Kind::global))
      rule = ClipRule::global(parameter);
    else
      throw Error(dpmp::detail::concat("expected a clip rule in '", name, "' of a plan, got '", kind, "'"));
  }
  void operator()(const std::string& name, std::vector<double>& values) const {
    index_t count = 0;
    (*this)(name + " count", count);
    values.clear();
    for (index_t k = 0; k < count; ++k) (*this)(entry_name(name, std::size_t(k)), values.emplace_back());
  }
  void operator()(const std::string& name, Schedule& schedule) const {
    index_t count = 0;
    (*this)(name + " count", count);
    std::vector<Schedule::Piece> pieces;
    for (index_t k = 0; k < count; ++k) {
      Schedule::Piece& piece = pieces.emplace_back();
      (*this)(entry_name(name, std::size_t(k)) + " step", piece.first_step);
      (*this)(entry_name(name, std::size_t(k)) + " value", piece.value);
    }
    schedule = Schedule::piecewise(pieces);
  }
  void operator()(const std::string& name, std::optional<AdaptiveOptions>& adaptive) const {
    const std::string& word = at(name);
    DPMP_CHECK(word == "yes" || word == "no", "expected yes or no in '", name, "' of a plan, got '", word, "'");
    adaptive.reset();
    if (word == "yes") for_each_adaptive_option(adaptive.emplace(), *this);
  }
  void operator()(const std::string& name, SamplingOptions& sampling) const {
    sampling = {};
    if (!text.contains(name)) return;
    const auto kind = std::find_if(all_sampling_kinds.begin(), all_sampling_kinds.end(),
                                   [&](SamplingKind k) { return at(name) == name_of(k); });
    DPMP_CHECK(kind != all_sampling_kinds.end(), "expected a way of sampling in '", name, "' of a plan, got '", at(name),
               "'");
    sampling.kind = *kind;
    for_each_sampling_option(sampling, *this);
  }
  void operator()(const std::string& name, NoiseSourceOptions& source) const {
    source = {};
    if (!text.contains(name)) return;
    const auto kind = std::find_if(all_noise_sources.begin(), all_noise_sources.end(),
                                   [&](NoiseSourceKind k) { return at(name) == name_of(k); });
    DPMP_CHECK(kind != all_noise_sources.end(), "expected a noise source in '", name, "' of a plan, got '", at(name), "'");
    source.kind = *kind;
    for_each_noise_source_option(source, *this);
  }
  void operator()(const std::string& name, std::optional<OverflowOptions>& overflow) const {
    overflow.reset();
    if (!text.contains(name)) return;
    DPMP_CHECK(at(name) == "yes", "expected yes or no entry in '", name, "' of a plan, got '", at(name), "'");
    for_each_overflow_option(overflow.emplace(), *this);
  }
};

/// A value as a person reads it.
inline std::string readable(const std::string& value) {
  const std::optional<double> x = double_of(value);
  if (!x) return value;
  TextStream out;
  out.precision(17);
  out << *x;
  return out.str();
}
}  // namespace detail

DPMP_KEPT_BODY inline std::string difference(const PlanText& x, const PlanText& y) {
  PlanText all = x;
  all.insert(y.begin(), y.end());
  std::string lines;
  for (const auto& [name, unused] : all) {
    const auto a = x.find(name), b = y.find(name);
    if (a != x.end() && b != y.end() && a->second == b->second) continue;
    lines += name + ": " + (a == x.end() ? "none" : detail::readable(a->second)) + ", " +
             (b == y.end() ? "none" : detail::readable(b->second)) + '\n';
  }
  return lines;
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
