// SPDX-License-Identifier: Apache-2.0
#include "schedule.hpp"

#include <algorithm>
#include <utility>

#include "barrier.hpp"
#include "collective.hpp"
#include "fiber.hpp"

namespace emu {
namespace {

constexpr std::uint64_t hopeless = 20000000;  // yields in a row without any progress of the block

/// Order::priority: the warp with the highest priority runs ahead of the others; now and then the ranking changes.
int pick_by_priority(Worker& w) {
  if ((w.draw() & 63) == 0) w.warps[w.draw() % w.warps.size()].priority = std::uint32_t(w.draw());
  Warp* best = nullptr;
  for (Warp& warp : w.warps) {
    if (!warp.ready.empty() && (!best || warp.priority > best->priority)) best = &warp;
  }
  if (!best) return -1;
  const std::size_t i = best->ready.size() > 1 ? w.draw() % best->ready.size() : 0;
  const int thread = best->ready[i];
  best->ready[i] = best->ready.back();
  best->ready.pop_back();
  return thread;
}

/// Next thread to run, -1 when all wait or are done.
inline int pick(Worker& w) {
  if (w.cfg.order == Order::priority) return pick_by_priority(w);
  if (w.head == w.tail) return -1;
  return w.cfg.order == Order::reverse ? w.ring[--w.tail & (ring_size - 1)] : w.ring[w.head++ & (ring_size - 1)];
}

inline void reclaim_zombie(Worker& w) {
  if (!w.zombie) return;
  w.free_stacks.push_back(w.zombie);
  w.zombie = nullptr;
}

/// After the thread's last instruction: those who waited for it may now go on, or never can.
void leave_block(Worker& w, EmuThread& t) {
  const std::size_t warp = t.lin >> 5;
  const std::uint32_t lane = t.lin & 31;
  t.state = done;
  w.alive--;
  w.progress++;
  w.warps[warp].gone |= 1u << lane;
  for (const PendingCollective& p : w.warps[warp].pending) {
    if (!(p.mask >> lane & 1)) continue;
    if (!w.cfg.lax) {
      fault(w, t, launch_failure, "thread exits while other lanes wait for it in a warp collective", p.site);
    }
    drop_lane(w, int(warp), int(lane));
    break;
  }
  if (w.busy_barriers) {
    for (Barrier& b : w.barriers) complete_if_full(w, b, -1);
  }
}

/// A machine stack runs threads from their first instruction until one of them has to be waited for.
void fiber_main() {
  Worker& w = *current_worker;
  for (;;) {
    EmuThread* t = &w.threads[std::size_t(w.current)];
    t->lsp = 0;
    w.launch->kernel->body(&w, t, w.P);
    leave_block(w, *t);
    reclaim_zombie(w);
    const int next = pick(w);
    void* never = nullptr;
    if (next >= 0) {
      EmuThread& u = w.threads[std::size_t(next)];
      w.current = next;
      if (u.state == fresh) {  // the same stack serves the next thread: no switch
        u.stack = std::exchange(t->stack, nullptr);
        u.state = ready;
        continue;
      }
      w.zombie = std::exchange(t->stack, nullptr);
      emu_switch(&never, u.sp);
    } else {
      w.zombie = std::exchange(t->stack, nullptr);
      emu_switch(&never, w.main_stack);
    }
    __builtin_unreachable();
  }
}

inline void enter(Worker& w, void** save, int thread) {
  EmuThread& t = w.threads[std::size_t(thread)];
  if (t.state == fresh) {
    if (w.free_stacks.empty()) w.free_stacks.push_back(new_stack(thread_stack));
    t.stack = w.free_stacks.back();
    w.free_stacks.pop_back();
    t.sp = first_frame(t.stack, thread_stack, fiber_main);
    t.state = ready;
  }
  w.current = thread;
  emu_switch(save, t.sp);
}

/// Threads that wait at one instruction, as one group of the report.
struct WaitingGroup {
  int state;
  std::uint32_t site, first, count;
};

void report_deadlock(Worker& w) {
  std::vector<WaitingGroup> groups;
  for (const EmuThread& t : w.threads) {
    if (t.state == done) continue;
    const auto same = [&](const WaitingGroup& g) { return g.state == t.state && g.site == t.site; };
    const auto group = std::find_if(groups.begin(), groups.end(), same);
    if (group == groups.end()) {
      groups.push_back({t.state, t.site, t.lin, 1});
    } else {
      group->count++;
    }
  }
  w.error = "deadlock:";
  for (const WaitingGroup& g : groups) {
    const std::string who = g.count == 1 ? "" : format(" and %u more", g.count - 1);
    w.error += format(" thread %u%s wait%s at %s `%s`;", g.first, who.c_str(), g.count == 1 ? "s" : "",
                      g.state == at_barrier ? "barrier" : "warp collective", site_text(w, g.site));
  }
  w.error += " [" + place(w, w.threads[groups.front().first]) + "]";
  w.error_code = launch_failure;
}

void run_fibers(Worker& w) {
  for (Barrier& b : w.barriers) {
    b.waiting.clear();
    b.arrived.clear();
    b.expected = 0;
  }
  for (Warp& warp : w.warps) {
    warp.pending.clear();
    warp.gone = 0;
    warp.ready.clear();
    warp.priority = std::uint32_t(w.draw());
  }
  if (w.count & 31) w.warps.back().gone = ~0u << (w.count & 31);
  for (int i = 0; i < w.count; i++) {
    EmuThread& t = w.threads[std::size_t(i)];
    t.state = fresh;
    t.in = t.out = nullptr;
    t.spin = 0;
    w.async[std::size_t(i)].copies.clear();
    w.async[std::size_t(i)].groups.clear();
    push_ready(w, i);
  }
  while (w.alive && w.error.empty()) {
    const int next = pick(w);
    if (next < 0) {
      report_deadlock(w);
      break;
    }
    enter(w, &w.main_stack, next);
    reclaim_zombie(w);
  }
  if (w.error.empty()) return;
  for (EmuThread& t : w.threads) {  // abandoned fibers
    if (t.stack) w.free_stacks.push_back(std::exchange(t.stack, nullptr));
  }
}

/// Kernels without any synchronisation: a plain loop, all threads share one stack and one local memory.
void loop_main() {
  Worker& w = *current_worker;
  for (int i = 0; i < w.count; i++) {
    w.current = w.cfg.order == Order::reverse    ? w.count - 1 - i
                : w.cfg.order == Order::priority ? w.ring[std::size_t(i)]
                                                 : i;
    EmuThread* t = &w.threads[std::size_t(w.current)];
    t->lsp = 0;
    t->lbase = w.local_store;
    w.launch->kernel->body(&w, t, w.P);
  }
  w.alive = 0;
  void* never = nullptr;
  emu_switch(&never, w.main_stack);
  __builtin_unreachable();
}

void run_loop(Worker& w) {
  if (w.cfg.order == Order::priority) {
    for (int i = 0; i < w.count; i++) w.ring[std::size_t(i)] = i;
    for (int i = w.count - 1; i > 0; i--) std::swap(w.ring[std::size_t(i)], w.ring[w.draw() % std::uint64_t(i + 1)]);
  }
  if (!w.loop) w.loop = new_stack(loop_stack);
  emu_switch(&w.main_stack, first_frame(w.loop, loop_stack, loop_main));
  for (EmuThread& t : w.threads) t.lbase = w.local_store + std::size_t(t.lin) * EMU_LSTRIDE;
}

}  // namespace

void wait_here(Worker& w, EmuThread& t) {
  reclaim_zombie(w);
  const int next = pick(w);
  if (next < 0) {
    emu_switch(&t.sp, w.main_stack);  // the main loop finds the deadlock
    return;
  }
  if (&w.threads[std::size_t(next)] == &t) {
    w.current = next;
    return;
  }
  enter(w, &t.sp, next);
}

void run_threads(Worker& w) {
  if (w.launch->kernel->flags & EK_FIBER) {
    run_fibers(w);
  } else {
    run_loop(w);
  }
}

}  // namespace emu

extern "C" void emu_yield(EmuCtx* context, EmuThread* thread) {
  emu::Worker& w = emu::worker_of(context);
  if (!w.fiber) return;  // no other thread of the block could make progress
  if (w.progress_seen != w.progress) {
    w.progress_seen = w.progress;
    w.idle_yields = 0;
  }
  if (++w.idle_yields > emu::hopeless) {
    emu::fault(w, *thread, emu::launch_failure,
               "no progress: threads spin on something no running thread of this block provides (blocks run one after "
               "another)",
               emu::no_site);
  }
  switch (w.cfg.order) {
    case emu::Order::reverse: w.ring[--w.head & (emu::ring_size - 1)] = int(thread->lin); break;  // behind all others
    case emu::Order::priority:
      w.warps[thread->lin >> 5].priority = std::uint32_t(w.draw()) >> 8;  // low: the others get their turn
      emu::push_ready(w, int(thread->lin));
      break;
    case emu::Order::forward: emu::push_ready(w, int(thread->lin)); break;
  }
  emu::wait_here(w, *thread);
}
