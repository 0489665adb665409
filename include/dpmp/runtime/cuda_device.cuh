// SPDX-License-Identifier: Apache-2.0
// Which GPU a host thread's calls go to. The CUDA runtime keeps that for each thread, and a stream takes kernels only while
// its own device is the current one.
#pragma once
#include <cuda_runtime.h>

#include "dpmp/runtime/context.hpp"

namespace dpmp::inline DPMP_ABI::detail {
/// For its lifetime the calling thread's CUDA calls go to this device, afterwards to the one from before: a program may use
/// several GPUs, and CUDA of its own, from any of its threads. A device that cannot be had shows in the call that follows.
class DeviceScope {
 public:
  explicit DeviceScope(int device) noexcept {
    if (cudaGetDevice(&before_) != cudaSuccess || before_ == device) return;
    changed_ = cudaSetDevice(device) == cudaSuccess;
  }
  ~DeviceScope() {
    if (changed_) cudaSetDevice(before_);
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

/// A context's stream, whose device is the current one as long as this object lives: to the end of the call that it is an
/// argument of, or of the scope that it is named in (`const auto stream = stream_of(ctx)`).
class StreamScope {
 public:
  explicit StreamScope(const Context& ctx)
      : device_(ctx.device().index), stream_(static_cast<cudaStream_t>(ctx.backend().stream())) {}
  operator cudaStream_t() const { return stream_; }

 private:
  DeviceScope device_;
  cudaStream_t stream_;
};
inline StreamScope stream_of(const Context& ctx) { return StreamScope(ctx); }
}  // namespace dpmp::inline DPMP_ABI::detail
