// SPDX-License-Identifier: Apache-2.0
// Race detector: a shadow cell per byte of shared and global memory, compared by vector clocks. Generated code built with
// EMU_RACE calls emu_race before every access. Runs on one OS thread.
#pragma once
#include "worker.hpp"

namespace emu {

/// A new launch: everything before it happened before it.
void race_start_launch();
void race_start_block(Worker& w);
/// Judges the accesses that were kept back (RaceClocks::PendingWrite, PendingRead).
void race_flush(Worker& w);
/// Totals per kernel, at exit.
void race_summary();

}  // namespace emu
