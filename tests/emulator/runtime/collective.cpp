// SPDX-License-Identifier: Apache-2.0
#include "collective.hpp"

#include "schedule.hpp"

namespace emu {
namespace {

/// Operands of the lanes in mask, evaluated at once.
inline void evaluate(const EmuThread* lanes, std::uint32_t mask, EmuCollFn apply) {
  const void* in[32];
  void* out[32];
  for (int l = 0; l < 32; l++) {
    const bool member = mask >> l & 1;
    in[l] = member ? lanes[l].in : nullptr;
    out[l] = member ? lanes[l].out : nullptr;
  }
  apply(mask, in, out);
}

}  // namespace

void drop_lane(Worker& w, int warp, int lane) {
  std::vector<PendingCollective>& pending = w.warps[std::size_t(warp)].pending;
  for (std::size_t i = 0; i < pending.size();) {
    pending[i].mask &= ~(1u << lane);
    if (pending[i].arrived != pending[i].mask) {
      i++;
      continue;
    }
    const PendingCollective ended = pending[i];
    pending.erase(pending.begin() + std::ptrdiff_t(i));
    evaluate(&w.threads[std::size_t(warp) * 32], ended.mask, ended.apply);
    for (int l = 0; l < 32; l++) {
      if (ended.mask >> l & 1) wake(w, warp * 32 + l);
    }
  }
}

}  // namespace emu

extern "C" void emu_coll(EmuCtx* context, EmuThread* thread, uint32_t mask, EmuCollFn apply, const void* in, void* out,
                         uint32_t site, int memsync) {
  using namespace emu;
  Worker& w = worker_of(context);
  const int warp_number = int(thread->lin >> 5), lane = int(thread->lin & 31);
  Warp& warp = w.warps[std::size_t(warp_number)];
  const std::uint32_t bit = 1u << lane;
  if (!(mask & bit)) emu_fail(context, thread, site, "lane is not in its own member mask");
  if (mask & warp.gone) {
    if (!w.cfg.lax) emu_fail(context, thread, site, "warp collective names a lane that has exited or does not exist");
    mask &= ~warp.gone;
  }
  PendingCollective* mine = nullptr;
  for (PendingCollective& p : warp.pending) {
    if (p.mask == mask && p.apply == apply) {
      mine = &p;
      break;
    }
    if (p.mask & mask) {
      fault(w, *thread, launch_failure,
            std::string("mismatched warp collectives: other lanes wait at `") + site_text(w, p.site) + "`", site);
    }
  }
  thread->in = in;
  thread->out = out;
  EmuThread* lanes = &w.threads[std::size_t(warp_number) * 32];
  if (!mine) {
    if (mask == bit) {
      evaluate(lanes, mask, apply);
      return;
    }
    warp.pending.push_back({mask, 0, apply, site});
    mine = &warp.pending.back();
  }
  mine->arrived |= bit;
  thread->state = in_collective;
  thread->site = site;
  if (mine->arrived != mask) {
    wait_here(w, *thread);
    return;
  }
  warp.pending.erase(warp.pending.begin() + (mine - warp.pending.data()));
  evaluate(lanes, mask, apply);
  w.progress++;
  if (w.cfg.race != RaceMode::off && (memsync || w.cfg.race == RaceMode::usual)) w.race.join_lanes(warp_number, mask);
  for (int l = 0; l < 32; l++) {
    if ((mask >> l & 1) && l != lane) wake(w, warp_number * 32 + l);
  }
  thread->state = ready;
}
