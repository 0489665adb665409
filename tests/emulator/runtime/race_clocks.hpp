// SPDX-License-Identifier: Apache-2.0
// Vector clocks of one block: who has synchronised with whom. Lanes have clocks within their warp, warps have clocks
// within the block; between blocks there is only "this block has seen what that block released".
#pragma once
#include <cstdint>
#include <vector>

namespace emu {

/// One access, kept in the shadow of each byte it touched.
struct Stamp {
  std::uint32_t launch = 0;  // launch (global memory) or block serial (shared memory); 0: never accessed
  std::uint32_t block = 0;
  std::uint32_t warp_clock = 0, lane_clock = 0;
  std::uint32_t site = 0;
  std::uint16_t thread = 0;
  bool atomic = false;
};

/// Shadow of one byte: the last write and the last reads of two warps (older readers are forgotten).
struct Cell {
  Stamp write, read, older_read;
  std::uint32_t in_flight = 0;  // serial of the block that has a cp.async to this byte under way
};

class RaceClocks {
 public:
  void start_block(std::uint32_t serial, std::uint32_t shared_bytes, std::size_t warps, std::uint64_t block,
                   std::uint64_t blocks);
  /// The lanes of mask synchronise (bar.warp.sync, and shuffles and votes in the usual mode).
  void join_lanes(int warp, std::uint32_t mask);
  /// A barrier completes: `waiting` have seen all, `arrived` only released (bar.arrive, or exited).
  void join_barrier(const std::vector<int>& waiting, const std::vector<int>& arrived);
  /// Whether the earlier access happens before the later one.
  bool ordered(const Stamp& earlier, const Stamp& later) const;
  /// Stamp of an access by a thread now.
  Stamp stamp(std::uint32_t thread, std::uint32_t launch, std::uint32_t site, bool atomic) const;

  /// An atomic on global memory: takes what other blocks released through this word, and releases what this block has
  /// seen if it fenced before.
  void acquire(const std::vector<std::uint64_t>& released);
  void release_to(std::vector<std::uint64_t>& released) const;

  std::uint32_t serial = 0;  // number of the block, unique in the process
  bool fenced = false;       // a membar has been executed by the block
  std::vector<Cell> shared;

  // A plain write after an unsynchronised write is judged when the store has happened: writing the value that is there
  // already is harmless. Until then its old bytes are kept here.
  struct PendingWrite {
    const std::uint8_t* bytes = nullptr;  // null: nothing to judge
    std::uint8_t old[16];
    std::uint32_t count = 0, site = 0;
    struct EmuThread* thread = nullptr;
    Stamp previous;
    bool shared = false;
    std::uint64_t key = 0;
  } pending;

  // A plain read after another thread's atomic is judged at the next access: as the first guess of a compare-and-swap
  // loop, which the swap of the same word then confirms, it is harmless.
  struct PendingRead {
    struct EmuThread* thread = nullptr;  // null: nothing to judge
    std::uint32_t bytes = 0, site = 0;
    Stamp previous;
    std::uint64_t key = 0;
  } pending_read;

 private:
  std::uint64_t block_ = 0;
  std::size_t warps_ = 0;
  std::vector<std::uint32_t> lane_clocks_;  // [thread][lane of its warp]
  std::vector<std::uint32_t> warp_clocks_;  // [warp][warp]
  std::vector<std::uint64_t> seen_;         // bit per block whose releases this block has acquired
};

}  // namespace emu
