// SPDX-License-Identifier: Apache-2.0
// A page with the curves of a run, of its log alone: while it goes on, or where nothing else was kept of it.
#pragma once
#include <span>
#include <string>

#include "dpmp/train/log.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// A page as report_html() makes it, with what the log says: the last numbers, and plots of epsilon, held-out loss, learning
/// rate, noise multiplier and the user's own numbers. history: of read_log(); may be empty. What the run guarantees is not
/// in a log, and the page says so. How long private steps took (records_per_second) and what begins with unsafe_prefix is
/// left out, which the page says, too: see ReportOptions. Whatever the log's names hold is escaped.
std::string log_report_html(std::span<const Progress> history, const std::string& title = "Training run");
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
#include <algorithm>
#include <cmath>
#include <vector>

#include "dpmp/train/report.hpp"

namespace dpmp::inline DPMP_ABI::train {
namespace detail {
inline std::string fact_card(const std::string& name, const std::string& value, const std::string& remark) {
  return "<div><dt>" + name + "</dt><dd>" + html_text(value) + "<small>" + remark + "</small></dd></div>\n";
}
/// Bounds of a log, which may hold anything.
inline std::string logged_bound(double x, bool upward) {
  if (!(x >= 0) || std::isinf(x)) return number_text(x);
  return upward ? dp::rounded_up(x, 4) : dp::digits_down(x, 5);
}
inline std::string logged_number_up(double x) { return x >= 0 ? dp::digits_up(x, 6) : number_text(x); }
/// A plot of one of the log's own numbers, none where no line has it.
inline std::string logged_plot(std::span<const Progress> history, std::optional<double> Progress::*fact,
                               const std::string& title, const std::string& unit, const std::string& remark,
                               bool rounded_up) {
  Curve points;
  for (const Progress& p : history)
    if (const auto y = p.*fact; y && std::isfinite(*y)) points.emplace_back(double(p.step), *y);
  if (points.empty()) return "";
  const auto [x, y] = points.back();
  return figure({.title = title,
                 .x = {.label = "steps", .low = 0, .high = x},
                 .y = {.label = unit, .from_zero = true},
                 .lines = {{"line-1", some_of(points, 1500)}},
                 .marks = {{x, y, rounded_up ? logged_bound(y, true) : number_of_digits(y, 4)}}},
                remark, points, rounded_up ? logged_number_up : number_of_six_digits);
}
}  // namespace detail

DPMP_KEPT_BODY inline std::string log_report_html(std::span<const Progress> history, const std::string& title) {
  bool is_private = false, left_out = false;
  for (const Progress& p : history) is_private = is_private || p.epsilon;
  std::vector<Progress> told(history.begin(), history.end());
  for (Progress& p : told)
    left_out |= std::erase_if(p.more, [&](const auto& number) {
                  return number.first.starts_with(unsafe_prefix) || (is_private && number.first == records_per_second_name);
                }) > 0;

  std::string out = detail::page_start(title, is_private ? "Log of a private run" : "Log of a run");
  if (told.empty()) return out + "<p class=\"meaning\">The log has no lines yet.</p>\n</main>\n</body></html>\n";
  const Progress& last = told.back();
  out += "<dl class=\"facts\">\n" + detail::fact_card("steps", std::to_string(last.step), "the last in the log");
  if (last.epsilon)
    out += detail::fact_card("epsilon", detail::logged_bound(*last.epsilon, true),
                             last.delta ? "at delta = " + detail::logged_number_up(*last.delta) : "of all steps so far");
  if (last.noise_multiplier)
    out += detail::fact_card("noise multiplier", detail::logged_bound(*last.noise_multiplier, false), "of the last step");
  const auto evaluated = std::find_if(told.rbegin(), told.rend(), [](const Progress& p) { return p.held_out_loss; });
  if (evaluated != told.rend())
    out += detail::fact_card("held-out loss", detail::number_of_digits(*evaluated->held_out_loss, 4),
                             "after " + std::to_string(evaluated->step) + " steps");
  out += "</dl>\n<p class=\"meaning\">";
  out += is_private
             ? "What the log of the run says. What it guarantees, to whom and under which assumptions, is in the "
               "report that the run itself writes, not in a log."
             : "What the log of the run says. It has no epsilon: a log like this one guarantees nothing to those whose "
               "records were learned from.";
  if (left_out) out += " Left out: numbers about private records without noise, and how long private steps took.";
  out += "</p>\n<h2>The run</h2>\n<div class=\"plots\">\n";
  out += detail::logged_plot(told, &Progress::epsilon, "Epsilon against steps", "epsilon",
                             "As accounted, of all steps so far", true);
  const ReportOptions options;
  out += detail::run_plots({nullptr, last.step, {}, told, options});
  out += detail::logged_plot(told, &Progress::learning_rate, "Learning rate", "learning rate", "Of each step", false);
  out += detail::logged_plot(told, &Progress::noise_multiplier, "Noise multiplier", "noise multiplier",
                             "Of each step, as the accountant sees it", false);
  return out +
         "</div>\n<footer>Numbers that bound what is lost are rounded up, noise is rounded down.</footer>\n</main>\n"
         "</body></html>\n";
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
