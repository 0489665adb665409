// SPDX-License-Identifier: Apache-2.0
#include "barrier.hpp"

#include "schedule.hpp"

namespace emu {
namespace {

enum Reduction : std::uint32_t { popc = 0, all = 1, any = 2 };

/// bar.red: each waiting thread brought a predicate (`in`) and the wanted reduction (its `out` holds the kind).
void reduce(Worker& w, const Barrier& b) {
  std::uint32_t set = 0;
  bool wanted = false;
  for (int thread : b.waiting) {
    const EmuThread& t = w.threads[std::size_t(thread)];
    if (t.in) wanted = true;
    if (t.in && *static_cast<const std::uint32_t*>(t.in)) set++;
  }
  if (!wanted) return;
  for (int thread : b.waiting) {
    auto* out = static_cast<std::uint32_t*>(w.threads[std::size_t(thread)].out);
    if (out) *out = *out == popc ? set : *out == all ? set == b.waiting.size() : set != 0;
  }
}

/// Threads of one warp at two different bar.sync: undefined in the ISA. Different warps at different ones: allowed by the
/// hardware, but seldom meant.
void check_same_place(Worker& w, EmuThread& t, const Barrier& b, std::uint32_t site) {
  bool same_warp = false;
  for (int other : b.waiting) {
    if (other >> 5 == int(t.lin) >> 5 && w.threads[std::size_t(other)].site != site) same_warp = true;
  }
  if ((same_warp && !w.cfg.lax) || w.cfg.strict) {
    fault(w, t, launch_failure,
          std::string("divergent barrier: other threads wait at another instruction (") + site_text(w, b.site) + ")", site);
  }
  if (w.warned) return;
  w.warned = true;
  say("EMU WARNING: kernel %s: warps meet at different bar.sync instructions\n", w.launch->shown);
}

void enter_barrier(Worker& w, EmuThread& t, std::uint32_t id, std::uint32_t count, std::uint32_t site, bool arrive_only) {
  if (id > 15) emu_fail(&w, &t, site, "barrier number > 15");
  if (count & 31) emu_fail(&w, &t, site, "barrier thread count is not a multiple of 32");
  Barrier& b = w.barriers[id];
  if (b.idle()) {
    b.expected = int(count);
    b.site = site;
    w.busy_barriers++;
  } else {
    if (b.expected != int(count)) emu_fail(&w, &t, site, "barrier entered with different thread counts");
    if (b.site != site && !count) check_same_place(w, t, b, site);
  }
  t.site = site;
  if (arrive_only) {
    b.arrived.push_back(int(t.lin));
    complete_if_full(w, b, -1);
    return;
  }
  t.state = at_barrier;
  b.waiting.push_back(int(t.lin));
  complete_if_full(w, b, int(t.lin));
  if (t.state == at_barrier) wait_here(w, t);
}

}  // namespace

void complete_if_full(Worker& w, Barrier& b, int self) {
  if (b.idle()) return;
  const int expected = b.expected ? b.expected : w.alive;
  if (b.count() < expected) return;
  if (w.cfg.race != RaceMode::off) {
    std::vector<int> arrived = b.arrived;
    if (!b.expected) {  // an exit counts as an arrival
      for (const EmuThread& t : w.threads) {
        if (t.state == done) arrived.push_back(int(t.lin));
      }
    }
    w.race.join_barrier(b.waiting, arrived);
  }
  reduce(w, b);
  std::vector<int> waiting;
  waiting.swap(b.waiting);
  b.arrived.clear();
  w.busy_barriers--;
  w.progress++;
  for (int thread : waiting) {
    if (thread != self) wake(w, thread);
  }
  if (self >= 0) w.threads[std::size_t(self)].state = ready;
}

}  // namespace emu

extern "C" {

void emu_barrier(EmuCtx* context, EmuThread* thread, uint32_t id, uint32_t count, uint32_t site, int, int arrive_only) {
  thread->in = thread->out = nullptr;
  emu::enter_barrier(emu::worker_of(context), *thread, id, count, site, arrive_only != 0);
}

uint32_t emu_barred(EmuCtx* context, EmuThread* thread, uint32_t id, uint32_t count, uint32_t site, int op, uint32_t value) {
  uint32_t in = value, out = uint32_t(op);
  thread->in = &in;
  thread->out = &out;
  emu::enter_barrier(emu::worker_of(context), *thread, id, count, site, false);
  thread->in = thread->out = nullptr;
  return out;
}

}  // extern "C"
