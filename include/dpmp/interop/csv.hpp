// SPDX-License-Identifier: Apache-2.0
// Tables in CSV, as RFC 4180 has them: fields in quotes may hold separators, line ends and doubled quotes.
#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dpmp/core/shape.hpp"

namespace dpmp::inline DPMP_ABI::interop {
struct CsvOptions {
  char separator = ',';
  /// Whether the first row names the columns.
  bool header = true;
};

/// Rows of equally many fields.
class CsvTable {
 public:
  /// Throws, naming the line, and the column where there is one, on what RFC 4180 does not have: rows of other lengths,
  /// quotes inside of a field without quotes, text behind a closing quote, a quote that is not closed, a CR without LF; and
  /// on NUL bytes, on text that is no UTF-8 and on a file without a row. A byte order mark at the start is dropped. What a
  /// field says is in no message: it may be private.
  static CsvTable read(const std::filesystem::path& path, const CsvOptions& options = {});

  index_t rows() const { return index_t(lines_.size()); }
  index_t columns() const { return columns_; }
  /// Empty without a header.
  const std::vector<std::string>& header() const { return header_; }
  /// The field without its quotes. Throws where there is none.
  const std::string& field(index_t row, index_t column) const;
  /// Where a row begins, from 1.
  index_t line(index_t row) const;
  /// The column of that name. Throws unless the header has it once.
  index_t column(std::string_view name) const;

 private:
  friend CsvTable parse_csv(const std::string& name, std::string_view text, const CsvOptions& options);
  std::string name_;  // of the file
  std::vector<std::string> header_, fields_;
  std::vector<index_t> lines_;
  index_t columns_ = 0;
};
/// The same of a text; `name` is what messages call it.
CsvTable parse_csv(const std::string& name, std::string_view text, const CsvOptions& options = {});

/// A table as numbers and classes.
struct LabelledRows {
  std::vector<std::string> columns;  // of `values`, by their names; empty without a header
  std::vector<double> values;        // [rows, all columns but that of the label]
  std::vector<std::int32_t> labels;  // [rows], places in `classes`
};
/// label: the number of the column that says each row's class. classes: all there are, public: taken from the data, one row
/// less could be one class less. Throws, naming line and column, on a field that is no finite decimal number, on a class
/// that is not there, and on classes that are equal.
LabelledRows labelled_rows(const CsvTable& table, index_t label, std::span<const std::string> classes);
}  // namespace dpmp::inline DPMP_ABI::interop

#if DPMP_BODIES
#include <algorithm>
#include <charconv>
#include <cmath>

#include "dpmp/core/escaped_text.hpp"
#include "dpmp/runtime/input_file.hpp"

namespace dpmp::inline DPMP_ABI::interop {
namespace detail {
/// Reads fields from left to right.
class CsvReader {
 public:
  CsvReader(const std::string& name, std::string_view text, char separator)
      : name_(name), text_(text), separator_(separator) {}
  bool at_end() const { return at_ == text_.size(); }
  index_t line() const { return line_; }
  /// The fields up to the next line end, which is read too.
  void take_row(std::vector<std::string>& fields) {
    for (column_ = 1;; ++column_) {
      fields.push_back(at_ < text_.size() && text_[at_] == '"' ? quoted() : plain());
      if (at_end()) return;
      if (text_[at_++] == separator_) continue;
      ++line_;  // plain() and quoted() stop at line ends and separators alone
      return;
    }
  }
  [[noreturn]] void refuse(const std::string& expected, const std::string& got) const {
    throw Error(dpmp::detail::concat("reading '", name_, "': expected ", expected, ", got ", got, " in line ", line_,
                                     ", column ", column_));
  }

 private:
  /// A line end after a field: LF, or CR and LF, of which the CR is passed over.
  bool at_line_end() {
    if (text_[at_] == '\r') {
      if (at_ + 1 == text_.size() || text_[at_ + 1] != '\n') refuse("lines that end with LF or CRLF", "a CR without LF");
      ++at_;
    }
    return text_[at_] == '\n';
  }
  std::string plain() {
    const std::size_t begin = at_;
    std::size_t end = begin;
    for (; at_ < text_.size() && text_[at_] != separator_; end = ++at_) {
      if (text_[at_] == '"') refuse("a field in quotes, or one without any", "a quote inside of one");
      if (at_line_end()) break;
    }
    return std::string(text_.substr(begin, end - begin));
  }
  std::string quoted() {
    std::string field;
    for (++at_;; ++at_) {
      if (at_end()) refuse("a closing quote", "the end of the file");
      const char c = text_[at_];
      if (c == '"') {
        if (at_ + 1 == text_.size() || text_[at_ + 1] != '"') break;
        ++at_;
      }
      line_ += c == '\n';
      field += c;
    }
    ++at_;
    if (!at_end() && text_[at_] != separator_ && !at_line_end())
      refuse("a separator or a line end behind a closing quote", "another character");
    return field;
  }
  const std::string& name_;
  std::string_view text_;
  char separator_;
  std::size_t at_ = 0;
  index_t line_ = 1, column_ = 1;
};
}  // namespace detail

DPMP_KEPT_BODY inline CsvTable parse_csv(const std::string& name, std::string_view text, const CsvOptions& options) {
  DPMP_CHECK(options.separator != '"' && options.separator != '\n' && options.separator != '\r',
             "expected a separator that is no quote and no line end");
  constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
  if (text.starts_with(byte_order_mark)) text.remove_prefix(byte_order_mark.size());
  const auto line_of = [&](std::size_t at) { return 1 + std::count(text.begin(), text.begin() + std::ptrdiff_t(at), '\n'); };
  if (const std::size_t valid = utf8_prefix(text); valid < text.size())
    throw Error(
        dpmp::detail::concat("reading '", name, "': expected UTF-8 text, got another byte in line ", line_of(valid)));
  if (const std::size_t nul = text.find('\0'); nul != std::string_view::npos)
    throw Error(dpmp::detail::concat("reading '", name, "': expected text, got a NUL byte in line ", line_of(nul)));
  CsvTable table;
  table.name_ = name;
  detail::CsvReader reader(name, text, options.separator);
  for (bool first = true; !reader.at_end(); first = false) {
    const index_t line = reader.line();
    const std::size_t before = table.fields_.size();
    reader.take_row(table.fields_);
    const index_t count = index_t(table.fields_.size() - before);
    if (first) table.columns_ = count;
    if (count != table.columns_)
      throw Error(dpmp::detail::concat("reading '", name, "': expected ", table.columns_, " fields in each row, got ", count,
                                       " in line ", line));
    if (first && options.header)
      table.header_.swap(table.fields_);
    else
      table.lines_.push_back(line);
  }
  DPMP_CHECK(!table.lines_.empty(), "reading '", name, "': expected at least one row",
             options.header ? " below the header" : "", ", got none");
  return table;
}

DPMP_KEPT_BODY inline CsvTable CsvTable::read(const std::filesystem::path& path, const CsvOptions& options) {
  const InputFile file(path);
  std::string text(std::size_t(file.size()), '\0');
  const index_t got = file.read(0, text.data(), file.size());
  DPMP_CHECK(got == file.size(), "reading '", path.string(), "': expected ", file.size(), " bytes, got ", got);
  return parse_csv(path.string(), text, options);
}

DPMP_KEPT_BODY inline const std::string& CsvTable::field(index_t row, index_t column) const {
  DPMP_CHECK(row >= 0 && row < rows() && column >= 0 && column < columns_, "expected a field of ", rows(), " rows and ",
             columns_, " columns of '", name_, "', got row ", row, ", column ", column);
  return fields_[std::size_t(row * columns_ + column)];
}

DPMP_KEPT_BODY inline index_t CsvTable::line(index_t row) const {
  DPMP_CHECK(row >= 0 && row < rows(), "expected a row of ", rows(), " of '", name_, "', got ", row);
  return lines_[std::size_t(row)];
}

DPMP_KEPT_BODY inline index_t CsvTable::column(std::string_view name) const {
  const auto times = std::count(header_.begin(), header_.end(), name);
  DPMP_CHECK(times == 1, "expected one column '", std::string(name), "' in the header of '", name_, "', got ", times);
  return std::find(header_.begin(), header_.end(), name) - header_.begin();
}

DPMP_KEPT_BODY inline LabelledRows labelled_rows(const CsvTable& table, index_t label,
                                                 std::span<const std::string> classes) {
  DPMP_CHECK(label >= 0 && label < table.columns(), "expected a label's column of ", table.columns(), ", got ", label);
  for (auto at = classes.begin(); at != classes.end(); ++at)
    DPMP_CHECK(std::find(classes.begin(), at, *at) == at, "expected classes that differ, got '", *at, "' twice");
  LabelledRows rows;
  for (index_t c = 0; c < index_t(table.header().size()); ++c)
    if (c != label) rows.columns.push_back(table.header()[std::size_t(c)]);
  rows.values.reserve(std::size_t(table.rows() * (table.columns() - 1)));
  rows.labels.reserve(std::size_t(table.rows()));
  for (index_t r = 0; r < table.rows(); ++r)
    for (index_t c = 0; c < table.columns(); ++c) {
      const std::string& field = table.field(r, c);
      if (c == label) {
        const auto at = std::find(classes.begin(), classes.end(), field);
        DPMP_CHECK(at != classes.end(), "expected one of the ", classes.size(), " classes in the row of line ",
                   table.line(r), ", column ", c + 1, ", got something else");
        rows.labels.push_back(std::int32_t(at - classes.begin()));
        continue;
      }
      double x = 0;
      const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), x);
      DPMP_CHECK(error == std::errc() && end == field.data() + field.size() && std::isfinite(x),
                 "expected a finite decimal number in the row of line ", table.line(r), ", column ", c + 1,
                 ", got something else");
      rows.values.push_back(x);
    }
  return rows;
}
}  // namespace dpmp::inline DPMP_ABI::interop
#endif
