// SPDX-License-Identifier: Apache-2.0
// CUDA's teams: the vocabulary of runtime/team_host.hpp for a warp, a block, or one thread of many that share a row's
// columns. A lane's pack is 16 bytes of the kernel's widest array, so that full accesses use every byte of their sectors.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "dpmp/core/low_precision.hpp"

namespace dpmp::inline DPMP_ABI {
namespace detail {
template <class T>
__device__ __forceinline__ compute_t<T> widened(T x) {
  if constexpr (std::is_same_v<T, f16>)
    return __half2float(__ushort_as_half(x.bits));
  else
    return to_float(x);
}
/// Rounds as HostPack::store does: to nearest even, bf16 denormals to zero.
template <class T, class R>
__device__ __forceinline__ T narrowed(R x) {
  if constexpr (std::is_same_v<T, bf16>) {
    const unsigned short bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
    return {static_cast<unsigned short>((bits & 0x7f80u) == 0u ? bits & 0x8000u : bits)};
  } else if constexpr (std::is_same_v<T, f16>) {
    return {__half_as_ushort(__float2half_rn(x))};
  } else {
    return T(x);
  }
}
template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Vector {
  T e[N];
};
/// In accesses of up to 16 bytes, by an intrinsic: the compiler takes a plain store apart and does not put it together
/// again.
template <class T, int N>
__device__ __forceinline__ void store_vector(T* to, const Vector<T, N>& x) {
  constexpr int bytes = int(sizeof(T)) * N, chunk = bytes < 16 ? bytes : 16;
  static_assert(chunk == 4 || chunk == 8 || chunk == 16);
  using Words = std::conditional_t<chunk == 16, uint4, std::conditional_t<chunk == 8, uint2, unsigned>>;
#pragma unroll
  for (int k = 0; k < bytes / chunk; ++k) {
    Words words;
    memcpy(&words, reinterpret_cast<const char*>(&x) + k * chunk, chunk);
    __stwb(reinterpret_cast<Words*>(to) + k, words);
  }
}
}  // namespace detail

/// W elements in one thread's registers, computed in R.
template <class R, int W>
struct CudaPack {
  using Scalar = R;
  R v[W];

  static __device__ __forceinline__ CudaPack splat(R x) {
    return zip({}, {}, [x](R, R) { return x; });
  }
  template <class F>
  static __device__ __forceinline__ CudaPack zip(const CudaPack& a, const CudaPack& b, F&& f) {
    CudaPack r;
#pragma unroll
    for (int k = 0; k < W; ++k) r.v[k] = f(a.v[k], b.v[k]);
    return r;
  }
  template <class F>
  __device__ __forceinline__ CudaPack map(F&& f) const {
    return zip(*this, *this, [&](R x, R) { return f(x); });
  }
  __device__ __forceinline__ R lane(int k) const { return v[k]; }

  friend __device__ __forceinline__ CudaPack operator+(const CudaPack& a, const CudaPack& b) {
    return zip(a, b, [](R x, R y) { return x + y; });
  }
  friend __device__ __forceinline__ CudaPack operator-(const CudaPack& a, const CudaPack& b) {
    return zip(a, b, [](R x, R y) { return x - y; });
  }
  friend __device__ __forceinline__ CudaPack operator*(const CudaPack& a, const CudaPack& b) {
    return zip(a, b, [](R x, R y) { return x * y; });
  }
  friend __device__ __forceinline__ CudaPack operator/(const CudaPack& a, const CudaPack& b) {
    return zip(a, b, [](R x, R y) { return x / y; });
  }
  friend __device__ __forceinline__ CudaPack operator+(const CudaPack& a, R b) { return a + splat(b); }
  friend __device__ __forceinline__ CudaPack operator-(const CudaPack& a, R b) { return a - splat(b); }
  friend __device__ __forceinline__ CudaPack operator*(const CudaPack& a, R b) { return a * splat(b); }
  friend __device__ __forceinline__ CudaPack operator-(R a, const CudaPack& b) { return splat(a) - b; }
  friend __device__ __forceinline__ CudaPack operator/(R a, const CudaPack& b) { return splat(a) / b; }
  friend __device__ __forceinline__ CudaPack operator-(const CudaPack& a) {
    return a.map([](R x) { return -x; });
  }
  /// Lane by lane a < b ? x : y; false for NaN.
  friend __device__ __forceinline__ CudaPack select_less(const CudaPack& a, const CudaPack& b, const CudaPack& x,
                                                         const CudaPack& y) {
    CudaPack r;
#pragma unroll
    for (int k = 0; k < W; ++k) r.v[k] = a.v[k] < b.v[k] ? x.v[k] : y.v[k];
    return r;
  }
  friend __device__ __forceinline__ CudaPack max(const CudaPack& a, const CudaPack& b) { return select_less(a, b, b, a); }
  friend __device__ __forceinline__ CudaPack abs(const CudaPack& a) {
    return a.map([](R x) { return ::fabs(x); });
  }
  // CUDA's own functions: at most 2 units in the last place off, closer than the host's polynomials.
  friend __device__ __forceinline__ CudaPack exp(const CudaPack& a) {
    return a.map([](R x) { return ::exp(x); });
  }
  friend __device__ __forceinline__ CudaPack log(const CudaPack& a) {
    return a.map([](R x) { return ::log(x); });
  }
  friend __device__ __forceinline__ CudaPack tanh(const CudaPack& a) {
    return a.map([](R x) { return ::tanh(x); });
  }
  friend __device__ __forceinline__ CudaPack erf(const CudaPack& a) {
    return a.map([](R x) { return ::erf(x); });
  }
  friend __device__ __forceinline__ CudaPack sqrt(const CudaPack& a) {
    return a.map([](R x) { return ::sqrt(x); });
  }
  /// What a store to T and a load would give.
  template <class T>
  __device__ __forceinline__ CudaPack rounded() const {
    return map([](R x) { return R(detail::widened(detail::narrowed<T>(x))); });
  }
};

/// The `count` <= W elements of a row from `offset` that one thread has in hand.
template <class R, int W>
struct CudaSpan {
  using Pack = CudaPack<R, W>;
  index_t offset;
  int count;
  __device__ __forceinline__ int size() const { return count; }

  template <class T>
  __device__ __forceinline__ Pack load(const T* row) const {
    Pack p;
    if (whole(row)) {
      const auto raw = *reinterpret_cast<const detail::Vector<T, W>*>(row + offset);
#pragma unroll
      for (int k = 0; k < W; ++k) p.v[k] = R(detail::widened(raw.e[k]));
    } else {
#pragma unroll
      for (int k = 0; k < W; ++k) p.v[k] = k < count ? R(detail::widened(row[offset + k])) : R(0);
    }
    return p;
  }
  template <class T>
  __device__ __forceinline__ void store(T* row, const Pack& p) const {
    if (whole(row)) {
      detail::Vector<T, W> raw;
#pragma unroll
      for (int k = 0; k < W; ++k) raw.e[k] = detail::narrowed<T>(p.v[k]);
      detail::store_vector(row + offset, raw);
    } else {
#pragma unroll
      for (int k = 0; k < W; ++k)
        if (k < count) row[offset + k] = detail::narrowed<T>(p.v[k]);
    }
  }
  /// row[k] += element k of f(0), f(1), ... one after the other, in double.
  template <class F>
  __device__ __forceinline__ void add_to(double* row, int terms, F&& f) const {
    using Wide = CudaSpan<double, W>;
    const Wide wide{offset, count};
    typename Wide::Pack sum = wide.load(row);
#pragma unroll 4
    for (int i = 0; i < terms; ++i) {
      const Pack p = f(i);
#pragma unroll
      for (int k = 0; k < W; ++k) sum.v[k] += double(p.v[k]);
    }
    wide.store(row, sum);
  }
  __device__ __forceinline__ void add_to(double* row, const Pack& p) const {
    add_to(row, 1, [&](int) { return p; });
  }
  /// Element of the row number `column` ? x : y.
  __device__ __forceinline__ Pack select_column(index_t column, const Pack& x, const Pack& y) const {
    Pack r;
#pragma unroll
    for (int k = 0; k < W; ++k) r.v[k] = offset + k == column ? x.v[k] : y.v[k];
    return r;
  }

 private:
  template <class T>
  __device__ __forceinline__ bool whole(const T* row) const {
    return count == W && reinterpret_cast<std::uintptr_t>(row + offset) % alignof(detail::Vector<T, W>) == 0;
  }
};

/// `Threads` threads walk a row together: a warp, or a whole block. Every thread gets the result of a reduction, whose order
/// is fixed. What for_each stored may be read by every thread of the team after it.
template <class R, int W, int Threads>
struct CudaTeam {
  using Real = R;
  using Pack = CudaPack<R, W>;
  using Span = CudaSpan<R, W>;

  static __device__ __forceinline__ void synchronize() {
    if constexpr (Threads == 32)
      __syncwarp();
    else
      __syncthreads();
  }
  template <class F>
  __device__ __forceinline__ void for_each(index_t n, F&& f) const {
    visit(n, f);
    synchronize();
  }
  template <class F>
  __device__ __forceinline__ R sum(index_t n, F&& f) const {
    return sum_of<R>(n, f, [](R x) { return x; });
  }
  /// The same in double, for sums over many elements: its error does not grow with their number. A pack's few elements are
  /// added first, so that units of double precision, which some GPUs have few of, are asked once a pack.
  template <class F>
  __device__ __forceinline__ double wide_sum(index_t n, F&& f) const {
    double total = 0;
    visit(n, [&](const Span& at) {
      const Pack p = f(at);
      R of_pack = 0;
#pragma unroll
      for (int k = 0; k < W; ++k) of_pack += k < at.count ? p.v[k] : R(0);
      total += of_pack;
    });
    return reduce(total, [](double a, double b) { return a + b; });
  }
  /// Sum of the squares of f's packs over the row, in double: FP32 numbers neither overflow nor underflow there.
  template <class F>
  __device__ __forceinline__ double sum_of_squares(index_t n, F&& f) const {
    return sum_of<double>(n, f, [](R x) { return double(x) * double(x); });
  }
  /// Largest element of f's packs over the row; `lowest` for an empty row. NaN elements are not preferred.
  template <class F>
  __device__ __forceinline__ R max(index_t n, R lowest, F&& f) const {
    R best = lowest;
    visit(n, [&](const Span& at) {
      const Pack p = f(at);
#pragma unroll
      for (int k = 0; k < W; ++k) best = k < at.count && best < p.v[k] ? p.v[k] : best;
    });
    return reduce(best, [](R a, R b) { return a < b ? b : a; });
  }

 private:
  static __device__ __forceinline__ int thread() { return int(threadIdx.x) % Threads; }
  template <class F>
  static __device__ __forceinline__ void visit(index_t n, F&& f) {
    for (index_t i = index_t(thread()) * W; i < n; i += Threads * W) f(Span{i, n - i < W ? int(n - i) : W});
  }
  /// Sum of term(element) over f's packs.
  template <class X, class F, class Term>
  static __device__ __forceinline__ X sum_of(index_t n, F&& f, Term&& term) {
    X total = 0;
    visit(n, [&](const Span& at) {
      const Pack p = f(at);
#pragma unroll
      for (int k = 0; k < W; ++k) total += k < at.count ? term(p.v[k]) : X(0);
    });
    return reduce(total, [](X a, X b) { return a + b; });
  }
  template <class X, class Join>
  static __device__ __forceinline__ X reduce(X x, Join&& join) {
    // a op b is the same number for either order of a and b, so all lanes end with the same bits.
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) x = join(x, __shfl_xor_sync(~0u, x, lanes));
    if constexpr (Threads > 32) {
      constexpr int warps = Threads / 32;
      __shared__ X of_warp[warps];
      if (thread() % 32 == 0) of_warp[thread() / 32] = x;
      __syncthreads();
      x = of_warp[0];
#pragma unroll
      for (int k = 1; k < warps; ++k) x = join(x, of_warp[k]);
      __syncthreads();  // before the next reduction writes there
    }
    return x;
  }
};

/// One thread of many that share the columns of a row: for kernels whose columns do not know of each other.
template <class R, int W>
struct CudaColumns {
  using Real = R;
  using Pack = CudaPack<R, W>;
  index_t first;  // column

  template <class F>
  __device__ __forceinline__ void for_each(index_t n, F&& f) const {
    if (first < n) f(CudaSpan<R, W>{first, n - first < W ? int(n - first) : W});
  }
};
}  // namespace dpmp::inline DPMP_ABI
