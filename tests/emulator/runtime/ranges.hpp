// SPDX-License-Identifier: Apache-2.0
// Ranges that the program marks with NVTX (nvtxRangePushA, nvtx3::scoped_range): the counts are kept apart by them. The
// NVTX headers load the library that NVTX_INJECTION64_PATH names; the stand-in runtime names itself there.
#pragma once
#include <cstdint>
#include <string>

namespace emu {

/// Opens a range of the calling thread inside the ranges that are open; returns its depth, from 0.
int push_range(const std::string& name);
/// Closes the innermost range; returns its depth, -1 when none is open.
int pop_range();
/// Names of the open ranges of the calling thread, outermost first, joined by "/"; empty when none is open.
const std::string& current_range();
/// How often the range has been opened, by all threads.
std::uint64_t times_entered(const std::string& range);

}  // namespace emu
