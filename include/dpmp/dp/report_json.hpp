// SPDX-License-Identifier: Apache-2.0
// What a plan guarantees, for programs: every public number of a plan and of its statement as JSON.
#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dpmp/dp/statement.hpp"

namespace dpmp::inline DPMP_ABI::dp {
/// Grows when a name of report_json() changes its meaning or goes; new names alone do not count.
inline constexpr int report_schema_version = 1;

/// The parts of a privacy_statement(), title and text, in its order: "Guarantee", "Unit", "Mechanism", "Accountant",
/// "Assumptions", "Not accounted" and, of some runs, "Continued" and one or two "Unsafe".
std::vector<std::pair<std::string, std::string>> statement_parts(std::string_view statement);

/// A JSON object (RFC 8259, UTF-8) of these members:
/// - schema "dpmp privacy report", schema_version, library {name, version};
/// - guarantee: epsilon of the steps taken, rounded up as the statement has it, and delta, unit ("record" or "user"),
///   relation, sampler, accountant (names of their enums), steps_taken, steps_planned; epsilon_accounted, as the accountant
///   computed it, and epsilon_of_the_plan after all planned steps;
/// - plan: every entry of Plan::text() by its name with _ for spaces, numbers as numbers;
/// - first_step: clip_thresholds, noise_multiplier, noise_standard_deviation;
/// - notes: other_noise_since (a step or null), counts_left_out, times_told;
/// - statement: its parts, {title, text}.
/// Doubles are written so that they are read as the same double (json_number); those that are not finite are strings. <, >
/// and & do not occur, so that the text may stand in an HTML page. Throws as Plan::epsilon_after does.
std::string report_json(const Plan& plan, index_t steps_taken, const StatementNotes& notes = {});
}  // namespace dpmp::inline DPMP_ABI::dp

#if DPMP_BODIES
#include <algorithm>
#include <charconv>

#include "dpmp/core/escaped_text.hpp"
#include "dpmp/dp/sampling_words.hpp"

namespace dpmp::inline DPMP_ABI::dp {
namespace detail {
/// Writes members and elements one a line, indented; begin() and end() must match.
class JsonWriter {
 public:
  void begin(std::string_view name, char bracket) {
    value(name, "");
    text_ += bracket;
    closing_ += bracket == '{' ? '}' : ']';
    first_ = true;
  }
  void end() {
    const char bracket = closing_.back();
    closing_.pop_back();
    if (!first_) new_line();
    text_ += bracket;
    first_ = false;
  }
  /// json: any value as JSON. name: left out in lists.
  void value(std::string_view name, std::string_view json) {
    if (!closing_.empty()) {
      if (!first_) text_ += ',';
      new_line();
    }
    first_ = false;
    if (!name.empty()) text_ += json_text(name) + ": ";
    text_ += json;
  }
  void number(std::string_view name, double x) { value(name, json_number(x)); }
  void count(std::string_view name, index_t n) { value(name, std::to_string(n)); }
  void words(std::string_view name, std::string_view text) { value(name, json_text(text)); }
  std::string text() && { return std::move(text_) + '\n'; }

 private:
  void new_line() {
    text_ += '\n';
    text_.append(2 * closing_.size(), ' ');
  }
  std::string text_, closing_;
  bool first_ = true;
};

/// An entry of a plan's text: a number where it is the bits of a double or a whole number, else words.
inline void write_entry(JsonWriter& json, std::string name, const std::string& entry) {
  std::replace(name.begin(), name.end(), ' ', '_');
  const std::optional<double> x = double_of(entry);
  index_t n = 0;
  const char* end = entry.data() + entry.size();
  const auto parsed = std::from_chars(entry.data(), end, n);
  if (x)
    json.number(name, *x);
  else if (!entry.empty() && parsed.ec == std::errc() && parsed.ptr == end)
    json.count(name, n);
  else
    json.words(name, entry);
}

/// x >= 0 as rounded_up() prints it, without zeros at the end.
inline double number_rounded_up(double x, int decimals) {
  double rounded = x;
  const std::string text = rounded_up(x, decimals);
  std::from_chars(text.data(), text.data() + text.size(), rounded);
  return rounded;
}
}  // namespace detail

DPMP_KEPT_BODY inline std::vector<std::pair<std::string, std::string>> statement_parts(std::string_view statement) {
  std::vector<std::pair<std::string, std::string>> parts{{"Guarantee", ""}};
  const auto begin_part = [&](std::string_view from, std::string_view title, std::string_view said) {
    const std::size_t at = statement.find(from);
    if (at == std::string_view::npos) return;
    parts.back().second = statement.substr(0, at);
    parts.emplace_back(title, "");
    statement.remove_prefix(at + from.size() - said.size());
  };
  constexpr std::string_view unit = "The unit of privacy is", continued = "The run continues";
  begin_part(" " + std::string(unit), "Unit", unit);
  for (const std::string title : {"Mechanism", "Accountant", "Assumptions", "Not accounted"})
    begin_part(' ' + title + ": ", title, "");
  begin_part(" " + std::string(continued), "Continued", continued);
  for (int k = 0; k < 2; ++k) begin_part(" Unsafe: ", "Unsafe", "");
  begin_part(" Audited: ", "Audited", "");
  parts.back().second = statement;
  return parts;
}

DPMP_KEPT_BODY inline std::string report_json(const Plan& plan, index_t steps_taken, const StatementNotes& notes) {
  const PlanOptions& o = plan.options();
  const double spent = plan.epsilon_after(steps_taken);
  detail::JsonWriter json;
  json.begin("", '{');
  json.words("schema", "dpmp privacy report");
  json.count("schema_version", report_schema_version);
  json.begin("library", '{');
  json.words("name", "dpmp");
  json.words("version", DPMP_VERSION_STRING);
  json.end();

  json.begin("guarantee", '{');
  json.number("epsilon", detail::number_rounded_up(spent, 4));
  json.number("delta", o.delta);
  json.words("unit", detail::unit_name(o));
  json.words("relation", name_of(o.relation));
  json.words("sampler", name_of(o.sampling.kind));
  json.words("accountant", name_of(o.accountant));
  json.count("steps_taken", steps_taken);
  json.count("steps_planned", o.steps);
  json.number("epsilon_accounted", spent);
  json.number("epsilon_of_the_plan", detail::number_rounded_up(plan.epsilon(), 4));
  json.end();

  json.begin("plan", '{');
  for (const auto& [name, entry] : plan.text()) detail::write_entry(json, name, entry);
  json.end();

  const StepPlan first = plan.first_step();
  json.begin("first_step", '{');
  json.begin("clip_thresholds", '[');
  for (const FlatClipping& group : first.groups) json.number("", group.clip_threshold());
  json.end();
  json.number("noise_multiplier", first.noise_multiplier);
  json.number("noise_standard_deviation", first.noise_standard_deviation);
  json.end();

  json.begin("notes", '{');
  json.value("other_noise_since", notes.other_noise_since ? std::to_string(*notes.other_noise_since) : "null");
  json.value("counts_left_out", notes.counts_left_out ? "true" : "false");
  json.value("times_told", notes.times_told ? "true" : "false");
  json.end();

  json.begin("statement", '[');
  for (const auto& [title, text] : statement_parts(privacy_statement(plan, steps_taken, notes))) {
    json.begin("", '{');
    json.words("title", title);
    json.words("text", text);
    json.end();
  }
  json.end();
  json.end();
  return std::move(json).text();
}
}  // namespace dpmp::inline DPMP_ABI::dp
#endif
