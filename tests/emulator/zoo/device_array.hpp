// SPDX-License-Identifier: Apache-2.0
// What the zoo's programs share: arrays on the device, checked calls, comparison, a line per test.
#pragma once
#include <cuda_runtime.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#define CHECK_CUDA(call) \
  do { \
    const cudaError_t code_ = (call); \
    if (code_ != cudaSuccess) { \
      std::printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(code_)); \
      std::exit(2); \
    } \
  } while (0)

/// Array on the device, filled from the host or with zeros.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) : size_(values.size()) {
    CHECK_CUDA(cudaMalloc(&data_, size_ * sizeof(T)));
    CHECK_CUDA(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  explicit DeviceArray(std::size_t size) : DeviceArray(std::vector<T>(size)) {}
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  operator T*() const { return data_; }
  std::vector<T> host() const {
    std::vector<T> values(size_);
    CHECK_CUDA(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Reproducible values in -1..1.
inline std::vector<float> noise(std::size_t n, unsigned seed) {
  std::vector<float> v(n);
  for (float& x : v) {
    seed = seed * 1664525u + 1013904223u;
    x = float(int(seed >> 8)) / float(1 << 23) - 1.f;
  }
  return v;
}

/// Largest |got - wanted|; infinite when a value is not a number.
inline double distance(const std::vector<float>& got, const std::vector<double>& wanted) {
  double worst = got.size() == wanted.size() ? 0 : INFINITY;
  for (std::size_t i = 0; i < got.size() && i < wanted.size(); i++) {
    const double d = std::fabs(double(got[i]) - wanted[i]);
    if (!(d <= worst)) worst = d == d ? d : INFINITY;
  }
  return worst;
}

inline int failures = 0;

/// Prints the line of one test.
inline void expect(const char* name, double error, double bound) {
  std::printf("%-20s %s (error %.2e)\n", name, error <= bound ? "ok" : "BAD", error);
  failures += !(error <= bound);
}

/// Last line and exit status of a program.
inline int report() {
  std::printf("%s\n", failures ? "SOME BAD" : "ALL OK");
  return failures != 0;
}
