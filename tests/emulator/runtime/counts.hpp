// SPDX-License-Identifier: Apache-2.0
// Counts per warp request: 32-byte sectors of global memory, bank conflicts of shared memory. Generated code built with
// EMU_COUNT calls emu_note at every access; lanes of a warp are brought together by (instruction, how often executed).
#pragma once
#include "worker.hpp"

namespace emu {

void count_start_block(Worker& w);
void count_end_block(Worker& w);

/// Table of all kernels on stderr, and as CSV in the file EMU_COUNT_FILE where that is set.
struct NamedStat {
  const char* name;
  const Stat* stat;
};
void count_table(const std::vector<NamedStat>& kernels);

}  // namespace emu
