// SPDX-License-Identifier: Apache-2.0
// Warp collectives: shuffles, votes, redux, mma, ldmatrix, bar.warp.sync. The last lane to arrive evaluates all.
#pragma once
#include "worker.hpp"

namespace emu {

/// EMU_LAX: an exited lane is struck from the member masks of those who wait for it.
void drop_lane(Worker& w, int warp, int lane);

}  // namespace emu
