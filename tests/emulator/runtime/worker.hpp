// SPDX-License-Identifier: Apache-2.0
// State of one OS thread that runs blocks: the block it is in, its fibers, and what the checks remember of them.
#pragma once
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "config.hpp"
#include "counts.hpp"
#include "emu_abi.h"
#include "launch.hpp"
#include "race_clocks.hpp"
#include "text.hpp"

namespace emu {

enum ThreadState : int { fresh, ready, at_barrier, in_collective, done };

/// A warp collective that some of its lanes have reached.
struct PendingCollective {
  std::uint32_t mask, arrived;
  EmuCollFn apply;
  std::uint32_t site;
};

struct Warp {
  std::vector<PendingCollective> pending;
  std::uint32_t gone = 0;      // lanes that have exited or never existed
  std::uint32_t all = 0;       // lanes that exist
  std::uint32_t priority = 0;  // Order::priority: the highest runs
  std::vector<int> ready;      // Order::priority: threads that may run
};

struct Barrier {
  std::vector<int> waiting, arrived;  // bar.sync and bar.arrive
  int expected = 0;                   // threads, 0 for all that are alive
  std::uint32_t site = 0;             // first instruction that entered it
  bool idle() const { return waiting.empty() && arrived.empty(); }
  int count() const { return int(waiting.size() + arrived.size()); }
};

struct AsyncCopy {
  std::uint8_t* destination;
  std::uint64_t key;  // offset in shared memory
  const std::uint8_t* source;
  std::uint32_t bytes, source_bytes, site;
};

struct AsyncQueue {
  std::vector<AsyncCopy> copies;    // in the order of issue
  std::vector<std::size_t> groups;  // per committed group: copies up to its end
};

struct Worker : EmuCtx {
  Worker() : EmuCtx() {}

  // The launch and the block.
  const LaunchArgs* launch = nullptr;
  Config cfg;
  std::uint64_t block = 0;  // linear number
  std::string error;        // report of the fault that ended the block
  int error_code = 0;
  bool warned = false;  // about warps meeting at different barriers, once per block

  // Threads and their scheduling.
  std::vector<EmuThread> threads;
  std::vector<Warp> warps;
  int count = 0, alive = 0, current = -1;
  bool running = false;
  void* main_stack = nullptr;  // stack pointer of the OS thread
  std::vector<char*> free_stacks;
  char* zombie = nullptr;  // stack of the fiber that just ended; still in use until the switch
  char* loop = nullptr;    // stack of kernels without synchronisation
  std::vector<int> ring;   // threads that may run (forward and reverse order)
  std::uint32_t head = 0, tail = 0;
  std::uint64_t random = 1;
  std::uint64_t idle_yields = 0, progress = 0, progress_seen = 0;

  // Waiting.
  Barrier barriers[16];
  int busy_barriers = 0;
  std::vector<AsyncQueue> async;

  // Memory.
  std::uint8_t* shared_store = nullptr;
  std::uint8_t* local_store = nullptr;
  std::vector<EmuSite> site_cache;

  // Checks.
  RaceClocks race;
  std::vector<std::uint32_t> executions;  // per thread and site
  std::unordered_map<std::uint64_t, Request> requests;
  Stat stat;  // of the blocks of this launch that the worker has run
  Touched touched;

  std::uint64_t draw() { return next_random(random); }
};

inline Worker& worker_of(EmuCtx* context) { return *static_cast<Worker*>(context); }
extern thread_local Worker* current_worker;

// Codes of the cudaError that a fault raises.
enum Fault : int { illegal_address = 700, device_assert = 710, misaligned_address = 716, launch_failure = 719 };
inline constexpr std::int64_t no_site = -1;
std::string place(const Worker& w, const EmuThread& t);
const char* site_text(const Worker& w, std::uint32_t site);
/// Ends the block: the report becomes w.error and the OS thread continues behind the fibers.
[[noreturn]] void fault(Worker& w, EmuThread& t, int code, const std::string& message, std::int64_t site);

}  // namespace emu
