// SPDX-License-Identifier: Apache-2.0
// Tokens by spelling and by id, and tokens that were added to a model's own: they are found in a text before the model sees
// it.
#pragma once
#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "dpmp/interop/tokenizer_unicode.hpp"

namespace dpmp::inline DPMP_ABI::interop {
/// A token that is found in a text as it is spelled, whatever the model would make of it.
struct AddedToken {
  int id = 0;
  std::string content;
  bool single_word = false;  // only where it does not touch a letter, digit, mark or underscore
  bool takes_left = false;   // with the white space before it ("lstrip")
  bool takes_right = false;  // with the white space behind it ("rstrip")
  bool normalized = false;   // looked for after normalisation, and normalised itself
  bool special = false;      // left out by decode() unless asked for
};

namespace detail {
struct TextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
using IdOfText = std::unordered_map<std::string, int, TextHash, std::equal_to<>>;

/// Spellings and ids, one to one. Ids may have gaps.
class Vocabulary {
 public:
  /// Tokens are added before anything is asked for. Both return false where the spelling, or the id, is there already.
  bool add(std::string token, int id);
  /// Sorts what was added; returns an id that two tokens have, or -1.
  int finish();
  std::optional<int> id_of(std::string_view token) const {
    const auto at = ids_.find(token);
    return at == ids_.end() ? std::nullopt : std::optional(at->second);
  }
  /// Null where there is none.
  const std::string* token_of(int id) const;
  /// One more than the largest id.
  int size() const { return by_id_.empty() ? 0 : by_id_.back().first + 1; }
  const std::vector<std::pair<int, std::string>>& by_id() const { return by_id_; }

 private:
  IdOfText ids_;
  std::vector<std::pair<int, std::string>> by_id_;
};

/// Finds added tokens: at the first place where there is one, the longest.
class AddedTokenFinder {
 public:
  /// `content`: what to look for, which is not empty. False where it is there already.
  bool add(AddedToken token, const std::string& content);
  bool empty() const { return tokens_.empty(); }
  /// Cuts `text` into what is between the tokens and their ids, in order: calls between(part), of parts that are not empty,
  /// and token(id).
  template <class Between, class Token>
  void split(std::string_view text, const Characters& characters, Between&& between, Token&& token) const {
    std::size_t done = 0;
    for (Match m; !tokens_.empty() && find(text, m.end, characters, m);) {
      if (m.taken_from > done) between(text.substr(done, m.taken_from - done));
      token(m.token->id);
      done = std::max(done, m.taken_to);
    }
    if (done < text.size()) between(text.substr(done));
  }

 private:
  struct Match {
    const AddedToken* token = nullptr;
    std::size_t end = 0, taken_from = 0, taken_to = 0;
  };
  bool find(std::string_view text, std::size_t from, const Characters& characters, Match& match) const;

  std::vector<AddedToken> tokens_;
  IdOfText at_;                                        // content -> index in tokens_
  std::array<std::vector<std::size_t>, 256> lengths_;  // by first byte, longest first
};
}  // namespace detail
}  // namespace dpmp::inline DPMP_ABI::interop

#if DPMP_BODIES
#include <algorithm>

namespace dpmp::inline DPMP_ABI::interop::detail {
DPMP_KEPT_BODY inline bool Vocabulary::add(std::string token, int id) {
  by_id_.emplace_back(id, token);
  return ids_.emplace(std::move(token), id).second;
}
DPMP_KEPT_BODY inline int Vocabulary::finish() {
  std::sort(by_id_.begin(), by_id_.end());
  for (std::size_t k = 1; k < by_id_.size(); ++k)
    if (by_id_[k].first == by_id_[k - 1].first) return by_id_[k].first;
  return -1;
}
DPMP_KEPT_BODY inline const std::string* Vocabulary::token_of(int id) const {
  // Without gaps an id is an index.
  if (id >= 0 && std::size_t(id) < by_id_.size() && by_id_[std::size_t(id)].first == id)
    return &by_id_[std::size_t(id)].second;
  const auto at = std::lower_bound(by_id_.begin(), by_id_.end(), id, [](const auto& t, int i) { return t.first < i; });
  return at != by_id_.end() && at->first == id ? &at->second : nullptr;
}

DPMP_KEPT_BODY inline bool AddedTokenFinder::add(AddedToken token, const std::string& content) {
  if (!at_.emplace(content, int(tokens_.size())).second) return false;
  auto& lengths = lengths_[static_cast<unsigned char>(content[0])];
  const auto place = std::lower_bound(lengths.begin(), lengths.end(), content.size(), std::greater<>());
  if (place == lengths.end() || *place != content.size()) lengths.insert(place, content.size());
  tokens_.push_back(std::move(token));
  return true;
}

DPMP_KEPT_BODY inline bool AddedTokenFinder::find(std::string_view text, std::size_t from, const Characters& characters,
                                                  Match& match) const {
  const char *const begin = text.data(), *const end = begin + text.size();
  // White space that the token before has taken is gone, and not looked at again.
  const char* const free_from = begin + match.taken_to;
  for (std::size_t k = from; k < text.size(); ++k)
    for (const std::size_t length : lengths_[static_cast<unsigned char>(text[k])]) {
      if (length > text.size() - k) continue;
      const auto found = at_.find(text.substr(k, length));
      if (found == at_.end()) continue;
      const AddedToken& token = tokens_[std::size_t(found->second)];
      const char *left = begin + k, *right = left + length;
      if (token.single_word) {
        const char *before = left, *behind = right;
        if ((left > begin && characters.is(character_before(before), is_word)) ||
            (right < end && characters.is(next_character(behind), is_word))) {
          k += length - 1;  // no token, and none in it
          break;
        }
      }
      for (const char* at = left; token.takes_left && at > free_from && characters.is(character_before(at), is_white);)
        left = at;
      if (token.takes_right) right = std::max(right, free_from);
      for (const char* at = right; token.takes_right && at < end && characters.is(next_character(at), is_white);) right = at;
      match = {&token, k + length, std::size_t(left - begin), std::size_t(right - begin)};
      return true;
    }
  return false;
}
}  // namespace dpmp::inline DPMP_ABI::interop::detail
#endif
