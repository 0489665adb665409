// SPDX-License-Identifier: Apache-2.0
#include "race.hpp"

#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "memory.hpp"

namespace emu {
namespace {

constexpr std::size_t most_reports = 20;  // distinct places that are printed; all are counted

/// Shadow of 256 bytes of global memory.
struct ShadowPage {
  Cell cell[256];
};

struct Shadow {
  std::unordered_map<std::uint64_t, std::unique_ptr<ShadowPage>> pages;
  std::uint64_t last_number = ~0ull;
  ShadowPage* last = nullptr;

  Cell& at(std::uint64_t address) {
    if (address >> 8 != last_number) {
      last_number = address >> 8;
      std::unique_ptr<ShadowPage>& p = pages[last_number];
      if (!p) p = std::make_unique<ShadowPage>();
      last = p.get();
    }
    return last->cell[address & 255];
  }
};

/// State of the detector that outlives a block.
struct Detector {
  Shadow global;
  std::unordered_map<std::uint64_t, std::vector<std::uint64_t>> released;  // per atomic word: blocks seen through it
  std::uint32_t serial = 0;                                                // of launches and blocks
  std::uint32_t launch = 0;
  std::set<std::string> places;
  std::map<std::string, std::uint64_t> by_kernel;
  std::uint64_t total = 0, unwritten = 0;
};

Detector& detector() {
  static Detector* d = new Detector();  // never destroyed: the summary is printed at exit
  return *d;
}

std::string object(bool shared, std::uint64_t key) { return shared ? "shared+" + std::to_string(key) : describe(key); }

/// True when this place has not been reported yet and there is room for its report.
bool is_news(const Worker& w, const std::string& kind, std::uint32_t other, std::uint32_t site) {
  Detector& d = detector();
  const std::string id = std::string(w.launch->shown) + kind + std::to_string(other) + ":" + std::to_string(site);
  return d.places.insert(id).second && d.places.size() <= most_reports;
}

void report(const Worker& w, const EmuThread& t, const char* kind, const Stamp& other, std::uint32_t site, bool shared,
            std::uint64_t key) {
  detector().total++;
  detector().by_kernel[w.launch->shown]++;
  if (!is_news(w, kind, other.site, site)) return;
  say("EMU RACE: kernel %s: %s at %s: %s after block %u thread %u\n   this:  %s\n   other: %s\n", w.launch->shown, kind,
      object(shared, key).c_str(), place(w, t).c_str(), other.block, other.thread, site_text(w, site),
      site_text(w, other.site));
}

void report_unwritten(const Worker& w, const EmuThread& t, std::uint32_t site, std::uint64_t key) {
  detector().unwritten++;
  if (!is_news(w, "unwritten", 0, site)) return;
  say("EMU UNINITIALISED: kernel %s: read of shared memory that no thread of the block has written, at %s: %s\n   this:  "
      "%s\n",
      w.launch->shown, object(true, key).c_str(), place(w, t).c_str(), site_text(w, site));
}

/// One byte of one access against the shadow of that byte.
void check_byte(Worker& w, EmuThread& t, Cell& c, const Stamp& now, std::uint64_t key, std::uint64_t first,
                std::uint32_t bytes, int flags) {
  RaceClocks& r = w.race;
  const bool shared = flags & EMU_SH, writes = flags & EMU_ST, reads = flags & EMU_LD;
  const bool async = flags & (EMU_ASYNC_BEGIN | EMU_ASYNC_END);
  if (shared && c.in_flight == r.serial && !(flags & EMU_ASYNC_END)) {
    report(w, t, writes ? "write to bytes of a cp.async in flight" : "read of bytes of a cp.async in flight", c.write,
           now.site, shared, key);
  }
  if (shared && reads && c.write.launch != r.serial) report_unwritten(w, t, now.site, key);
  if (flags & EMU_ASYNC_BEGIN) c.in_flight = r.serial;
  if (flags & EMU_ASYNC_END) c.in_flight = 0;
  if (!r.ordered(c.write, now)) {
    if (writes && !reads && !async && bytes <= sizeof r.pending.old) {
      if (!r.pending.bytes) {
        const std::uint8_t* host = shared ? w.smem + first : host_of(first);
        r.pending.bytes = host;
        r.pending.count = bytes;
        std::memcpy(r.pending.old, host, bytes);
        r.pending.site = now.site;
        r.pending.thread = &t;
        r.pending.previous = c.write;
        r.pending.shared = shared;
        r.pending.key = key;
      }
    } else if (reads && !writes && !shared && c.write.atomic) {
      if (!r.pending_read.thread) r.pending_read = {&t, bytes, now.site, c.write, first};
    } else {
      report(w, t, writes ? "write after unsynchronised write" : "read after unsynchronised write", c.write, now.site,
             shared, key);
    }
  }
  if (writes) {
    if (!r.ordered(c.read, now)) {
      report(w, t, "write after unsynchronised read", c.read, now.site, shared, key);
    } else if (!r.ordered(c.older_read, now)) {
      report(w, t, "write after unsynchronised read", c.older_read, now.site, shared, key);
    }
    c.write = now;
  }
  if (reads) {
    if (c.read.launch != now.launch || c.read.block != now.block || c.read.thread >> 5 != now.thread >> 5) {
      c.older_read = c.read;
    }
    c.read = now;
  }
}

}  // namespace

void race_start_launch() {
  detector().launch = ++detector().serial;
  detector().released.clear();
}

void race_start_block(Worker& w) {
  const std::uint64_t blocks = std::uint64_t(w.nctaid[0]) * w.nctaid[1] * w.nctaid[2];
  w.race.start_block(++detector().serial, w.smem_total, w.warps.size(), w.block, blocks);
}

void race_flush(Worker& w) {
  RaceClocks::PendingRead& read = w.race.pending_read;
  if (EmuThread* t = std::exchange(read.thread, nullptr)) {
    report(w, *t, "read after unsynchronised write", read.previous, read.site, false, read.key);
  }
  RaceClocks::PendingWrite& p = w.race.pending;
  if (!p.bytes) return;
  const bool changed = std::memcmp(p.bytes, p.old, p.count) != 0;
  p.bytes = nullptr;
  if (!changed) return;
  report(w, *p.thread, "write after unsynchronised write (different value)", p.previous, p.site, p.shared, p.key);
}

void race_summary() {
  const Detector& d = detector();
  say("EMU RACE: %llu conflicting accesses in total, %zu distinct places\n", static_cast<unsigned long long>(d.total),
      d.places.size());
  for (const auto& k : d.by_kernel) {
    say("EMU RACE:   %s: %llu\n", k.first.c_str(), static_cast<unsigned long long>(k.second));
  }
  if (d.unwritten) {
    say("EMU UNINITIALISED: %llu reads of unwritten shared bytes in total\n", static_cast<unsigned long long>(d.unwritten));
  }
}

}  // namespace emu

extern "C" {

void emu_fence(EmuCtx* context, EmuThread*) { emu::worker_of(context).race.fenced = true; }

void emu_race(EmuCtx* context, EmuThread* thread, uint64_t key, uint32_t bytes, uint32_t site, int flags) {
  using namespace emu;
  Worker& w = worker_of(context);
  const bool shared = flags & EMU_SH, atomic = flags & EMU_AT;
  RaceClocks::PendingRead& guess = w.race.pending_read;
  if (atomic && (flags & EMU_ST) && guess.thread == thread && guess.key == key && guess.bytes == bytes && !shared) {
    guess.thread = nullptr;
  }
  race_flush(w);
  const Stamp now = w.race.stamp(thread->lin, shared ? w.race.serial : detector().launch, site, atomic);
  if (atomic && !shared) {
    std::vector<std::uint64_t>& released = detector().released[key];
    if (flags & EMU_LD) w.race.acquire(released);
    if ((flags & EMU_ST) && w.race.fenced) w.race.release_to(released);
  }
  for (uint32_t i = 0; i < bytes; i++) {
    Cell& c = shared ? w.race.shared[key + i] : detector().global.at(key + i);
    check_byte(w, *thread, c, now, key + i, key, bytes, flags);
  }
}

}  // extern "C"
