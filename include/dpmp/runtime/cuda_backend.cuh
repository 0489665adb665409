// SPDX-License-Identifier: Apache-2.0
// A GPU behind runtime/backend.hpp: one stream for all work of a context; host memory is staged through pinned buffers, so
// that a batch is copied while the GPU still works on the one before. Every call has the backend's device as the current one
// and leaves the caller's.
#pragma once
#include <nvtx3/nvToolsExt.h>

#include <array>
#include <cstdint>
#include <string>
#include <utility>

#include "dpmp/runtime/backend.hpp"
#include "dpmp/runtime/cuda_device.cuh"
#include "dpmp/runtime/cuda_error.cuh"

// DPMP_UNOPTIMISED_KERNELS: for cicc -O0, which folds nothing, as -G does.
#if !defined(__CUDACC_DEBUG__) && !defined(DPMP_UNOPTIMISED_KERNELS)
#define DPMP_ASK_FOR_FAST_MATH 1
/// Answered while a kernel is compiled: libdevice asks so for the flags of nvcc, which no macro tells.
extern "C" __device__ int __nvvm_reflect(const char* name);
/// Defined nowhere: a kernel that calls it does not link.
extern "C" __device__ void dpmp_expected_nvcc_without_use_fast_math_ftz_prec_div_or_prec_sqrt();
#endif

namespace dpmp::inline DPMP_ABI::detail {
inline constexpr int fill_block = 256;
/// Each unit with a context has it, so that it refuses flags that change arithmetic for all of the unit's kernels.
template <class Word>
__global__ void __launch_bounds__(fill_block) fill_kernel(Word* data, Word value, index_t n) {
#if defined(DPMP_ASK_FOR_FAST_MATH)
  if (__nvvm_reflect("__CUDA_FTZ") || !__nvvm_reflect("__CUDA_PREC_DIV") || !__nvvm_reflect("__CUDA_PREC_SQRT"))
    dpmp_expected_nvcc_without_use_fast_math_ftz_prec_div_or_prec_sqrt();
#endif
  const index_t k = index_t(blockIdx.x) * fill_block + threadIdx.x;
  if (k < n) data[k] = value;
}

/// Pinned host memory that grows to the largest request, with an event for "the copy out of it is done".
class PinnedSlot {
 public:
  PinnedSlot() = default;
  PinnedSlot(const PinnedSlot&) = delete;
  PinnedSlot& operator=(const PinnedSlot&) = delete;
  ~PinnedSlot() {
    if (copied_) cudaEventDestroy(copied_);
    cudaFreeHost(data_);
  }
  void copy_in(cudaStream_t stream, void* to, const void* from, index_t bytes) {
    if (!copied_) check_cuda(cudaEventCreateWithFlags(&copied_, cudaEventDisableTiming), "create an event");
    check_cuda(cudaEventSynchronize(copied_), "finish the last copy from pinned memory");
    if (bytes > size_) {
      check_cuda(cudaFreeHost(std::exchange(data_, nullptr)), "free pinned memory");
      size_ = 0;
      check_cuda(cudaMallocHost(&data_, std::size_t(bytes)), concat("pin ", bytes, " bytes of host memory"));
      size_ = bytes;
    }
    std::memcpy(data_, from, std::size_t(bytes));
    check_cuda(cudaMemcpyAsync(to, data_, std::size_t(bytes), cudaMemcpyHostToDevice, stream),
               concat("copy ", bytes, " bytes to the device"));
    check_cuda(cudaEventRecord(copied_, stream), "record an event");
  }

 private:
  void* data_ = nullptr;
  index_t size_ = 0;
  cudaEvent_t copied_ = nullptr;
};

/// The library's names, which a profiler can tell from those of the program around it.
inline nvtxDomainHandle_t profiler_domain() {
  static const nvtxDomainHandle_t domain = nvtxDomainCreateA("dpmp");
  return domain;
}

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(int index) : device_(index) {
    int count = 0;
    const cudaError_t code = cudaGetDeviceCount(&count);
    DPMP_CHECK(code == cudaSuccess && index >= 0 && index < count, "expected a CUDA device number below ", count, ", got ",
               index, code == cudaSuccess ? "" : concat(" (", cudaGetErrorString(code), ")"));
    const DeviceScope scope(index);
    check_cuda(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, index), "count multiprocessors");
    check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "create a stream");
  }
  ~CudaBackend() override {
    const DeviceScope scope(device_);
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }
  void* acquire(index_t bytes) override {
    DPMP_CHECK(!capturing_, "expected the memory of a captured run to be there, got a request for ", bytes,
               " more bytes: run the same work once before it is captured");
    const DeviceScope scope(device_);
    void* data = nullptr;
    const cudaError_t code = cudaMalloc(&data, std::size_t(bytes));
    if (code == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // not sticky: the arena says what is missing
      return nullptr;
    }
    check_cuda(code, concat("allocate ", bytes, " bytes"));
    return data;
  }
  void release(void* data, index_t) noexcept override {
    const DeviceScope scope(device_);
    cudaFree(data);
  }
  void copy(void* to, const void* from, index_t bytes) override {
    const DeviceScope scope(device_);
    if (bytes > 0)
      check_cuda(cudaMemcpyAsync(to, from, std::size_t(bytes), cudaMemcpyDeviceToDevice, stream_),
                 concat("copy ", bytes, " bytes on the device"));
  }
  void copy_rows(void* to, index_t to_stride, const void* from, index_t from_stride, index_t row_bytes,
                 index_t rows) override {
    const DeviceScope scope(device_);
    if (row_bytes > 0 && rows > 0)
      check_cuda(cudaMemcpy2DAsync(to, std::size_t(to_stride), from, std::size_t(from_stride), std::size_t(row_bytes),
                                   std::size_t(rows), cudaMemcpyDeviceToDevice, stream_),
                 concat("copy ", rows, " rows of ", row_bytes, " bytes on the device"));
  }
  void set_zero(void* data, index_t bytes) override {
    const DeviceScope scope(device_);
    if (bytes > 0) check_cuda(cudaMemsetAsync(data, 0, std::size_t(bytes), stream_), concat("clear ", bytes, " bytes"));
  }
  void fill(void* data, const void* element, index_t element_bytes, index_t count) override {
    switch (element_bytes) {
      case 2: return fill_words<std::uint16_t>(data, element, count);
      case 4: return fill_words<std::uint32_t>(data, element, count);
      case 8: return fill_words<std::uint64_t>(data, element, count);
    }
    throw Error(concat("expected elements of 2, 4 or 8 bytes to fill memory with, got ", element_bytes));
  }
  int multiprocessors() const override { return multiprocessors_; }
  void* stream() const override { return stream_; }
  void push_range(std::string_view name) override {
    const std::string text(name);
    nvtxEventAttributes_t event{};
    event.version = NVTX_VERSION;
    event.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
    event.messageType = NVTX_MESSAGE_TYPE_ASCII;
    event.message.ascii = text.c_str();
    nvtxDomainRangePushEx(profiler_domain(), &event);
  }
  void pop_range() noexcept override { nvtxDomainRangePop(profiler_domain()); }
  bool capturing() const override { return capturing_; }

  /// From here on work is recorded and not carried out. Other threads and contexts are not concerned.
  void begin_capture() {
    refuse_in_capture("another capture");
    const DeviceScope scope(device_);
    check_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "capture a stream");
    capturing_ = true;
  }
  /// What was recorded; the caller destroys it.
  cudaGraph_t end_capture() {
    capturing_ = false;
    const DeviceScope scope(device_);
    cudaGraph_t graph = nullptr;
    check_cuda(cudaStreamEndCapture(stream_, &graph), "end a capture");
    return graph;
  }
  /// After a failure: what was recorded is thrown away.
  void abandon_capture() noexcept {
    capturing_ = false;
    const DeviceScope scope(device_);
    cudaGraph_t graph = nullptr;
    if (cudaStreamEndCapture(stream_, &graph) == cudaSuccess) cudaGraphDestroy(graph);
    cudaGetLastError();  // the failure that led here is reported by who saw it
  }

 private:
  void read_host(void* to, const void* from, index_t bytes) override {
    if (bytes == 0) return;
    const DeviceScope scope(device_);
    next_ = (next_ + 1) % slots_.size();
    slots_[next_].copy_in(stream_, to, from, bytes);
  }
  void write_host(void* to, const void* from, index_t bytes) override {
    const DeviceScope scope(device_);
    if (bytes > 0)
      check_cuda(cudaMemcpyAsync(to, from, std::size_t(bytes), cudaMemcpyDeviceToHost, stream_),
                 concat("copy ", bytes, " bytes to the host"));
    wait();
  }
  void wait() override {
    const DeviceScope scope(device_);
    check_cuda(cudaStreamSynchronize(stream_), "finish the work submitted so far");
  }
  template <class Word>
  void fill_words(void* data, const void* element, index_t count) {
    if (count == 0) return;
    const DeviceScope scope(device_);
    Word value;
    std::memcpy(&value, element, sizeof value);
    const index_t blocks = (count + fill_block - 1) / fill_block;
    DPMP_CHECK(blocks <= 0x7fffffff, "expected at most 2^31 blocks of ", fill_block, " elements to fill, got ", count);
    fill_kernel<<<unsigned(blocks), fill_block, 0, stream_>>>(static_cast<Word*>(data), value, count);
    check_cuda(cudaGetLastError(), concat("fill ", count, " elements"));
  }

  int device_, multiprocessors_ = 0;
  bool capturing_ = false;
  cudaStream_t stream_ = nullptr;
  std::array<PinnedSlot, 4> slots_;
  std::size_t next_ = 0;
};

template <class Device_>
std::unique_ptr<Backend> make_cuda_backend(Device_ device) {
  return std::make_unique<CudaBackend>(device.index);
}
template <class Count>
Count cuda_device_count() {
  Count count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}
// Units that know nothing of CUDA make contexts too: this one offers what they call.
template std::unique_ptr<Backend> make_cuda_backend<Device>(Device);
template int cuda_device_count<int>();
}  // namespace dpmp::inline DPMP_ABI::detail
