// SPDX-License-Identifier: Apache-2.0
// The set of sectors that a launch has touched: what a cache that never forgets would fetch once.
#pragma once
#include <array>
#include <bit>
#include <cstdint>
#include <unordered_map>

namespace emu {

class Footprint {
 public:
  void add(std::uint64_t sector) {
    const std::uint64_t number = sector / page_sectors;
    if (number != last_number_) {
      last_ = &pages_[number];  // addresses of map elements are stable
      last_number_ = number;
    }
    (*last_)[sector % page_sectors / 64] |= 1ull << sector % 64;
  }
  void merge(const Footprint& o) {
    for (const auto& [number, theirs] : o.pages_) {
      Page& mine = pages_[number];
      for (std::size_t i = 0; i < mine.size(); i++) mine[i] |= theirs[i];
    }
  }
  std::uint64_t sectors() const {
    std::uint64_t n = 0;
    for (const auto& entry : pages_) {
      for (std::uint64_t word : entry.second) n += std::uint64_t(std::popcount(word));
    }
    return n;
  }
  void clear() {
    pages_.clear();
    last_ = nullptr;
    last_number_ = none;
  }

 private:
  static constexpr std::uint64_t page_sectors = 4096, none = ~0ull;
  using Page = std::array<std::uint64_t, page_sectors / 64>;
  std::unordered_map<std::uint64_t, Page> pages_;
  Page* last_ = nullptr;
  std::uint64_t last_number_ = none;
};

}  // namespace emu
