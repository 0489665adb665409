// SPDX-License-Identifier: Apache-2.0
#include "config.hpp"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <thread>

#include "text.hpp"

namespace emu {
namespace {

bool flag(const char* name) {
  const std::string value = environment(name);
  return !value.empty() && value != "0";
}

void read_order(Config& c) {
  const std::string order = environment("EMU_ORDER");
  if (order == "reverse") {
    c.order = Order::reverse;
  } else if (order.rfind("priority", 0) == 0) {
    c.order = Order::priority;
    // +1: seed 0 must differ from "no seed" no less than any other seed does.
    if (order.size() > 9) c.seed = std::strtoull(order.c_str() + 9, nullptr, 0) + 1;
  } else if (!order.empty() && order != "forward") {
    say("EMU: unknown EMU_ORDER=%s, using forward\n", order.c_str());
  }
}

Config read() {
  Config c;
  read_order(c);
  c.poison = flag("EMU_POISON");
  c.async_lands_late = environment("EMU_CPASYNC") != "issue";
  c.count = flag("EMU_COUNT");
  c.lax = flag("EMU_LAX");
  c.strict = flag("EMU_STRICT");
  c.verbose = flag("EMU_VERBOSE");
  c.times = flag("EMU_TIMES");
  const int race = std::atoi(environment("EMU_RACE").c_str());
  c.race = race == 0 ? RaceMode::off : race == 2 ? RaceMode::strict : RaceMode::usual;
  const std::string threads = environment("EMU_THREADS"), memory = environment("EMU_MEM_MB");
  if (!threads.empty()) c.threads = std::max(1, std::atoi(threads.c_str()));
  if (!memory.empty()) c.device_bytes = std::strtoull(memory.c_str(), nullptr, 0) << 20;
  const std::string jobs = environment("EMU_JOBS"), prebuild = environment("EMU_PREBUILD");
  c.jobs = jobs.empty() ? int(std::max(1u, std::thread::hardware_concurrency())) : std::max(1, std::atoi(jobs.c_str()));
  if (prebuild == "all") c.prebuild = Prebuild::all;
  if (prebuild == "none") c.prebuild = Prebuild::none;
  return c;
}

}  // namespace

const Config& config() {
  static const Config c = read();
  return c;
}

}  // namespace emu
