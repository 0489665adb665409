// SPDX-License-Identifier: Apache-2.0
// What bench_cuda_kernels measures; its CUDA half is kernels.cu.
#pragma once
#include <functional>
#include <optional>
#include <string>

#include "gpu.hpp"

namespace bench {
struct KernelOptions {
  bool tiny = false;  // shapes that an emulated device can do
  int repetitions = 20;
  std::string only;   // kernels whose name contains this text
  bool check = true;  // compare results; a sample of them in double takes the host seconds at big shapes
};

/// One kernel at one shape: median microseconds with a cold and with a warm L2 cache, and, where results are compared, the
/// largest error of a sample of them against double, as a part of the largest of them.
struct KernelRow {
  std::string kernel, shape, dtype;
  Work work;
  double cold_us = 0, hot_us = 0;
  std::optional<double> error = {};
};
/// Hands out each row as soon as it is measured. Throws dpmp::Error where the GPU refuses something.
void measure_kernels(const KernelOptions& options, const Gpu& gpu, const std::function<void(const KernelRow&)>& take);
}  // namespace bench
