// SPDX-License-Identifier: Apache-2.0
// A run as one page to read, print and pass on: what it guarantees, in words, numbers and plots, and what its log says. One
// file of HTML with its plots inside, without scripts and without anything that is loaded from elsewhere. Public facts only.
#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "dpmp/dp/statement.hpp"
#include "dpmp/train/log.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// The names of Progress::more that a report knows: memory in use at most so far, in bytes, and records a second. All others
/// are plotted as they are, but those that begin with unsafe_prefix.
inline constexpr const char* peak_bytes_name = "peak_bytes";
inline constexpr const char* records_per_second_name = "records_per_second";

struct ReportOptions {
  std::string title = "Training run";
  /// Rows about the run, name and value, in the user's words; public.
  std::vector<std::pair<std::string, std::string>> about = {};
  /// Plots records_per_second of a private run, too, and makes the statement say so: how long private steps take tells how
  /// many records they drew (docs/pitfalls.md).
  bool times_of_private_steps = false;
  /// Plots what begins with unsafe_prefix, numbers about private records without noise. For public data; the run must have
  /// had TrainerOptions::unsafe_debug, which its statement says.
  bool unsafe_debug = false;
};

/// The page: an HTML document that is well-formed XML, too. history: the Progress of the run in the order of its steps, for
/// instance of read_log(); may be empty. Whatever the user supplies is escaped. The page has report_json() of a private run
/// in a script element of type application/json with the id dpmp-report. Throws as Plan::epsilon_after does, and where
/// `history` has numbers about private records, or they are asked for, and the statement of the run does not say so.
std::string report_html(const Trainer& trainer, std::span<const Progress> history, const ReportOptions& options = {});
/// The same without a trainer, after so many steps of a plan.
std::string report_html(const dp::Plan& plan, index_t steps_taken, const dp::StatementNotes& notes,
                        std::span<const Progress> history, const ReportOptions& options = {});

/// Throws where write_report() would: on other extensions than .html, .htm and .json, on .json without privacy, and where no
/// file can be made. To call before a long run.
void check_report_path(const std::filesystem::path& path, const Trainer& trainer);
/// report_html(), or report_json() of a private run where the path ends with .json, as a file that is there complete or not
/// at all (AtomicFile). Throws what these and check_report_path() do, and where the disk is full.
void write_report(const std::filesystem::path& path, const Trainer& trainer, std::span<const Progress> history,
                  const ReportOptions& options = {});
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
#include <algorithm>
#include <cmath>

#include "dpmp/dp/guarantee_curves.hpp"
#include "dpmp/dp/report_json.hpp"
#include "dpmp/runtime/atomic_file.hpp"
#include "dpmp/train/report_plot.hpp"
#include "dpmp/train/report_style.hpp"
#include "dpmp/train/report_tables.hpp"
#include "dpmp/train/trainer.hpp"

namespace dpmp::inline DPMP_ABI::train {
namespace detail {
/// A part of a statement: a sentence, whose numbers such as 1e-05 stay on one line.
inline std::string paragraph(std::string text) {
  if (!text.empty() && text[0] >= 'a' && text[0] <= 'z') text[0] = char(text[0] - 'a' + 'A');
  constexpr const char* of_numbers = "0123456789.e+-";
  std::string out;
  for (std::size_t begin = 0; begin < text.size();) {
    const bool digit = text[begin] >= '0' && text[begin] <= '9';
    const std::size_t end =
        std::min(digit ? text.find_first_not_of(of_numbers, begin) : text.find_first_of("0123456789", begin), text.size());
    const std::string piece = html_text(text.substr(begin, end - begin));
    out += digit && piece.find('-') != std::string::npos ? "<span>" + piece + "</span>" : piece;
    begin = end;
  }
  return out;
}

/// What a page is made of. plan: none for a run without privacy.
struct ReportedRun {
  const dp::Plan* plan;
  index_t steps;
  dp::StatementNotes notes;
  std::span<const Progress> history;
  const ReportOptions& options;
};
using Curve = std::vector<std::pair<double, double>>;

/// At most `most` of them, evenly, the first and the last included.
inline Curve some_of(const Curve& all, std::size_t most) {
  if (all.size() <= most) return all;
  Curve some;
  for (std::size_t k = 0; k < most; ++k) some.push_back(all[k * (all.size() - 1) / (most - 1)]);
  return some;
}

/// A plot with its caption and its numbers; `shown`: how a y is written.
inline std::string figure(const Plot& plot, const std::string& remark, const Curve& numbers,
                          std::string (*shown)(double) = number_of_six_digits) {
  std::string out = "<figure><figcaption>" + html_text(plot.title) + "</figcaption><p>" + html_text(remark) + "</p>" +
                    svg_of(plot) + "<details><summary>Numbers</summary><div><table><thead><tr><th>" +
                    html_text(plot.x.label) + "</th><th>" + html_text(plot.y.label) + "</th></tr></thead><tbody>";
  for (const auto& [x, y] : some_of(numbers, 64))
    out += "<tr><td class=\"number\">" + number_of_six_digits(x) + "</td><td class=\"number\">" + shown(y) + "</td></tr>";
  return out + "</tbody></table></div></details></figure>\n";
}

inline std::string up_to_six_digits(double x) { return dp::digits_up(x, 6); }

inline std::string guarantee_plots(const ReportedRun& run) {
  const dp::Plan& plan = *run.plan;
  const dp::GuaranteeCurves curves = dp::guarantee_curves(plan, run.steps);
  const double taken = double(run.steps), epsilon = plan.epsilon_after(run.steps), delta = plan.options().delta;
  Curve so_far, to_come;
  for (const auto& point : curves.epsilon_by_steps) {
    if (point.first <= taken) so_far.push_back(point);
    if (point.first >= taken) to_come.push_back(point);
  }
  std::string out = "<div class=\"plots\">\n";
  out += figure(
      {.title = "Epsilon against steps",
       .x = {.label = "steps", .from_zero = true, .low = 0, .high = curves.epsilon_by_steps.back().first},
       .y = {.label = "epsilon", .from_zero = true},
       .lines = {{"line-2", to_come}, {"line-1", so_far}},
       .marks = {{taken, epsilon, dp::rounded_up(epsilon, 4)}}},
      "At delta = " + dp::digits_up(delta, 6) + (run.steps < plan.steps() ? "; dotted: the planned steps to come" : ""),
      curves.epsilon_by_steps, up_to_six_digits);
  if (run.steps > 0) {
    out += figure({.title = "Delta against epsilon",
                   .x = {.label = "epsilon", .from_zero = true},
                   .y = {.label = "delta", .logarithmic = true},
                   .lines = {{"line-1", curves.delta_by_epsilon}},
                   .marks = {{epsilon, delta, "(" + dp::rounded_up(epsilon, 4) + ", " + dp::digits_up(delta, 6) + ")"}}},
                  "After the steps taken; every point of the line holds", curves.delta_by_epsilon, up_to_six_digits);
    Curve numbers;
    for (const double rate : {0.0001, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5})
      numbers.emplace_back(rate, dp::true_positive_bound(curves.delta_by_epsilon, rate));
    out += figure({.title = "Trade-off of a membership test",
                   .x = {.label = "false positive rate", .low = 0, .high = 1},
                   .y = {.label = "true positive rate, at most", .low = 0, .high = 1},
                   .lines = {{"diagonal", {{0, 0}, {1, 1}}}, {"line-1", curves.trade_off}}},
                  "No test of whether a record was there does better; diagonal: guessing", numbers, up_to_six_digits);
  }
  return out + "</div>\n";
}

inline std::string run_plots(const ReportedRun& run) {
  const bool is_private = run.plan != nullptr;
  std::string out;
  const auto add = [&](const std::string& title, const std::string& unit, const std::string& remark, bool from_zero,
                       auto&& value) {
    Curve points;
    for (const Progress& p : run.history)
      if (const std::optional<double> y = value(p); y && std::isfinite(*y)) points.emplace_back(double(p.step), *y);
    if (points.empty()) return;
    out += figure({.title = title,
                   .x = {.label = "steps", .low = 0, .high = points.back().first},
                   .y = {.label = unit, .from_zero = from_zero},
                   .lines = {{"line-1", some_of(points, 1500)}},
                   .marks = {{points.back().first, points.back().second, number_of_digits(points.back().second, 4)}}},
                  remark, points);
  };
  add("Held-out loss", "mean loss", "Of records that are public or held out", false,
      [](const Progress& p) { return p.held_out_loss; });
  std::vector<std::string> names;
  for (const Progress& p : run.history)
    for (const auto& [name, unused] : p.more)
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  for (const std::string& name : names) {
    const auto of_that_name = [&](const Progress& p) -> std::optional<double> {
      for (const auto& [other, value] : p.more)
        if (other == name) return value;
      return std::nullopt;
    };
    if (name == peak_bytes_name)
      add("Memory", "MB (10^6 bytes)", "In use at most so far, in the run's context", true, [&](const Progress& p) {
        const std::optional<double> bytes = of_that_name(p);
        return bytes ? std::optional(*bytes / 1e6) : bytes;
      });
    else if (name == records_per_second_name) {
      if (!is_private || run.options.times_of_private_steps)
        add("Throughput", "records a second", is_private ? "Unsafe: of private steps" : "Since the run was started", true,
            of_that_name);
    } else if (!name.starts_with(unsafe_prefix)) {
      add(name, name, "As the run logged it", false, of_that_name);
    } else if (run.options.unsafe_debug) {
      add(name, name, "Unsafe: of private records, without noise", true, of_that_name);
    }
  }
  return out;
}

inline void check_report(const ReportedRun& run) {
  if (!run.plan) return;
  bool any = run.options.unsafe_debug;
  for (const Progress& p : run.history)
    for (const auto& [name, unused] : p.more) any = any || name.starts_with(unsafe_prefix);
  DPMP_CHECK(!any || run.notes.counts_left_out,
             "expected a run with TrainerOptions::unsafe_debug, whose statement says so, for a report with numbers about "
             "private records, got one without");
}

/// The page up to its heading.
inline std::string page_start(const std::string& user_title, const std::string& kind) {
  const std::string title = html_text(user_title);
  return "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\"><head><meta charset=\"utf-8\"/>\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
         "<meta name=\"color-scheme\" content=\"light dark\"/>\n"
         "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
         "'unsafe-inline'\"/>\n<title>" +
         title + "</title>\n<style>" + report_style + "</style></head>\n<body><main>\n<header><p class=\"kind\">" + kind +
         "</p><h1 class=\"user\">" + title + "</h1></header>\n";
}

inline std::string report_page(ReportedRun run) {
  run.notes.times_told = run.notes.times_told || (run.plan && run.options.times_of_private_steps);
  check_report(run);
  std::string out =
      page_start(run.options.title, run.plan ? "Differential privacy report" : "Report of a run without privacy");
  if (run.plan) {
    out += fact_cards(*run.plan, run.steps) + meaning_in_words(*run.plan, run.steps);
    if (run.notes.counts_left_out || run.notes.times_told)
      out +=
          "<p class=\"warning\">Unsafe: this run, or this report of it, tells more than its statement covers. See "
          "<b>Unsafe</b> below.</p>\n";
    out += "<h2>What it guarantees</h2>\n<dl class=\"card words\">";
    for (const auto& [name, text] : dp::statement_parts(dp::privacy_statement(*run.plan, run.steps, run.notes))) {
      const std::string style = name == "Unsafe" ? " class=\"unsafe\"" : "";
      out += "<dt" + style + '>' + html_text(name) + "</dt><dd" + style + '>' + paragraph(text) + "</dd>\n";
    }
    out += "</dl>\n<h2>The guarantee in plots</h2>\n" + guarantee_plots(run);
  } else {
    out +=
        "<p class=\"warning\">Trained without privacy: nothing is guaranteed to those whose records it learned from.</p>\n";
  }
  if (const std::string plots = run_plots(run); !plots.empty())
    out += "<h2>The run</h2>\n<div class=\"plots\">\n" + plots + "</div>\n";
  if (run.plan) out += "<h2>The plan</h2>\n" + plan_table(*run.plan);
  out += "<h2>What was run</h2>\n" + about_table(run.options.about);
  out += "<footer>Numbers that bound what is lost are rounded up, noise is rounded down.</footer>\n</main>\n";
  if (run.plan)
    out += "<script type=\"application/json\" id=\"dpmp-report\">\n" + dp::report_json(*run.plan, run.steps, run.notes) +
           "</script>\n";
  return out + "</body></html>\n";
}
}  // namespace detail

DPMP_KEPT_BODY inline std::string report_html(const Trainer& trainer, std::span<const Progress> history,
                                              const ReportOptions& options) {
  const bool is_private = trainer.is_private();
  return detail::report_page({is_private ? &trainer.plan() : nullptr, trainer.steps(),
                              is_private ? trainer.notes() : dp::StatementNotes(), history, options});
}

DPMP_KEPT_BODY inline std::string report_html(const dp::Plan& plan, index_t steps_taken, const dp::StatementNotes& notes,
                                              std::span<const Progress> history, const ReportOptions& options) {
  return detail::report_page({&plan, steps_taken, notes, history, options});
}

DPMP_KEPT_BODY inline void check_report_path(const std::filesystem::path& path, const Trainer& trainer) {
  const std::string extension = path.extension().string();
  DPMP_CHECK(extension == ".json" || extension == ".html" || extension == ".htm",
             "expected a report that ends with .html, .htm or .json, got '", path.string(), "'");
  DPMP_CHECK(extension != ".json" || trainer.is_private(), "expected a report of a private run for '", path.string(),
             "', got a run without privacy, which guarantees nothing: give it .html");
  AtomicFile never_written(path);
}

DPMP_KEPT_BODY inline void write_report(const std::filesystem::path& path, const Trainer& trainer,
                                        std::span<const Progress> history, const ReportOptions& options) {
  check_report_path(path, trainer);
  const std::string text = path.extension() == ".json" ? dp::report_json(trainer.plan(), trainer.steps(), trainer.notes())
                                                       : report_html(trainer, history, options);
  AtomicFile file(path);
  file.write(text.data(), text.size());
  file.commit();
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
