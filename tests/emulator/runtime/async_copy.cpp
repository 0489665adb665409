// SPDX-License-Identifier: Apache-2.0
// cp.async: the bytes land at the wait that guarantees them (the latest legal moment) or at issue (the earliest).
// Programs must be right under both.
#include <cstring>

#include "race.hpp"
#include "worker.hpp"

namespace emu {
namespace {

void land(const AsyncCopy& c) {
  if (c.source_bytes) std::memcpy(c.destination, c.source, c.source_bytes);
  if (c.source_bytes < c.bytes) std::memset(c.destination + c.source_bytes, 0, c.bytes - c.source_bytes);
}

}  // namespace
}  // namespace emu

using emu::AsyncCopy;
using emu::AsyncQueue;
using emu::Worker;

extern "C" {

void emu_cp_async(EmuCtx* context, EmuThread* thread, uint8_t* destination, uint64_t key, const uint8_t* source,
                  uint32_t bytes, uint32_t source_bytes, uint32_t site) {
  Worker& w = emu::worker_of(context);
  if (source_bytes > bytes) emu_fail(context, thread, site, "cp.async source size > copy size");
  // A copy that is cut short makes no note of its source, which would have counted the execution.
  if (w.cfg.count && source_bytes != bytes) w.executions[std::size_t(thread->lin) * w.nsites + site]++;
  const AsyncCopy copy{destination, key, source, bytes, source_bytes, site};
  w.async[thread->lin].copies.push_back(copy);
  if (!w.cfg.async_lands_late) emu::land(copy);
}

void emu_cp_commit(EmuCtx* context, EmuThread* thread) {
  AsyncQueue& q = emu::worker_of(context).async[thread->lin];
  q.groups.push_back(q.copies.size());
}

void emu_cp_wait(EmuCtx* context, EmuThread* thread, uint32_t keep) {
  Worker& w = emu::worker_of(context);
  AsyncQueue& q = w.async[thread->lin];
  if (q.groups.size() <= keep) return;
  const std::size_t groups = q.groups.size() - keep, end = q.groups[groups - 1];
  for (std::size_t i = 0; i < end; i++) {
    const AsyncCopy& c = q.copies[i];
    if (w.cfg.race != emu::RaceMode::off) {
      emu_race(context, thread, c.key, c.bytes, c.site, EMU_ST | EMU_ASYNC_END | EMU_SH);
    }
    if (w.cfg.async_lands_late) emu::land(c);
  }
  q.copies.erase(q.copies.begin(), q.copies.begin() + std::ptrdiff_t(end));
  q.groups.erase(q.groups.begin(), q.groups.begin() + std::ptrdiff_t(groups));
  for (std::size_t& g : q.groups) g -= end;
}

}  // extern "C"
