// SPDX-License-Identifier: Apache-2.0
// A block of a kernel that has no code: what the checks need of a worker, filled in by hand.
#pragma once
#include <cstdint>
#include <vector>

#include "counts.hpp"
#include "race.hpp"
#include "worker.hpp"

struct SmallBlock {
  static constexpr std::uint32_t shared_bytes = 256;
  emu::Worker w;
  emu::LaunchArgs launch{};
  EmuKernelDesc kernel{};
  std::vector<std::uint8_t> shared = std::vector<std::uint8_t>(shared_bytes);

  explicit SmallBlock(const char* name, int threads = 64, std::uint32_t blocks = 1) {
    static const char* const sites[] = {"site0", "site1", "site2", "site3"};
    kernel.nsites = 4;
    kernel.sites = sites;
    launch.kernel = &kernel;
    launch.shown = name;
    w.launch = &launch;
    w.nsites = kernel.nsites;
    w.nctaid[0] = blocks;
    w.nctaid[1] = w.nctaid[2] = 1;
    w.smem = shared.data();
    w.smem_total = shared_bytes;
    w.count = threads;
    w.threads.resize(std::size_t(threads));
    for (int i = 0; i < threads; i++) w.threads[std::size_t(i)].lin = w.threads[std::size_t(i)].tid[0] = std::uint32_t(i);
    w.warps.resize(std::size_t(threads + 31) / 32);
    for (emu::Warp& warp : w.warps) warp.all = ~0u;
    if (threads & 31) w.warps.back().all = (1u << (threads & 31)) - 1;
  }
  EmuThread* thread(int i) { return &w.threads[std::size_t(i)]; }
};
