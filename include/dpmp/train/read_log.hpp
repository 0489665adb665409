// SPDX-License-Identifier: Apache-2.0
// The log of a run, read back: what Log wrote, number by number.
#pragma once
#include "dpmp/train/log.hpp"

namespace dpmp::inline DPMP_ABI::train {
/// What a Log of either format has, in the order of the steps. Where a run was continued from an earlier checkpoint, the
/// lines of the later continuation count. A last line without its end is what a crash left, and is dropped. Progress::steps
/// is not in a log: 0. Throws where the file cannot be read, and, naming the line, where it is no log.
std::vector<Progress> read_log(const std::string& path);
}  // namespace dpmp::inline DPMP_ABI::train

#if DPMP_BODIES
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::train {
namespace detail {
using NamedTexts = std::vector<std::pair<std::string, std::string>>;

/// The number that Log wrote; nothing for "" and null, which say that there is none.
inline std::optional<double> logged_number(const std::string& text, bool& ok) {
  if (text.empty() || text == "null") return std::nullopt;
  if (text == "nan") return double(NAN);  // from_chars reads inf and -inf
  double x = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), x);
  if (error != std::errc() || end != text.data() + text.size()) ok = false;
  return x;
}
inline std::vector<std::string> cut_at(std::string_view line, char at) {
  std::vector<std::string> parts{""};
  for (const char c : line) c == at ? void(parts.emplace_back()) : parts.back().push_back(c);
  return parts;
}
/// {"step":1,"epsilon":0.5,"delta":null,"bits/byte":"inf"}, as Log writes it: no spaces, no nesting, no escapes.
inline bool split_object(std::string_view line, NamedTexts& fields) {
  if (line.size() < 2 || line.front() != '{' || line.back() != '}') return false;
  for (const std::string& part : cut_at(line.substr(1, line.size() - 2), ',')) {
    const std::size_t colon = part.find("\":");
    if (part.empty() || part.front() != '"' || colon == std::string::npos || colon == 0) return false;
    std::string value = part.substr(colon + 2);
    if (value.size() >= 2 && value.front() == '"' && value.back() == '"') value = value.substr(1, value.size() - 2);
    fields.emplace_back(part.substr(1, colon - 1), value);
  }
  return true;
}
/// Whether the fields are those of one line of a log; `progress` is then what it says.
inline bool progress_of_fields(const NamedTexts& fields, Progress& progress) {
  const std::pair<const char*, std::optional<double> Progress::*> facts[] = {
      {"epsilon", &Progress::epsilon},
      {"delta", &Progress::delta},
      {"noise_multiplier", &Progress::noise_multiplier},
      {"learning_rate", &Progress::learning_rate},
      {"held_out_loss", &Progress::held_out_loss}};
  constexpr std::size_t own = 1 + std::size(facts);
  if (fields.size() < own || fields[0].first != "step") return false;
  const std::string& step = fields[0].second;
  const auto [end, error] = std::from_chars(step.data(), step.data() + step.size(), progress.step);
  bool ok = error == std::errc() && end == step.data() + step.size() && progress.step >= 0;
  for (std::size_t k = 1; k < fields.size(); ++k) {
    const std::optional<double> value = logged_number(fields[k].second, ok);
    if (k >= own) {
      progress.more.emplace_back(fields[k].first, value.value_or(NAN));
      continue;
    }
    ok = ok && fields[k].first == facts[k - 1].first;
    progress.*facts[k - 1].second = value;
  }
  return ok;
}
}  // namespace detail

DPMP_KEPT_BODY inline std::vector<Progress> read_log(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  DPMP_CHECK(file && !std::filesystem::is_directory(path), "expected a log that can be read, got '", path, "'");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::vector<Progress> lines;
  std::vector<std::string> header;
  index_t number = 0;
  for (std::size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const std::string line = text.substr(begin, end - begin);
    if (++number == 1 && line.starts_with("step,")) {
      header = detail::cut_at(line, ',');
      continue;
    }
    detail::NamedTexts fields;
    bool ok = true;
    if (header.empty()) {
      ok = detail::split_object(line, fields);
    } else {
      const std::vector<std::string> values = detail::cut_at(line, ',');
      ok = values.size() == header.size();
      for (std::size_t k = 0; ok && k < values.size(); ++k) fields.emplace_back(header[k], values[k]);
    }
    Progress progress;
    ok = ok && detail::progress_of_fields(fields, progress);
    DPMP_CHECK(ok, "log '", path, "', line ", number, ": expected a line of train::Log, got '", line.substr(0, 200), "'");
    while (!lines.empty() && lines.back().step >= progress.step) lines.pop_back();
    lines.push_back(std::move(progress));
  }
  return lines;
}
}  // namespace dpmp::inline DPMP_ABI::train
#endif
