// SPDX-License-Identifier: Apache-2.0
// The GPU at hand, and the peaks of GPUs that are known by name.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

namespace bench {
struct Gpu {
  std::string name;
  int multiprocessors = 0, runtime_version = 0, driver_version = 0;  // versions as CUDA writes them: 13000 is 13.0
  std::int64_t memory_bytes = 0, l2_bytes = 0;
};
/// Device 0. Throws std::runtime_error where there is none.
Gpu gpu_at_hand();
std::string version_text(int version);

/// Dense rates of a data sheet, in operations (a multiply-add is two) and bytes per second.
struct Peaks {
  double tensor_bf16, fp32, fp64, bandwidth;
};
/// Nothing for a GPU that is not in the table.
std::optional<Peaks> peaks_of(const std::string& gpu_name);

/// What a kernel needs at least, by formula. tensor: products on tensor cores, of bf16 numbers.
struct Work {
  double tensor = 0, fp32 = 0, fp64 = 0, bytes = 0;
};
/// The roof that takes longest for this work, and which part of it a run of so many seconds reaches.
struct Roof {
  const char* name;
  double share;
};
Roof roof_of(const Work& work, const Peaks& peaks, double seconds);
}  // namespace bench
