// SPDX-License-Identifier: Apache-2.0
// Counts per warp request: 32-byte sectors of global memory, bank conflicts of shared memory. Generated code built with
// EMU_COUNT calls emu_note at every access; lanes of a warp are brought together by (instruction, how often executed).
#pragma once
#include <cstdint>

#include "footprint.hpp"
#include "statistics.hpp"

namespace emu {

/// Lanes of one warp at one execution of one memory instruction.
struct Request {
  std::uint32_t mask = 0, bytes = 0;  // bytes of each lane's access
  int flags = 0;                      // EMU_LD, EMU_ST, EMU_AT, EMU_SH
  std::uint64_t address[32] = {};
};

/// Sectors touched by the launch so far.
struct Touched {
  Footprint read, written;
};

/// Adds one complete request.
void count_request(Stat& s, Touched& touched, const Request& r);

struct Worker;
void count_start_block(Worker& w);
void count_end_block(Worker& w);

}  // namespace emu
