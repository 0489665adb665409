// SPDX-License-Identifier: Apache-2.0
// The parts that a tokenizer consists of, and the smaller steps between a text and its ids.
#pragma once
#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "dpmp/core/error.hpp"
#include "dpmp/interop/tokenizer_bpe.hpp"
#include "dpmp/interop/tokenizer_cache.hpp"
#include "dpmp/interop/tokenizer_normalizer.hpp"
#include "dpmp/interop/tokenizer_wordpiece.hpp"

namespace dpmp::inline DPMP_ABI::interop::detail {
/// One part of what a model takes: one of the texts, or special tokens.
struct TemplatePart {
  enum class Kind { first, second, special } kind = Kind::first;
  std::vector<int> ids = {};  // of special tokens
  int type = 0;
};
using Template = std::vector<TemplatePart>;

enum class Shortened : std::uint8_t { longest, first, second };  // which of two texts loses ids
struct Truncation {
  std::optional<index_t> max_length;
  bool at_start = false;  // a text loses its start
  Shortened which = Shortened::longest;
};

struct Decoding {
  enum class Kind { spaces, bytes, word_pieces } kind = Kind::spaces;
  std::string prefix = {};  // of word pieces
  bool cleanup = false;
};

/// All that is read from files. Made by tokenizer_files.hpp.
struct TokenizerParts {
  TokenizerParts(const Characters& of, std::string where) : characters(of), place(std::move(where)) {}
  const Characters& characters;
  std::string place;  // in front of messages
  Vocabulary vocabulary;
  std::variant<std::monostate, BytePairs, WordPieces> model;
  std::optional<BertNormalizer> normalizer;
  bool leading_space = false, pattern = true;  // of byte-level pairs
  AddedTokenFinder added, added_normalized;
  std::set<int> special;
  std::map<int, std::string> normalized_spelling;  // of added tokens that the normaliser changes
  Template single = {{.kind = TemplatePart::Kind::first}};
  Template pair = {{.kind = TemplatePart::Kind::first}, {.kind = TemplatePart::Kind::second, .type = 1}};
  Truncation truncation;
  std::optional<int> pad_id;
  int pad_type = 0;
  Decoding decoding;
};

/// What one call at a time has the use of.
struct TokenizerWork {
  std::atomic_flag taken;
  WordCache cache;
  MergeRoom room;
};

/// The ids of a word, of the cache where it has them. `cache` may be null.
inline void encode_word(const TokenizerParts& parts, std::string_view word, WordCache* cache, MergeRoom& room,
                        std::vector<int>& ids) {
  const std::uint64_t hash = cache && word.size() <= WordCache::longest ? WordCache::hash(word) : 0;
  if (cache && cache->find(word, hash, ids)) return;
  const std::size_t before = ids.size();
  if (const auto* pairs = std::get_if<BytePairs>(&parts.model))
    pairs->encode(word, parts.vocabulary, room, ids);
  else if (const auto* pieces = std::get_if<WordPieces>(&parts.model))
    pieces->encode(word, ids);
  if (cache) cache->keep(word, hash, std::span(ids).subspan(before));
}

/// How many ids two texts may keep of `lengths`, together `most`.
inline std::pair<std::size_t, std::size_t> shortened(std::pair<std::size_t, std::size_t> lengths, std::size_t most,
                                                     bool is_pair, Shortened which, const std::string& place) {
  const auto [a, b] = lengths;
  if (a + b <= most) return lengths;
  if (!is_pair && which != Shortened::second) return {most, 0};
  if (which == Shortened::longest) {
    // The shorter one keeps what it has if that is at most half.
    const std::size_t half = most / 2, shorter = std::min(a, b);
    const std::size_t small = std::min(shorter, half);
    return a <= b ? std::pair(small, most - small) : std::pair(most - small, small);
  }
  DPMP_CHECK(is_pair, place, "expected a pair of texts, as only the second one is to be truncated, got one text of ", a,
             " tokens for ", most);
  const bool first = which == Shortened::first;
  const std::size_t other = first ? b : a;
  DPMP_CHECK(other < most, place, "expected the ", first ? "second" : "first",
             " text of a pair, which is not truncated, to be shorter than ", most, " tokens, got ", other);
  return first ? std::pair(most - other, other) : std::pair(other, most - other);
}

/// What the package calls cleaning up: no space before punctuation and English endings.
inline std::string cleaned_up(std::string text) {
  static constexpr std::pair<std::string_view, std::string_view> replaced[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : replaced)
    for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
      text.replace(at, from.size(), to);
  return text;
}

/// The bytes that a token of byte-level pairs stands for; of a token that is not spelled so its own.
inline void append_bytes(std::string& to, const std::string& token) {
  const std::size_t before = to.size();
  for (const char *at = token.data(), *const end = at + token.size(); at < end;) {
    const int byte = byte_of_character(next_character(at));
    if (byte < 0) {
      to.resize(before);
      to += token;
      return;
    }
    to += char(byte);
  }
}
}  // namespace dpmp::inline DPMP_ABI::interop::detail
