// SPDX-License-Identifier: Apache-2.0
// Times of work in a stream, by CUDA events.
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
        repetitions_(repetitions) {
    check(cudaEventCreate(&begin_), "create an event");
    check(cudaEventCreate(&end_), "create an event");
  }
  ~DeviceTimer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  DeviceTimer(const DeviceTimer&) = delete;
  DeviceTimer& operator=(const DeviceTimer&) = delete;

  /// Median microseconds of one call, after one that warms up. A call of a few microseconds is timed with the resolution of
  /// events, about half a microsecond.
  double microseconds(bool cold, const auto& work) {
    std::vector<float> times;
    for (int k = -1; k < repetitions_; ++k) {
      if (cold) check(cudaMemsetAsync(flush_.data(), k & 255, std::size_t(flush_bytes_), stream_), "flush the cache");
      check(cudaEventRecord(begin_, stream_), "record an event");
      work();
      check(cudaEventRecord(end_, stream_), "record an event");
      check(cudaEventSynchronize(end_), "finish a measurement");
      float milliseconds = 0;
      check(cudaEventElapsedTime(&milliseconds, begin_, end_), "read a time");
      if (k >= 0) times.push_back(milliseconds);
    }
    std::sort(times.begin(), times.end());
    return 1e3 * double(times[times.size() / 2]);
  }

 private:
  static void check(cudaError_t code, const char* what) { dpmp::detail::check_cuda(code, what); }
  cudaStream_t stream_;
  dpmp::Buffer flush_;
  dpmp::index_t flush_bytes_;
  int repetitions_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};
}  // namespace bench
