// SPDX-License-Identifier: Apache-2.0
#include "gpu.hpp"

#include <cuda_runtime_api.h>

#include <stdexcept>

namespace bench {
Gpu gpu_at_hand() {
  cudaDeviceProp p{};
  const cudaError_t code = cudaGetDeviceProperties(&p, 0);
  if (code != cudaSuccess) throw std::runtime_error(std::string("expected a CUDA device, got: ") + cudaGetErrorString(code));
  Gpu gpu{.name = p.name,
          .multiprocessors = p.multiProcessorCount,
          .memory_bytes = std::int64_t(p.totalGlobalMem),
          .l2_bytes = p.l2CacheSize};
  cudaRuntimeGetVersion(&gpu.runtime_version);
  cudaDriverGetVersion(&gpu.driver_version);
  return gpu;
}

std::string version_text(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

std::optional<Peaks> peaks_of(const std::string& gpu_name) {
  // The figures of tests/emulator/roofline/gpus.py, which names their sources; H100 PCIe, H200 and the smaller A100 are from
  // NVIDIA's data sheets of these products.
  static constexpr struct {
    const char* part_of_name;
    Peaks peaks;
  } table[] = {
      {"A100-SXM4-80GB", {312e12, 19.5e12, 9.7e12, 2039e9}},    {"A100-SXM4-40GB", {312e12, 19.5e12, 9.7e12, 1555e9}},
      {"H100 80GB HBM3", {989.4e12, 66.9e12, 33.5e12, 3350e9}}, {"H100 PCIe", {756e12, 51e12, 26e12, 2000e9}},
      {"H200", {989.4e12, 66.9e12, 33.5e12, 4800e9}},           {"NVIDIA B200", {2250e12, 75e12, 37e12, 7700e9}}};
  for (const auto& gpu : table)
    if (gpu_name.find(gpu.part_of_name) != std::string::npos) return gpu.peaks;
  return {};
}

Roof roof_of(const Work& work, const Peaks& peaks, double seconds) {
  Roof longest{"memory", work.bytes / peaks.bandwidth / seconds};
  const Roof others[] = {{"tensor", work.tensor / peaks.tensor_bf16 / seconds},
                         {"FP32", work.fp32 / peaks.fp32 / seconds},
                         {"FP64", work.fp64 / peaks.fp64 / seconds}};
  for (const Roof& roof : others)
    if (roof.share > longest.share) longest = roof;
  return longest;
}
}  // namespace bench
