// SPDX-License-Identifier: Apache-2.0
// Characters by ICU (unicode-org/icu, Debian and Ubuntu: libicu-dev). Whoever calls icu_characters() links icuuc
// (CMake: find_package(ICU COMPONENTS uc), ICU::uc).
#pragma once
#include "dpmp/interop/tokenizer_unicode.hpp"

#if __has_include(<unicode/uchar.h>)
#include <unicode/uchar.h>
#include <unicode/unorm2.h>

namespace dpmp::inline DPMP_ABI::interop::detail {
namespace by_icu {
/// Whether that version of Unicode has the character.
inline bool in_unicode(int version, char32_t c) {
  UVersionInfo age;
  u_charAge(UChar32(c), age);
  return age[0] != 0 && age[0] <= version;
}
inline const UNormalizer2* nfd() {
  UErrorCode status = U_ZERO_ERROR;
  static const UNormalizer2* const instance = unorm2_getNFDInstance(&status);
  return instance;
}
inline int decomposition(char32_t c, char32_t* to) {
  UChar units[2 * UnicodeSource::longest];
  UErrorCode status = U_ZERO_ERROR;
  const int length = unorm2_getDecomposition(nfd(), UChar32(c), units, int(std::size(units)), &status);
  if (length <= 0 || U_FAILURE(status)) {
    to[0] = c;
    return 1;
  }
  int count = 0;
  for (int k = 0; k < length; ++k) {
    const char32_t unit = units[k];
    const bool second_half = unit >= 0xdc00 && unit < 0xe000;  // of a pair in UTF-16
    if (second_half)
      to[count - 1] = ((to[count - 1] - 0xd7c0) << 10) + (unit & 0x3ff);
    else
      to[count++] = unit;
  }
  return count;
}
inline int lower_case(char32_t c, char32_t* to) {
  to[0] = char32_t(u_tolower(UChar32(c)));
  if (c != 0x130) return 1;
  to[0] = 'i', to[1] = 0x307;  // SpecialCasing.txt: the one character whose lower case is two, in every language
  return 2;
}
inline std::uint16_t facts(char32_t c) {
  const UChar32 u = UChar32(c);
  const std::uint32_t category = U_GET_GC_MASK(u);
  unsigned found = 0;
  if (category & U_GC_L_MASK) found |= is_letter;
  if (category & U_GC_N_MASK) found |= is_number;
  if (u_isUWhiteSpace(u)) found |= is_white;
  if ((category & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) || u_isUAlphabetic(u) ||
      u_hasBinaryProperty(u, UCHAR_JOIN_CONTROL))
    found |= is_word;
  char32_t lower[UnicodeSource::longest];
  if (lower_case(c, lower) != 1 || lower[0] != c) found |= is_cased;
  if (category & U_GC_CO_MASK) return std::uint16_t(found | is_other);
  if (in_unicode(9, c)) {
    if (u_getCombiningClass(u) != 0) found |= is_combining;
    char32_t parts[UnicodeSource::longest];
    if (decomposition(c, parts) != 1 || parts[0] != c) found |= is_decomposed;
  }
  if (!in_unicode(8, c)) return std::uint16_t(found);
  // What Unicode has moved to another category since.
  const bool was_punctuation = c == 0x166d || c == 0x111c9, was_mark = c == 0x1734;
  const bool became_mark = c == 0x1885 || c == 0x1886 || c == 0xa9bd || c == 0x111c9;
  if ((category & U_GC_P_MASK) || was_punctuation) found |= is_punctuation;
  if (((category & U_GC_MN_MASK) && !became_mark) || was_mark) found |= is_mark;
  if (category & (U_GC_CC_MASK | U_GC_CF_MASK)) found |= is_other;
  return std::uint16_t(found);
}
inline int combining_class(char32_t c) { return u_getCombiningClass(UChar32(c)); }
}  // namespace by_icu

/// Characters as the installed ICU has them, made when first asked for.
inline const Characters& icu_characters() {
  static const Characters characters({by_icu::facts, by_icu::combining_class, by_icu::decomposition, by_icu::lower_case});
  return characters;
}
}  // namespace dpmp::inline DPMP_ABI::interop::detail
#else
namespace dpmp::inline DPMP_ABI::interop::detail {
const Characters& icu_characters() = delete;  // tokenizers need ICU's headers: Debian and Ubuntu, apt install libicu-dev
}
#endif
