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

/// Median microseconds, as the DeviceTimer of ../cuda takes them.
class TorchTimer {
 public:
  TorchTimer(const TorchDevice& found, int repetitions)
      : device_(found.device),
        repetitions_(repetitions),
        flush_(at::empty({std::max<index_t>(2 * found.l2_bytes, 1)}, at::device(device_).dtype(at::kByte))),
        begin_(device_.type(), c10::EventFlag::BACKEND_DEFAULT),
        end_(device_.type(), c10::EventFlag::BACKEND_DEFAULT) {}

  /// Of one call, after one that warms up. cold: more than the L2 cache holds is written before every call.
  double microseconds(bool cold, const auto& work) {
    std::vector<double> times;
    for (int k = -1; k < repetitions_; ++k) {
      if (cold) flush_.fill_(k & 255);
      const double time = device_.is_cuda() ? by_events(work) : by_clock(work);
      if (k >= 0) times.push_back(time);
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }

 private:
  double by_events(const auto& work) {
    const c10::Stream stream(c10::Stream::DEFAULT, device_);
    begin_.record(stream);
    work();
    end_.record(stream);
    end_.synchronize();
    return 1e3 * begin_.elapsedTime(end_);
  }
  static double by_clock(const auto& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
  }

  c10::Device device_;
  int repetitions_;
  at::Tensor flush_;
  // CUDA events with times where the device is a GPU. They are used again and again: making one takes time on the host,
  // which would count between the records of a short kernel.
  c10::Event begin_, end_;
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

  /// Uniform numbers in (-1, 1).
  at::Tensor random(at::IntArrayRef shape, at::ScalarType dtype = at::kBFloat16) const {
    return (at::rand(shape, options) * 2 - 1).to(dtype);
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
