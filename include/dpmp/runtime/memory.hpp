// SPDX-License-Identifier: Apache-2.0
// The arena of a context: reference-counted blocks that go back to a free list, and counters of live, peak and reserved
// bytes. Training with static shapes asks for the same sizes every step, so after the first step nothing is requested from
// the system.
#pragma once
#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <new>
#include <utility>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI {
/// Bytes handed out now, their largest value so far, bytes held from the system, and requests to the system.
struct MemoryStatistics {
  index_t live_bytes = 0, peak_bytes = 0, reserved_bytes = 0, system_allocations = 0;
};

class Arena;
namespace detail {
struct Block {
  Arena* arena = nullptr;
  void* data = nullptr;
  index_t bytes = 0;
  std::atomic<int> references{0};
  Block* next_free = nullptr;
};
}  // namespace detail

/// Shared ownership of one block of memory. Copies share it; the last one gives it back to its arena.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer& o) : block_(o.block_) {
    if (block_) block_->references.fetch_add(1, std::memory_order_relaxed);
  }
  Buffer(Buffer&& o) noexcept : block_(std::exchange(o.block_, nullptr)) {}
  Buffer& operator=(Buffer o) noexcept {
    std::swap(block_, o.block_);
    return *this;
  }
  inline ~Buffer();
  void* data() const { return block_ ? block_->data : nullptr; }
  bool shared() const { return block_ && block_->references.load(std::memory_order_acquire) > 1; }

 private:
  friend class Arena;
  explicit Buffer(detail::Block* block) : block_(block) {}
  detail::Block* block_ = nullptr;
};

/// Best-fit reuse of freed blocks, all aligned to 64 bytes. Thread-safe. Lives until its owner and its last buffer are gone.
class Arena {
 public:
  struct Release {
    void operator()(Arena* a) const { a->drop(); }
  };

  /// Throws when the system has no memory left; the message says how much was asked for and how much is held.
  Buffer allocate(index_t bytes) {
    DPMP_CHECK(bytes >= 0, "expected a size in bytes >= 0, got ", bytes);
    const index_t want = std::max<index_t>(granule, (bytes + granule - 1) / granule * granule);
    const std::lock_guard lock(guard_);
    detail::Block* block = take_free(want);
    if (!block) block = take_from_system(want);
    block->references.store(1, std::memory_order_relaxed);
    ++users_;
    statistics_.live_bytes += block->bytes;
    statistics_.peak_bytes = std::max(statistics_.peak_bytes, statistics_.live_bytes);
    return Buffer(block);
  }
  MemoryStatistics statistics() const {
    const std::lock_guard lock(guard_);
    return statistics_;
  }
  /// Starts a new measurement of peak_bytes.
  void reset_peak() {
    const std::lock_guard lock(guard_);
    statistics_.peak_bytes = statistics_.live_bytes;
  }

 private:
  friend class Buffer;
  static constexpr index_t granule = 64;

  detail::Block* take_free(index_t want) {
    // A block up to an eighth larger than needed is good enough; a larger one is left for its own size.
    for (auto it = free_.lower_bound(want); it != free_.end() && it->first <= want + want / 8; ++it)
      if (detail::Block* block = it->second) {
        it->second = block->next_free;
        return block;
      }
    return nullptr;
  }
  detail::Block* take_from_system(index_t want) {
    void* data = ::operator new(std::size_t(want), std::align_val_t(granule), std::nothrow);
    DPMP_CHECK(data, "expected ", want, " more bytes of memory, got none; this context holds ", statistics_.reserved_bytes,
               " bytes");
    auto* block = new detail::Block;
    block->arena = this;
    block->data = data;
    block->bytes = want;
    free_.try_emplace(want, nullptr);
    statistics_.reserved_bytes += want;
    ++statistics_.system_allocations;
    return block;
  }
  void give_back(detail::Block* block) {
    {
      const std::lock_guard lock(guard_);
      statistics_.live_bytes -= block->bytes;
      detail::Block*& head = free_.find(block->bytes)->second;
      block->next_free = head;
      head = block;
    }
    drop();
  }
  void drop() {
    bool last;
    {
      const std::lock_guard lock(guard_);
      last = --users_ == 0;
    }
    if (last) delete this;
  }
  ~Arena() {
    for (auto& [bytes, head] : free_)
      while (head) {
        detail::Block* block = head;
        head = block->next_free;
        ::operator delete(block->data, std::align_val_t(granule));
        delete block;
      }
  }

  mutable std::mutex guard_;
  std::map<index_t, detail::Block*> free_;
  MemoryStatistics statistics_;
  index_t users_ = 1;  // the owner and every live buffer
};

inline Buffer::~Buffer() {
  if (block_ && block_->references.fetch_sub(1, std::memory_order_acq_rel) == 1) block_->arena->give_back(block_);
}
}  // namespace dpmp::inline DPMP_ABI
