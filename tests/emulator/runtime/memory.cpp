// SPDX-License-Identifier: Apache-2.0
#include "memory.hpp"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "config.hpp"
#include "device_model.hpp"
#include "signals.hpp"
#include "text.hpp"

namespace emu {
namespace {

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t alignment = 512;   // of every allocation, as cudaMalloc gives at least 256
constexpr std::uint64_t nearby = 1 << 16;  // an access this close to a region is described by that region
constexpr int64_t device_to_host = int64_t(bytes_begin - device_begin);

struct Memory {
  std::mutex mutex;
  std::map<std::uint64_t, Region> regions;  // by first address
  std::uint64_t next = 0;                   // offset of the next allocation; addresses are never used twice
  std::uint64_t live = 0;
  std::uint64_t serial = 0;
};

Memory& memory() {
  static Memory* m = new Memory();  // never destroyed: programs free memory from their own static destructors
  return *m;
}

void* reserve(std::uint64_t address, int protection) {
  return mmap(reinterpret_cast<void*>(address), device_end - device_begin, protection,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
}

Region* find_locked(std::uint64_t a) {
  auto& regions = memory().regions;
  auto it = regions.upper_bound(a);
  if (it == regions.begin()) return nullptr;
  --it;
  const std::uint64_t size = it->second.size ? it->second.size : 1;  // an empty region still owns its address
  return a - it->second.begin < size ? &it->second : nullptr;
}

std::string reason_locked(std::uint64_t a, std::size_t bytes) {
  using ull = unsigned long long;
  auto& regions = memory().regions;
  auto it = regions.upper_bound(a);
  const Region* before = it != regions.begin() ? &std::prev(it)->second : nullptr;
  const Region* after = it != regions.end() ? &it->second : nullptr;
  if (before && a - before->begin < before->size + nearby) {
    const ull offset = a - before->begin, size = before->size;
    if (!before->live && offset < size) {
      return format("use after free: byte %llu of freed %s (%llu bytes)", offset, before->name.c_str(), size);
    }
    std::string text = format("out of bounds: %zu-byte access at byte %llu of %s%s (%llu bytes)", bytes, offset,
                              before->live ? "" : "freed ", before->name.c_str(), size);
    if (after && after->begin - a < alignment) {
      text += format(", %llu bytes before %s", ull(after->begin - a), after->name.c_str());
    }
    return text;
  }
  if (after && after->begin - a <= nearby) {
    return format("out of bounds: %zu-byte access %llu bytes before %s (%llu bytes)", bytes, ull(after->begin - a),
                  after->name.c_str(), ull(after->size));
  }
  return format("%s 0x%llx is in no device allocation", a < 65536 ? "null-ish pointer" : "address", ull(a));
}

}  // namespace

void init_memory() {
  static const bool done = [] {
    install_signal_handler();
    if (reserve(device_begin, PROT_NONE) != reinterpret_cast<void*>(device_begin) ||
        reserve(bytes_begin, PROT_READ | PROT_WRITE) != reinterpret_cast<void*>(bytes_begin)) {
      say("EMU: cannot reserve device address space\n");
      std::abort();
    }
    return true;
  }();
  (void)done;
}

std::uint64_t allocate(std::size_t bytes, Kind kind, const std::string& name, void* host) {
  init_memory();
  Memory& m = memory();
  std::lock_guard<std::mutex> lock(m.mutex);
  const std::string numbered = format("%s #%llu", name.c_str(), static_cast<unsigned long long>(++m.serial));
  if (kind == Kind::host) {
    const auto a = reinterpret_cast<std::uint64_t>(host);
    m.regions[a] = Region{a, bytes, 0, true, kind, numbered};
    return a;
  }
  const std::uint64_t room = device_end - device_begin - m.next;
  if (bytes > config().device_bytes || m.live + bytes > config().device_bytes || bytes + (1 << 20) > room) return 0;
  const std::uint64_t a = device_begin + m.next + alignment;
  // At least a page stays empty behind each region, so that its overruns meet no neighbour.
  m.next = (m.next + alignment + bytes + 2 * page - 1) & ~(page - 1);
  m.live += bytes;
  if (config().poison && kind == Kind::device) std::memset(host_of(a), 0xFF, bytes);
  m.regions[a] = Region{a, bytes, device_to_host, true, kind, kind == Kind::variable ? name : numbered,
                        kind == Kind::device ? current_device() : -1};
  return a;
}

Released release(std::uint64_t address, Kind kind) {
  Memory& m = memory();
  std::lock_guard<std::mutex> lock(m.mutex);
  auto it = m.regions.find(address);
  if (it == m.regions.end() || it->second.kind != kind) return Released::unknown;
  Region& r = it->second;
  if (!r.live) return Released::twice;
  r.live = false;
  if (kind == Kind::device) {
    m.live -= r.size;
    const std::uint64_t first = (address + std::uint64_t(r.to_host)) & ~(page - 1);
    madvise(reinterpret_cast<void*>(first), (r.size + alignment + page - 1) & ~(page - 1), MADV_DONTNEED);
  } else {
    m.regions.erase(it);  // host memory may be handed out again by the host's allocator
  }
  return Released::yes;
}

bool find_region(std::uint64_t address, Region* out) {
  std::lock_guard<std::mutex> lock(memory().mutex);
  const Region* r = find_locked(address);
  if (r) *out = *r;
  return r != nullptr;
}

std::string describe(std::uint64_t address) {
  Region r;
  if (!find_region(address, &r)) return "?";
  return r.name + "+" + std::to_string(address - r.begin);
}

std::uint8_t* host_range(std::uint64_t address, std::size_t bytes, std::string* why, Bounds* bounds) {
  std::lock_guard<std::mutex> lock(memory().mutex);
  const Region* r = find_locked(address);
  if (r && r->live && (bytes == 0 || (bytes <= r->size && address - r->begin <= r->size - bytes))) {
    if (bounds) *bounds = Bounds{r->begin, r->size, r->to_host, r->device};
    return reinterpret_cast<std::uint8_t*>(address + std::uint64_t(r->to_host));
  }
  if (why) *why = reason_locked(address, bytes);
  return nullptr;
}

std::uint64_t live_bytes() {
  std::lock_guard<std::mutex> lock(memory().mutex);
  return memory().live;
}

}  // namespace emu
