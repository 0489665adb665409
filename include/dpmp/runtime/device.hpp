// SPDX-License-Identifier: Apache-2.0
// Where data lives and work runs.
#pragma once
#include <ostream>

#include "dpmp/core/error.hpp"

namespace dpmp::inline DPMP_ABI {
enum class DeviceKind : std::uint8_t { cpu, cuda };

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
  static constexpr Device cpu() { return {}; }
  static constexpr Device cuda(int index = 0) { return {DeviceKind::cuda, index}; }
  /// The first GPU where this build has CUDA and there is one, else the CPU.
  static inline Device best();
  friend bool operator==(Device, Device) = default;
  friend std::ostream& operator<<(std::ostream& out, Device d) {
    if (d.kind == DeviceKind::cpu) return out << "cpu";
    return out << "cuda:" << d.index;
  }
};
}  // namespace dpmp::inline DPMP_ABI
