// SPDX-License-Identifier: Apache-2.0
// The devices and their properties (device_model.hpp).
#include <cstdio>

#include "api.hpp"
#include "config.hpp"
#include "device_model.hpp"
#include "text.hpp"

namespace emu {
namespace {

/// Value of an attribute; false when it is not modelled.
bool attribute(cudaDeviceAttr a, int* v) {
  const DeviceModel& d = device_model();
  switch (a) {
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY: *v = 1024; break;
    case cudaDevAttrMaxBlockDimZ: *v = 64; break;
    case cudaDevAttrMaxGridDimX:
    case cudaDevAttrMaxPitch: *v = 0x7fffffff; break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ: *v = 65535; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *v = 48 * 1024; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *v = d.shared_per_block_optin; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *v = d.shared_per_sm; break;
    case cudaDevAttrReservedSharedMemoryPerBlock: *v = d.shared_reserved; break;
    case cudaDevAttrWarpSize: *v = 32; break;
    case cudaDevAttrMultiProcessorCount: *v = multiprocessors(); break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *v = d.threads_per_sm; break;
    case cudaDevAttrMaxBlocksPerMultiprocessor: *v = d.blocks_per_sm; break;
    case cudaDevAttrComputeCapabilityMajor: *v = d.major; break;
    case cudaDevAttrComputeCapabilityMinor: *v = d.minor; break;
    case cudaDevAttrMaxRegistersPerBlock:
    case cudaDevAttrMaxRegistersPerMultiprocessor:
    case cudaDevAttrTotalConstantMemory: *v = 65536; break;
    case cudaDevAttrL2CacheSize: *v = d.l2_bytes; break;
    case cudaDevAttrGlobalMemoryBusWidth: *v = d.memory_bus_bits; break;
    case cudaDevAttrClockRate:
    case cudaDevAttrMemoryClockRate: *v = 1000000; break;
    case cudaDevAttrTextureAlignment: *v = 512; break;
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrManagedMemory:
    case cudaDevAttrConcurrentManagedAccess:
    case cudaDevAttrMemoryPoolsSupported:
    case cudaDevAttrCanMapHostMemory:
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrStreamPrioritiesSupported:
    case cudaDevAttrAsyncEngineCount: *v = 1; break;
    case cudaDevAttrIntegrated:
    case cudaDevAttrEccEnabled:
    case cudaDevAttrKernelExecTimeout:
    case cudaDevAttrComputeMode:
    case cudaDevAttrIsMultiGpuBoard:
    case cudaDevAttrPageableMemoryAccess:
    case cudaDevAttrHostNativeAtomicSupported:
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrPciBusId:
    case cudaDevAttrPciDeviceId:
    case cudaDevAttrPciDomainId: *v = 0; break;
    default: return false;
  }
  return true;
}

bool exists(int device) { return device >= 0 && device < config().devices; }

int known(cudaDeviceAttr a) {
  int v = 0;
  attribute(a, &v);
  return v;
}

}  // namespace
}  // namespace emu

using emu::error;

extern "C" {

cudaError_t cudaDeviceGetAttribute(int* v, cudaDeviceAttr a, int device) {
  if (!emu::exists(device)) return error(cudaErrorInvalidDevice);
  if (emu::attribute(a, v)) return cudaSuccess;
  return emu::mistake(cudaErrorInvalidValue, "cudaDeviceGetAttribute", emu::format("attribute %d is not modelled", int(a)));
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  if (!emu::exists(device)) return error(cudaErrorInvalidDevice);
  *p = cudaDeviceProp{};
  const emu::DeviceModel& d = emu::device_model();
  std::snprintf(p->name, sizeof p->name, "emulated");
  p->major = d.major;
  p->minor = d.minor;
  p->totalGlobalMem = emu::config().device_bytes;
  p->sharedMemPerBlock = std::size_t(emu::known(cudaDevAttrMaxSharedMemoryPerBlock));
  p->sharedMemPerBlockOptin = std::size_t(d.shared_per_block_optin);
  p->sharedMemPerMultiprocessor = std::size_t(d.shared_per_sm);
  p->reservedSharedMemPerBlock = std::size_t(d.shared_reserved);
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->warpSize = 32;
  p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 0x7fffffff;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->totalConstMem = 65536;
  p->multiProcessorCount = emu::multiprocessors();
  p->maxThreadsPerMultiProcessor = d.threads_per_sm;
  p->maxBlocksPerMultiProcessor = d.blocks_per_sm;
  p->l2CacheSize = d.l2_bytes;
  p->memoryBusWidth = d.memory_bus_bits;
  p->unifiedAddressing = p->managedMemory = p->concurrentManagedAccess = p->concurrentKernels = 1;
  p->canMapHostMemory = p->memoryPoolsSupported = p->streamPrioritiesSupported = p->asyncEngineCount = 1;
  p->textureAlignment = 512;
  p->memPitch = 0x7fffffff;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* n) {
  *n = emu::config().devices;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (!emu::exists(device)) return error(cudaErrorInvalidDevice);
  emu::set_current_device(device);
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = emu::current_device();
  return cudaSuccess;
}
cudaError_t cudaSetDeviceFlags(unsigned) { return cudaSuccess; }
cudaError_t cudaInitDevice(int, unsigned, unsigned) { return cudaSuccess; }
// Limits concern the device's heap and stack; both are bounded by the host here.
cudaError_t cudaDeviceSetLimit(cudaLimit, size_t) { return cudaSuccess; }
cudaError_t cudaDeviceGetLimit(size_t* v, cudaLimit) {
  *v = 1 << 20;
  return cudaSuccess;
}
cudaError_t cudaDeviceSetCacheConfig(cudaFuncCache) { return cudaSuccess; }
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  *can = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return error(cudaErrorPeerAccessUnsupported); }
cudaError_t cudaDriverGetVersion(int* v) {
  *v = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* v) {
  *v = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaProfilerStart(void) { return cudaSuccess; }
cudaError_t cudaProfilerStop(void) { return cudaSuccess; }
cudaError_t cudaDeviceGetPCIBusId(char* text, int n, int) {
  std::snprintf(text, std::size_t(n), "0000:00:00.0");
  return cudaSuccess;
}

}  // extern "C"
