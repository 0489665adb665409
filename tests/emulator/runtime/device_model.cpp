// SPDX-License-Identifier: Apache-2.0
#include "device_model.hpp"

#include "config.hpp"

namespace emu {
namespace {

constexpr DeviceModel models[] = {
    {"sm_80", 8, 0, 163 * 1024, 164 * 1024, 1024, 32, 2048, 40 << 20, 5120},
    {"sm_90", 9, 0, 227 * 1024, 228 * 1024, 1024, 32, 2048, 50 << 20, 5120},
    {"sm_100", 10, 0, 227 * 1024, 228 * 1024, 1024, 32, 2048, 126 << 20, 8192},
};

thread_local int current = 0;

}  // namespace

const DeviceModel& device_model() {
  for (const DeviceModel& m : models) {
    if (config().device == m.option) return m;
  }
  return models[0];
}

int multiprocessors() { return config().multiprocessors; }
int current_device() { return current; }
void set_current_device(int device) { current = device; }

}  // namespace emu
