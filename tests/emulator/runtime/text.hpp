// SPDX-License-Identifier: Apache-2.0
// Small helpers for text, files and hashes.
#pragma once
#include <cstdint>
#include <string>

namespace emu {

/// printf into a string.
std::string format(const char* text, ...) __attribute__((format(printf, 1, 2)));
/// printf to stderr: every report of the emulator leaves by this way.
void say(const char* text, ...) __attribute__((format(printf, 1, 2)));
/// Value of an environment variable, empty when it is not set.
std::string environment(const char* name);
/// Whole file, empty when it cannot be read.
std::string read_file(const std::string& path);
/// 64-bit FNV-1a, chained over several texts by the second argument.
std::uint64_t fnv1a(const std::string& text, std::uint64_t hash = 1469598103934665603ull);
std::string hex(std::uint64_t value);
/// The text as one word of a shell command.
std::string shell_quote(const std::string& text);
/// Readable name of a kernel: its C++ name without return type and parameters.
std::string demangle(const std::string& name);

/// xorshift64: all of the emulator's random choices. The state must not be zero.
inline std::uint64_t next_random(std::uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

}  // namespace emu
