// SPDX-License-Identifier: Apache-2.0
// Copies and fills. Ranges on the device are checked against the allocations; ranges on the host cannot be.
#include <cstring>

#include "api.hpp"
#include "config.hpp"
#include "count_table.hpp"
#include "memory.hpp"
#include "text.hpp"

namespace emu {
namespace {

struct Side {
  const void* pointer;
  std::size_t pitch;
  bool device;  // the direction of the copy says so
};

/// Host address of a range. A host pointer is its own; anything in the device's address space must be a live range.
std::uint8_t* range(const Side& s, std::size_t bytes, const char* api) {
  const auto a = reinterpret_cast<std::uint64_t>(s.pointer);
  std::string why;
  if (std::uint8_t* host = host_range(a, bytes, &why)) return host;
  if (!s.device && !is_device_address(a)) return host_of(a);
  mistake(cudaErrorInvalidValue, api, why);
  return nullptr;
}

/// Traffic of a copy or fill: bytes of device memory on either side.
void count_copy(const char* api, std::size_t read, std::size_t written) {
  if (!config().count) return;
  Stat s;
  s.launches = 1;
  const auto traffic = [](std::size_t bytes) { return Traffic{0, (bytes + sector_bytes - 1) / sector_bytes, bytes, bytes}; };
  s.loads = traffic(read);
  s.stores = traffic(written);
  s.unique_read = read;
  s.unique_written = written;
  count_work(WorkKind::copy, api, s);
}

NodeFacts facts_of_copy(const Side& to, const Side& from, std::size_t width, std::size_t height, cudaMemcpyKind kind) {
  const auto part = [&](const Side& side) {
    return cudaPitchedPtr{const_cast<void*>(side.pointer), side.pitch, width, height};
  };
  NodeFacts facts;
  facts.type = cudaGraphNodeTypeMemcpy;
  facts.copy.srcPtr = part(from);
  facts.copy.dstPtr = part(to);
  facts.copy.extent = {width, height, 1};
  facts.copy.kind = kind;
  return facts;
}

cudaError_t copy(Side to, Side from, std::size_t width, std::size_t height, cudaMemcpyKind kind, const char* api,
                 cudaStream_t stream) {
  if (!width || !height) return cudaSuccess;
  if (height > 1 && (width > to.pitch || width > from.pitch)) {
    return mistake(cudaErrorInvalidPitchValue, api, "width exceeds pitch");
  }
  const auto work = [=] {
    std::uint8_t* d = range(to, (height - 1) * to.pitch + width, api);
    if (!d) return cudaErrorInvalidValue;
    const std::uint8_t* s = range(from, (height - 1) * from.pitch + width, api);
    if (!s) return cudaErrorInvalidValue;
    for (std::size_t i = 0; i < height; i++) std::memmove(d + i * to.pitch, s + i * from.pitch, width);
    const auto on_device = [&](const Side& side) {
      return is_device_address(reinterpret_cast<std::uint64_t>(side.pointer)) ? width * height : 0;
    };
    count_copy(api, on_device(from), on_device(to));
    return cudaSuccess;
  };
  return submit(stream, api, work, facts_of_copy(to, from, width, height, kind));
}

cudaError_t copy(void* d, std::size_t dp, const void* s, std::size_t sp, std::size_t width, std::size_t height,
                 cudaMemcpyKind kind, const char* api, cudaStream_t stream) {
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  return copy(Side{d, dp, to_device}, Side{s, sp, from_device}, width, height, kind, api, stream);
}

cudaError_t fill(void* d, std::size_t pitch, int value, std::size_t width, std::size_t height, const char* api,
                 cudaStream_t stream) {
  if (!width || !height) return cudaSuccess;
  if (height > 1 && width > pitch) return mistake(cudaErrorInvalidPitchValue, api, "width exceeds pitch");
  const auto work = [=] {
    std::uint8_t* p = range(Side{d, pitch, true}, (height - 1) * pitch + width, api);
    if (!p) return cudaErrorInvalidValue;
    for (std::size_t i = 0; i < height; i++) std::memset(p + i * pitch, value, width);
    count_copy(api, 0, width * height);
    return cudaSuccess;
  };
  NodeFacts facts;
  facts.type = cudaGraphNodeTypeMemset;
  facts.fill = {d, pitch, unsigned(value) & 0xffu, 1, width, height};
  return submit(stream, api, work, std::move(facts));
}

cudaError_t variable_of(const void* symbol, Variable** out) {
  const auto it = registry().host_variables.find(symbol);
  if (it == registry().host_variables.end()) return error(cudaErrorInvalidSymbol);
  Module& m = *it->second.first;
  if (!load(m)) return error(cudaErrorInvalidKernelImage);
  const auto index = m.variable_index.find(it->second.second);
  if (index == m.variable_index.end()) return error(cudaErrorInvalidSymbol);
  *out = &m.variables[index->second];
  return cudaSuccess;
}

/// Address of a part of a variable.
cudaError_t part_of(const void* symbol, std::size_t offset, std::size_t bytes, const char* api, void** out) {
  Variable* v = nullptr;
  if (cudaError_t e = variable_of(symbol, &v)) return e;
  if (offset > v->size || bytes > v->size - offset) return mistake(cudaErrorInvalidValue, api, v->name + ": beyond its end");
  *out = reinterpret_cast<void*>(v->address + offset);
  return cudaSuccess;
}

bool keeps_kind(cudaMemcpyKind kind) { return kind == cudaMemcpyDefault || kind == cudaMemcpyDeviceToDevice; }

/// Copies without a stream wait for the device; they are refused during a capture.
template <class F>
cudaError_t synchronous(const char* api, F call) {
  const cudaError_t refused = refuse_during_capture(api);
  return refused ? refused : call();
}

}  // namespace
}  // namespace emu

using emu::copy;
using emu::fill;
using emu::synchronous;

extern "C" {

cudaError_t cudaMemcpy(void* d, const void* s, size_t n, cudaMemcpyKind k) {
  return synchronous("cudaMemcpy", [=] { return copy(d, n, s, n, n, 1, k, "cudaMemcpy", nullptr); });
}
cudaError_t cudaMemcpyAsync(void* d, const void* s, size_t n, cudaMemcpyKind k, cudaStream_t t) {
  return copy(d, n, s, n, n, 1, k, "cudaMemcpyAsync", t);
}
cudaError_t cudaMemcpy2D(void* d, size_t dp, const void* s, size_t sp, size_t w, size_t h, cudaMemcpyKind k) {
  return synchronous("cudaMemcpy2D", [=] { return copy(d, dp, s, sp, w, h, k, "cudaMemcpy2D", nullptr); });
}
cudaError_t cudaMemcpy2DAsync(void* d, size_t dp, const void* s, size_t sp, size_t w, size_t h, cudaMemcpyKind k,
                              cudaStream_t t) {
  return copy(d, dp, s, sp, w, h, k, "cudaMemcpy2DAsync", t);
}
cudaError_t cudaMemcpyPeer(void* d, int, const void* s, int, size_t n) {
  return cudaMemcpy(d, s, n, cudaMemcpyDeviceToDevice);
}
cudaError_t cudaMemset(void* d, int v, size_t n) {
  return synchronous("cudaMemset", [=] { return fill(d, n, v, n, 1, "cudaMemset", nullptr); });
}
cudaError_t cudaMemsetAsync(void* d, int v, size_t n, cudaStream_t t) { return fill(d, n, v, n, 1, "cudaMemsetAsync", t); }
cudaError_t cudaMemset2D(void* d, size_t p, int v, size_t w, size_t h) {
  return synchronous("cudaMemset2D", [=] { return fill(d, p, v, w, h, "cudaMemset2D", nullptr); });
}
cudaError_t cudaMemset2DAsync(void* d, size_t p, int v, size_t w, size_t h, cudaStream_t t) {
  return fill(d, p, v, w, h, "cudaMemset2DAsync", t);
}

cudaError_t cudaMemcpyToSymbolAsync(const void* symbol, const void* s, size_t n, size_t offset, cudaMemcpyKind k,
                                    cudaStream_t t) {
  void* d = nullptr;
  if (cudaError_t e = emu::part_of(symbol, offset, n, "cudaMemcpyToSymbol", &d)) return e;
  return copy(d, n, s, n, n, 1, emu::keeps_kind(k) ? k : cudaMemcpyHostToDevice, "cudaMemcpyToSymbol", t);
}
cudaError_t cudaMemcpyFromSymbolAsync(void* d, const void* symbol, size_t n, size_t offset, cudaMemcpyKind k,
                                      cudaStream_t t) {
  void* s = nullptr;
  if (cudaError_t e = emu::part_of(symbol, offset, n, "cudaMemcpyFromSymbol", &s)) return e;
  return copy(d, n, s, n, n, 1, emu::keeps_kind(k) ? k : cudaMemcpyDeviceToHost, "cudaMemcpyFromSymbol", t);
}
cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* s, size_t n, size_t offset, cudaMemcpyKind k) {
  return synchronous("cudaMemcpyToSymbol", [=] { return cudaMemcpyToSymbolAsync(symbol, s, n, offset, k, nullptr); });
}
cudaError_t cudaMemcpyFromSymbol(void* d, const void* symbol, size_t n, size_t offset, cudaMemcpyKind k) {
  return synchronous("cudaMemcpyFromSymbol", [=] { return cudaMemcpyFromSymbolAsync(d, symbol, n, offset, k, nullptr); });
}
cudaError_t cudaGetSymbolAddress(void** out, const void* symbol) {
  return emu::part_of(symbol, 0, 0, "cudaGetSymbolAddress", out);
}
cudaError_t cudaGetSymbolSize(size_t* out, const void* symbol) {
  emu::Variable* v = nullptr;
  if (cudaError_t e = emu::variable_of(symbol, &v)) return e;
  *out = v->size;
  return cudaSuccess;
}

}  // extern "C"
