// SPDX-License-Identifier: Apache-2.0
// Times of work in a stream, by CUDA events. Everything of a measurement is asked for before anything of it is waited for,
// and behind fills of memory that keep the device busy meanwhile: the host is not in the times.
#pragma once
#include <algorithm>
#include <dpmp/runtime/context.hpp>
#include <dpmp/runtime/launch_cuda.cuh>
#include <vector>

namespace bench {
class DeviceTimer {
 public:
  /// flush_bytes: more than the L2 cache holds; written between the repetitions of a cold measurement.
  DeviceTimer(dpmp::Context& ctx, dpmp::index_t flush_bytes, int repetitions)
      : stream_(dpmp::detail::stream_of(ctx)),
        flush_(ctx.allocate(flush_bytes)),
        flush_bytes_(flush_bytes),
        repetitions_(repetitions),
        events_(2 * std::size_t(repetitions)) {
    for (cudaEvent_t& event : events_) check(cudaEventCreate(&event), "create an event");
  }
  ~DeviceTimer() {
    for (const cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  DeviceTimer(const DeviceTimer&) = delete;
  DeviceTimer& operator=(const DeviceTimer&) = delete;

  /// Median microseconds of one call, after one that warms up. cold: the cache is flushed before each. Otherwise a time is a
  /// fourth of four calls in a row, which a call of a few microseconds needs: events resolve about half of one.
  double microseconds(bool cold, const auto& work) {
    const int calls = cold ? 1 : std::min(4, repetitions_);
    work();
    for (int k = 0; k < std::min(16, repetitions_); ++k) flush(k);
    for (int k = 0; k < repetitions_; ++k) {
      if (cold) flush(k);
      check(cudaEventRecord(events_[2 * std::size_t(k)], stream_), "record an event");
      for (int call = 0; call < calls; ++call) work();
      check(cudaEventRecord(events_[2 * std::size_t(k) + 1], stream_), "record an event");
    }
    check(cudaEventSynchronize(events_.back()), "finish a measurement");
    std::vector<float> times(static_cast<std::size_t>(repetitions_));
    for (std::size_t k = 0; k < times.size(); ++k)
      check(cudaEventElapsedTime(&times[k], events_[2 * k], events_[2 * k + 1]), "read a time");
    std::sort(times.begin(), times.end());
    return 1e3 * double(times[times.size() / 2]) / calls;
  }

 private:
  void flush(int k) {
    check(cudaMemsetAsync(flush_.data(), k & 255, std::size_t(flush_bytes_), stream_), "flush the cache");
  }
  static void check(cudaError_t code, const char* what) { dpmp::detail::check_cuda(code, what); }
  cudaStream_t stream_;
  dpmp::Buffer flush_;
  dpmp::index_t flush_bytes_;
  int repetitions_;
  std::vector<cudaEvent_t> events_;  // begin and end of each repetition
};
}  // namespace bench
