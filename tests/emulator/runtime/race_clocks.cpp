// SPDX-License-Identifier: Apache-2.0
#include "race_clocks.hpp"

#include <algorithm>
#include <cstring>

namespace emu {

void RaceClocks::start_block(std::uint32_t number, std::uint32_t shared_bytes, std::size_t warps, std::uint64_t block,
                             std::uint64_t blocks) {
  serial = number;
  block_ = block;
  warps_ = warps;
  lane_clocks_.assign(warps * 32 * 32, 0);
  warp_clocks_.assign(warps * warps, 0);
  for (std::size_t w = 0; w < warps; w++) {
    warp_clocks_[w * warps + w] = 1;
    for (std::size_t l = 0; l < 32; l++) lane_clocks_[(w * 32 + l) * 32 + l] = 1;
  }
  if (shared.size() < shared_bytes) shared.resize(shared_bytes);
  seen_.assign((blocks + 63) / 64, 0);
  fenced = false;
}

void RaceClocks::join_lanes(int warp, std::uint32_t mask) {
  std::uint32_t* clocks = &lane_clocks_[std::size_t(warp) * 1024];
  std::uint32_t joined[32] = {};
  for (int l = 0; l < 32; l++) {
    if (!(mask >> l & 1)) continue;
    for (int k = 0; k < 32; k++) joined[k] = std::max(joined[k], clocks[l * 32 + k]);
  }
  for (int l = 0; l < 32; l++) {
    if (!(mask >> l & 1)) continue;
    std::memcpy(clocks + l * 32, joined, sizeof joined);
    clocks[l * 32 + l]++;
  }
}

void RaceClocks::join_barrier(const std::vector<int>& waiting, const std::vector<int>& arrived) {
  std::vector<std::uint32_t> members(warps_, 0), joined(warps_, 0);
  std::vector<char> waits(warps_, 0);
  for (int t : waiting) {
    members[std::size_t(t >> 5)] |= 1u << (t & 31);
    waits[std::size_t(t >> 5)] = 1;
  }
  for (int t : arrived) members[std::size_t(t >> 5)] |= 1u << (t & 31);
  for (std::size_t w = 0; w < warps_; w++) {
    if (!members[w]) continue;
    join_lanes(int(w), members[w]);
    for (std::size_t k = 0; k < warps_; k++) joined[k] = std::max(joined[k], warp_clocks_[w * warps_ + k]);
  }
  for (std::size_t w = 0; w < warps_; w++) {
    if (!members[w]) continue;
    if (waits[w]) std::copy(joined.begin(), joined.end(), warp_clocks_.begin() + std::ptrdiff_t(w * warps_));
    warp_clocks_[w * warps_ + w]++;
  }
}

bool RaceClocks::ordered(const Stamp& earlier, const Stamp& later) const {
  if (earlier.launch == 0 || earlier.launch != later.launch) return true;  // launches (and blocks) end with a barrier
  if (earlier.atomic && later.atomic) return true;
  if (earlier.block != later.block) return seen_[earlier.block >> 6] >> (earlier.block & 63) & 1;
  if (earlier.thread == later.thread) return true;
  const std::size_t a = earlier.thread >> 5, b = later.thread >> 5;
  if (a == b) return lane_clocks_[std::size_t(later.thread) * 32 + (earlier.thread & 31)] >= earlier.lane_clock;
  return warp_clocks_[b * warps_ + a] >= earlier.warp_clock;
}

Stamp RaceClocks::stamp(std::uint32_t thread, std::uint32_t launch, std::uint32_t site, bool atomic) const {
  const std::size_t warp = thread >> 5;
  Stamp s;
  s.launch = launch;
  s.block = std::uint32_t(block_);
  s.warp_clock = warp_clocks_[warp * warps_ + warp];
  s.lane_clock = lane_clocks_[std::size_t(thread) * 32 + (thread & 31)];
  s.site = site;
  s.thread = std::uint16_t(thread);
  s.atomic = atomic;
  return s;
}

void RaceClocks::acquire(const std::vector<std::uint64_t>& released) {
  for (std::size_t i = 0; i < std::min(seen_.size(), released.size()); i++) seen_[i] |= released[i];
}

void RaceClocks::release_to(std::vector<std::uint64_t>& released) const {
  if (released.size() < seen_.size()) released.resize(seen_.size());
  for (std::size_t i = 0; i < seen_.size(); i++) released[i] |= seen_[i];
  released[block_ >> 6] |= 1ull << (block_ & 63);
}

}  // namespace emu
