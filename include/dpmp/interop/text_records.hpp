// SPDX-License-Identifier: Apache-2.0
// A text file as records: one line, one record, one privacy unit.
#pragma once
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "dpmp/core/error.hpp"
#include "dpmp/core/escaped_text.hpp"

namespace dpmp::inline DPMP_ABI::interop {
using dpmp::utf8_prefix;

/// The non-empty lines of a UTF-8 file without their line ends (LF or CRLF; the last line may have none). A byte order mark
/// at the start of the file is no part of its first record; elsewhere it is a character as any other, as are the separators
/// that Unicode has in addition to CR and LF. Throws when the file cannot be read, has no record, a NUL byte or a CR without
/// LF (does it end a record, which is what is protected, or is it part of one?), or is not UTF-8; the message names the
/// line.
std::vector<std::string> read_text_records(const std::filesystem::path& path);
}  // namespace dpmp::inline DPMP_ABI::interop

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::interop {
DPMP_KEPT_BODY inline std::vector<std::string> read_text_records(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  DPMP_CHECK(file && !std::filesystem::is_directory(path), "expected a readable text file, one record a line, got '",
             path.string(), "'");
  std::ostringstream content;
  content << file.rdbuf();
  const std::string text = std::move(content).str();
  constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
  std::vector<std::string> records;
  std::size_t number = 0;
  for (std::size_t begin = text.starts_with(byte_order_mark) ? byte_order_mark.size() : 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line(text.data() + begin, end - begin);
    ++number;
    // A CR that only the end of the file follows is a lone one: the line end may have been cut off, or never been LF.
    if (end < text.size() && !line.empty() && line.back() == '\r') line.remove_suffix(1);
    const std::size_t valid = utf8_prefix(line);
    DPMP_CHECK(valid == line.size(), "expected UTF-8 text in '", path.string(),
               "', got an invalid or cut-off character at byte ", valid + 1, " of line ", number);
    DPMP_CHECK(line.find('\0') == std::string_view::npos, "expected text in '", path.string(), "', got a NUL byte in line ",
               number);
    DPMP_CHECK(line.find('\r') == std::string_view::npos, "expected lines that end with LF or CRLF in '", path.string(),
               "', got a CR without LF at byte ", line.find('\r') + 1, " of line ", number);
    if (!line.empty()) records.emplace_back(line);
    begin = end + 1;
  }
  DPMP_CHECK(!records.empty(), "expected at least one record (a non-empty line) in '", path.string(), "', got none");
  return records;
}
}  // namespace dpmp::inline DPMP_ABI::interop
#endif
