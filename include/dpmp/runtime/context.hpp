// SPDX-License-Identifier: Apache-2.0
// One object for what a computation needs in addition to its data: device, threads, memory. There is no global state.
#pragma once
#include <memory>

#include "dpmp/runtime/device.hpp"
#include "dpmp/runtime/floating_point.hpp"
#include "dpmp/runtime/memory.hpp"
#include "dpmp/runtime/parallel.hpp"
#include "dpmp/runtime/units.hpp"

namespace dpmp::inline DPMP_ABI {
/// Not copyable and not movable: tensors' operations refer to it. Work is submitted from one thread at a time.
class Context {
 public:
  /// threads: of the host, 0 means default_threads(): OMP_NUM_THREADS, or what affinity and container allow. Throws when
  /// the device is not available in this build or on this machine, when the threads cannot be started, or when
  /// floating-point numbers are not those of IEEE 754 on one of the threads (some other library was linked with
  /// -ffast-math) or in a unit of the program (runtime/floating_point.hpp);
  /// and when a unit was compiled for a CPU that has more than this one, or, with
  /// dpmp::compiled, for other instruction sets than another unit (runtime/units.hpp).
  explicit Context(Device device = Device::best(), int threads = 0)
      : device_((detail::check_units(), device)), team_(threads), arena_(new Arena(detail::make_backend(device))) {
    detail::check_floating_point(team_);
  }
  ~Context() { backend().gemm_state.reset(); }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  Device device() const { return device_; }
  bool on_cuda() const { return device_.kind == DeviceKind::cuda; }
  Backend& backend() const { return arena_->backend(); }
  int threads() const { return team_.threads(); }
  ThreadTeam& team() { return team_; }
  Buffer allocate(index_t bytes) { return arena_->allocate(bytes); }
  Arena& arena() const { return *arena_; }
  MemoryStatistics memory() const { return arena_->statistics(); }
  /// Bytes in use by what asked for them, largest first: "parameters", "gradient sums", "optimiser state", operations of a
  /// forward and a backward pass, "norm", "clipped sum", ..; now, or when there were most since reset_peak_memory().
  std::vector<MemoryUse> memory_uses() const { return arena_->uses(); }
  std::vector<MemoryUse> memory_uses_at_peak() const { return arena_->uses_at_peak(); }
  /// Gives memory that nobody uses back to the system; returns its bytes. A GPU's work is waited for.
  index_t trim_memory() { return arena_->trim(); }
  /// No more than so many bytes are taken from the system; beyond them an allocation throws, as it does where the device has
  /// no more. Below what a step needs and keeps for the next one, each step takes and returns memory: that is slow.
  void limit_memory(std::optional<index_t> bytes) { arena_->limit(bytes); }
  /// Copies to and from the device's memory so far: a training step copies its batch in and nothing out.
  TransferStatistics transfers() const { return backend().transfers(); }
  void reset_peak_memory() { arena_->reset_peak(); }

 private:
  Device device_;
  ThreadTeam team_;
  std::unique_ptr<Arena, Arena::Release> arena_;
};
}  // namespace dpmp::inline DPMP_ABI
