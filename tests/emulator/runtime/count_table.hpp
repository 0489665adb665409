// SPDX-License-Identifier: Apache-2.0
// Counts of the whole program: a row for each piece of work in each range (ranges.hpp), written at exit.
#pragma once
#include <string>

#include "statistics.hpp"

namespace emu {

enum class WorkKind { kernel, product, copy };

/// Adds to the row of this name in the calling thread's range.
void count_work(WorkKind kind, const std::string& name, Stat s);

/// While one exists, work of the calling thread comes from cudaGraphLaunch.
struct GraphLaunch {
  GraphLaunch();
  ~GraphLaunch();
  GraphLaunch(const GraphLaunch&) = delete;
};

/// All rows as lines of comma-separated values, or as JSON (a list of objects).
std::string count_csv();
std::string count_json();
/// Table on stderr; all columns in the file EMU_COUNT_FILE, as JSON where its name ends in .json, else as CSV.
void write_count_table();

}  // namespace emu
