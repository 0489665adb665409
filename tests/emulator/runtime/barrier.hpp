// SPDX-License-Identifier: Apache-2.0
// bar.sync, bar.arrive and bar.red with their sixteen barriers per block.
#pragma once
#include "worker.hpp"

namespace emu {

/// Releases the barrier when all expected threads are there. `self`: the caller's own number when it has just entered
/// (it goes on without being queued), else -1.
void complete_if_full(Worker& w, Barrier& b, int self);

}  // namespace emu
