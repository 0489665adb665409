// SPDX-License-Identifier: Apache-2.0
// Memory of the CUDA device for tests, filled from and read back to vectors.
#pragma once
#include <vector>

#include "dpmp/core/low_precision.hpp"
#include "dpmp/runtime/cuda_error.cuh"
#include "support/random.hpp"

namespace test {
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t size) : size_(size) {
    dpmp::detail::check_cuda(cudaMalloc(reinterpret_cast<void**>(&data_), std::max<std::size_t>(1, size) * sizeof(T)),
                             "allocate");
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    dpmp::detail::check_cuda(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice), "copy to device");
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }

  T* data() const { return data_; }
  /// Waits for the device.
  std::vector<T> values() const {
    std::vector<T> result(size_);
    dpmp::detail::check_cuda(cudaDeviceSynchronize(), "finish the kernels");
    dpmp::detail::check_cuda(cudaMemcpy(result.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost),
                             "copy from device");
    return result;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_;
};

/// Normal numbers of that standard deviation, rounded to T.
template <class T>
std::vector<T> normal_values(Rng& rng, std::int64_t size, double std = 1) {
  std::vector<T> values(static_cast<std::size_t>(size));
  for (T& x : values) x = dpmp::from_float<T>(float(rng.normal(std)));
  return values;
}
}  // namespace test
