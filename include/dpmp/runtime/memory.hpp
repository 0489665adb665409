// SPDX-License-Identifier: Apache-2.0
// The arena of a context: reference-counted blocks that go back to a free list, and counters of live, peak and reserved
// bytes. Training with static shapes asks for the same sizes every step, so after the first step nothing is requested from
// the system.
#pragma once
#include <algorithm>
#include <atomic>
#include <bit>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "dpmp/runtime/backend.hpp"

namespace dpmp::inline DPMP_ABI {
/// Bytes handed out now, their largest value so far, bytes held from the system, and requests to the system.
struct MemoryStatistics {
  index_t live_bytes = 0, peak_bytes = 0, reserved_bytes = 0, system_allocations = 0;
};

class Arena;
namespace detail {
struct BlockPool;
struct Block {
  Arena* arena = nullptr;
  BlockPool* pool = nullptr;
  void* data = nullptr;
  index_t bytes = 0;
  std::atomic<int> references{0};
  Block* next_free = nullptr;
};
/// Where blocks go when nobody holds them: one for all, and one for each ReservedBlocks.
struct BlockPool {
  std::map<index_t, Block*> free;  // by size class
  index_t blocks = 0;              // of a ReservedBlocks: those that are its own, in use or not
  bool closed = false;

  Block* take(index_t size) {
    const auto at = free.find(size);
    return at == free.end() || !at->second ? nullptr : std::exchange(at->second, at->second->next_free);
  }
  /// The size class must have been here before: nothing is allocated.
  void put(Block* block) noexcept { block->next_free = std::exchange(free.find(block->bytes)->second, block); }
};
}  // namespace detail
class ReservedBlocks;

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
  /// Of the context that it came from; not for an empty buffer.
  inline Backend& backend() const;
  bool shared() const { return block_ && block_->references.load(std::memory_order_acquire) > 1; }

 private:
  friend class Arena;
  explicit Buffer(detail::Block* block) : block_(block) {}
  detail::Block* block_ = nullptr;
};

/// Reuse of freed blocks by size class, all aligned to 64 bytes. Thread-safe. Lives until its owner and its last buffer are
/// gone.
class Arena {
 public:
  struct Release {
    void operator()(Arena* a) const { a->drop(); }
  };

  explicit Arena(std::unique_ptr<Backend> backend) : backend_(std::move(backend)) {}
  Backend& backend() const { return *backend_; }

  /// Blocks that nobody uses are given back to the system before an allocation fails. Throws when there is no memory left
  /// even then; the message says how much was asked for and how much is held.
  Buffer allocate(index_t bytes) {
    DPMP_CHECK(bytes >= 0, "expected a size in bytes >= 0, got ", bytes);
    const index_t want = size_class(bytes);
    const std::lock_guard lock(guard_);
    detail::Block* block = reserving_ ? take_reserved(want) : general_.take(want);
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
  friend class ReservedBlocks;
  static constexpr index_t granule = 64;

  /// Sizes are rounded up to at most an eighth more, always to a multiple of 64. A block serves its own class only: then a
  /// step that asks for what the step before asked for finds exactly what that one gave back.
  static index_t size_class(index_t bytes) {
    const index_t power = index_t(std::bit_floor(std::uint64_t(std::max<index_t>(bytes, 1))));
    const index_t quantum = std::max<index_t>(granule, power / 8);
    DPMP_CHECK(bytes <= std::numeric_limits<index_t>::max() - quantum, "expected a size that memory can have, got ", bytes,
               " bytes");
    return std::max<index_t>(1, (bytes + quantum - 1) / quantum) * quantum;
  }
  detail::Block* take_reserved(index_t want) {
    detail::Block* block = reserving_->take(want);
    if (!block && (block = general_.take(want))) reserve(block);
    return block;
  }
  void reserve(detail::Block* block) {
    reserving_->free.try_emplace(block->bytes, nullptr);
    block->pool = reserving_;
    ++reserving_->blocks;
  }
  detail::Block* take_from_system(index_t want) {
    void* data = backend_->acquire(want);
    // Free blocks of other sizes may be in the way.
    if (!data && release_free_blocks()) data = backend_->acquire(want);
    DPMP_CHECK(data, "expected ", want, " more bytes of memory, got none; this context holds ", statistics_.reserved_bytes,
               " bytes");
    auto* block = new detail::Block;
    block->arena = this;
    block->data = data;
    block->bytes = want;
    block->pool = &general_;
    general_.free.try_emplace(want, nullptr);
    if (reserving_) reserve(block);
    statistics_.reserved_bytes += want;
    ++statistics_.system_allocations;
    return block;
  }
  /// Gives every free block back to the system but those of a ReservedBlocks; whether there was one.
  bool release_free_blocks() noexcept {
    const index_t before = statistics_.reserved_bytes;
    for (auto& [bytes, head] : general_.free)
      while (head) {
        detail::Block* block = std::exchange(head, head->next_free);
        statistics_.reserved_bytes -= block->bytes;
        backend_->release(block->data, block->bytes);
        delete block;
      }
    return statistics_.reserved_bytes != before;
  }
  void give_back(detail::Block* block) {
    {
      const std::lock_guard lock(guard_);
      statistics_.live_bytes -= block->bytes;
      if (block->pool->closed) return_to_general(block);
      block->pool->put(block);
    }
    drop();
  }
  void return_to_general(detail::Block* block) noexcept {
    detail::BlockPool* pool = std::exchange(block->pool, &general_);
    if (--pool->blocks == 0) delete pool;
  }
  void drop() {
    bool last;
    {
      const std::lock_guard lock(guard_);
      last = --users_ == 0;
    }
    if (last) delete this;
  }
  ~Arena() { release_free_blocks(); }

  std::unique_ptr<Backend> backend_;
  mutable std::mutex guard_;
  detail::BlockPool general_;
  detail::BlockPool* reserving_ = nullptr;  // where blocks are handed out from while a ReservedBlocks is being filled
  MemoryStatistics statistics_;
  index_t users_ = 1;  // the owner, every live buffer and every ReservedBlocks
};

/// Memory for work that is recorded now and runs again later: blocks handed out between construction and seal() are never
/// handed out to anybody else while this lives. Among themselves they are reused, as always.
class ReservedBlocks {
 public:
  /// Throws when another one of this arena is not sealed yet.
  explicit ReservedBlocks(Arena& arena) : arena_(&arena), pool_(std::make_unique<detail::BlockPool>()) {
    const std::lock_guard lock(arena.guard_);
    DPMP_CHECK(!arena.reserving_, "expected one set of reserved blocks to be filled at a time, got a second one");
    arena.reserving_ = pool_.get();
    ++arena.users_;
  }
  ReservedBlocks(const ReservedBlocks&) = delete;
  ReservedBlocks& operator=(const ReservedBlocks&) = delete;
  ~ReservedBlocks() {
    {
      const std::lock_guard lock(arena_->guard_);
      stop();
      // Blocks in use follow when they are given back; the last of them deletes the pool.
      pool_->closed = true;
      ++pool_->blocks;  // keeps it until the loop is done
      detail::BlockPool* pool = pool_.release();
      for (auto& [bytes, head] : pool->free)
        while (detail::Block* block = head) {
          head = block->next_free;
          arena_->return_to_general(block);
          arena_->general_.put(block);
        }
      if (--pool->blocks == 0) delete pool;
    }
    arena_->drop();
  }
  /// From here on the arena hands out what is everybody's.
  void seal() {
    const std::lock_guard lock(arena_->guard_);
    stop();
  }

 private:
  void stop() {
    if (arena_->reserving_ == pool_.get()) arena_->reserving_ = nullptr;
  }
  Arena* arena_;
  std::unique_ptr<detail::BlockPool> pool_;
};

inline Backend& Buffer::backend() const { return block_->arena->backend(); }
inline Buffer::~Buffer() {
  if (block_ && block_->references.fetch_sub(1, std::memory_order_acq_rel) == 1) block_->arena->give_back(block_);
}
}  // namespace dpmp::inline DPMP_ABI
