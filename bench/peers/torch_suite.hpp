// SPDX-License-Identifier: Apache-2.0
// What every row of bench_libtorch shares: the device, the timer and the rows so far.
#pragma once
#include <ATen/ATen.h>
#include <c10/core/Event.h>
#ifdef PEERS_WITH_CUDA
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <torch/cuda.h>
#endif

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace bench {
using index_t = std::int64_t;

struct TorchDevice {
  c10::Device device;
  std::string name;
  index_t l2_bytes;
};
/// The first GPU, or the CPU. Throws where LibTorch sees no GPU, as one without its CUDA half never does.
inline TorchDevice torch_device(bool cuda) {
  if (!cuda) return {c10::Device(c10::kCPU), "CPU", 0};
#ifdef PEERS_WITH_CUDA
  if (torch::cuda::is_available()) {
    const cudaDeviceProp& properties = *at::cuda::getDeviceProperties(0);
    return {c10::Device(c10::kCUDA, 0), properties.name, properties.l2CacheSize};
  }
#endif
  throw std::runtime_error("expected a CUDA device, LibTorch sees none (--device cpu runs without one)");
}

/// Median microseconds, as the DeviceTimer of ../cuda takes them: all of a measurement is asked for before any of it is
/// waited for, behind fills of memory that keep the device busy meanwhile, so that the host is not in the times.
class TorchTimer {
 public:
  TorchTimer(const TorchDevice& found, int repetitions)
      : device_(found.device),
        repetitions_(repetitions),
        flush_(at::empty({std::max<index_t>(2 * found.l2_bytes, 1)}, at::device(device_).dtype(at::kByte))) {
    // Making an event takes time on the host: these are used again and again.
    for (int k = 0; k < 2 * repetitions; ++k) events_.emplace_back(device_.type(), c10::EventFlag::BACKEND_DEFAULT);
  }

  /// Of one call, after one that warms up. cold: more than the L2 cache holds is written before every call. Otherwise a time
  /// is a fourth of four calls in a row.
  double microseconds(bool cold, const auto& work) {
    work();
    std::vector<double> times = device_.is_cuda() ? by_events(cold, work) : by_clock(cold, work);
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }

 private:
  std::vector<double> by_events(bool cold, const auto& work) {
    const c10::Stream stream(c10::Stream::DEFAULT, device_);
    const int calls = cold ? 1 : std::min(4, repetitions_);
    for (int k = 0; k < std::min(16, repetitions_); ++k) flush_.fill_(k & 255);
    for (int k = 0; k < repetitions_; ++k) {
      if (cold) flush_.fill_(k & 255);
      events_[2 * std::size_t(k)].record(stream);
      for (int call = 0; call < calls; ++call) work();
      events_[2 * std::size_t(k) + 1].record(stream);
    }
    events_.back().synchronize();
    std::vector<double> times;
    for (std::size_t k = 0; k < events_.size(); k += 2)
      times.push_back(1e3 * events_[k].elapsedTime(events_[k + 1]) / calls);
    return times;
  }
  std::vector<double> by_clock(bool cold, const auto& work) {
    std::vector<double> times;
    for (int k = 0; k < repetitions_; ++k) {
      if (cold) flush_.fill_(k & 255);
      const auto start = std::chrono::steady_clock::now();
      work();
      times.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
    }
    return times;
  }

  c10::Device device_;
  int repetitions_;
  at::Tensor flush_;
  std::vector<c10::Event> events_;  // begin and end of each repetition; CUDA's where the device is a GPU
};

struct TorchRow {
  std::string kernel, shape, dtype;
  double cold_us = 0, hot_us = 0;
};

class TorchSuite {
 public:
  TorchSuite(const TorchDevice& found, int repetitions, std::string only)
      : options(at::device(found.device)), timer_(found, repetitions), only_(std::move(only)) {}

  /// Numbers on the device.
  const at::TensorOptions options;
  std::vector<TorchRow> rows;

  /// Standard normal numbers: how fast a GPU multiplies depends on the bits that it multiplies.
  at::Tensor random(at::IntArrayRef shape, at::ScalarType dtype = at::kBFloat16) const {
    return at::randn(shape, options).to(dtype);
  }
  /// The same, with a gradient.
  at::Tensor random_leaf(at::IntArrayRef shape) const { return random(shape).requires_grad_(); }

  /// make(*this, extents...): rows, and tensors that they share.
  void group(const char* name, const auto& make, auto... extents) {
    if_it_fits(name, [&] { make(*this, extents...); });
  }
  /// A row, unless it is not asked for. Left out where work() needs more memory than there is.
  void add(const std::string& kernel, at::IntArrayRef extents, const char* dtype, const auto& work) {
    if (kernel.find(only_) == std::string::npos) return;
    TorchRow row{kernel, shape_text(extents), dtype};
    if_it_fits(kernel + " " + row.shape, [&] {
      row.cold_us = timer_.microseconds(true, work);
      row.hot_us = timer_.microseconds(false, work);
      rows.push_back(row);
    });
  }

 private:
  /// "32 x 1024 x 768".
  static std::string shape_text(at::IntArrayRef extents) {
    std::string text = std::to_string(extents[0]);
    for (const index_t n : extents.slice(1)) text += " x " + std::to_string(n);
    return text;
  }
  static void if_it_fits(const std::string& what, const auto& work) {
    try {
      work();
    } catch (const c10::OutOfMemoryError&) {
      std::fprintf(stderr, "bench_libtorch: %s: out of memory\n", what.c_str());
#ifdef PEERS_WITH_CUDA
      // What lies there in pieces may be enough for the next row in one.
      c10::cuda::CUDACachingAllocator::emptyCache();
#endif
    }
  }

  TorchTimer timer_;
  std::string only_;
};
}  // namespace bench
