// SPDX-License-Identifier: Apache-2.0
// Byte pair encoding over bytes: Sennrich, Haddow, Birch 2016 (arXiv 1508.07909, section 3.2), with the alphabet and the
// pattern of Radford et al. 2019 (GPT-2). A text is cut into words by a pattern; a word starts as its bytes, and of all
// neighbours that the vocabulary can merge, those that it learnt first are merged, the leftmost first, until there are none.
#pragma once
#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dpmp/interop/tokenizer_vocabulary.hpp"

namespace dpmp::inline DPMP_ABI::interop::detail {
/// How GPT-2 spells a byte in its vocabulary: printable characters of Latin-1 as they are, the others in order from U+0100
/// on.
char32_t character_of_byte(unsigned char byte);
/// And back; -1 for a character that spells none.
int byte_of_character(char32_t c);
std::string spelled_bytes(std::string_view bytes);

/// Calls word(part) for the parts of `text` that GPT-2's pattern matches one after the other; together they are the text.
///
///     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
///
/// Time is linear in the length of the text.
template <class Word>
void split_gpt2(std::string_view text, const Characters& characters, Word&& word) {
  constexpr unsigned kinds = is_letter | is_number | is_white;
  const char *at = text.data(), *const end = at + text.size();
  const auto kind_at = [&](const char* place) { return characters.facts(next_character(place)) & kinds; };
  const auto after_run = [&](const char* place, unsigned kind) {
    while (place < end) {
      const char* next = place;
      if ((characters.facts(next_character(next)) & kinds) != kind) break;
      place = next;
    }
    return place;
  };
  while (at < end) {
    const char* stop = at;
    if (*at == '\'') {
      const std::string_view rest(at + 1, std::size_t(end - at - 1));
      for (const std::string_view ending : {"s", "t", "re", "ve", "m", "ll", "d"})
        if (rest.starts_with(ending)) {
          stop = at + 1 + ending.size();
          break;
        }
    }
    if (stop == at) {
      const char* const start = at + (*at == ' ');
      const unsigned kind = start < end ? kind_at(start) : unsigned(is_white);
      if (kind != is_white) {
        stop = after_run(start, kind);
      } else {
        stop = after_run(at, is_white);
        // The last space before a word belongs to the word, if it can.
        if (const char* last = stop; stop < end && (character_before(last), last > at)) stop = last;
      }
    }
    word(std::string_view(at, std::size_t(stop - at)));
    at = stop;
  }
}

/// What of two neighbours becomes one.
struct Merge {
  int left = 0, right = 0, merged = 0;  // ids
};

/// The merges, by the pair.
class MergeTable {
 public:
  struct Found {
    std::uint32_t rank;
    int merged;
  };
  /// In the order in which they were learnt. Returns the index of the first whose pair was there before, or -1.
  std::ptrdiff_t fill(const std::vector<Merge>& merges);
  const Found* find(int left, int right) const {
    const std::uint64_t pair = key(left, right);
    for (std::size_t k = place(pair);; k = (k + 1) & (slots_.size() - 1)) {
      if (slots_[k].pair == pair) return &slots_[k].found;
      if (slots_[k].pair == none) return nullptr;
    }
  }

 private:
  static constexpr std::uint64_t none = ~std::uint64_t(0);
  struct Slot {
    std::uint64_t pair = none;
    Found found{};
  };
  static std::uint64_t key(int left, int right) { return std::uint64_t(std::uint32_t(left)) << 32 | std::uint32_t(right); }
  std::size_t place(std::uint64_t pair) const { return std::size_t(pair * 0x9e3779b97f4a7c15u >> shift_); }
  std::vector<Slot> slots_ = std::vector<Slot>(2);  // a power of two, at most half full
  int shift_ = 63;
};

/// Room that merging needs, to be used again.
struct MergeRoom {
  struct Symbol {
    int id, before, behind;  // neighbours, -1 at the ends
    bool gone;
  };
  struct Candidate {
    std::uint32_t rank, left;
    int merged;
    bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : left > other.left; }
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> candidates;  // a heap, the next one on top
};

class BytePairs {
 public:
  /// Throws unless each byte has a token and no pair is merged in two ways; `place` stands in front of what is refused.
  /// whole_words: a word that is a token is that token, whatever merges say ("ignore_merges").
  BytePairs(const Vocabulary& vocabulary, const std::vector<Merge>& merges, bool whole_words, const std::string& place);
  /// Appends the ids of a word, in time n log n.
  void encode(std::string_view word, const Vocabulary& vocabulary, MergeRoom& room, std::vector<int>& ids) const;

 private:
  std::array<int, 256> bytes_;
  MergeTable merges_;
  bool whole_words_;
};
}  // namespace dpmp::inline DPMP_ABI::interop::detail

#if DPMP_BODIES
#include <algorithm>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI::interop::detail {
struct ByteAlphabet {
  std::array<char32_t, 256> character;
  std::array<std::int16_t, 0x144> byte;
  ByteAlphabet() {
    byte.fill(-1);
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      const char32_t c = printable ? char32_t(b) : next++;
      character[std::size_t(b)] = c;
      byte[c] = std::int16_t(b);
    }
  }
};
inline const ByteAlphabet& byte_alphabet() {
  static const ByteAlphabet alphabet;
  return alphabet;
}
DPMP_KEPT_BODY inline char32_t character_of_byte(unsigned char byte) { return byte_alphabet().character[byte]; }
DPMP_KEPT_BODY inline int byte_of_character(char32_t c) {
  return c < byte_alphabet().byte.size() ? byte_alphabet().byte[c] : -1;
}
DPMP_KEPT_BODY inline std::string spelled_bytes(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) append_character(out, character_of_byte(static_cast<unsigned char>(byte)));
  return out;
}

DPMP_KEPT_BODY inline std::ptrdiff_t MergeTable::fill(const std::vector<Merge>& merges) {
  std::size_t size = 2;
  for (shift_ = 63; size < 2 * merges.size() + 1; size *= 2) --shift_;
  slots_.assign(size, {});
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right, merged] = merges[rank];
    if (find(left, right)) return std::ptrdiff_t(rank);
    std::size_t k = place(key(left, right));
    while (slots_[k].pair != none) k = (k + 1) & (size - 1);
    slots_[k] = {key(left, right), {std::uint32_t(rank), merged}};
  }
  return -1;
}

DPMP_KEPT_BODY inline BytePairs::BytePairs(const Vocabulary& vocabulary, const std::vector<Merge>& merges, bool whole_words,
                                           const std::string& place)
    : whole_words_(whole_words) {
  for (std::size_t b = 0; b < 256; ++b) {
    const std::string spelled = spelled_bytes(std::string(1, char(b)));
    const auto id = vocabulary.id_of(spelled);
    DPMP_CHECK(id, place, "expected a token for each of the 256 bytes, got none for byte ", b, ", '", spelled, "'");
    bytes_[b] = *id;
  }
  const std::ptrdiff_t again = merges_.fill(merges);
  DPMP_CHECK(again < 0, place, "expected each pair of tokens once among the merges, got '",
             *vocabulary.token_of(merges[std::size_t(again)].left), "' and '",
             *vocabulary.token_of(merges[std::size_t(again)].right), "' again at merge ", again + 1);
}

DPMP_KEPT_BODY inline void BytePairs::encode(std::string_view word, const Vocabulary& vocabulary, MergeRoom& room,
                                             std::vector<int>& ids) const {
  if (whole_words_)
    if (const auto id = vocabulary.id_of(spelled_bytes(word))) return ids.push_back(*id);
  auto& symbols = room.symbols;
  auto& heap = room.candidates;
  const int count = int(word.size());
  symbols.resize(word.size());
  heap.clear();
  for (int k = 0; k < count; ++k)
    symbols[std::size_t(k)] = {bytes_[static_cast<unsigned char>(word[std::size_t(k)])], k - 1, k + 1 < count ? k + 1 : -1,
                               false};
  const auto candidate = [&](int left, int right) -> const MergeTable::Found* {
    return merges_.find(symbols[std::size_t(left)].id, symbols[std::size_t(right)].id);
  };
  const auto push = [&](int left, int right) {
    if (left < 0 || right < 0) return;
    if (const auto* found = candidate(left, right)) {
      heap.push_back({found->rank, std::uint32_t(left), found->merged});
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
  };
  for (int k = 0; k + 1 < count; ++k)
    if (const auto* found = candidate(k, k + 1)) heap.push_back({found->rank, std::uint32_t(k), found->merged});
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    const MergeRoom::Candidate top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    MergeRoom::Symbol& left = symbols[top.left];
    if (left.gone || left.behind < 0) continue;
    // What has changed since the candidate was found has another result.
    const auto* still = candidate(int(top.left), left.behind);
    if (!still || still->merged != top.merged) continue;
    MergeRoom::Symbol& right = symbols[std::size_t(left.behind)];
    right.gone = true;
    left.id = top.merged;
    left.behind = right.behind;
    if (left.behind >= 0) symbols[std::size_t(left.behind)].before = int(top.left);
    push(left.before, int(top.left));
    push(int(top.left), left.behind);
  }
  for (int k = 0; k >= 0 && k < count; k = symbols[std::size_t(k)].behind) ids.push_back(symbols[std::size_t(k)].id);
}
}  // namespace dpmp::inline DPMP_ABI::interop::detail
#endif
