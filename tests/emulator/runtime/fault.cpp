// SPDX-License-Identifier: Apache-2.0
// Faults of device code: how they are worded and how they end the block.
#include <cstring>

#include "fiber.hpp"
#include "worker.hpp"

namespace emu {

std::string place(const Worker& w, const EmuThread& t) {
  return format("block (%u,%u,%u) thread (%u,%u,%u)", w.ctaid[0], w.ctaid[1], w.ctaid[2], t.tid[0], t.tid[1], t.tid[2]);
}

const char* site_text(const Worker& w, std::uint32_t site) {
  return site < w.launch->kernel->nsites ? w.launch->kernel->sites[site] : "?";
}

void fault(Worker& w, EmuThread& t, int code, const std::string& message, std::int64_t site) {
  w.error = message + " [" + place(w, t);
  if (site != no_site) w.error += std::string("; PTX: ") + site_text(w, std::uint32_t(site));
  w.error += "]";
  w.error_code = code;
  emu_switch(&t.sp, w.main_stack);  // the fiber is never continued
  __builtin_unreachable();
}

}  // namespace emu

extern "C" void emu_fail(EmuCtx* context, EmuThread* thread, uint32_t site, const char* message) {
  const int code = std::strstr(message, "misaligned") ? emu::misaligned_address : emu::launch_failure;
  emu::fault(emu::worker_of(context), *thread, code, message, site);
}
