// SPDX-License-Identifier: Apache-2.0
// The blocks of an arena, and the lists of those that nobody uses.
#pragma once
#include <algorithm>
#include <atomic>
#include <bit>
#include <limits>
#include <map>
#include <utility>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI {
class Arena;
namespace detail {
struct BlockPool;
struct Block {
  Arena* arena = nullptr;
  BlockPool* pool = nullptr;
  void* data = nullptr;
  index_t bytes = 0;       // of memory
  index_t size_class = 0;  // the requests that it serves; less than bytes where it was taken from a larger class
  std::atomic<int> references{0};
  Block* next_free = nullptr;
  std::uint64_t regime = 0;  // in which it was handed out last
  index_t request = 0;       // the number of that request
  int label = 0;
  index_t traced = -1, traced_by = 0;  // its number in a trace, and in which one
};

/// Sizes are rounded up to at most an eighth more, always to a multiple of 64.
inline index_t size_class_of(index_t bytes) {
  constexpr index_t granule = 64;
  const index_t power = index_t(std::bit_floor(std::uint64_t(std::max<index_t>(bytes, 1))));
  const index_t quantum = std::max<index_t>(granule, power / 8);
  DPMP_CHECK(bytes <= std::numeric_limits<index_t>::max() - quantum, "expected a size that memory can have, got ", bytes,
             " bytes");
  return std::max<index_t>(1, (bytes + quantum - 1) / quantum) * quantum;
}

/// The free blocks of one size class.
struct FreeBlocks {
  Block* head = nullptr;
  std::uint64_t lost_in = ~std::uint64_t(0);  // the regime in which one of them was given away last
};
/// Where blocks go when nobody holds them: one for all, and one for each ReservedBlocks.
struct BlockPool {
  std::map<index_t, FreeBlocks> free;  // by size class
  index_t blocks = 0;                  // of a ReservedBlocks: those that are its own, in use or not
  bool closed = false;

  Block* take(index_t size) {
    const auto at = free.find(size);
    return at == free.end() || !at->second.head ? nullptr : pop(at->second.head);
  }
  /// The size class must have been here before: nothing is allocated.
  void put(Block* block) noexcept {
    Block*& head = free.find(block->size_class)->second.head;
    block->next_free = std::exchange(head, block);
  }
  static Block* pop(Block*& at) noexcept { return std::exchange(at, at->next_free); }

  /// Takes out of its list, of the free blocks that `wanted` is true for, the largest one of those that served the earliest
  /// regime.
  template <class Wanted>
  Block* take_most_useless(Wanted&& wanted, std::uint64_t regime_now) noexcept {
    Block** best = nullptr;
    FreeBlocks* of = nullptr;
    for (auto& [size, list] : free)
      for (Block** at = &list.head; *at; at = &(*at)->next_free)
        if (wanted(**at) && (!best || (*at)->regime <= (*best)->regime)) best = at, of = &list;
    if (!best) return nullptr;
    of->lost_in = regime_now;
    return pop(*best);
  }
  template <class Wanted>
  index_t count_free(Wanted&& wanted) const {
    index_t n = 0;
    for (const auto& [size, list] : free)
      for (const Block* b = list.head; b; b = b->next_free) n += wanted(*b);
    return n;
  }
};
}  // namespace detail
}  // namespace dpmp::inline DPMP_ABI
