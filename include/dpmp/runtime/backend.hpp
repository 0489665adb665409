// SPDX-License-Identifier: Apache-2.0
// Memory of a device and the copies in and out of it: what Arena and Tensor need of the host or of a GPU. The GPU's is
// defined in runtime/cuda_backend.cuh, which a CUDA compiler parses; everybody else sees this interface.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <new>
#include <string_view>

#include "dpmp/runtime/device.hpp"

namespace dpmp::inline DPMP_ABI {
/// How often memory of the host was copied to the device, memory of the device to the host, and the device was waited for.
struct TransferStatistics {
  index_t copies_in = 0, copies_out = 0, waits = 0;
};

/// Requests are carried out in the order in which they are made, together with the kernels launched in between.
class Backend {
 public:
  virtual ~Backend() = default;
  /// Memory aligned to at least 64 bytes; null when there is none left.
  virtual void* acquire(index_t bytes) = 0;
  virtual void release(void* data, index_t bytes) noexcept = 0;
  /// `from` is memory of the host; it may change as soon as the call returns.
  void copy_in(void* to, const void* from, index_t bytes) {
    refuse_in_capture("a copy from the host's memory");
    copies_in_.fetch_add(1, std::memory_order_relaxed);
    read_host(to, from, bytes);
  }
  /// `to` is memory of the host; the bytes are there when the call returns.
  void copy_out(void* to, const void* from, index_t bytes) {
    refuse_in_capture("a copy to the host's memory");
    copies_out_.fetch_add(1, std::memory_order_relaxed);
    write_host(to, from, bytes);
  }
  /// Waits until all that was asked for is done.
  void synchronize() {
    refuse_in_capture("a wait for the device");
    waits_.fetch_add(1, std::memory_order_relaxed);
    wait();
  }
  virtual void copy(void* to, const void* from, index_t bytes) = 0;
  /// `rows` pieces of `row_bytes` that are so many bytes apart.
  virtual void copy_rows(void* to, index_t to_stride, const void* from, index_t from_stride, index_t row_bytes,
                         index_t rows) = 0;
  virtual void set_zero(void* data, index_t bytes) = 0;
  /// `count` elements of 2, 4 or 8 bytes, all of them like `element` (memory of the host).
  virtual void fill(void* data, const void* element, index_t element_bytes, index_t count) = 0;
  /// Of the GPU, for launches that fill it; 1 on the host.
  virtual int multiprocessors() const { return 1; }
  /// The stream that work runs in (a cudaStream_t); null on the host.
  virtual void* stream() const { return nullptr; }
  /// From here on, up to the matching pop_range, profilers show the work that is submitted under this name; nothing on the
  /// host. See runtime/profiler_range.hpp.
  virtual void push_range(std::string_view) {}
  virtual void pop_range() noexcept {}
  /// Whether work is recorded now, to be replayed (runtime/cuda_graph.cuh).
  virtual bool capturing() const { return false; }
  /// Throws while work is recorded: `what` would happen once, or give every replay the same values.
  void refuse_in_capture(std::string_view what) const {
    DPMP_CHECK(!capturing(), "expected work that a graph can replay, got ", what, " while it is captured");
  }
  TransferStatistics transfers() const { return {copies_in_.load(), copies_out_.load(), waits_.load()}; }
  /// What the library of matrix products keeps for this context (gemm/cublaslt.cuh); goes before the memory does.
  std::shared_ptr<void> gemm_state;

 private:
  virtual void read_host(void* to, const void* from, index_t bytes) = 0;
  virtual void write_host(void* to, const void* from, index_t bytes) = 0;
  virtual void wait() = 0;
  std::atomic<index_t> copies_in_{0}, copies_out_{0}, waits_{0};
};

class HostBackend final : public Backend {
 public:
  void* acquire(index_t bytes) override { return ::operator new(std::size_t(bytes), std::align_val_t(64), std::nothrow); }
  void release(void* data, index_t) noexcept override { ::operator delete(data, std::align_val_t(64)); }
  void copy(void* to, const void* from, index_t bytes) override {
    if (bytes > 0) std::memcpy(to, from, std::size_t(bytes));
  }
  void copy_rows(void* to, index_t to_stride, const void* from, index_t from_stride, index_t row_bytes,
                 index_t rows) override {
    for (index_t r = 0; r < rows; ++r)
      copy(static_cast<char*>(to) + r * to_stride, static_cast<const char*>(from) + r * from_stride, row_bytes);
  }
  void set_zero(void* data, index_t bytes) override {
    if (bytes > 0) std::memset(data, 0, std::size_t(bytes));
  }
  void fill(void* data, const void* element, index_t element_bytes, index_t count) override {
    if (count == 0) return;
    char* first = static_cast<char*>(data);
    copy(first, element, element_bytes);
    const index_t all = count * element_bytes;
    for (index_t done = element_bytes; done < all; done *= 2) copy(first + done, first, std::min(done, all - done));
  }

 private:
  void read_host(void* to, const void* from, index_t bytes) override { copy(to, from, bytes); }
  void write_host(void* to, const void* from, index_t bytes) override { copy(to, from, bytes); }
  void wait() override {}
};

namespace detail {
/// Defined in runtime/cuda_backend.cuh.
template <class Device_>
std::unique_ptr<Backend> make_cuda_backend(Device_ device);
/// How many CUDA devices there are; 0 also where the driver is missing.
template <class Count>
Count cuda_device_count();

inline std::unique_ptr<Backend> make_backend(Device device) {
  DPMP_IF_CUDA (device.kind == DeviceKind::cuda) return make_cuda_backend<Device>(device);
  DPMP_CHECK(device.kind == DeviceKind::cpu, "expected a device of this build (cpu), got ", device);
  return std::make_unique<HostBackend>();
}
}  // namespace detail

inline Device Device::best() {
  DPMP_IF_CUDA (detail::cuda_device_count<int>() > 0) return cuda(0);
  return cpu();
}
}  // namespace dpmp::inline DPMP_ABI
