// SPDX-License-Identifier: Apache-2.0
// Arrays in a GPU's memory whose numbers the host knows without reading them: made of a hash of place and seed.
#pragma once
#include <dpmp/core/low_precision.hpp>
#include <dpmp/runtime/context.hpp>
#include <dpmp/runtime/launch_cuda.cuh>
#include <vector>

namespace bench {
using dpmp::index_t;

/// About standard normal, not 0, exact in bf16: the sum of four uniform numbers, rounded. How fast a GPU multiplies depends
/// on the bits that it multiplies: on zeros, or on a few bits, it keeps a higher clock.
DPMP_HD double test_value(std::uint64_t seed, index_t place) {
  std::uint64_t x = (std::uint64_t(place) + seed * 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 31) * 0x94d049bb133111ebu;
  x ^= x >> 29;
  const int sum = int(x & 0xffff) + int(x >> 16 & 0xffff) + int(x >> 32 & 0xffff) + int(x >> 48);
  const float centred = float(2 * sum - 4 * 0xffff + 1);  // odd, below 2^18
  return double(dpmp::to_float(dpmp::from_float<dpmp::bf16>(centred * (1.0f / 75674))));
}

template <class T>
struct FillByHash {
  using Real = dpmp::compute_t<T>;
  using Storage = T;
  T* data;
  std::uint64_t seed;
  template <class Span>
  __device__ __forceinline__ void operator()(const Span& at) const {
    for (int k = 0; k < at.size(); ++k) data[at.offset + k] = dpmp::from_float<T>(Real(test_value(seed, at.offset + k)));
  }
};

/// n numbers of the device.
template <class T>
class Array {
 public:
  Array(dpmp::Context& ctx, index_t n) : ctx_(&ctx), buffer_(ctx.allocate(n * index_t(sizeof(T)))), size_(n) {}
  /// Filled with test_value(seed, place).
  Array(dpmp::Context& ctx, index_t n, std::uint64_t seed) : Array(ctx, n) {
    dpmp::launch_elements(ctx, n, FillByHash<T>{data(), seed});
  }
  Array(dpmp::Context& ctx, const std::vector<T>& values) : Array(ctx, index_t(values.size())) {
    ctx.backend().copy_in(data(), values.data(), size_ * index_t(sizeof(T)));
  }
  T* data() const { return static_cast<T*>(buffer_.data()); }
  index_t size() const { return size_; }
  void set_zero() const { ctx_->backend().set_zero(data(), size_ * index_t(sizeof(T))); }
  /// Numbers first .. first + count. Waits for them.
  std::vector<T> read(index_t first, index_t count) const {
    std::vector<T> values(static_cast<std::size_t>(count));
    ctx_->backend().copy_out(values.data(), data() + first, count * index_t(sizeof(T)));
    return values;
  }
  double read_one(index_t place) const { return double(dpmp::to_float(read(place, 1)[0])); }

 private:
  dpmp::Context* ctx_;
  dpmp::Buffer buffer_;
  index_t size_;
};
}  // namespace bench
