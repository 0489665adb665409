// SPDX-License-Identifier: Apache-2.0
// Text and numbers for JSON and HTML: whatever a user supplied stays text, and a number is the same in every locale.
#pragma once
#include <string>
#include <string_view>

#include "dpmp/core/config.hpp"

namespace dpmp::inline DPMP_ABI {
/// Number of leading bytes of `text` that are well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates, at most
/// U+10FFFF).
std::size_t utf8_prefix(std::string_view text);

/// The shortest decimal that reads as the same double, with a point whatever the locale; "inf", "-inf" and "nan".
std::string number_text(double x);

/// A JSON string, quotes included (RFC 8259). Control characters and < > & are written as escapes, so that it may stand
/// in an HTML page; bytes that are no UTF-8 become U+FFFD.
std::string json_text(std::string_view text);
/// A JSON number; a string ("inf", "-inf", "nan") where it is not finite, as JSON has no such numbers. A zero with a sign is
/// -0.0, as parsers read -0 as an integer.
std::string json_number(double x);

/// `text` for an HTML or XML document, between tags or in an attribute in double or single quotes. Characters that XML 1.0
/// does not have, and bytes that are no UTF-8, become U+FFFD.
std::string html_text(std::string_view text);
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
#include <charconv>
#include <cmath>

namespace dpmp::inline DPMP_ABI {
namespace detail {
/// Calls character(piece) for each well-formed character, a view of its bytes, and for each byte that belongs to none with
/// an empty view.
template <class F>
void for_each_character(std::string_view text, F&& character) {
  while (!text.empty()) {
    std::size_t length = 1;
    while (length < text.size() && (static_cast<unsigned char>(text[length]) & 0xc0u) == 0x80) ++length;
    // A stray continuation byte behind a whole character is not part of it.
    std::size_t whole = utf8_prefix(text.substr(0, length));
    if (static_cast<unsigned char>(text[0]) < 0x80) whole = 1;
    character(text.substr(0, whole));
    text.remove_prefix(whole == 0 ? 1 : whole);
  }
}
}  // namespace detail

DPMP_KEPT_BODY inline std::size_t utf8_prefix(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const auto byte = [&](std::size_t k) { return at + k < text.size() ? static_cast<unsigned char>(text[at + k]) : 0u; };
    const unsigned first = byte(0);
    const std::size_t length = first < 0x80                    ? 1
                               : first >= 0xc2 && first < 0xe0 ? 2
                               : first >= 0xe0 && first < 0xf0 ? 3
                               : first >= 0xf0 && first < 0xf5 ? 4
                                                               : 0;
    if (length == 0) return at;
    for (std::size_t k = 1; k < length; ++k)
      if ((byte(k) & 0xc0u) != 0x80) return at;
    if ((first == 0xe0 && byte(1) < 0xa0) || (first == 0xed && byte(1) >= 0xa0) || (first == 0xf0 && byte(1) < 0x90) ||
        (first == 0xf4 && byte(1) >= 0x90))
      return at;
    at += length;
  }
  return at;
}

DPMP_KEPT_BODY inline std::string number_text(double x) {
  if (std::isnan(x)) return "nan";  // of which to_chars may say the sign
  char text[32];
  return std::string(text, std::to_chars(text, text + sizeof text, x).ptr);
}

DPMP_KEPT_BODY inline std::string json_text(std::string_view text) {
  std::string out = "\"";
  detail::for_each_character(text, [&](std::string_view c) {
    if (c.empty()) {
      out += "\xef\xbf\xbd";
    } else if (c[0] == '"' || c[0] == '\\') {
      out += '\\';
      out += c;
    } else if (c[0] == '<' || c[0] == '>' || c[0] == '&' || (c[0] >= 0 && c[0] < ' ') || c[0] == 0x7f) {
      const auto byte = static_cast<unsigned char>(c[0]);
      out += "\\u00";
      out += "0123456789abcdef"[byte >> 4];
      out += "0123456789abcdef"[byte & 15];
    } else {
      out += c;
    }
  });
  return out + '"';
}

DPMP_KEPT_BODY inline std::string json_number(double x) {
  const std::string text = number_text(x);
  if (!std::isfinite(x)) return '"' + text + '"';
  return text == "-0" ? "-0.0" : text;
}

DPMP_KEPT_BODY inline std::string html_text(std::string_view text) {
  std::string out;
  detail::for_each_character(text, [&](std::string_view c) {
    const bool control = c.size() == 1 && ((c[0] >= 0 && c[0] < ' ' && c[0] != '\t' && c[0] != '\n') || c[0] == 0x7f);
    if (c.empty() || control || c == "\xef\xbf\xbe" || c == "\xef\xbf\xbf")
      out += "\xef\xbf\xbd";
    else if (c[0] == '&')
      out += "&amp;";
    else if (c[0] == '<')
      out += "&lt;";
    else if (c[0] == '>')
      out += "&gt;";
    else if (c[0] == '"')
      out += "&quot;";
    else if (c[0] == '\'')
      out += "&#39;";
    else
      out += c;
  });
  return out;
}
}  // namespace dpmp::inline DPMP_ABI
#endif
