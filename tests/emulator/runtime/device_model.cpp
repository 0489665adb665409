// SPDX-License-Identifier: Apache-2.0
#include "device_model.hpp"

#include <cstdlib>
#include <string>

#include "text.hpp"

namespace emu {
namespace {

constexpr DeviceModel models[] = {
    {"sm_80", 8, 0, 163 * 1024, 164 * 1024, 1024, 32, 2048, 40 << 20, 5120},
    {"sm_90", 9, 0, 227 * 1024, 228 * 1024, 1024, 32, 2048, 50 << 20, 5120},
    {"sm_100", 10, 0, 227 * 1024, 228 * 1024, 1024, 32, 2048, 126 << 20, 8192},
};

const DeviceModel& choose() {
  const std::string wanted = environment("EMU_DEVICE");
  for (const DeviceModel& m : models) {
    if (wanted == m.option) return m;
  }
  if (!wanted.empty()) say("EMU ERROR: unknown EMU_DEVICE=%s, using %s\n", wanted.c_str(), models[0].option);
  return models[0];
}

}  // namespace

const DeviceModel& device_model() {
  static const DeviceModel& m = choose();
  return m;
}

int multiprocessors() {
  const std::string set = environment("EMU_SMS");
  return set.empty() ? 4 : std::atoi(set.c_str());
}

}  // namespace emu
