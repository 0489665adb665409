// SPDX-License-Identifier: Apache-2.0
// What tokenizers ask about characters, from whichever library knows it (tokenizer_icu.hpp), and UTF-8 that is known to be
// well-formed.
#pragma once
#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "dpmp/core/config.hpp"

namespace dpmp::inline DPMP_ABI::interop::detail {
/// Facts about one character, as bits. The first four and `is_cased` are of the library's version of Unicode. The others are
/// what BERT's normaliser looks at, of Unicode 8.0 (categories) and 9.0 (decomposition): the package `tokenizers` has tables
/// of these versions, so characters that are newer have no bit there.
enum CharacterFact : std::uint16_t {
  is_letter = 1,        // general category L
  is_number = 2,        // general category N
  is_white = 4,         // White_Space
  is_word = 8,          // what a regular expression calls \w (UTS 18, annex C)
  is_punctuation = 16,  // general category P
  is_mark = 32,         // general category Mn
  is_other = 64,        // general categories Cc, Cf and Co
  is_decomposed = 128,  // by canonical decomposition
  is_combining = 256,   // canonical combining class not 0
  is_cased = 512,       // its lower case is another text
};

/// Where facts come from. All functions take any character from 0 to 0x10ffff.
struct UnicodeSource {
  static constexpr int longest = 4;  // characters that one may become
  std::uint16_t (*facts)(char32_t);
  int (*combining_class)(char32_t);
  int (*decomposition)(char32_t, char32_t* to);  // the full canonical one; returns how many characters
  int (*lower_case)(char32_t, char32_t* to);     // the same, without regard to neighbours or language
};

/// The facts of all characters, 256 at a time when one of them is first asked for. Any number of threads may ask.
class Characters {
 public:
  explicit Characters(const UnicodeSource& source) : source_(source), blocks_(new std::atomic<const Block*>[blocks]()) {}
  ~Characters() {
    for (std::size_t k = 0; k < blocks; ++k) delete blocks_[k].load(std::memory_order_relaxed);
  }
  Characters(const Characters&) = delete;
  Characters& operator=(const Characters&) = delete;

  const UnicodeSource& source() const { return source_; }
  std::uint16_t facts(char32_t c) const {
    const Block* block = blocks_[c >> 8].load(std::memory_order_acquire);
    return (*(block ? block : filled(c >> 8)))[c & 255];
  }
  bool is(char32_t c, CharacterFact fact) const { return (facts(c) & fact) != 0; }

 private:
  using Block = std::array<std::uint16_t, 256>;
  static constexpr std::size_t blocks = 0x1100;
  const Block* filled(std::size_t number) const;

  UnicodeSource source_;
  std::unique_ptr<std::atomic<const Block*>[]> blocks_;
};

/// The character at `at`, which is moved behind it. The text is well-formed.
inline char32_t next_character(const char*& at) {
  const auto byte = [&] { return char32_t(static_cast<unsigned char>(*at++)); };
  const char32_t first = byte();
  if (first < 0x80) return first;
  char32_t c = first < 0xe0 ? first & 0x1f : first < 0xf0 ? first & 0x0f : first & 0x07;
  for (int more = first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3; more > 0; --more) c = c << 6 | (byte() & 0x3f);
  return c;
}
/// The character that ends before `end`, which is moved to its first byte. The text is well-formed.
inline char32_t character_before(const char*& end) {
  do --end;
  while ((static_cast<unsigned char>(*end) & 0xc0) == 0x80);
  const char* at = end;
  return next_character(at);
}
/// Appends a character that is no surrogate.
inline void append_character(std::string& to, char32_t c) {
  if (c < 0x80) {
    to += char(c);
    return;
  }
  if (c < 0x800) {
    to += char(0xc0 | c >> 6);
  } else {
    if (c < 0x10000) {
      to += char(0xe0 | c >> 12);
    } else {
      to += char(0xf0 | c >> 18);
      to += char(0x80 | (c >> 12 & 0x3f));
    }
    to += char(0x80 | (c >> 6 & 0x3f));
  }
  to += char(0x80 | (c & 0x3f));
}

/// `text` with U+FFFD in the place of what is no UTF-8: one for each longest beginning of a character (Unicode 15, section
/// 3.9, "substitution of maximal subparts").
std::string with_replacements(std::string_view text);
}  // namespace dpmp::inline DPMP_ABI::interop::detail

#if DPMP_BODIES
#include "dpmp/core/escaped_text.hpp"

namespace dpmp::inline DPMP_ABI::interop::detail {
DPMP_KEPT_BODY inline const Characters::Block* Characters::filled(std::size_t number) const {
  auto made = std::make_unique<Block>();
  for (std::size_t k = 0; k < 256; ++k) (*made)[k] = source_.facts(char32_t(number << 8 | k));
  const Block* there = nullptr;
  return blocks_[number].compare_exchange_strong(there, made.get(), std::memory_order_acq_rel) ? made.release() : there;
}

DPMP_KEPT_BODY inline std::string with_replacements(std::string_view text) {
  std::string out;
  while (true) {
    const std::size_t good = utf8_prefix(text);
    out += text.substr(0, good);
    text.remove_prefix(good);
    if (text.empty()) return out;
    out += "\xef\xbf\xbd";
    // As long as what was read could be completed to a character, it is one fault.
    std::size_t bad = 1;
    for (; bad < text.size() && bad < 3; ++bad) {
      bool completes = false;
      for (const char* rest : {"\x80", "\x80\x80", "\xbf", "\xbf\xbf"}) {
        const std::string whole = std::string(text.substr(0, bad + 1)) + rest;
        completes = completes || utf8_prefix(whole) == whole.size();
      }
      if (!completes) break;
    }
    text.remove_prefix(bad);
  }
}
}  // namespace dpmp::inline DPMP_ABI::interop::detail
#endif
