// SPDX-License-Identifier: Apache-2.0
// Allocation and what can be asked about it.
#include <cstdlib>
#include <cstring>

#include "api.hpp"
#include "config.hpp"
#include "memory.hpp"
#include "text.hpp"

namespace emu {
namespace {

cudaMemPool_t pool_handle() {
  static int pool;  // one pool; its address is its handle
  return reinterpret_cast<cudaMemPool_t>(&pool);
}

cudaError_t device_alloc(void** out, std::size_t bytes) {
  if (!out) return error(cudaErrorInvalidValue);
  *out = nullptr;
  if (cudaError_t e = sticky_error()) return e;
  if (!bytes) return cudaSuccess;
  const std::uint64_t a = allocate(bytes, Kind::device, "cudaMalloc");
  if (!a) return error(cudaErrorMemoryAllocation);
  *out = reinterpret_cast<void*>(a);
  return cudaSuccess;
}

cudaError_t device_free(void* p, const char* api) {
  if (!p) return cudaSuccess;
  const auto a = reinterpret_cast<std::uint64_t>(p);
  Region r;
  switch (release(a, Kind::device)) {
    case Released::twice:
      return mistake(cudaErrorInvalidValue, api, "double free" + (find_region(a, &r) ? " of " + r.name : ""));
    case Released::unknown: return mistake(cudaErrorInvalidValue, api, "not a device allocation");
    case Released::yes: break;
  }
  return sticky_error();
}

/// Stream-ordered calls would become nodes of a graph; those are not modelled.
cudaError_t refuse_capturing(cudaStream_t s, const char* api) {
  const Stream* stream = stream_of(s, api);
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (!stream->capture) return cudaSuccess;
  return mistake(cudaErrorNotSupported, api, "allocation inside a captured graph is not modelled");
}

cudaError_t pinned_alloc(void** out, std::size_t bytes, const char* what) {
  if (!out) return error(cudaErrorInvalidValue);
  void* memory = std::aligned_alloc(4096, (bytes + 4095 + (bytes == 0)) / 4096 * 4096);
  if (!memory) return error(cudaErrorMemoryAllocation);
  if (config().poison) std::memset(memory, 0xFF, bytes);
  allocate(bytes, Kind::host, what, memory);
  *out = memory;
  return cudaSuccess;
}

}  // namespace
}  // namespace emu

using emu::error;

extern "C" {

cudaError_t cudaMalloc(void** p, size_t n) {
  if (cudaError_t e = emu::refuse_during_capture("cudaMalloc")) return e;
  return emu::device_alloc(p, n);
}
cudaError_t cudaFree(void* p) {
  if (!p) return cudaSuccess;
  if (cudaError_t e = emu::refuse_during_capture("cudaFree")) return e;
  return emu::device_free(p, "cudaFree");
}
cudaError_t cudaMallocAsync(void** p, size_t n, cudaStream_t s) {
  if (cudaError_t e = emu::refuse_capturing(s, "cudaMallocAsync")) return e;
  return emu::device_alloc(p, n);
}
cudaError_t cudaFreeAsync(void* p, cudaStream_t s) {
  if (cudaError_t e = emu::refuse_capturing(s, "cudaFreeAsync")) return e;
  return emu::device_free(p, "cudaFreeAsync");
}
cudaError_t cudaMallocFromPoolAsync(void** p, size_t n, cudaMemPool_t, cudaStream_t s) { return cudaMallocAsync(p, n, s); }
cudaError_t cudaMallocPitch(void** p, size_t* pitch, size_t width, size_t height) {
  *pitch = (width + 511) / 512 * 512;
  return cudaMalloc(p, *pitch * height);
}

cudaError_t cudaHostAlloc(void** p, size_t n, unsigned) { return emu::pinned_alloc(p, n, "pinned host memory"); }
cudaError_t cudaMallocHost(void** p, size_t n) { return emu::pinned_alloc(p, n, "pinned host memory"); }
cudaError_t cudaMallocManaged(void** p, size_t n, unsigned) { return emu::pinned_alloc(p, n, "managed memory"); }
cudaError_t cudaFreeHost(void* p) {
  if (!p) return cudaSuccess;
  if (emu::release(reinterpret_cast<std::uint64_t>(p), emu::Kind::host) != emu::Released::yes) {
    return emu::mistake(cudaErrorInvalidValue, "cudaFreeHost", "not a pinned allocation");
  }
  std::free(p);
  return cudaSuccess;
}
cudaError_t cudaHostRegister(void* p, size_t n, unsigned) {
  emu::allocate(n, emu::Kind::host, "registered host memory", p);
  return cudaSuccess;
}
cudaError_t cudaHostUnregister(void* p) {
  const bool known = emu::release(reinterpret_cast<std::uint64_t>(p), emu::Kind::host) == emu::Released::yes;
  return known ? cudaSuccess : error(cudaErrorInvalidValue);
}
cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
  emu::Region r;
  if (!emu::find_region(reinterpret_cast<std::uint64_t>(host), &r) || r.kind != emu::Kind::host) {
    return error(cudaErrorInvalidValue);
  }
  *device = host;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* out, const void* p) {
  *out = cudaPointerAttributes{};
  emu::Region r;
  void* pointer = const_cast<void*>(p);
  if (!emu::find_region(reinterpret_cast<std::uint64_t>(p), &r) || !r.live) {
    out->type = cudaMemoryTypeUnregistered;
    out->hostPointer = pointer;
    out->device = -2;  // what the runtime reports for memory it does not know
    return cudaSuccess;
  }
  const bool host = r.kind == emu::Kind::host;
  const bool managed = host && r.name.rfind("managed", 0) == 0;
  out->device = r.device < 0 ? 0 : r.device;
  out->type = managed ? cudaMemoryTypeManaged : host ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
  out->devicePointer = pointer;
  out->hostPointer = host ? pointer : nullptr;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
  *total = emu::config().device_bytes;
  *free_bytes = *total - emu::live_bytes();
  return cudaSuccess;
}

cudaError_t cudaMemPrefetchAsync(const void*, size_t, cudaMemLocation, unsigned, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaMemAdvise(const void*, size_t, cudaMemoryAdvise, cudaMemLocation) { return cudaSuccess; }

// One pool without reserve: its sizes are those of the live allocations.
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* p, int) {
  *p = emu::pool_handle();
  return cudaSuccess;
}
cudaError_t cudaDeviceGetMemPool(cudaMemPool_t* p, int) { return cudaDeviceGetDefaultMemPool(p, 0); }
cudaError_t cudaDeviceSetMemPool(int, cudaMemPool_t) { return cudaSuccess; }
cudaError_t cudaMemPoolCreate(cudaMemPool_t* p, const cudaMemPoolProps*) { return cudaDeviceGetDefaultMemPool(p, 0); }
cudaError_t cudaMemPoolDestroy(cudaMemPool_t) { return cudaSuccess; }
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return cudaSuccess; }
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr attribute, void* value) {
  switch (attribute) {
    case cudaMemPoolAttrReservedMemCurrent:
    case cudaMemPoolAttrUsedMemCurrent:
    case cudaMemPoolAttrReservedMemHigh:
    case cudaMemPoolAttrUsedMemHigh: *static_cast<std::uint64_t*>(value) = emu::live_bytes(); return cudaSuccess;
    case cudaMemPoolAttrReleaseThreshold: *static_cast<std::uint64_t*>(value) = 0; return cudaSuccess;
    case cudaMemPoolReuseFollowEventDependencies:
    case cudaMemPoolReuseAllowOpportunistic:
    case cudaMemPoolReuseAllowInternalDependencies: *static_cast<int*>(value) = 1; return cudaSuccess;
    default: return emu::mistake(cudaErrorNotSupported, "cudaMemPoolGetAttribute", "attribute is not modelled");
  }
}

}  // extern "C"
