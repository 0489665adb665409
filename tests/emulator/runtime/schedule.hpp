// SPDX-License-Identifier: Apache-2.0
// Which thread of a block runs next.
#pragma once
#include "worker.hpp"

namespace emu {

inline constexpr std::uint32_t ring_size = 2048;  // a power of two above the 1024 threads of a block

inline void push_ready(Worker& w, int thread) {
  if (w.cfg.order == Order::priority) {
    w.warps[std::size_t(thread >> 5)].ready.push_back(thread);
  } else {
    w.ring[w.tail++ & (ring_size - 1)] = thread;
  }
}

inline void wake(Worker& w, int thread) {
  w.threads[std::size_t(thread)].state = ready;
  push_ready(w, thread);
}

/// The calling fiber waits, others run. Returns when it has been woken and its turn has come.
void wait_here(Worker& w, EmuThread& t);
/// Runs all threads of the block; a fault is left in w.error.
void run_threads(Worker& w);

}  // namespace emu
