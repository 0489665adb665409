// SPDX-License-Identifier: Apache-2.0
// Ids of words that were seen lately: texts repeat their words.
#pragma once
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "dpmp/core/config.hpp"

namespace dpmp::inline DPMP_ABI::interop::detail {
/// 2 MiB, allocated when first written to. A word has one place; the last one that came there stays. So no text makes it
/// slow, and long words, or those of many ids, are not kept.
class WordCache {
 public:
  static constexpr std::size_t longest = 30;
  static std::uint64_t hash(std::string_view word) {
    std::uint64_t h = word.size();
    for (std::size_t k = 0; k < word.size(); k += 8) {
      std::uint64_t part = 0;
      std::memcpy(&part, word.data() + k, word.size() - k < 8 ? word.size() - k : 8);
      h = (h ^ part) * 0x9e3779b97f4a7c15u;
      h ^= h >> 29;
    }
    return h;
  }
  /// Appends the ids of a word whose hash is `hash`. False where it is not known.
  bool find(std::string_view word, std::uint64_t hash, std::vector<int>& ids) const {
    if (slots_.empty() || word.empty() || word.size() > longest) return false;  // an unused slot has length 0
    const Slot& slot = slots_[hash % slots];
    if (slot.length != word.size() || std::memcmp(slot.word, word.data(), word.size()) != 0) return false;
    ids.insert(ids.end(), slot.ids, slot.ids + slot.count);
    return true;
  }
  void keep(std::string_view word, std::uint64_t hash, std::span<const int> ids) {
    if (word.empty() || word.size() > longest || ids.size() > std::size(Slot().ids)) return;
    if (slots_.empty()) slots_.resize(slots);
    Slot& slot = slots_[hash % slots];
    slot.length = std::uint8_t(word.size());
    slot.count = std::uint8_t(ids.size());
    std::memcpy(slot.word, word.data(), word.size());
    std::copy(ids.begin(), ids.end(), slot.ids);
  }

 private:
  struct Slot {
    std::uint8_t length = 0, count = 0;
    char word[longest];
    int ids[8];
  };
  static_assert(sizeof(Slot) == 64, "a slot is a cache line");
  static constexpr std::size_t slots = 1 << 15;
  std::vector<Slot> slots_;
};
}  // namespace dpmp::inline DPMP_ABI::interop::detail
