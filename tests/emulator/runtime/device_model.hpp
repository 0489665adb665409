// SPDX-License-Identifier: Apache-2.0
// The devices that the emulator pretends to have: EMU_DEVICES equal ones (2), each EMU_DEVICE=sm_80 (default), sm_90 or
// sm_100.
#pragma once

namespace emu {

struct DeviceModel {
  const char* option;
  int major, minor;
  int shared_per_block_optin, shared_per_sm, shared_reserved;  // bytes (CUDA C++ Programming Guide, compute capabilities)
  int blocks_per_sm, threads_per_sm;
  int l2_bytes, memory_bus_bits;  // of A100, H100 SXM, B200 (data sheets)
};

const DeviceModel& device_model();
/// Multiprocessors: EMU_SMS, else few, so that grids sized by the device stay small.
int multiprocessors();
/// The calling thread's current device, a number in [0, config().devices).
int current_device();
void set_current_device(int device);

}  // namespace emu
