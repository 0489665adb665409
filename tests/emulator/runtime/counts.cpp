// SPDX-License-Identifier: Apache-2.0
#include "counts.hpp"

#include <algorithm>
#include <cstdio>

namespace emu {
namespace {

constexpr int sector_bytes = 32, banks = 32, bank_bytes = 4;
const char* const class_names[EC_N] = {"ld.gl", "st.gl", "ld.sh", "st.sh",    "atom", "mma",
                                       "fma",   "bar",   "shfl",  "cp.async", "other"};

/// Adds the units (sectors or words) of a range of bytes that are not in the list yet.
template <int Capacity>
void add_units(std::uint64_t address, std::uint32_t bytes, int unit, std::uint64_t (&list)[Capacity], int& n) {
  for (std::uint64_t u = address / std::uint64_t(unit); u <= (address + bytes - 1) / std::uint64_t(unit); u++) {
    if (std::find(list, list + n, u) == list + n && n < Capacity) list[n++] = u;
  }
}

/// Shared memory serves 32 words of different banks at once; wide accesses go by half or quarter warps.
void finish_shared(Stat& s, const Request& r) {
  s.shared_requests++;
  const std::uint32_t lanes = r.bytes >= 16 ? 8 : r.bytes == 8 ? 16 : 32;
  for (std::uint32_t first = 0; first < 32; first += lanes) {
    std::uint64_t words[128];
    int n = 0;
    for (std::uint32_t l = first; l < first + lanes; l++) {
      if (r.mask >> l & 1) add_units(r.address[l], r.bytes, bank_bytes, words, n);
    }
    if (!n) continue;
    int load[banks] = {}, worst = 0;
    for (int i = 0; i < n; i++) worst = std::max(worst, ++load[words[i] % banks]);
    s.wavefronts += std::uint64_t(worst);
    s.ideal_wavefronts++;
  }
}

void finish(Stat& s, const Request& r) {
  if (r.flags & EMU_SH) return finish_shared(s, r);
  std::uint64_t sectors[64];
  int n = 0;
  Traffic t;
  for (int l = 0; l < 32; l++) {
    if (!(r.mask >> l & 1)) continue;
    t.bytes += r.bytes;
    add_units(r.address[l], r.bytes, sector_bytes, sectors, n);
  }
  t.requests = 1;
  t.sectors = std::uint64_t(n);
  (r.flags & EMU_ST ? s.stores : s.loads) += t;
}

double per_request(const Traffic& t) { return t.requests ? double(t.sectors) / double(t.requests) : 0.; }
double efficiency(const Traffic& t) {
  return t.sectors ? 100. * double(t.bytes) / (double(sector_bytes) * double(t.sectors)) : 0.;
}
unsigned long long conflicts(const Stat& s) { return s.wavefronts - s.ideal_wavefronts; }

void write_csv(const std::string& path, const std::vector<NamedStat>& kernels) {
  std::FILE* out = std::fopen(path.c_str(), "w");
  if (!out) {
    say("EMU ERROR: cannot write EMU_COUNT_FILE=%s\n", path.c_str());
    return;
  }
  std::fprintf(out, "kernel,launches,threads");
  for (const char* name : class_names) std::fprintf(out, ",%s", name);
  std::fprintf(out, ",load_sectors,load_bytes,store_sectors,store_bytes,shared_requests,bank_conflicts,seconds\n");
  for (const NamedStat& k : kernels) {
    const Stat& s = *k.stat;
    std::fprintf(out, "\"%s\",%llu,%llu", k.name, (unsigned long long)s.launches, (unsigned long long)s.threads);
    for (std::uint64_t n : s.instructions) std::fprintf(out, ",%llu", (unsigned long long)n);
    for (const Traffic* t : {&s.loads, &s.stores}) {
      std::fprintf(out, ",%llu,%llu", (unsigned long long)t->sectors, (unsigned long long)t->bytes);
    }
    std::fprintf(out, ",%llu,%llu,%.6f\n", (unsigned long long)s.shared_requests, conflicts(s), s.seconds);
  }
  std::fclose(out);
}

}  // namespace

void count_start_block(Worker& w) { w.executions.assign(std::size_t(w.count) * w.launch->kernel->nsites, 0); }

void count_end_block(Worker& w) {
  for (const auto& r : w.requests) finish(w.stat, r.second);  // requests that only part of a warp made
  w.requests.clear();
}

void count_table(const std::vector<NamedStat>& kernels) {
  say("\nEMU COUNT (per-thread PTX instructions; sectors = 32-byte sectors per warp-level global request; conflicts = extra "
      "shared wavefronts)\n%-40s %8s %10s",
      "kernel", "launches", "threads");
  for (const char* name : class_names) say(" %11s", name);
  say(" %8s %8s %8s %8s %10s %9s %8s\n", "sec/ld", "ld eff%", "sec/st", "st eff%", "sh.req", "conflicts", "seconds");
  for (const NamedStat& k : kernels) {
    const Stat& s = *k.stat;
    say("%-40.40s %8llu %10llu", k.name, (unsigned long long)s.launches, (unsigned long long)s.threads);
    for (std::uint64_t n : s.instructions) say(" %11llu", (unsigned long long)n);
    say(" %8.2f %8.1f %8.2f %8.1f %10llu %9llu %8.3f\n", per_request(s.loads), efficiency(s.loads), per_request(s.stores),
        efficiency(s.stores), (unsigned long long)s.shared_requests, conflicts(s), s.seconds);
  }
  const std::string path = environment("EMU_COUNT_FILE");
  if (!path.empty()) write_csv(path, kernels);
}

}  // namespace emu

extern "C" void emu_note(EmuCtx* context, EmuThread* thread, uint64_t address, uint32_t bytes, uint32_t site, int flags) {
  using namespace emu;
  Worker& w = worker_of(context);
  if (flags & EMU_AT) return;  // atomics are served one by one in the L2 cache: sectors say nothing about them
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
  finish(w.stat, r);
  w.requests.erase(key);
}
