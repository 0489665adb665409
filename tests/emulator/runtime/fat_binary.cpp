// SPDX-License-Identifier: Apache-2.0
// The fat binary that nvcc embeds: a header, then entries of 64-byte headers with machine code or PTX behind them.
#include <cstring>

#include "device_model.hpp"
#include "module.hpp"
#include "text.hpp"

namespace emu {
namespace {

constexpr std::uint32_t wrapper_magic = 0x466243b1, binary_magic = 0xBA55ED50;
constexpr std::uint16_t kind_ptx = 1;
constexpr std::uint64_t compressed = 0xa000;  // flag bits of the two compression methods
constexpr std::size_t least_entry = 64;

struct Wrapper {
  std::uint32_t magic, version;
  const std::uint8_t* data;
  void* file;
};

template <class T>
T read(const std::uint8_t* p, std::size_t offset) {
  T value;
  std::memcpy(&value, p + offset, sizeof value);
  return value;
}

}  // namespace

std::string ptx_of_fat_binary(const void* pointer) {
  const auto* wrapper = static_cast<const Wrapper*>(pointer);
  if (wrapper->magic != wrapper_magic || read<std::uint32_t>(wrapper->data, 0) != binary_magic) {
    say("EMU ERROR: not a fat binary\n");
    return "";
  }
  const std::uint8_t* p = wrapper->data;
  const auto header = read<std::uint16_t>(p, 6);
  const std::uint8_t* end = p + header + read<std::uint64_t>(p, 8);
  const auto wanted = std::uint32_t(device_model().major * 10 + device_model().minor);
  std::string best;
  std::uint32_t best_architecture = 0;
  bool too_new = false;
  for (p += header; p + least_entry <= end;) {
    const auto kind = read<std::uint16_t>(p, 0);
    const auto entry_header = read<std::uint32_t>(p, 4), architecture = read<std::uint32_t>(p, 28);
    const auto size = read<std::uint64_t>(p, 8), flags = read<std::uint64_t>(p, 40);
    const auto left = std::uint64_t(end - p);
    if (entry_header < least_entry || entry_header > left || size > left - entry_header) {
      say("EMU ERROR: damaged fat binary: an entry reaches beyond its end\n");
      return "";
    }
    const char* text = reinterpret_cast<const char*>(p) + entry_header;
    p += entry_header + size;
    if (kind != kind_ptx) continue;
    if (flags & compressed) {
      say("EMU ERROR: compressed PTX in fat binary (use --no-compress)\n");
    } else if (architecture > wanted) {
      too_new = true;
    } else if (architecture >= best_architecture) {
      best_architecture = architecture;
      best.assign(text, strnlen(text, size));
    }
  }
  if (best.empty() && too_new) {
    say("EMU ERROR: the PTX of the fat binary is for newer devices than the pretended sm_%u (set EMU_DEVICE)\n", wanted);
  }
  return best;
}

}  // namespace emu
