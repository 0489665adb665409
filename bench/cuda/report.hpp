// SPDX-License-Identifier: Apache-2.0
// What the programs here print and write in the same way.
#pragma once
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "gpu.hpp"

namespace bench {
inline nlohmann::json to_json(const Gpu& gpu) {
  return {{"name", gpu.name},
          {"multiprocessors", gpu.multiprocessors},
          {"memory_bytes", gpu.memory_bytes},
          {"l2_bytes", gpu.l2_bytes},
          {"cuda_runtime", version_text(gpu.runtime_version)},
          {"cuda_driver", version_text(gpu.driver_version)}};
}
inline std::string describe(const Gpu& gpu) {
  return gpu.name + ", " + std::to_string(gpu.multiprocessors) + " multiprocessors, " +
         std::to_string(gpu.memory_bytes >> 30) + " GiB, CUDA " + version_text(gpu.runtime_version) +
         " (driver: " + version_text(gpu.driver_version) + ")";
}
/// The file is there as a whole or as it was before.
inline void write_json(const std::string& path, const nlohmann::json& value) {
  const std::string part = path + ".part";
  std::ofstream file(part);
  file << value.dump(1) << '\n';
  file.close();
  if (!file || std::rename(part.c_str(), path.c_str()) != 0)
    throw std::runtime_error("expected to write " + path + ", got an error");
}
}  // namespace bench
