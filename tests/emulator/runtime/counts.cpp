// SPDX-License-Identifier: Apache-2.0
#include "counts.hpp"

#include <algorithm>

#include "worker.hpp"

namespace emu {
namespace {

constexpr int banks = 32, bank_bytes = 4;

/// Units (sectors, words, addresses) without repetition. A bit per unit modulo 64 says quickly that a unit is new.
struct Distinct {
  std::uint64_t list[128];
  std::uint64_t bits = 0;
  int n = 0;

  void add(std::uint64_t unit) {
    const std::uint64_t bit = 1ull << unit % 64;
    if ((bits & bit) && std::find(list, list + n, unit) != list + n) return;
    bits |= bit;
    list[n++] = unit;
  }
  /// All units that a range of bytes touches.
  void add(std::uint64_t address, std::uint32_t bytes, std::uint32_t unit_bytes) {
    for (std::uint64_t u = address / unit_bytes; u <= (address + bytes - 1) / unit_bytes; u++) add(u);
  }
};

/// Shared memory serves 32 words of different banks at once; wide accesses go by half or quarter warps.
void count_shared(Stat& s, const Request& r) {
  s.shared_requests++;
  const std::uint32_t lanes = r.bytes >= 16 ? 8 : r.bytes == 8 ? 16 : 32;
  for (std::uint32_t first = 0; first < 32; first += lanes) {
    Distinct words;
    for (std::uint32_t l = first; l < first + lanes; l++) {
      if (r.mask >> l & 1) words.add(r.address[l], r.bytes, bank_bytes);
    }
    if (!words.n) continue;
    int load[banks] = {}, worst = 0;
    for (int i = 0; i < words.n; i++) worst = std::max(worst, ++load[words.list[i] % banks]);
    s.wavefronts += std::uint64_t(worst);
    s.ideal_wavefronts++;
  }
}

}  // namespace

void count_request(Stat& s, Touched& touched, const Request& r) {
  constexpr int updates = EMU_LD | EMU_ST | EMU_AT;  // EMU_AT alone: a relaxed or volatile load or store
  const bool atomic = (r.flags & updates) == updates;
  if (r.flags & EMU_SH) {
    if (!atomic) count_shared(s, r);  // atomics on shared memory are loops over lanes that collide
    return;
  }
  Distinct sectors, accesses;
  Traffic t;
  t.requests = 1;
  for (int l = 0; l < 32; l++) {
    if (!(r.mask >> l & 1)) continue;
    t.bytes += r.bytes;
    sectors.add(r.address[l], r.bytes, sector_bytes);
    accesses.add(r.address[l] / r.bytes);  // aligned accesses of one size: equal or disjoint
  }
  t.sectors = std::uint64_t(sectors.n);
  t.useful = std::uint64_t(accesses.n) * r.bytes;
  t.ideal = (t.useful + sector_bytes - 1) / sector_bytes;
  for (int i = 0; i < sectors.n; i++) {
    if (r.flags & EMU_LD) touched.read.add(sectors.list[i]);
    if (r.flags & EMU_ST) touched.written.add(sectors.list[i]);
  }
  (atomic ? s.atomics : r.flags & EMU_ST ? s.stores : s.loads) += t;
}

void count_start_block(Worker& w) { w.executions.assign(std::size_t(w.count) * w.launch->kernel->nsites, 0); }

void count_end_block(Worker& w) {
  for (const auto& r : w.requests) count_request(w.stat, w.touched, r.second);  // that only part of a warp made
  w.requests.clear();
}

}  // namespace emu

extern "C" void emu_note(EmuCtx* context, EmuThread* thread, uint64_t address, uint32_t bytes, uint32_t site, int flags) {
  using namespace emu;
  Worker& w = worker_of(context);
  const bool shared = flags & EMU_SH;
  const uint32_t warp = thread->lin >> 5, lane = thread->lin & 31;
  uint32_t& executions = w.executions[std::size_t(thread->lin) * w.nsites + site];
  const uint64_t key = uint64_t(executions) << 32 | uint64_t(site) << 7 | (shared ? 64u : 0u) | warp;
  // cp.async notes its shared side first and its global side second, under one site: it has been executed once.
  if (!shared || !(flags & EMU_ASYNC_BEGIN)) executions++;
  Request& r = w.requests[key];
  r.bytes = bytes;
  r.flags = flags;
  r.address[lane] = address;
  r.mask |= 1u << lane;
  if (r.mask != w.warps[warp].all) return;
  count_request(w.stat, w.touched, r);
  w.requests.erase(key);
}
