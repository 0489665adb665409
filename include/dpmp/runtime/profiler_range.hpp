// SPDX-License-Identifier: Apache-2.0
// Names for what a step does, as profilers of GPUs show them and memory is counted under.
#pragma once
#include "dpmp/runtime/context.hpp"

namespace dpmp::inline DPMP_ABI {
/// While it lives, work submitted on its context is shown under `name` (NVTX, domain "dpmp"; nothing without a GPU), and
/// memory that is asked for is counted under it (Context::memory_uses). The
/// ranges of a training step: forward; backward, and in it each operation's name, "norm" for each parameter and each group,
/// and "clipped sum" for each group; update.
class ProfilerRange {
 public:
  ProfilerRange(Context& ctx, std::string_view name) : backend_(ctx.backend()), memory_(ctx.arena(), name) {
    backend_.push_range(name);
  }
  ~ProfilerRange() { backend_.pop_range(); }
  ProfilerRange(const ProfilerRange&) = delete;
  ProfilerRange& operator=(const ProfilerRange&) = delete;

 private:
  Backend& backend_;
  MemoryLabel memory_;
};
}  // namespace dpmp::inline DPMP_ABI
