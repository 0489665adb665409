// SPDX-License-Identifier: Apache-2.0
// What every kernel's benchmark shares: the context, the timer and where rows go.
#pragma once
#include <nvtx3/nvToolsExt.h>

#include <dpmp/core/dtype.hpp>
#include <dpmp/runtime/cuda_backend.cuh>

#include "device_timer.cuh"
#include "kernels.hpp"
#include "oracles.hpp"
#include "test_data.cuh"

namespace bench {
class Suite {
 public:
  Suite(const KernelOptions& options, const Gpu& gpu, const std::function<void(const KernelRow&)>& take)
      : ctx(dpmp::Device::cuda(0)), options_(options), take_(take), timer_(ctx, 2 * gpu.l2_bytes, options.repetitions) {}

  dpmp::Context ctx;
  cudaStream_t stream() const { return dpmp::detail::stream_of(ctx); }
  bool tiny() const { return options_.tiny; }
  bool wants(const std::string& kernel) const { return kernel.find(options_.only) != std::string::npos; }
  /// Whether it wants any of the rows whose names contain `part`.
  bool wants_some(const std::string& part) const { return wants(part) || options_.only.find(part) != std::string::npos; }

  /// work() launches the kernel; error() runs it once more where that is needed, and compares. Profilers see a range with
  /// the row's name around one launch.
  template <class T>
  void add(const std::string& kernel, const std::string& shape, Work work_done, const auto& work, const auto& error) {
    if (!wants(kernel)) return;
    KernelRow row{kernel, shape, std::string(name_of(dpmp::dtype_of<T>)), work_done};
    nvtxRangePushA((kernel + " " + shape + " " + row.dtype).c_str());
    work();
    ctx.backend().synchronize();
    nvtxRangePop();
    row.cold_us = timer_.microseconds(true, work);
    row.hot_us = timer_.microseconds(false, work);
    if (options_.check) row.error = error();
    take_(row);
  }

 private:
  KernelOptions options_;
  std::function<void(const KernelRow&)> take_;
  DeviceTimer timer_;
};

/// "32 x 1024 x 768".
template <class... N>
std::string shape_text(index_t first, N... rest) {
  std::string text = std::to_string(first);
  ((text += " x " + std::to_string(rest)), ...);
  return text;
}
/// The work of a product of T's: on tensor cores unless T is float.
template <class T>
Work product_work(double flops, double bytes) {
  if (std::is_same_v<T, float>) return {.fp32 = flops, .bytes = bytes};
  return {.tensor = flops, .bytes = bytes};
}
inline Numbers test_values(std::uint64_t seed, index_t first, index_t count, index_t stride = 1) {
  Numbers values(static_cast<std::size_t>(count));
  for (index_t k = 0; k < count; ++k) values[std::size_t(k)] = test_value(seed, first + k * stride);
  return values;
}
}  // namespace bench
