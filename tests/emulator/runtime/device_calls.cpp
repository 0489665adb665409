// SPDX-License-Identifier: Apache-2.0
// What device code calls in the CUDA system: printf, assert, malloc, free, the clock.
#include <chrono>
#include <cstdio>
#include <cstring>

#include "memory.hpp"
#include "worker.hpp"

namespace emu {
namespace {

/// One byte of device memory. Goes through site 0, whose cached region must not survive: it belongs to an instruction.
std::uint8_t device_byte(Worker& w, EmuThread& t, std::uint64_t a) {
  const std::uint8_t value = *emu_resolve(&w, &t, a, 1, 0, EMU_LD);
  w.sites[0] = EmuSite{~0ull, 0, 0};
  return value;
}

std::string device_string(Worker& w, EmuThread& t, std::uint64_t a) {
  constexpr std::size_t longest = 4096;
  std::string s;
  while (s.size() < longest) {
    const char c = char(device_byte(w, t, a + s.size()));
    if (!c) break;
    s += c;
  }
  return s;
}

/// The argument buffer that nvcc builds for vprintf: values at their natural alignment, float promoted to double.
class Arguments {
 public:
  Arguments(Worker& w, EmuThread& t, std::uint64_t address) : w_(w), t_(t), address_(address) {}
  template <class T>
  T next() {
    offset_ = (offset_ + sizeof(T) - 1) / sizeof(T) * sizeof(T);
    std::uint8_t bytes[sizeof(T)];
    for (std::size_t i = 0; i < sizeof(T); i++) bytes[i] = device_byte(w_, t_, address_ + offset_ + i);
    offset_ += sizeof(T);
    T value;
    std::memcpy(&value, bytes, sizeof(T));
    return value;
  }

 private:
  Worker& w_;
  EmuThread& t_;
  std::uint64_t address_, offset_ = 0;
};

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
/// One conversion: `spec` is "%" with flags, width and precision; `length` the length modifiers.
std::string convert(Worker& w, EmuThread& t, const std::string& spec, const std::string& length, char conversion,
                    Arguments& arguments) {
  const bool wide = length.find('l') != std::string::npos || length == "z" || length == "j" || length == "t";
  char text[512];
  if (std::strchr("eEfFgGaA", conversion)) {
    std::snprintf(text, sizeof text, (spec + conversion).c_str(), arguments.next<double>());
  } else if (conversion == 's') {
    return device_string(w, t, arguments.next<std::uint64_t>());
  } else if (conversion == 'p') {
    return format("0x%llx", arguments.next<unsigned long long>());
  } else if (wide) {
    std::snprintf(text, sizeof text, (spec + "ll" + conversion).c_str(), arguments.next<long long>());
  } else {
    std::snprintf(text, sizeof text, (spec + conversion).c_str(), arguments.next<int>());
  }
  return text;
}
#pragma GCC diagnostic pop

}  // namespace
}  // namespace emu

extern "C" {

uint32_t emu_vprintf(EmuCtx* context, EmuThread* thread, uint64_t format, uint64_t arguments_address) {
  emu::Worker& w = emu::worker_of(context);
  const std::string f = emu::device_string(w, *thread, format);
  emu::Arguments arguments(w, *thread, arguments_address);
  std::string out;
  uint32_t conversions = 0;
  for (std::size_t i = 0; i < f.size();) {
    if (f[i] != '%') {
      out += f[i++];
      continue;
    }
    if (i + 1 < f.size() && f[i + 1] == '%') {
      out += '%';
      i += 2;
      continue;
    }
    std::string spec = "%", length;
    for (i++; i < f.size() && std::strchr("-+ #0123456789.*", f[i]); i++) {
      if (f[i] == '*')
        spec += std::to_string(arguments.next<int>());
      else
        spec += f[i];
    }
    while (i < f.size() && std::strchr("hlzjtL", f[i])) length += f[i++];
    const char conversion = i < f.size() ? f[i++] : 'd';
    out += emu::convert(w, *thread, spec, length, conversion, arguments);
    conversions++;
  }
  std::fwrite(out.data(), 1, out.size(), stdout);
  return conversions;
}

void emu_assertfail(EmuCtx* context, EmuThread* thread, uint64_t message, uint64_t file, uint32_t line, uint64_t function,
                    uint64_t) {
  emu::Worker& w = emu::worker_of(context);
  const auto text = [&](uint64_t a) { return emu::device_string(w, *thread, a); };
  emu::fault(
      w, *thread, emu::device_assert,
      "assertion `" + text(message) + "` failed at " + text(file) + ":" + std::to_string(line) + " in " + text(function),
      emu::no_site);
}

uint64_t emu_dmalloc(EmuCtx*, EmuThread*, uint64_t bytes) {
  return emu::allocate(bytes, emu::Kind::device, "device malloc");
}

void emu_dfree(EmuCtx* context, EmuThread* thread, uint64_t address) {
  emu::Worker& w = emu::worker_of(context);
  if (address && emu::release(address, emu::Kind::device) != emu::Released::yes) {
    emu::fault(w, *thread, emu::launch_failure, "free() of a pointer that is not a live device allocation", emu::no_site);
  }
  for (EmuSite& s : w.site_cache) s = EmuSite{~0ull, 0, 0};  // some may point into what is gone
}

uint64_t emu_clock(void) { return uint64_t(std::chrono::steady_clock::now().time_since_epoch().count()); }

}  // extern "C"
