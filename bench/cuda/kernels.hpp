// SPDX-License-Identifier: Apache-2.0
// What bench_cuda_kernels measures; its CUDA half is kernels.cu.
#pragma once
#include <string>
#include <vector>

#include "gpu.hpp"

namespace bench {
struct KernelOptions {
  bool tiny = false;  // shapes that an emulated device can do
  int repetitions = 20;
  std::string only;  // kernels whose name contains this text
};

/// One kernel at one shape: median microseconds with a cold and with a warm L2 cache, and the largest error of a sample of
/// its results against double, as a part of the largest of them.
struct KernelRow {
  std::string kernel, shape, dtype;
  Work work;
  double cold_us = 0, hot_us = 0, error = 0;
};
/// Throws dpmp::Error where the GPU refuses something.
std::vector<KernelRow> measure_kernels(const KernelOptions& options, const Gpu& gpu);
}  // namespace bench
