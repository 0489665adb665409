// SPDX-License-Identifier: Apache-2.0
// Running one kernel launch from its first block to its last.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "emu_abi.h"
#include "statistics.hpp"

namespace emu {

struct LaunchArgs {
  const EmuKernelDesc* kernel;
  const char* shown;  // readable name
  std::uint32_t grid[3], block[3];
  std::uint32_t dynamic_shared;
  int device;
  std::vector<std::uint8_t> parameters;
  Stat* stat;  // may be null
};

/// Runs all blocks. 0, or the code of a cudaError whose report has been printed.
int run(LaunchArgs& launch);

}  // namespace emu
