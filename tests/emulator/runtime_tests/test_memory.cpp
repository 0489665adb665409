// SPDX-License-Identifier: Apache-2.0
// Device addresses: bounds, use after free, double free, and how they are worded.
#include <doctest/doctest.h>

#include <cstring>

#include "captured.hpp"
#include "config.hpp"
#include "memory.hpp"

using emu::Kind;
using emu::Released;

namespace {

std::string reason(std::uint64_t address, std::size_t bytes) {
  std::string why;
  return emu::host_range(address, bytes, &why) ? "" : why;
}

}  // namespace

TEST_CASE("a range inside an allocation has a host address, one beyond it a reason") {
  const std::uint64_t a = emu::allocate(1024, Kind::device, "array");
  REQUIRE(a != 0);
  CHECK(a % 512 == 0);
  CHECK(emu::is_device_address(a));
  emu::Bounds bounds;
  std::uint8_t* host = emu::host_range(a, 1024, nullptr, &bounds);
  REQUIRE(host);
  CHECK(host == emu::host_of(a));
  CHECK(bounds.begin == a);
  CHECK(bounds.size == 1024);
  std::memset(host, 1, 1024);
  CHECK(reason(a + 1020, 4) == "");
  CHECK(contains(reason(a + 1021, 4), "out of bounds: 4-byte access at byte 1021 of array #"));
  CHECK(contains(reason(a + 1024, 1), "at byte 1024 of array"));
  CHECK(contains(reason(a - 4, 4), "4-byte access 4 bytes before array"));
  CHECK(contains(reason(a, ~std::size_t(0)), "out of bounds"));  // no overflow
  CHECK(contains(reason(a + (1ull << 38), 4), "is in no device allocation"));
  CHECK(contains(reason(16, 4), "null-ish pointer 0x10"));
  CHECK(contains(emu::describe(a + 7), "array #"));
  CHECK(contains(emu::describe(a + 7), "+7"));
  CHECK(emu::describe(16) == "?");
  CHECK(emu::release(a, Kind::device) == Released::yes);
}

TEST_CASE("freed memory is named, its addresses do not come back") {
  const std::uint64_t before = emu::live_bytes();
  const std::uint64_t a = emu::allocate(4096, Kind::device, "short_lived");
  CHECK(emu::live_bytes() == before + 4096);
  CHECK(emu::release(a, Kind::device) == Released::yes);
  CHECK(emu::live_bytes() == before);
  CHECK(contains(reason(a + 8, 4), "use after free: byte 8 of freed short_lived #"));
  CHECK(emu::release(a, Kind::device) == Released::twice);
  CHECK(emu::live_bytes() == before);
  const std::uint64_t b = emu::allocate(4096, Kind::device, "next");
  CHECK(b != a);
  CHECK(contains(reason(a + 8, 4), "use after free"));
  CHECK(emu::release(b, Kind::device) == Released::yes);
}

TEST_CASE("only the first address of an allocation of the same kind can be released") {
  const std::uint64_t a = emu::allocate(64, Kind::device, "array");
  CHECK(emu::release(a + 4, Kind::device) == Released::unknown);
  CHECK(emu::release(a, Kind::host) == Released::unknown);
  CHECK(emu::release(12345, Kind::device) == Released::unknown);
  CHECK(emu::release(a, Kind::device) == Released::yes);
}

TEST_CASE("neighbours do not touch; an overrun names both") {
  const std::uint64_t a = emu::allocate(100, Kind::device, "left"), b = emu::allocate(100, Kind::device, "right");
  CHECK(b >= a + 100 + 4096);
  CHECK(contains(reason(a + 100, 4), "of left"));
  CHECK(contains(reason(a + 98, 4), "byte 98 of left"));
  CHECK(emu::release(a, Kind::device) == Released::yes);
  CHECK(emu::release(b, Kind::device) == Released::yes);
}

TEST_CASE("host memory keeps its address and may be registered again") {
  alignas(64) static unsigned char bytes[256];
  const auto address = reinterpret_cast<std::uint64_t>(bytes);
  for (int time = 0; time < 2; time++) {
    CHECK(emu::allocate(sizeof bytes, Kind::host, "pinned", bytes) == address);
    CHECK(emu::host_range(address + 255, 1, nullptr) == bytes + 255);
    CHECK(contains(reason(address + 256, 1), "of pinned"));
    CHECK(emu::release(address, Kind::host) == Released::yes);
    CHECK(emu::release(address, Kind::host) == Released::unknown);
  }
}

TEST_CASE("a device has an end, and an empty allocation an address") {
  CHECK(emu::allocate(emu::config().device_bytes + 1, Kind::device, "too large") == 0);
  CHECK(emu::allocate(~std::size_t(0), Kind::device, "far too large") == 0);
  const std::uint64_t a = emu::allocate(0, Kind::device, "empty");
  CHECK(a != 0);
  CHECK(emu::host_range(a, 0, nullptr) != nullptr);
  CHECK(reason(a, 1) != "");
  CHECK(emu::release(a, Kind::device) == Released::yes);
}
