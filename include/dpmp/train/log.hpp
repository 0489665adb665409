// SPDX-License-Identifier: Apache-2.0
// What may be told of a private run while it goes on: a line of progress for a terminal, and a log to plot. Public facts
// only: no times of private steps, which tell how many physical batches a draw needed, and no number of the records that
// are trained on (docs/pitfalls.md).
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dpmp/core/config.hpp"

namespace dpmp::inline DPMP_ABI::optim {
class LearningRate;
}
namespace dpmp::inline DPMP_ABI::train {
class Trainer;

/// Public facts of a run after so many steps.
struct Progress {
  index_t step = 0;
  /// Planned; 0: not known.
  index_t steps = 0;
  /// Of all steps so far; not set: without privacy.
  std::optional<double> epsilon = std::nullopt;
  std::optional<double> delta = std::nullopt;
  /// Of the last step, as the accountant sees it.
  std::optional<double> noise_multiplier = std::nullopt;
  /// Of the last step; before the first one, of that.
  std::optional<double> learning_rate = std::nullopt;
  /// Mean loss of records that are public or held out.
  std::optional<double> held_out_loss = std::nullopt;
  /// Public numbers of the user's own, by name; a log has the same names in each line (LogOptions::more).
  std::vector<std::pair<std::string, double>> more = {};
};
/// What the trainer knows of itself. rates: its TrainerOptions::learning_rate.
Progress progress_of(const Trainer& trainer, const optim::LearningRate& rates,
                     std::optional<double> held_out_loss = std::nullopt);

/// "step   10/160  held-out loss 3.210  4.632 bits/byte  epsilon 1.234  learning rate 0.004": numbers of `more` as value and
/// name, epsilon rounded up, "epsilon none" where there is none. Facts that are not set are left out.
std::string progress_text(const Progress& progress);

/// The line at the end of a terminal's output that is written over and over; where the output is no terminal, only the
/// lines that stay.
class ProgressLine {
 public:
  /// On standard output, a terminal or not.
  ProgressLine();
  /// On this file descriptor, which stays open.
  ProgressLine(int descriptor, bool terminal) : descriptor_(descriptor), terminal_(terminal) {}
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  /// Ends a line that was not kept.
  ~ProgressLine();
  bool terminal() const { return terminal_; }
  /// In place of the line that was shown before; on a terminal only.
  void show(std::string_view text);
  /// The same, and it stays.
  void keep(std::string_view text);

 private:
  void put(std::string_view text, bool stays);
  int descriptor_;
  bool terminal_;
  std::size_t shown_ = 0;  // characters of the line that is there
};

/// by_extension: .csv; .jsonl, .ndjson or .json for one JSON object a line.
enum class LogFormat : std::uint8_t { by_extension, csv, json_lines };
struct LogOptions {
  LogFormat format = LogFormat::by_extension;
  /// Names of what every Progress::more has, in this order: letters, digits and _ . / -, none twice.
  std::vector<std::string> more = {};
};

/// A file with a line for each Progress: step, epsilon, delta, noise_multiplier, learning_rate, held_out_loss and the names
/// of `more`. What is not set is empty in CSV and null in JSON. Numbers are the shortest decimal that reads as the same
/// double, with a point whatever the locale; those that are not finite are nan, inf and -inf, strings in JSON. A line is
/// written at once, so that a crash leaves whole lines, and what it left of one is dropped when the file is opened again.
class Log {
 public:
  /// Goes on with a file that is there; a CSV file gets its header once. Throws when it cannot be written to or was made by
  /// something else, and on an extension that says no format. A run that continues an earlier checkpoint writes the steps
  /// after it again: the last line of a step counts.
  explicit Log(const std::string& path, const LogOptions& options = {});
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;
  ~Log();
  /// Throws when `more` has other names than the log, and when the disk is full; then nothing of the line stays.
  void write(const Progress& progress);

 private:
  [[noreturn]] void refuse(const char* expected) const;
  /// Drops what stands after the last line end, and compares the first line.
  void take_up();
  void append(const std::string& line);
  std::string path_;
  bool csv_;
  std::vector<std::string> names_;
  std::size_t own_;  // names that are not the user's
  int file_ = -1;
};
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "dpmp/train/trainer.hpp"

namespace dpmp::inline DPMP_ABI::train {
namespace detail {
/// As std::to_chars says it, for all but NaN, of which it may say the sign.
template <class... How>
std::string number_text(double x, How... how) {
  if (std::isnan(x)) return "nan";
  char text[400];  // the longest double in fixed notation has 309 digits before the point
  return std::string(text, std::to_chars(text, text + sizeof text, x, how...).ptr);
}
inline std::string three_digits(double x) { return number_text(x, std::chars_format::fixed, 3); }
}  // namespace detail

DPMP_KEPT_BODY inline Progress progress_of(const Trainer& trainer, const optim::LearningRate& rates,
                                           std::optional<double> held_out_loss) {
  Progress p{.step = trainer.steps(), .held_out_loss = held_out_loss};
  const index_t last = std::max<index_t>(0, p.step - 1);
  p.learning_rate = rates.at(last);
  if (!trainer.is_private()) return p;
  const dp::Plan& plan = trainer.plan();
  p.steps = plan.steps();
  p.epsilon = plan.epsilon_after(p.step);
  p.delta = plan.options().delta;
  p.noise_multiplier = plan.noise_multiplier() * plan.options().noise_schedule.at(last);
  return p;
}

DPMP_KEPT_BODY inline std::string progress_text(const Progress& p) {
  std::string text = std::to_string(p.step);
  text = "step " + std::string(4 - std::min<std::size_t>(4, text.size()), ' ') + text;
  if (p.steps > 0) text += "/" + std::to_string(p.steps);
  if (p.held_out_loss) text += "  held-out loss " + detail::three_digits(*p.held_out_loss);
  for (const auto& [name, value] : p.more) text += "  " + detail::three_digits(value) + " " + name;
  text += "  epsilon " + (p.epsilon ? detail::three_digits(std::ceil(*p.epsilon * 1000) / 1000) : "none");
  if (p.learning_rate) text += "  learning rate " + detail::number_text(*p.learning_rate, std::chars_format::general, 3);
  return text;
}

DPMP_KEPT_BODY inline ProgressLine::ProgressLine() : ProgressLine(STDOUT_FILENO, ::isatty(STDOUT_FILENO) != 0) {}

DPMP_KEPT_BODY inline ProgressLine::~ProgressLine() {
  if (shown_ > 0) put("", true);
}

DPMP_KEPT_BODY inline void ProgressLine::show(std::string_view text) {
  if (terminal_) put(text, false);
}

DPMP_KEPT_BODY inline void ProgressLine::keep(std::string_view text) { put(text, true); }

DPMP_KEPT_BODY inline void ProgressLine::put(std::string_view text, bool stays) {
  // What a longer line left is written over. An empty text that stays is the one that is there.
  std::string line;
  if (terminal_ && !text.empty()) {
    line = "\r";
    line += text;
    line.append(shown_ - std::min(shown_, text.size()), ' ');
  } else {
    line = text;
  }
  if (stays) line += '\n';
  shown_ = stays ? 0 : text.size();
  std::fflush(stdout);  // what the program itself said comes first
  // A reader that went away is no reason to stop a run.
  for (std::size_t done = 0; done < line.size();) {
    const ssize_t n = ::write(descriptor_, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    done += std::size_t(n);
  }
}

DPMP_KEPT_BODY inline Log::Log(const std::string& path, const LogOptions& options)
    : path_(path),
      csv_(options.format == LogFormat::csv),
      names_{"step", "epsilon", "delta", "noise_multiplier", "learning_rate", "held_out_loss"},
      own_(names_.size()) {
  if (options.format == LogFormat::by_extension) {
    const auto ends = [&](std::string_view extension) { return std::string_view(path_).ends_with(extension); };
    csv_ = ends(".csv");
    DPMP_CHECK(csv_ || ends(".jsonl") || ends(".ndjson") || ends(".json"),
               "expected a log that ends with .csv, .jsonl, .ndjson or .json, or a LogOptions::format, got '", path_, "'");
  }
  for (const std::string& name : options.more) {
    const bool plain = !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
      return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || std::strchr("_./-", c);
    });
    DPMP_CHECK(plain && std::find(names_.begin(), names_.end(), name) == names_.end(),
               "expected new names of letters, digits and _ . / - in a log, got '", name, "'");
    names_.push_back(name);
  }
  file_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (file_ < 0) refuse("a file that can be written to");
  try {
    take_up();
  } catch (...) {
    ::close(file_);
    throw;
  }
}

DPMP_KEPT_BODY inline Log::~Log() {
  if (file_ >= 0) ::close(file_);
}

DPMP_KEPT_BODY inline void Log::refuse(const char* expected) const {
  throw Error(dpmp::detail::concat("log '", path_, "': expected ", expected, ": ", std::strerror(errno)));
}

DPMP_KEPT_BODY inline void Log::take_up() {
  std::string header;
  for (const std::string& name : names_) header += (header.empty() ? "" : ",") + name;
  header += '\n';
  const std::string first = csv_ ? header : "{\"step\":";
  std::string text;
  char part[4096];
  for (ssize_t n; (n = ::read(file_, part, sizeof part)) != 0;) {
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) refuse("a file that can be read");
    text.append(part, std::size_t(n));
  }
  const std::size_t whole = text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1;
  // A file of one cut line is a log, too, when that is how a log begins.
  const bool ours = text.starts_with(first) || first.starts_with(text);
  DPMP_CHECK(ours, "log '", path_, "': expected a log that begins with '", first.substr(0, first.find('\n')), "', got '",
             text.substr(0, std::min<std::size_t>(text.find('\n'), 200)), "'");
  if (whole < text.size() && ::ftruncate(file_, off_t(whole)) != 0) refuse("a file that can be cut");
  if (csv_ && whole == 0) append(header);
}

DPMP_KEPT_BODY inline void Log::append(const std::string& line) {
  struct stat before {};
  if (::fstat(file_, &before) != 0) refuse("a file that can be looked at");
  ssize_t n = 0;
  do {
    n = ::write(file_, line.data(), line.size());
  } while (n < 0 && errno == EINTR);
  if (n == ssize_t(line.size())) return;
  if (n >= 0) errno = ENOSPC;
  const int why = errno;
  if (n > 0 && ::ftruncate(file_, before.st_size) != 0) refuse("a file that can be cut");
  errno = why;
  refuse("room for a line");
}

DPMP_KEPT_BODY inline void Log::write(const Progress& p) {
  DPMP_CHECK(p.more.size() == names_.size() - own_, "expected ", names_.size() - own_,
             " numbers of the log's own names, got ", p.more.size());
  std::string line;
  const auto add = [&](std::size_t k, const std::string& text) {
    if (csv_)
      line += (k > 0 ? "," : "") + text;
    else
      line += (k > 0 ? ",\"" : "{\"") + names_[k] + "\":" + text;
  };
  const auto add_number = [&](std::size_t k, const std::optional<double>& value) {
    if (!value) return add(k, csv_ ? "" : "null");
    std::string text = detail::number_text(*value);
    if (text == "-0") text = "-0.0";  // an integer to parsers, which have no -0
    add(k, csv_ || std::isfinite(*value) ? text : '"' + text + '"');
  };
  add(0, std::to_string(p.step));
  const std::optional<double> facts[] = {p.epsilon, p.delta, p.noise_multiplier, p.learning_rate, p.held_out_loss};
  for (std::size_t k = 0; k < std::size(facts); ++k) add_number(1 + k, facts[k]);
  for (std::size_t k = 0; k < p.more.size(); ++k) {
    DPMP_CHECK(p.more[k].first == names_[own_ + k], "expected the number '", names_[own_ + k], "' in the log, got '",
               p.more[k].first, "'");
    add_number(own_ + k, p.more[k].second);
  }
  append(line + (csv_ ? "\n" : "}\n"));
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
