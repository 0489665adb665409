// SPDX-License-Identifier: Apache-2.0
// Where data lives and work runs.
#pragma once
#include <ostream>

#include "dpmp/core/error.hpp"

/// `DPMP_IF_CUDA(ctx.on_cuda()) return f_on_cuda<T>(..);`: an `if` in a build with CUDA, nothing in a build without. What is
/// called there is a template that the .hpp declares and a .cuh defines, because CUDA compilers alone can read it: units of
/// all compilers can use a template that only some unit defines. A program none of whose units includes the .cuh gets an
/// error of the linker, and only where it uses CUDA. A function that depends on no type takes that of an argument.
#if defined(DPMP_WITH_CUDA) && DPMP_WITH_CUDA
#define DPMP_IF_CUDA(...) if (__VA_ARGS__)
#else
#define DPMP_IF_CUDA(...) if constexpr (false)
#endif

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
