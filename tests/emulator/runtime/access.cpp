// SPDX-License-Identifier: Apache-2.0
// Slow path of memory accesses: which window an address lies in, and whether the access fits.
#include "memory.hpp"
#include "worker.hpp"

using emu::Worker;

extern "C" {

void emu_oob_shared(EmuCtx* context, EmuThread* thread, uint64_t offset, uint32_t bytes, uint32_t site) {
  emu::fault(emu::worker_of(context), *thread, emu::illegal_address,
             emu::format("shared memory access out of bounds: %u bytes at offset %llu of %u", bytes,
                         static_cast<unsigned long long>(offset), context->smem_total),
             site);
}

uint8_t* emu_resolve(EmuCtx* context, EmuThread* thread, uint64_t a, uint32_t bytes, uint32_t site, int) {
  Worker& w = emu::worker_of(context);
  const uint64_t window = a >> 40;
  if (window == EMU_SWIN >> 40) {
    const uint64_t offset = a - EMU_SWIN;
    if (offset + bytes > w.smem_total) emu_oob_shared(context, thread, offset, bytes, site);
    w.sites[site] = EmuSite{EMU_SWIN, w.smem_total - bytes, int64_t(reinterpret_cast<uint64_t>(w.smem) - EMU_SWIN)};
    return w.smem + offset;
  }
  // Local memory grows with calls and differs between threads: never kept in the site cache.
  if (window == EMU_LWIN >> 40) {
    const uint64_t offset = a - EMU_LWIN;
    if (offset + bytes > thread->lsp) {
      emu::fault(w, *thread, emu::illegal_address, "local memory access out of bounds", site);
    }
    return thread->lbase + offset;
  }
  if (window == EMU_PWIN >> 40) {
    const uint64_t offset = a - EMU_PWIN;
    if (offset + bytes > w.psize) emu::fault(w, *thread, emu::illegal_address, "parameter access out of bounds", site);
    return const_cast<uint8_t*>(w.P) + offset;
  }
  std::string why;
  emu::Bounds bounds;
  uint8_t* host = emu::host_range(a, bytes, &why, &bounds);
  if (!host) emu::fault(w, *thread, emu::illegal_address, why, site);
  if (bounds.device >= 0 && bounds.device != w.launch->device) {
    emu::fault(w, *thread, emu::illegal_address,
               emu::format("%s is memory of device %d, the kernel runs on device %d", emu::describe(a).c_str(),
                           bounds.device, w.launch->device),
               site);
  }
  w.sites[site] = EmuSite{bounds.begin, bounds.size - bytes, bounds.to_host};
  return host;
}

}  // extern "C"
