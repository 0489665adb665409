// SPDX-License-Identifier: Apache-2.0
// BERT's way to ids (Devlin et al. 2019, arXiv 1810.04805; github.com/google-research/bert, tokenization.py): a text is
// cleaned, cut at white space and around punctuation, and of each word the longest beginning that is a token is taken, again
// and again (Wu et al. 2016, arXiv 1609.08144).
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "dpmp/interop/tokenizer_vocabulary.hpp"

namespace dpmp::inline DPMP_ABI::interop::detail {
/// Calls word(part) for what stands between white space; a punctuation character is a part of its own.
template <class Word>
void split_bert(std::string_view text, const Characters& characters, Word&& word) {
  const char *at = text.data(), *const end = at + text.size(), *begin = at;
  const auto finish = [&](const char* stop) {
    if (begin < stop) word(std::string_view(begin, std::size_t(stop - begin)));
  };
  while (at < end) {
    const char* next = at;
    const char32_t c = next_character(next);
    const unsigned facts = characters.facts(c);
    // In ASCII symbols count, too: $ + < = > ^ ` | ~ are no punctuation for Unicode.
    const bool symbol = c < 0x80 && c > ' ' && c < 0x7f && !(facts & (is_letter | is_number));
    if (symbol || (facts & (is_white | is_punctuation))) {
      finish(at);
      if (!(facts & is_white)) word(std::string_view(at, std::size_t(next - at)));
      begin = next;
    }
    at = next;
  }
  finish(end);
}

class WordPieces {
 public:
  /// `prefix` marks a token that continues a word. Throws unless the vocabulary has the unknown token; `place` stands in
  /// front of what is refused.
  WordPieces(const Vocabulary& vocabulary, const std::string& unknown, const std::string& prefix, std::size_t longest_word,
             const std::string& place);
  /// Appends the ids of a word: that of the unknown token alone where some part of the word has none, or where the word has
  /// more than longest_word characters.
  void encode(std::string_view word, std::vector<int>& ids) const;

 private:
  struct Pieces {
    IdOfText ids;
    std::size_t longest = 0;  // in bytes
  };
  Pieces first_, further_;
  int unknown_ = 0;
  std::size_t longest_word_;
};
}  // namespace dpmp::inline DPMP_ABI::interop::detail

#if DPMP_BODIES
#include <algorithm>
#include <optional>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::interop::detail {
DPMP_KEPT_BODY inline WordPieces::WordPieces(const Vocabulary& vocabulary, const std::string& unknown,
                                             const std::string& prefix, std::size_t longest_word, const std::string& place)
    : longest_word_(longest_word) {
  const auto id = vocabulary.id_of(unknown);
  DPMP_CHECK(id, place, "expected the unknown token '", unknown, "' in the vocabulary, got none");
  unknown_ = *id;
  const auto add = [](Pieces& pieces, std::string_view token, int of) {
    pieces.ids.emplace(token, of);
    pieces.longest = std::max(pieces.longest, token.size());
  };
  for (const auto& [number, token] : vocabulary.by_id()) {
    add(first_, token, number);
    if (token.starts_with(prefix)) add(further_, std::string_view(token).substr(prefix.size()), number);
  }
}

DPMP_KEPT_BODY inline void WordPieces::encode(std::string_view word, std::vector<int>& ids) const {
  const auto starts_character = [&](std::size_t k) { return (static_cast<unsigned char>(word[k]) & 0xc0) != 0x80; };
  std::size_t characters = 0;
  for (std::size_t k = 0; k < word.size() && characters <= longest_word_; ++k) characters += starts_character(k);
  const std::size_t before = ids.size();
  bool known = characters <= longest_word_;
  for (std::size_t at = 0; known && at < word.size();) {
    const Pieces& pieces = at == 0 ? first_ : further_;
    std::size_t length = std::min(word.size() - at, pieces.longest);
    for (; length > 0; --length) {
      if (at + length < word.size() && !starts_character(at + length)) continue;
      const auto found = pieces.ids.find(word.substr(at, length));
      if (found == pieces.ids.end()) continue;
      ids.push_back(found->second);
      break;
    }
    known = length > 0;
    at += length;
  }
  if (known) return;
  ids.resize(before);
  ids.push_back(unknown_);
}
}  // namespace dpmp::inline DPMP_ABI::interop::detail
#endif
