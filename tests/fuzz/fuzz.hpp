// SPDX-License-Identifier: Apache-2.0
// What a fuzz target has: LLVMFuzzerTestOneInput, as libFuzzer wants it, and inputs to start from for the driver of our own.
// A target lets nothing but dpmp::Error be thrown, and calls `hold` for what is true of every input that is accepted.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "dpmp/core/error.hpp"
#include "support/temporary_folder.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace fuzz {
/// Valid inputs and others worth changing.
std::vector<std::string> seeds();
/// Pieces of text that the format is made of.
std::vector<std::string> words();
/// How many inputs were accepted so far: a target that refuses everything tests nothing.
inline std::uint64_t accepted = 0;
/// Most bytes that one allocation may take while an input is run, in addition to most_times_input times its own: what a file
/// says of its size must not be believed before it is compared with the file.
inline std::size_t most_bytes = 1 << 18;
inline constexpr std::size_t most_times_input = 32;

inline void hold(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

/// A file with these bytes, in a folder that goes away at the end of the program.
inline std::filesystem::path file_of(const std::string& bytes) {
  static const test::TemporaryFolder folder;
  test::write_text(folder / "input", bytes);
  return folder / "input";
}
}  // namespace fuzz
