// SPDX-License-Identifier: Apache-2.0
// Kernel launches: configuration checks, parameters, function attributes, occupancy.
#include <algorithm>
#include <cstring>

#include "api.hpp"
#include "device_model.hpp"
#include "text.hpp"

namespace emu {
namespace {

struct Configuration {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
};
thread_local std::vector<Configuration> configurations;  // of <<<>>> between push and pop

constexpr int shared_without_optin = 48 * 1024;

cudaError_t check_configuration(const Kernel& k, dim3 g, dim3 b, std::size_t shared) {
  const std::uint64_t threads = std::uint64_t(b.x) * b.y * b.z;
  const char* name = k.shown.c_str();
  if (!threads || threads > 1024 || b.z > 64 || !g.x || !g.y || !g.z || g.y > 65535 || g.z > 65535 || g.x > 0x7fffffffu) {
    return mistake(cudaErrorInvalidConfiguration, name,
                   format("invalid configuration: grid (%u,%u,%u) block (%u,%u,%u)", g.x, g.y, g.z, b.x, b.y, b.z));
  }
  if (threads > k.max_threads) {
    return mistake(cudaErrorInvalidConfiguration, name,
                   format("%llu threads per block, __launch_bounds__ allows %u", static_cast<unsigned long long>(threads),
                          k.max_threads));
  }
  const std::size_t fixed = k.code->stat_smem, all = fixed + shared;
  const bool opted_in = k.max_dynamic_shared > shared_without_optin;
  if (shared > std::size_t(k.max_dynamic_shared) || all > std::size_t(device_model().shared_per_block_optin) ||
      (!opted_in && all > std::size_t(shared_without_optin))) {
    return mistake(cudaErrorInvalidValue, name,
                   format("shared memory: %zu static + %zu dynamic, dynamic limit %d", fixed, shared, k.max_dynamic_shared));
  }
  return cudaSuccess;
}

cudaError_t launch(Kernel* k, dim3 g, dim3 b, void** arguments, std::size_t shared, cudaStream_t stream) {
  std::lock_guard<std::recursive_mutex> lock(registry().mutex);
  if (cudaError_t e = sticky_error()) return e;
  if (!k) return mistake(cudaErrorInvalidDeviceFunction, "launch", "unknown kernel handle");
  if (!build(*k)) return error(cudaErrorInvalidKernelImage);
  if (cudaError_t e = check_configuration(*k, g, b, shared)) return e;
  if (cudaError_t e = refuse_other_device(stream, k->shown.c_str())) return e;
  auto a = std::make_shared<LaunchArgs>();
  a->kernel = k->code;
  a->shown = k->shown.c_str();
  a->stat = &k->stat;
  const std::uint32_t grid[3] = {g.x, g.y, g.z}, block[3] = {b.x, b.y, b.z};
  std::copy(grid, grid + 3, a->grid);
  std::copy(block, block + 3, a->block);
  a->dynamic_shared = std::uint32_t(shared);
  a->device = current_device();
  a->parameters.assign(k->parameter_bytes + 16, 0);  // vector loads of the last parameter may reach beyond it
  NodeFacts facts;
  facts.type = cudaGraphNodeTypeKernel;
  facts.arguments = std::make_shared<std::vector<void*>>();
  for (std::size_t i = 0; i < k->parameters.size(); i++) {
    facts.arguments->push_back(a->parameters.data() + k->parameters[i].first);
    std::memcpy(facts.arguments->back(), arguments[i], k->parameters[i].second);
  }
  facts.kernel = {const_cast<void*>(k->host_function), g, b, unsigned(shared), facts.arguments->data(), nullptr};
  return submit(
      stream, k->shown.c_str(),
      [a] {
        const auto code = static_cast<cudaError_t>(run(*a));
        if (code) set_sticky_error(code);
        return code;
      },
      std::move(facts));
}

}  // namespace
}  // namespace emu

using emu::error;
using emu::Kernel;

extern "C" {

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, struct CUstream_st* stream) {
  emu::configurations.push_back({grid, block, shared, stream});
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  if (emu::configurations.empty()) return error(cudaErrorUnknown);
  const emu::Configuration c = emu::configurations.back();
  emu::configurations.pop_back();
  *grid = c.grid;
  *block = c.block;
  *shared = c.shared;
  *static_cast<cudaStream_t*>(stream) = c.stream;
  return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t k, dim3 g, dim3 b, void** a, size_t shared, cudaStream_t s) {
  return emu::launch(emu::kernel_of(k), g, b, a, shared, s);
}
cudaError_t __cudaLaunchKernel_ptsz(cudaKernel_t k, dim3 g, dim3 b, void** a, size_t shared, cudaStream_t s) {
  return emu::launch(emu::kernel_of(k), g, b, a, shared, s);
}
cudaError_t cudaLaunchKernel(const void* f, dim3 g, dim3 b, void** a, size_t shared, cudaStream_t s) {
  return emu::launch(emu::kernel_of(f), g, b, a, shared, s);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* f, void** a) {
  for (unsigned i = 0; i < c->numAttrs; i++) {
    const cudaLaunchAttribute& attribute = c->attrs[i];
    const auto& cluster = attribute.val.clusterDim;
    if (attribute.id == cudaLaunchAttributeClusterDimension && cluster.x * cluster.y * cluster.z > 1) {
      return emu::mistake(cudaErrorNotSupported, "cudaLaunchKernelExC", "clusters are not modelled");
    }
    if (attribute.id == cudaLaunchAttributeCooperative && attribute.val.cooperative) {
      return emu::mistake(cudaErrorNotSupported, "cudaLaunchKernelExC", "cooperative launch is not modelled");
    }
  }
  return emu::launch(emu::kernel_of(f), c->gridDim, c->blockDim, a, c->dynamicSmemBytes, c->stream);
}

cudaError_t cudaFuncSetAttribute(const void* f, cudaFuncAttribute attribute, int value) {
  Kernel* k = emu::kernel_of(f);
  if (!k) return error(cudaErrorInvalidDeviceFunction);
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;  // a hint
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) {
    return emu::mistake(cudaErrorNotSupported, "cudaFuncSetAttribute", "attribute is not modelled");
  }
  if (!emu::build(*k)) return error(cudaErrorInvalidKernelImage);
  if (value < 0 || value + int(k->code->stat_smem) > emu::device_model().shared_per_block_optin) {
    return error(cudaErrorInvalidValue);
  }
  k->max_dynamic_shared = value;
  return cudaSuccess;
}

cudaError_t cudaFuncSetCacheConfig(const void*, cudaFuncCache) { return cudaSuccess; }

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* out, const void* f) {
  Kernel* k = emu::kernel_of(f);
  if (!k || !emu::build(*k)) return error(cudaErrorInvalidDeviceFunction);
  *out = cudaFuncAttributes{};
  out->sharedSizeBytes = k->code->stat_smem;
  out->maxThreadsPerBlock = int(k->max_threads);
  out->numRegs = 32;  // registers are not modelled
  out->ptxVersion = out->binaryVersion = emu::device_model().major * 10 + emu::device_model().minor;
  out->maxDynamicSharedSizeBytes = k->max_dynamic_shared;
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* f, int threads, size_t shared,
                                                                   unsigned) {
  Kernel* k = emu::kernel_of(f);
  if (!k || !emu::build(*k)) return error(cudaErrorInvalidDeviceFunction);
  *blocks = 0;
  if (threads < 1 || threads > 1024) return error(cudaErrorInvalidValue);
  const emu::DeviceModel& d = emu::device_model();
  const int rounded = (threads + 31) / 32 * 32;
  const auto per_block = int(k->code->stat_smem + shared) + d.shared_reserved;
  *blocks = std::min({d.blocks_per_sm, d.threads_per_sm / rounded, d.shared_per_sm / per_block});
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* f, int threads, size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, f, threads, shared, 0);
}

}  // extern "C"
