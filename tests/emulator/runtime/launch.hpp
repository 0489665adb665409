// SPDX-License-Identifier: Apache-2.0
// Running one kernel launch from its first block to its last.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "emu_abi.h"

namespace emu {

/// Requests of warps to global memory, and the 32-byte sectors that they touch.
struct Traffic {
  std::uint64_t requests = 0, sectors = 0, bytes = 0;
  void operator+=(const Traffic& o) {
    requests += o.requests;
    sectors += o.sectors;
    bytes += o.bytes;
  }
};

/// What a kernel did, summed over its launches.
struct Stat {
  std::uint64_t launches = 0, threads = 0, blocks = 0;
  std::uint64_t instructions[EC_N] = {};  // per thread, by class
  Traffic loads, stores;                  // global memory
  std::uint64_t shared_requests = 0, wavefronts = 0, ideal_wavefronts = 0;
  double seconds = 0;
};

struct LaunchArgs {
  const EmuKernelDesc* kernel;
  const char* shown;  // readable name
  std::uint32_t grid[3], block[3];
  std::uint32_t dynamic_shared;
  std::vector<std::uint8_t> parameters;
  Stat* stat;  // may be null
};

/// Runs all blocks. 0, or the code of a cudaError whose report has been printed.
int run(LaunchArgs& launch);

}  // namespace emu
