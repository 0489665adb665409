// SPDX-License-Identifier: Apache-2.0
// Memory of a device and the copies in and out of it: what Arena and Tensor need of the host or of a GPU. The GPU's is
// defined in runtime/cuda_backend.cuh, which a CUDA compiler parses; everybody else sees this interface.
#pragma once
#include <cstring>
#include <memory>
#include <new>

#include "dpmp/runtime/device.hpp"

namespace dpmp::inline DPMP_ABI {
/// Requests are carried out in the order in which they are made, together with the kernels launched in between.
class Backend {
 public:
  virtual ~Backend() = default;
  /// Memory aligned to at least 64 bytes; null when there is none left.
  virtual void* acquire(index_t bytes) = 0;
  virtual void release(void* data, index_t bytes) noexcept = 0;
  /// `from` is memory of the host; it may change as soon as the call returns.
  virtual void copy_in(void* to, const void* from, index_t bytes) = 0;
  /// `to` is memory of the host; the bytes are there when the call returns.
  virtual void copy_out(void* to, const void* from, index_t bytes) = 0;
  virtual void copy(void* to, const void* from, index_t bytes) = 0;
  /// `rows` pieces of `row_bytes` that lie so many bytes apart.
  virtual void copy_rows(void* to, index_t to_stride, const void* from, index_t from_stride, index_t row_bytes,
                         index_t rows) = 0;
  virtual void set_zero(void* data, index_t bytes) = 0;
  /// Waits until all that was asked for is done.
  virtual void synchronize() = 0;
  /// Of the GPU, for launches that fill it; 1 on the host.
  virtual int multiprocessors() const { return 1; }
  /// The stream that work runs in (a cudaStream_t); null on the host.
  virtual void* stream() const { return nullptr; }
  /// What the library of matrix products keeps for this context (gemm/cublaslt.cuh); goes before the memory does.
  std::shared_ptr<void> gemm_state;
};

class HostBackend final : public Backend {
 public:
  void* acquire(index_t bytes) override { return ::operator new(std::size_t(bytes), std::align_val_t(64), std::nothrow); }
  void release(void* data, index_t) noexcept override { ::operator delete(data, std::align_val_t(64)); }
  void copy_in(void* to, const void* from, index_t bytes) override { copy(to, from, bytes); }
  void copy_out(void* to, const void* from, index_t bytes) override { copy(to, from, bytes); }
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
  void synchronize() override {}
};

namespace detail {
/// Defined in runtime/cuda_backend.cuh. A template, so that it is an error of the linker, and only where CUDA is used, when
/// no unit of a program includes dpmp/dpmp.cuh.
template <class Device_>
std::unique_ptr<Backend> make_cuda_backend(Device_ device);
/// How many CUDA devices there are; 0 also where the driver is missing.
template <class Count>
Count cuda_device_count();

inline std::unique_ptr<Backend> make_backend(Device device) {
#if defined(DPMP_WITH_CUDA) && DPMP_WITH_CUDA
  if (device.kind == DeviceKind::cuda) return make_cuda_backend<Device>(device);
#endif
  DPMP_CHECK(device.kind == DeviceKind::cpu, "expected a device of this build (cpu), got ", device);
  return std::make_unique<HostBackend>();
}
}  // namespace detail

inline Device Device::best() {
#if defined(DPMP_WITH_CUDA) && DPMP_WITH_CUDA
  if (detail::cuda_device_count<int>() > 0) return cuda(0);
#endif
  return cpu();
}
}  // namespace dpmp::inline DPMP_ABI
