// SPDX-License-Identifier: Apache-2.0
// What a pass has in use at once, as a function of the number of samples: the requests of two runs of the same work on
// different numbers of samples, and the line through each pair of sizes.
#pragma once
#include <algorithm>
#include <map>
#include <span>
#include <vector>

#include "dpmp/runtime/memory.hpp"

namespace dpmp::inline DPMP_ABI {
/// While it lives, requests to the context's arena are written down.
class MemoryTrace {
 public:
  explicit MemoryTrace(Arena& arena) : arena_(arena) { arena_.trace(&events_); }
  ~MemoryTrace() { arena_.trace(nullptr); }
  MemoryTrace(const MemoryTrace&) = delete;
  MemoryTrace& operator=(const MemoryTrace&) = delete;
  const std::vector<MemoryEvent>& events() const { return events_; }

 private:
  Arena& arena_;
  std::vector<MemoryEvent> events_;
};

/// Sizes of memory that grow along a line with the samples of a batch: of the blocks in use when there were most.
class MemoryModel {
 public:
  /// The requests of the same work on n and on 2 n samples.
  MemoryModel(index_t n, std::span<const MemoryEvent> on_n, std::span<const MemoryEvent> on_twice);
  /// Most bytes in use at once on so many samples.
  index_t peak_bytes(index_t samples) const;
  /// The same of requests as they are.
  static index_t peak_bytes_of(std::span<const MemoryEvent> events);

 private:
  struct Line {
    double fixed, each;
  };
  /// What was asked for the blocks in use at the peak, in the order in which they were asked for.
  static std::vector<index_t> sizes_at_peak(std::span<const MemoryEvent> events);
  std::vector<Line> blocks_;
  bool same_blocks_ = true;  // else one line for all of them
};
}  // namespace dpmp::inline DPMP_ABI

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI {
DPMP_KEPT_BODY inline std::vector<index_t> MemoryModel::sizes_at_peak(std::span<const MemoryEvent> events) {
  std::map<index_t, index_t> live;  // sizes by block
  const auto follow = [&](const MemoryEvent& e) {
    if (e.bytes < 0) return -detail::size_class_of(live.extract(e.block).mapped());
    live[e.block] = e.bytes;
    return detail::size_class_of(e.bytes);
  };
  index_t bytes = 0, peak = 0;
  std::size_t until = 0;
  for (std::size_t k = 0; k < events.size(); ++k) {
    bytes += follow(events[k]);
    if (bytes > peak) peak = bytes, until = k + 1;
  }
  live.clear();
  for (std::size_t k = 0; k < until; ++k) follow(events[k]);
  std::vector<index_t> sizes;
  for (const auto& [block, size] : live) sizes.push_back(size);
  return sizes;
}

DPMP_KEPT_BODY inline index_t MemoryModel::peak_bytes_of(std::span<const MemoryEvent> events) {
  index_t sum = 0;
  for (const index_t size : sizes_at_peak(events)) sum += detail::size_class_of(size);
  return sum;
}

DPMP_KEPT_BODY inline MemoryModel::MemoryModel(index_t n, std::span<const MemoryEvent> on_n,
                                               std::span<const MemoryEvent> on_twice) {
  DPMP_CHECK(n >= 1, "expected a number of samples >= 1, got ", n);
  std::vector<index_t> a = sizes_at_peak(on_n), b = sizes_at_peak(on_twice);
  same_blocks_ = a.size() == b.size();
  if (!same_blocks_)
    for (std::vector<index_t>* sizes : {&a, &b}) {
      index_t sum = 0;
      for (const index_t size : *sizes) sum += detail::size_class_of(size);
      sizes->assign(1, sum);
    }
  for (std::size_t k = 0; k < a.size(); ++k) {
    const double each = double(b[k] - a[k]) / double(n);
    blocks_.push_back({double(a[k]) - each * double(n), each});
  }
}

DPMP_KEPT_BODY inline index_t MemoryModel::peak_bytes(index_t samples) const {
  index_t sum = 0;
  for (const Line& line : blocks_) {
    const index_t size = index_t(std::max(0.0, line.fixed + line.each * double(samples)) + 0.5);
    sum += same_blocks_ ? detail::size_class_of(size) : size;
  }
  return sum;
}
}  // namespace dpmp::inline DPMP_ABI
#endif
