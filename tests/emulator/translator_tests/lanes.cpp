// SPDX-License-Identifier: Apache-2.0
// The smallest runtime that runs translated kernels: one warp at a time, device addresses are host addresses, lanes are
// contexts that take turns at collectives. No checks: those belong to the real runtime and are tested there.
#include <immintrin.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "emu_abi.h"

namespace {

constexpr int kLanes = 32;
constexpr std::size_t kStack = 64 << 10;

struct Lane {
  EmuThread thread = {};
  ucontext_t context = {};
  std::vector<char> stack = std::vector<char>(kStack);
  std::vector<std::uint8_t> local = std::vector<std::uint8_t>(4096);
  bool done = false, waiting = false;
  std::uint32_t mask = 0;
  EmuCollFn collective = nullptr;
  const void* in = nullptr;
  void* out = nullptr;
};

struct Warp {
  const EmuKernelDesc* kernel = nullptr;
  const std::uint8_t* params = nullptr;
  EmuCtx block = {};
  ucontext_t scheduler = {};
  std::vector<Lane> lanes = std::vector<Lane>(kLanes);
  int current = 0;
} warp;

void lane_main() {
  Lane& lane = warp.lanes[warp.current];
  warp.kernel->body(&warp.block, &lane.thread, warp.params);
  lane.done = true;
  swapcontext(&lane.context, &warp.scheduler);
}

/// Runs each collective whose lanes have all arrived.
bool serve_collectives() {
  bool served = false;
  for (const Lane& first : warp.lanes) {
    if (!first.waiting) continue;
    const std::uint32_t mask = first.mask;
    bool complete = true;
    const void* in[kLanes] = {};
    void* out[kLanes] = {};
    for (int l = 0; l < kLanes; l++) {
      if (!(mask >> l & 1)) continue;
      const Lane& lane = warp.lanes[l];
      complete = complete && lane.waiting && lane.mask == mask && lane.collective == first.collective;
      in[l] = lane.in;
      out[l] = lane.out;
    }
    if (!complete) continue;
    if (first.collective) first.collective(mask, in, out);
    for (int l = 0; l < kLanes; l++)
      if (mask >> l & 1) warp.lanes[l].waiting = false;
    served = true;
  }
  return served;
}

}  // namespace

extern "C" {

/// Runs `threads` threads as blocks of one warp; ctaid.x is the number of the warp.
int run_kernel(const EmuKernelDesc* kernel, const std::uint8_t* params, int threads) {
  std::vector<std::uint8_t> shared(kernel->stat_smem + 4096);
  std::vector<EmuSite> sites(kernel->nsites, EmuSite{1, 0, 0});
  const unsigned float_mode = _mm_getcsr();
  if (kernel->flags & EK_FTZ) _mm_setcsr(float_mode | 0x8040u);
  for (int first = 0; first < threads; first += kLanes) {
    warp.kernel = kernel;
    warp.params = params;
    warp.block = {};
    warp.block.ntid[0] = kLanes, warp.block.ntid[1] = warp.block.ntid[2] = 1;
    warp.block.ctaid[0] = first / kLanes;
    warp.block.nctaid[0] = threads / kLanes, warp.block.nctaid[1] = warp.block.nctaid[2] = 1;
    warp.block.smem = shared.data();
    warp.block.smem_total = (std::uint32_t)shared.size();
    warp.block.sites = sites.data();
    for (int l = 0; l < kLanes; l++) {
      Lane& lane = warp.lanes[l];
      lane.thread = {};
      lane.thread.tid[0] = lane.thread.lin = l;
      lane.thread.lbase = lane.local.data();
      lane.done = lane.waiting = false;
      getcontext(&lane.context);
      lane.context.uc_stack.ss_sp = lane.stack.data();
      lane.context.uc_stack.ss_size = kStack;
      lane.context.uc_link = nullptr;
      makecontext(&lane.context, lane_main, 0);
    }
    for (bool alive = true; alive;) {
      alive = false;
      bool ran = false;
      for (warp.current = 0; warp.current < kLanes; warp.current++) {
        Lane& lane = warp.lanes[warp.current];
        if (!lane.done && !lane.waiting) {
          swapcontext(&warp.scheduler, &lane.context);
          ran = true;
        }
        alive = alive || !lane.done;
      }
      if (alive && !serve_collectives() && !ran) return 1;  // lanes wait for each other
    }
  }
  _mm_setcsr(float_mode);
  return 0;
}

void emu_fail(EmuCtx*, EmuThread*, std::uint32_t site, const char* message) {
  std::fprintf(stderr, "device failure: %s at %s\n", message, warp.kernel->sites[site]);
  std::abort();
}
void emu_oob_shared(EmuCtx* C, EmuThread* T, std::uint64_t, std::uint32_t, std::uint32_t site) {
  emu_fail(C, T, site, "out of shared memory");
}
std::uint8_t* emu_resolve(EmuCtx* C, EmuThread* T, std::uint64_t a, std::uint32_t, std::uint32_t, int) {
  if ((a >> 40) == (EMU_SWIN >> 40)) return C->smem + (a - EMU_SWIN);
  if ((a >> 40) == (EMU_LWIN >> 40)) return T->lbase + (a - EMU_LWIN);
  return reinterpret_cast<std::uint8_t*>(a);
}
void emu_coll(EmuCtx*, EmuThread*, std::uint32_t mask, EmuCollFn collective, const void* in, void* out, std::uint32_t, int) {
  Lane& lane = warp.lanes[warp.current];
  lane.mask = mask;
  lane.collective = collective;
  lane.in = in;
  lane.out = out;
  lane.waiting = true;
  swapcontext(&lane.context, &warp.scheduler);
}
void emu_barrier(EmuCtx* C, EmuThread* T, std::uint32_t, std::uint32_t, std::uint32_t site, int, int arrive_only) {
  if (!arrive_only) emu_coll(C, T, ~0u, nullptr, nullptr, nullptr, site, 1);
}
std::uint32_t emu_barred(EmuCtx* C, EmuThread* T, std::uint32_t, std::uint32_t, std::uint32_t site, int op,
                         std::uint32_t v) {
  static std::uint32_t operation;
  operation = op;
  std::uint32_t result = 0;
  const auto reduce = [](std::uint32_t, const void* const* in, void* const* out) {
    std::uint32_t count = 0;
    for (int l = 0; l < kLanes; l++) count += *static_cast<const std::uint32_t*>(in[l]) != 0;
    const std::uint32_t total = operation == 0 ? count : operation == 1 ? count == kLanes : count > 0;
    for (int l = 0; l < kLanes; l++) *static_cast<std::uint32_t*>(out[l]) = total;
  };
  emu_coll(C, T, ~0u, reduce, &v, &result, site, 1);
  return result;
}
void emu_yield(EmuCtx*, EmuThread*) { swapcontext(&warp.lanes[warp.current].context, &warp.scheduler); }
void emu_cp_async(EmuCtx*, EmuThread*, std::uint8_t* dst, std::uint64_t, const std::uint8_t* src, std::uint32_t bytes,
                  std::uint32_t source_bytes, std::uint32_t) {
  std::memset(dst, 0, bytes);
  if (source_bytes) std::memcpy(dst, src, source_bytes);
}
void emu_cp_commit(EmuCtx*, EmuThread*) {}
void emu_cp_wait(EmuCtx*, EmuThread*, std::uint32_t) {}
void emu_fence(EmuCtx*, EmuThread*) {}
std::uint64_t emu_clock(void) { return 1; }
std::uint32_t emu_vprintf(EmuCtx*, EmuThread*, std::uint64_t format, std::uint64_t arguments) {
  std::int32_t value;
  std::memcpy(&value, reinterpret_cast<const void*>(arguments - EMU_LWIN + warp.lanes[warp.current].local.data()), 4);
  return (std::uint32_t)(value + (format != 0));  // the test looks at what it was handed, not at a terminal
}
void emu_assertfail(EmuCtx* C, EmuThread* T, std::uint64_t, std::uint64_t, std::uint32_t, std::uint64_t, std::uint64_t) {
  emu_fail(C, T, 0, "assert");
}
std::uint64_t emu_dmalloc(EmuCtx*, EmuThread*, std::uint64_t bytes) {
  return reinterpret_cast<std::uint64_t>(std::malloc(bytes));
}
void emu_dfree(EmuCtx*, EmuThread*, std::uint64_t address) { std::free(reinterpret_cast<void*>(address)); }
}
