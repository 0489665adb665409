// SPDX-License-Identifier: Apache-2.0
// The tables of train/report.hpp: every number of a plan with what it means, what was run, and by which library.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "dpmp/dp/plan.hpp"

#if DPMP_BODIES
#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "dpmp/core/escaped_text.hpp"
#include "dpmp/dp/rounded_text.hpp"
#include "dpmp/dp/sampling_words.hpp"

namespace dpmp::inline DPMP_ABI::train::detail {
/// For what is no bound: at most so many significant digits.
inline std::string number_of_digits(double x, int digits) {
  char text[32];
  return std::string(text, std::to_chars(text, text + sizeof text, x, std::chars_format::general, digits).ptr);
}
inline std::string number_of_six_digits(double x) { return number_of_digits(x, 6); }

inline std::string table_row(const std::string& name, const std::string& value, const std::string& remark) {
  const bool number = !value.empty() && value.size() < 32 && value.find_first_not_of("0123456789.e+-") == std::string::npos;
  const std::string cell = std::string("<td class=\"") + (number ? "number" : "user") + '"';
  return "<tr><th class=\"user\">" + html_text(name) + "</th>" +
         (remark.empty() ? cell + " colspan=\"2\">" + html_text(value)
                         : cell + '>' + html_text(value) + "</td><td class=\"remark\">" + html_text(remark)) +
         "</td></tr>\n";
}
/// The rows of one table under a heading of their own.
inline std::string rows_about(const std::string& title, const std::string& rows) {
  return rows.empty() ? "" : "<tbody><tr><th class=\"group\" colspan=\"3\">" + title + "</th></tr>\n" + rows + "</tbody>\n";
}
inline std::string table(const std::string& rows) {
  return "<div class=\"card\"><table class=\"facts-table\">" + rows + "</table></div>\n";
}

/// The entries of a plan's text, each taken once: whatever a table does not know is in the last one.
class PlanEntries {
 public:
  explicit PlanEntries(dp::PlanText text) : left_(std::move(text)) {}
  /// The value as it is read, doubles in the fewest digits that are read as the same; none where there is no such entry.
  std::optional<std::string> take(const std::string& name) {
    const auto at = left_.find(name);
    if (at == left_.end()) return std::nullopt;
    const std::optional<double> x = dp::detail::double_of(at->second);
    std::string value = x ? number_text(*x) : at->second;
    left_.erase(at);
    return value;
  }
  std::string row(const std::string& name, const std::string& remark) {
    const auto value = take(name);
    return value ? table_row(name, *value, remark) : "";
  }
  /// The row of a number that is unset where it is 0.
  std::string positive_row(const std::string& name, const std::string& remark) {
    const auto value = take(name);
    return value && *value != "0" ? table_row(name, *value, remark) : "";
  }
  /// The row of a list with "<name> count" entries, none for an empty one.
  std::string list(const std::string& name, const std::string& remark) {
    const auto count = take(name + " count");
    if (!count) return "";
    std::string values;
    index_t shown = 0, n = 0;
    std::from_chars(count->data(), count->data() + count->size(), n);
    for (index_t k = 0; k < n; ++k) {
      const std::string entry = name + ' ' + std::to_string(k);
      const auto plain = take(entry), step = take(entry + " step"), value = take(entry + " value");
      if (++shown > 40) continue;
      values += (values.empty() ? "" : ", ") + (plain ? *plain : value.value_or("?") + " from step " + step.value_or("?"));
    }
    if (shown > 40) values += " and " + std::to_string(shown - 40) + " more";
    if (values == "1 from step 0") values = "none";
    return n == 0 ? "" : table_row(name, values, remark);
  }
  const dp::PlanText& left() const { return left_; }

 private:
  dp::PlanText left_;
};

inline std::string plan_table(const dp::Plan& plan) {
  const dp::PlanOptions& o = plan.options();
  PlanEntries entries(plan.text());
  std::string privacy = entries.row("relation", "between neighbouring datasets");
  if (o.epsilon > 0) privacy += entries.row("target epsilon", "what the noise was calibrated for");
  entries.take("target epsilon");
  privacy += table_row("epsilon", number_text(plan.epsilon()), "after all planned steps, as accounted");
  privacy += table_row("accountant", std::string(name_of(o.accountant)), "what epsilon is computed by");
  entries.take("accountant");
  privacy += entries.row("delta", dp::delta_remark(o));
  privacy += entries.row("steps", "planned");

  const std::string unit = dp::detail::unit_name(o);
  std::string sampling = table_row("sampling", std::string(name_of(o.sampling.kind)), "how a step draws " + unit + "s");
  entries.take("sampling");
  sampling += entries.row("sampling rate", dp::rate_remark(o));
  sampling += entries.positive_row("sampling batch size", unit + "s");
  sampling += entries.positive_row("sampling period", "steps in which each comes up once");
  sampling += entries.positive_row("sampling records per user", "in a step, at most");
  sampling += entries.row("dataset size", unit + "s; public");
  sampling += entries.row("expected batch", "public divisor of the noised sum");
  sampling += entries.row("batch bound", o.sampling.has_fixed_size() ? "records of every step, at most"
                                                                     : "records; for the rounding of sums, none is dropped");

  std::string clipping = entries.row("clip rule", "");
  const auto parameter = entries.take("clip rule parameter");
  if (parameter && *parameter != "0") clipping += table_row("parameter of the rule", *parameter, "");
  const auto threshold = entries.take("clip threshold");
  if (threshold && o.group_thresholds.empty() && !o.adaptive) clipping += table_row("clip threshold", *threshold, "C");
  clipping += entries.list("group threshold", "C of each group of parameters");
  clipping += entries.row("adaptive", "whether the threshold follows a quantile");
  for (const char* name : {"adaptive quantile", "adaptive learning rate", "adaptive count noise", "adaptive lowest",
                           "adaptive highest", "adaptive initial threshold"})
    clipping += entries.row(name, "");
  clipping += entries.row("joint clip threshold", "of all groups, in the first step");
  clipping += entries.row("rho", "what rounding adds to the sensitivity, as a share");
  clipping += entries.row("sensitivity", "Delta: what one " + unit + " changes the sum by, in the norm");
  clipping += entries.list("clip schedule", "factors of the threshold");

  std::string noise = entries.row("noise multiplier", "sigma, as the accountant sees it");
  noise +=
      table_row("noise standard deviation", number_text(plan.first_step().noise_standard_deviation),
                plan.is_constant() ? "on each coordinate of the sum" : "on each coordinate of the sum, in the first step");
  noise += entries.list("noise schedule", "factors of the multiplier");
  noise += entries.row("noise source", "how the noise of the steps hangs together");
  noise += entries.positive_row("noise source bands", "of the matrix");
  noise += entries.positive_row("noise source grid bits", "of the public grid");
  noise += entries.positive_row("noise source dimensions", "trained values, at most");
  noise += entries.row("noise scale", "sensitivity of the matrix");
  std::string scale = entries.row("overflow", "whether a loss scale follows a noisy count of overflows");
  for (const char* name : {"overflow count noise", "overflow share", "overflow growth interval", "overflow lowest scale",
                           "overflow highest scale", "overflow initial scale", "overflow alarm after"})
    scale += entries.row(name, "");

  std::string other;
  for (const auto& [name, unused] : dp::PlanText(entries.left())) other += entries.row(name, "");
  return table(rows_about("Privacy", privacy) + rows_about("Sampling", sampling) + rows_about("Clipping", clipping) +
               rows_about("Noise", noise) + rows_about("Loss scale", scale) + rows_about("Other options", other));
}

#define DPMP_TEXT_OF_(...) #__VA_ARGS__
#define DPMP_TEXT_OF(...) DPMP_TEXT_OF_(__VA_ARGS__)
inline std::string about_table(const std::vector<std::pair<std::string, std::string>>& about) {
  std::string run, library;
  for (const auto& [name, value] : about) run += table_row(name, value, "");
  library += table_row("dpmp", DPMP_VERSION_STRING, "version");
  library += table_row("build", DPMP_TEXT_OF(DPMP_ABI), "options that the library was compiled with");
#if defined(__clang__)
  library += table_row("compiler", __VERSION__, "of the library");
#else
  library += table_row("compiler", "GCC " __VERSION__, "of the library");
#endif
  return table(rows_about("Run", run) + rows_about("Library", library));
}
#undef DPMP_TEXT_OF
#undef DPMP_TEXT_OF_

/// What epsilon and delta mean.
inline std::string meaning_in_words(const dp::Plan& plan, index_t steps) {
  const std::string unit = dp::detail::unit_name(plan.options());
  const double factor = std::exp(plan.epsilon_after(steps));
  using enum dp::NeighbouringRelation;
  const dp::NeighbouringRelation relation = plan.options().relation;
  const std::string other = relation == replace_one ? " as with another in its place"
                            : relation == zero_out  ? " as with an empty one in its place"
                                                    : " as without it";
  return "<p class=\"meaning\">Any conclusion from all that was released is at most " + dp::digits_up(factor, 4) +
         " times (e to the power of epsilon) as likely with a " + unit + other +
         ", plus delta, and the other way round.</p>\n";
}

/// The numbers to see first.
inline std::string fact_cards(const dp::Plan& plan, index_t steps) {
  const dp::PlanOptions& o = plan.options();
  const auto card = [](const std::string& name, const std::string& value, const std::string& small) {
    return "<div><dt>" + html_text(name) + "</dt><dd>" + html_text(value) + "<small>" + html_text(small) +
           "</small></dd></div>\n";
  };
  const char* neighbours = o.relation == dp::NeighbouringRelation::zero_out      ? "one emptied"
                           : o.relation == dp::NeighbouringRelation::replace_one ? "one replaced"
                                                                                 : "one more";
  return "<dl class=\"facts\">\n" + card("epsilon", dp::rounded_up(plan.epsilon_after(steps), 4), "spent so far") +
         card("delta", dp::digits_up(o.delta, 6), "at that epsilon") +
         card("steps", std::to_string(steps), "of " + std::to_string(o.steps) + " planned") +
         card("unit", dp::detail::unit_name(o), "what is protected") +
         card("neighbours", neighbours, std::string(name_of(o.relation))) + "</dl>\n";
}
}  // namespace dpmp::inline DPMP_ABI::train::detail
#endif
