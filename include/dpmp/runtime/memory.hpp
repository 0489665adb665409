// SPDX-License-Identifier: Apache-2.0
// The arena of a context: reference-counted blocks that go back to a free list, and counters of live, peak and reserved
// bytes. Training with static shapes asks for the same sizes every step, so after the first step nothing is requested from
// the system. Where shapes change, blocks of sizes that are not asked for any more go back to the system.
#pragma once
#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "dpmp/runtime/backend.hpp"
#include "dpmp/runtime/memory_blocks.hpp"
#include "dpmp/runtime/memory_labels.hpp"

namespace dpmp::inline DPMP_ABI {
/// Bytes handed out now, their largest value so far, bytes held from the system, requests to the system, and the largest
/// block that was handed out.
struct MemoryStatistics {
  index_t live_bytes = 0, peak_bytes = 0, reserved_bytes = 0, system_allocations = 0, largest_block_bytes = 0;
};
/// A block handed out (bytes >= 0: what was asked for) or given back (bytes < 0); block: the number of the first of the two.
struct MemoryEvent {
  index_t block = 0, bytes = 0;
};

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
  /// Counts the block under this name from now on (Arena::uses).
  inline void label(std::string_view name) const;
  /// The same for a block that has the name which it would be given now: not for what somebody named already.
  inline void label_unless_named(std::string_view name) const;
  bool shared() const { return block_ && block_->references.load(std::memory_order_acquire) > 1; }

 private:
  friend class Arena;
  explicit Buffer(detail::Block* block) : block_(block) {}
  detail::Block* block_ = nullptr;
};

/// Reuse of freed blocks by size class, all aligned to 64 bytes. Thread-safe. Lives until its owner and its last buffer are
/// gone.
///
/// A block serves its own class only: then a step that asks for what the step before asked for finds exactly what that one
/// gave back. Where a class has none left, and another block would make what is held more than an eighth larger than what
/// was ever in use at once, blocks go that only earlier work used: one of a class at most a quarter larger serves from then
/// on, else the largest ones are given back to the system. Work becomes earlier when somebody says so (sizes_change, which
/// Trainer::program_changes calls), or when a new size is asked for after as many requests without one as a step makes. So
/// nothing of a run's first step is given back, and nothing at all while sizes stay. Where more than twice of what was in
/// use at once would be held, what served nobody for a few steps goes, too. On a GPU the system waits for all work when it
/// takes memory back, as it does for a new block: once for each block that a change of sizes makes useless.
class Arena {
 public:
  struct Release {
    void operator()(Arena* a) const { a->drop(); }
  };

  explicit Arena(std::unique_ptr<Backend> backend) : backend_(std::move(backend)) {}
  Backend& backend() const { return *backend_; }

  /// Blocks that nobody uses are given back to the system before an allocation fails. Throws OutOfMemory when there is no
  /// memory left even then, or less than the limit leaves; the message says how much was asked for, how much is held, and
  /// what for.
  Buffer allocate(index_t bytes) {
    DPMP_CHECK(bytes >= 0, "expected a size in bytes >= 0, got ", bytes);
    const index_t want = detail::size_class_of(bytes);
    const std::lock_guard lock(guard_);
    detail::Block* block = reserving_ ? take_reserved(want) : general_.take(want);
    if (block)
      ++hits_;
    else
      block = take_otherwise(want);
    block->references.store(1, std::memory_order_relaxed);
    block->regime = regime_;
    block->request = ++requests_;
    block->label = label_;
    ++users_;
    count(*block);
    if (trace_) {
      block->traced = index_t(trace_->size());
      block->traced_by = traces_;
      trace_->push_back({block->traced, bytes});
    }
    return Buffer(block);
  }
  /// Gives every block that nobody uses back to the system, but those of a ReservedBlocks, and forgets how much was in use.
  /// Returns their bytes. The next step takes its memory from the system again.
  index_t trim() {
    const std::lock_guard lock(guard_);
    const index_t before = statistics_.reserved_bytes;
    release_free_blocks();
    most_live_ = statistics_.live_bytes;
    return before - statistics_.reserved_bytes;
  }
  /// Says that from now on other sizes are asked for than before: what is free now may be given back where it is in the way.
  void sizes_change() {
    const std::lock_guard lock(guard_);
    ++regime_;
    hits_ = 0;
  }
  /// No more than so many bytes are held from now on; no limit: as many as there are. What is held already stays.
  void limit(std::optional<index_t> bytes) {
    DPMP_CHECK(!bytes || *bytes >= 0, "expected a limit of memory >= 0 bytes, got ", *bytes);
    const std::lock_guard lock(guard_);
    limit_ = bytes;
  }
  std::optional<index_t> limit() const {
    const std::lock_guard lock(guard_);
    return limit_;
  }
  MemoryStatistics statistics() const {
    const std::lock_guard lock(guard_);
    return statistics_;
  }
  /// Starts a new measurement of peak_bytes and largest_block_bytes.
  void reset_peak() {
    const std::lock_guard lock(guard_);
    statistics_.peak_bytes = statistics_.live_bytes;
    statistics_.largest_block_bytes = 0;
    labels_.at_new_peak();
  }
  /// Bytes in use by name (MemoryLabel), largest first: now, or when there were most since reset_peak().
  std::vector<MemoryUse> uses() const {
    const std::lock_guard lock(guard_);
    return labels_.now();
  }
  std::vector<MemoryUse> uses_at_peak() const {
    const std::lock_guard lock(guard_);
    return labels_.at_peak();
  }
  /// Every request and return from here on is appended to `trace` as well; null: no more.
  void trace(std::vector<MemoryEvent>* trace) {
    const std::lock_guard lock(guard_);
    trace_ = trace;
    ++traces_;
  }

 private:
  friend class Buffer;
  friend class MemoryLabel;
  friend class ReservedBlocks;

  void count(const detail::Block& block) {
    statistics_.live_bytes += block.size_class;
    statistics_.largest_block_bytes = std::max(statistics_.largest_block_bytes, block.size_class);
    labels_.add(block.label, block.size_class);
    most_live_ = std::max(most_live_, statistics_.live_bytes);
    if (statistics_.live_bytes <= statistics_.peak_bytes) return;
    statistics_.peak_bytes = statistics_.live_bytes;
    labels_.at_new_peak();
  }
  void rename(detail::Block& block, std::string_view name) {
    const int to = labels_.number_of(name);
    labels_.move(std::exchange(block.label, to), to, block.size_class);
  }
  detail::Block* take_reserved(index_t want) {
    detail::Block* block = reserving_->take(want);
    if (!block && (block = general_.take(want))) reserve(block);
    return block;
  }
  void reserve(detail::Block* block) {
    reserving_->free.try_emplace(block->size_class);
    block->pool = reserving_;
    ++reserving_->blocks;
    set_aside_ += block->bytes;
  }
  bool is_earlier(const detail::Block& block) const { return block.regime < regime_; }
  /// There is no free block of this class.
  detail::Block* take_otherwise(index_t want) {
    // While a graph is captured nothing can be given back.
    if (!reserving_) {
      constexpr index_t fewest_requests = 64;
      const index_t ours = general_.count_free([&](const detail::Block& b) { return !is_earlier(b); });
      const index_t long_ago = requests_ - std::max(2 * fewest_requests, 4 * ours);
      const detail::FreeBlocks& list = general_.free.try_emplace(want).first->second;
      if (list.lost_in != regime_ && hits_ >= std::max(fewest_requests, ours)) ++regime_;
      hits_ = 0;
      const index_t most = std::max(most_live_, statistics_.live_bytes + want);
      if (over(most + most / 8, want)) {
        if (detail::Block* block = take_larger(want)) return block;
        release_while([&] { return over(most + most / 8, want); }, [&](const detail::Block& b) { return is_earlier(b); });
        if (over(2 * most, want))
          release_while([&] { return over(most + most / 8, want); },
                        [&](const detail::Block& b) { return b.request < long_ago; });
      }
    }
    return take_from_system(want);
  }
  /// Whether so many more would make what is held, without what is set aside, more than `bytes`.
  bool over(index_t bytes, index_t want) const { return statistics_.reserved_bytes - set_aside_ > bytes - want; }
  bool over_limit(index_t want) const { return limit_ && statistics_.reserved_bytes > *limit_ - want; }
  /// A free block of earlier work whose size is at most a quarter more, for this class from now on.
  detail::Block* take_larger(index_t want) {
    for (auto at = general_.free.upper_bound(want); at != general_.free.end() && at->first <= want + want / 4; ++at)
      if (detail::Block* head = at->second.head; head && is_earlier(*head) && head->bytes <= want + want / 4) {
        at->second.lost_in = regime_;
        detail::BlockPool::pop(at->second.head)->size_class = want;
        return head;
      }
    return nullptr;
  }
  detail::Block* take_from_system(index_t want) {
    if (!reserving_) release_while([&] { return over_limit(want); }, [](const detail::Block&) { return true; });
    const bool allowed = !over_limit(want);
    void* data = allowed ? backend_->acquire(want) : nullptr;
    // Free blocks of other sizes may be in the way.
    if (!data && allowed && !reserving_ && release_free_blocks()) data = backend_->acquire(want);
    if (!data) refuse(want);
    auto* block = new detail::Block;
    block->arena = this;
    block->data = data;
    block->bytes = block->size_class = want;
    block->pool = &general_;
    general_.free.try_emplace(want);
    if (reserving_) reserve(block);
    statistics_.reserved_bytes += want;
    ++statistics_.system_allocations;
    return block;
  }
  [[noreturn]] void refuse(index_t want) const {
    const std::string held = detail::concat("this context holds ", statistics_.reserved_bytes, " bytes"),
                      in_use =
                          detail::concat(" and uses ", statistics_.live_bytes, ": ", detail::largest_uses(labels_.now()));
    throw OutOfMemory(detail::concat("expected ", want, " more bytes of memory, got none; ", held,
                                     limit_ ? detail::concat(" of at most ", *limit_) : "",
                                     statistics_.live_bytes > 0 ? in_use : ""));
  }
  void release(detail::Block* block) noexcept {
    statistics_.reserved_bytes -= block->bytes;
    backend_->release(block->data, block->bytes);
    delete block;
  }
  template <class More, class Wanted>
  void release_while(More&& more, Wanted&& wanted) noexcept {
    while (more()) {
      detail::Block* block = general_.take_most_useless(wanted, regime_);
      if (!block) return;
      release(block);
    }
  }
  /// Gives every free block back to the system but those of a ReservedBlocks; whether there was one.
  bool release_free_blocks() noexcept {
    const index_t before = statistics_.reserved_bytes;
    for (auto& [size, list] : general_.free)
      while (list.head) release(detail::BlockPool::pop(list.head));
    return statistics_.reserved_bytes != before;
  }
  void give_back(detail::Block* block) {
    {
      const std::lock_guard lock(guard_);
      labels_.subtract(block->label, block->size_class);
      statistics_.live_bytes -= block->size_class;
      if (block->traced >= 0) {
        if (trace_ && block->traced_by == traces_) trace_->push_back({block->traced, -1});
        block->traced = -1;
      }
      if (block->pool->closed) return_to_general(block);
      block->pool->put(block);
    }
    drop();
  }
  void return_to_general(detail::Block* block) noexcept {
    set_aside_ -= block->bytes;
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
  detail::LabelledBytes labels_;
  int label_ = 0;
  std::optional<index_t> limit_;
  index_t most_live_ = 0;     // since the last trim()
  std::uint64_t regime_ = 0;  // grows where other sizes are asked for than before
  index_t hits_ = 0;          // requests since one that no free block was there for
  index_t requests_ = 0;
  index_t set_aside_ = 0;  // bytes of blocks that are a ReservedBlocks' own
  std::vector<MemoryEvent>* trace_ = nullptr;
  index_t traces_ = 0;
  index_t users_ = 1;  // the owner, every live buffer and every ReservedBlocks
};

/// While it lives, what its arena hands out is counted under this name; an inner one goes first. Buffer::label() gives a
/// block another name afterwards.
class MemoryLabel {
 public:
  MemoryLabel(Arena& arena, std::string_view name) : arena_(arena) {
    const std::lock_guard lock(arena.guard_);
    before_ = std::exchange(arena.label_, arena.labels_.number_of(name));
  }
  MemoryLabel(const MemoryLabel&) = delete;
  MemoryLabel& operator=(const MemoryLabel&) = delete;
  ~MemoryLabel() {
    const std::lock_guard lock(arena_.guard_);
    arena_.label_ = before_;
  }

 private:
  Arena& arena_;
  int before_;
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
      for (auto& [size, list] : pool->free)
        while (list.head) {
          detail::Block* block = detail::BlockPool::pop(list.head);
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
inline void Buffer::label(std::string_view name) const {
  if (!block_) return;
  const std::lock_guard lock(block_->arena->guard_);
  block_->arena->rename(*block_, name);
}
inline void Buffer::label_unless_named(std::string_view name) const {
  if (!block_) return;
  const std::lock_guard lock(block_->arena->guard_);
  if (block_->label == block_->arena->label_) block_->arena->rename(*block_, name);
}
inline Buffer::~Buffer() {
  if (block_ && block_->references.fetch_sub(1, std::memory_order_acq_rel) == 1) block_->arena->give_back(block_);
}
}  // namespace dpmp::inline DPMP_ABI
