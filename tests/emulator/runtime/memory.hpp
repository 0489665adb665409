// SPDX-License-Identifier: Apache-2.0
// Device memory: every allocation is a region of device addresses that only the emulator can read through.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace emu {

enum class Kind {
  device,    // cudaMalloc and device-side malloc
  host,      // pinned, registered or managed: the device address is the host address
  variable,  // __device__ and __constant__ variables of a module
};

struct Region {
  std::uint64_t begin, size;
  std::int64_t to_host;  // host address = device address + to_host
  bool live;             // freed device regions stay known, so that a use after free is named as one
  Kind kind;
  std::string name;
  int device = -1;  // whose memory it is; -1: every device reaches it
};

/// Device addresses lie in device_begin .. device_end. The bytes are kept elsewhere: host code that follows a device
/// pointer faults, as it does with a GPU.
inline constexpr std::uint64_t device_begin = 0x200000000000ull, device_end = device_begin + (1ull << 40);
inline constexpr std::uint64_t bytes_begin = 0x300000000000ull;
inline bool is_device_address(std::uint64_t a) { return a >= device_begin && a < device_end; }
/// Host address of a device address that is known to be good.
inline std::uint8_t* host_of(std::uint64_t a) {
  return reinterpret_cast<std::uint8_t*>(is_device_address(a) ? a - device_begin + bytes_begin : a);
}

/// Reserves the address space and installs the handler that names stray accesses. Idempotent.
void init_memory();
/// New region, of the current device where the kind is Kind::device; device address, or 0 when the device is full.
/// Kind::host registers `host` and returns it.
std::uint64_t allocate(std::size_t bytes, Kind kind, const std::string& name, void* host = nullptr);
enum class Released { yes, unknown, twice };
Released release(std::uint64_t address, Kind kind);
/// Copy of the region that holds the address, live or freed; false when there is none.
bool find_region(std::uint64_t address, Region* out);
/// "name+offset" of an address, "?" when it is in no region.
std::string describe(std::uint64_t address);
/// Host address of a range that lies in one live region; otherwise null and the reason. `region`, where asked for, gets
/// the bounds without the name.
struct Bounds {
  std::uint64_t begin = 0, size = 0;
  std::int64_t to_host = 0;
  int device = -1;
};
std::uint8_t* host_range(std::uint64_t address, std::size_t bytes, std::string* why, Bounds* bounds = nullptr);
std::uint64_t live_bytes();

}  // namespace emu
