// SPDX-License-Identifier: Apache-2.0
// What BERT does to a text before it is cut into words (Devlin et al. 2019; github.com/google-research/bert,
// tokenization.py, BasicTokenizer).
#pragma once
#include <string>
#include <string_view>

#include "dpmp/interop/tokenizer_unicode.hpp"

namespace dpmp::inline DPMP_ABI::interop::detail {
/// What is done to a text, in this order.
struct BertNormalizer {
  bool clean_text = true;            // control characters, U+0000 and U+FFFD go, white space becomes a space
  bool handle_chinese_chars = true;  // spaces around ideographs
  bool strip_accents = true;         // canonical decomposition, then non-spacing marks go
  bool lowercase = true;

  std::string normalize(std::string_view text, const Characters& characters) const;
};
}  // namespace dpmp::inline DPMP_ABI::interop::detail

#if DPMP_BODIES
#include <algorithm>
#include <utility>
#include <vector>

namespace dpmp::inline DPMP_ABI::interop::detail {
/// Blocks of ideographs, as BERT lists them.
inline bool is_ideograph(char32_t c) {
  return c >= 0x3400 && ((c >= 0x4e00 && c <= 0x9fff) || c <= 0x4dbf || (c >= 0xf900 && c <= 0xfaff) ||
                         (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b73f) ||
                         (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) || (c >= 0x2f800 && c <= 0x2fa1f));
}

DPMP_KEPT_BODY inline std::string BertNormalizer::normalize(std::string_view text, const Characters& characters) const {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  const UnicodeSource& source = characters.source();
  const auto put = [&](char32_t c) {
    if (!lowercase || !characters.is(c, is_cased)) return append_character(out, c);
    char32_t lower[UnicodeSource::longest];
    const int count = source.lower_case(c, lower);
    for (int k = 0; k < count; ++k) append_character(out, lower[k]);
  };
  // Combining characters wait for the next that is none: canonical order is that of their classes.
  std::vector<std::pair<int, char32_t>> waiting;
  const auto flush = [&] {
    if (waiting.empty()) return;
    std::stable_sort(waiting.begin(), waiting.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& [order, c] : waiting) put(c);
    waiting.clear();
  };
  const auto part = [&](char32_t c) {  // of what was decomposed
    const unsigned facts = characters.facts(c);
    if (facts & is_mark) {
      if (!(facts & is_combining)) flush();
    } else if (facts & is_combining) {
      waiting.emplace_back(source.combining_class(c), c);
    } else {
      flush();
      put(c);
    }
  };
  const auto whole = [&](char32_t c) {
    if (!strip_accents) return put(c);
    if (!characters.is(c, is_decomposed)) return part(c);
    char32_t parts[UnicodeSource::longest];
    const int count = source.decomposition(c, parts);
    for (int k = 0; k < count; ++k) part(parts[k]);
  };
  for (const char *at = text.data(), *const end = at + text.size(); at < end;) {
    const char32_t c = next_character(at);
    if (c >= ' ' && c < 0x7f) {  // most of most texts: as whole(c) does it
      flush();
      out += lowercase && c >= 'A' && c <= 'Z' ? char(c + ('a' - 'A')) : char(c);
      continue;
    }
    if (clean_text) {
      const bool line = c == '\t' || c == '\n' || c == '\r';
      const unsigned facts = characters.facts(c);
      if (c == 0xfffd || ((facts & is_other) && !line)) continue;
      if (facts & is_white) {
        whole(' ');
        continue;
      }
    }
    const bool spaced = handle_chinese_chars && is_ideograph(c);
    if (spaced) whole(' ');
    whole(c);
    if (spaced) whole(' ');
  }
  flush();
  return out;
}
}  // namespace dpmp::inline DPMP_ABI::interop::detail
#endif
