// SPDX-License-Identifier: Apache-2.0
// Which PTX is taken from a fat binary, and what is said about one that has none.
#include <doctest/doctest.h>

#include <cstring>
#include <vector>

#include "captured.hpp"
#include "module.hpp"

namespace {

constexpr std::uint16_t ptx = 1, machine_code = 2;

struct Entry {
  std::uint16_t kind;
  std::uint32_t architecture;
  std::string text;
  std::uint64_t flags = 0;
};

/// A fat binary in memory, as nvcc lays it out.
struct FatBinary {
  struct {
    std::uint32_t magic = 0x466243b1, version = 1;
    const std::uint8_t* data = nullptr;
    void* file = nullptr;
  } wrapper;
  std::vector<std::uint8_t> bytes;

  explicit FatBinary(const std::vector<Entry>& entries) {
    constexpr std::size_t header = 16;
    bytes.resize(header);
    put(0, std::uint32_t(0xBA55ED50));
    put(6, std::uint16_t(header));
    for (const Entry& e : entries) {
      const std::size_t at = bytes.size();
      bytes.resize(at + 64);
      put(at, e.kind);
      put(at + 4, std::uint32_t(64));
      put(at + 8, std::uint64_t(e.text.size()));
      put(at + 28, e.architecture);
      put(at + 40, e.flags);
      bytes.insert(bytes.end(), e.text.begin(), e.text.end());
    }
    put(8, std::uint64_t(bytes.size() - header));
    wrapper.data = bytes.data();
  }
  template <class T>
  void put(std::size_t offset, T value) {
    std::memcpy(bytes.data() + offset, &value, sizeof value);
  }
  std::string chosen(std::string* report = nullptr) {
    std::string text;
    const std::string said = captured([&] { text = emu::ptx_of_fat_binary(&wrapper); });
    if (report) *report = said;
    return text;
  }
};

}  // namespace

TEST_CASE("the newest PTX that the device can run is taken; machine code is not") {
  std::string report;
  FatBinary f({{ptx, 70, "seventy"},
               {machine_code, 80, "code"},
               {ptx, 80, "eighty"},
               {ptx, 75, "seventy-five"},
               {ptx, 90, "ninety"}});
  CHECK(f.chosen(&report) == "eighty");  // the pretended device is sm_80
  CHECK(report == "");
  CHECK(FatBinary({{ptx, 80, std::string("text\0padding", 12)}}).chosen() == "text");
}

TEST_CASE("a fat binary without usable PTX is refused with the reason") {
  std::string report;
  CHECK(FatBinary({{ptx, 90, "ninety"}}).chosen(&report) == "");
  CHECK(contains(report, "for newer devices than the pretended sm_80 (set EMU_DEVICE)"));
  CHECK(FatBinary({{ptx, 80, "packed", 0x2000}}).chosen(&report) == "");
  CHECK(contains(report, "compressed PTX in fat binary (use --no-compress)"));
  CHECK(FatBinary({{ptx, 80, "packed", 0x8000}}).chosen(&report) == "");
  CHECK(contains(report, "compressed"));
  CHECK(FatBinary({}).chosen() == "");
}

TEST_CASE("bytes that are no fat binary, or a damaged one, are refused") {
  std::string report;
  FatBinary wrong_wrapper({{ptx, 80, "eighty"}});
  wrong_wrapper.wrapper.magic++;
  CHECK(wrong_wrapper.chosen(&report) == "");
  CHECK(contains(report, "not a fat binary"));
  FatBinary wrong_header({{ptx, 80, "eighty"}});
  wrong_header.put(0, std::uint32_t(0));
  CHECK(wrong_header.chosen(&report) == "");
  CHECK(contains(report, "not a fat binary"));
  for (const std::uint64_t size : {std::uint64_t(7), ~std::uint64_t(0), ~std::uint64_t(0) - 63}) {
    FatBinary too_long({{ptx, 80, "eighty"}});
    too_long.put(16 + 8, size);
    CHECK(too_long.chosen(&report) == "");
    CHECK(contains(report, "damaged fat binary"));
  }
  FatBinary no_header({{ptx, 80, "eighty"}});
  no_header.put(16 + 4, std::uint32_t(0));
  CHECK(no_header.chosen(&report) == "");
  CHECK(contains(report, "damaged fat binary"));
}
