// SPDX-License-Identifier: Apache-2.0
// The CPU's team: one thread walks a row in packs of W elements, each pack one SIMD register.
// Host only: nvcc refuses vector types in device code, so nothing here is marked for the device. Packs are compiler vector
// types, because GCC does not vectorise plain arrays inside a struct (measured: 4 times slower).
#pragma once
#include <cmath>

#include "dpmp/core/low_precision.hpp"

namespace dpmp::inline DPMP_ABI {
namespace detail {
// Apart from HostPack: GCC drops a vector_size that depends on the parameters of the class that uses it.
template <class R, int W>
struct Vectors;
template <int W>
struct Vectors<float, W> {
  typedef float Real __attribute__((vector_size(4 * W)));
  typedef std::uint32_t Word __attribute__((vector_size(4 * W)));
  typedef double Wide __attribute__((vector_size(8 * W)));
  typedef std::uint16_t Half __attribute__((vector_size(2 * W)));
};
template <int W>
struct Vectors<double, W> {
  typedef double Real __attribute__((vector_size(8 * W)));
  typedef std::uint64_t Word __attribute__((vector_size(8 * W)));
  typedef float Narrow __attribute__((vector_size(4 * W)));
};
}  // namespace detail

/// W elements in registers, computed in R (float or double). The first template parameter of a kernel's team decides R.
template <class R, int W>
struct HostPack {
  using Scalar = R;
  using Vector = typename detail::Vectors<R, W>::Real;
  using Word = typename detail::Vectors<R, W>::Word;
  Vector v;

  static DPMP_HOST HostPack splat(R x) { return {x - Vector{}}; }
  friend DPMP_HOST HostPack operator+(HostPack a, HostPack b) { return {a.v + b.v}; }
  friend DPMP_HOST HostPack operator-(HostPack a, HostPack b) { return {a.v - b.v}; }
  friend DPMP_HOST HostPack operator*(HostPack a, HostPack b) { return {apart(a.v * b.v)}; }
  friend DPMP_HOST HostPack operator/(HostPack a, HostPack b) { return {a.v / b.v}; }
  friend DPMP_HOST HostPack operator+(HostPack a, R b) { return {a.v + b}; }
  friend DPMP_HOST HostPack operator-(HostPack a, R b) { return {a.v - b}; }
  friend DPMP_HOST HostPack operator*(HostPack a, R b) { return {apart(a.v * b)}; }
  friend DPMP_HOST HostPack operator-(R a, HostPack b) { return {a - b.v}; }
  friend DPMP_HOST HostPack operator/(R a, HostPack b) { return {a / b.v}; }
  friend DPMP_HOST HostPack operator-(HostPack a) { return {-a.v}; }
  /// a b + c, rounded once where the instruction set can.
  friend DPMP_HOST HostPack multiply_add(HostPack a, HostPack b, HostPack c) {
#if defined(__x86_64__)
    if constexpr (sizeof(Vector) > 16) {
      if constexpr (sizeof(R) == 4)
        asm("vfmadd231ps {%2, %1, %0|%0, %1, %2}" : "+v"(c.v) : "v"(a.v), "v"(b.v));
      else
        asm("vfmadd231pd {%2, %1, %0|%0, %1, %2}" : "+v"(c.v) : "v"(a.v), "v"(b.v));
      return c;
    }
#endif
    return a * b + c;
  }
  friend DPMP_HOST HostPack multiply_add(HostPack a, HostPack b, R c) { return multiply_add(a, b, splat(c)); }
  /// A product that is not fused into an addition after it. A compiler may fuse in whole packs and not in the packs at an
  /// array's end, or the other way round (GCC 12 does, with AVX-512): a number's bits would follow its place (P34).
  static DPMP_HOST Vector apart(Vector product) {
#if defined(__x86_64__) && defined(__clang__)
    // clang has no register for vectors of less than 16 bytes.
    if constexpr (sizeof(Vector) < 16) {
      for (int k = 0; k < W; ++k) {
        R lane = product[k];
        asm("" : "+x"(lane));
        product[k] = lane;
      }
    } else {
      asm("" : "+v"(product));
    }
#elif defined(__x86_64__)
    asm("" : "+v"(product));
#elif defined(__aarch64__)
    asm("" : "+w"(product));
#endif
    return product;
  }
  /// Lane by lane a < b ? x : y; false for NaN.
  friend DPMP_HOST HostPack select_less(HostPack a, HostPack b, HostPack x, HostPack y) { return {a.v < b.v ? x.v : y.v}; }
  DPMP_HOST R lane(int k) const { return v[k]; }

  DPMP_HOST Word bits() const {
    Word u;
    memcpy(&u, &v, sizeof u);
    return u;
  }
  static DPMP_HOST HostPack of_bits(Word u) {
    HostPack r;
    memcpy(&r.v, &u, sizeof u);
    return r;
  }

  static DPMP_HOST HostPack load(const R* p) {
    HostPack r;
    memcpy(&r.v, p, sizeof r.v);
    return r;
  }
  DPMP_HOST void store(R* p) const { memcpy(p, &v, sizeof v); }

  static DPMP_HOST HostPack load(const bf16* p) requires std::is_same_v<R, float> {
    typename detail::Vectors<float, W>::Half h;
    memcpy(&h, p, sizeof h);
    return of_bits(__builtin_convertvector(h, Word) << 16);
  }
  /// Rounds to nearest even and flushes denormal results to zero: the bf16 units of CPUs (AVX512-BF16, AMX) ignore denormal
  /// operands, so a stored one would count in a norm and not in the sum, or the reverse, depending on who reads it.
  DPMP_HOST void store(bf16* p) const requires std::is_same_v<R, float> {
    const Word u = bits(), nearest = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16, quiet = (u >> 16) | 0x40u;
    const Word rounded = (u & 0x7fffffffu) > 0x7f800000u ? quiet : nearest;
    const Word flushed = (rounded & 0x7f80u) == 0u ? rounded & 0x8000u : rounded;
    const auto h = __builtin_convertvector(flushed, typename detail::Vectors<float, W>::Half);
    memcpy(p, &h, sizeof h);
  }
  static DPMP_HOST HostPack load(const f16* p) requires std::is_same_v<R, float> {
    typename detail::Vectors<float, W>::Half h;
    memcpy(&h, p, sizeof h);
    // The scalar formula of core/low_precision.hpp. Multiplying by 2^112 re-biases normals and subnormals alike.
    const Word u = __builtin_convertvector(h, Word), sign = (u & 0x8000u) << 16, magnitude = (u & 0x7fffu) << 13;
    const Word finite = (of_bits(magnitude) * 0x1p112f).bits();
    return of_bits(sign | ((u & 0x7c00u) == 0x7c00u ? magnitude | 0x7f800000u : finite));
  }
  DPMP_HOST void store(f16* p) const requires std::is_same_v<R, float> {
    const Word u = bits(), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
    const Word normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    const Word subnormal = (of_bits(magnitude) + 0.5f).bits() - 0x3f000000u;
    const Word finite = magnitude < 0x38800000u ? subnormal : normal;
    const Word large = magnitude > 0x7f800000u ? 0x7e00u | ((magnitude >> 13) & 0x3ffu) : Word{} + 0x7c00u;
    const auto h = __builtin_convertvector(sign | (magnitude >= 0x47800000u ? large : finite),
                                           typename detail::Vectors<float, W>::Half);
    memcpy(p, &h, sizeof h);
  }
  static DPMP_HOST HostPack load(const double* p) requires std::is_same_v<R, float> {
    typename detail::Vectors<float, W>::Wide d;
    memcpy(&d, p, sizeof d);
    return {__builtin_convertvector(d, Vector)};
  }
  static DPMP_HOST HostPack load(const float* p) requires std::is_same_v<R, double> {
    typename detail::Vectors<double, W>::Narrow f;
    memcpy(&f, p, sizeof f);
    return {__builtin_convertvector(f, Vector)};
  }
  /// What a store to T and a load would give.
  template <class T>
  DPMP_HOST HostPack rounded() const {
    T stored[std::size_t(W)];
    store(stored);
    return load(stored);
  }
  /// p[k] += lane k of f(0), f(1), ... one after the other, in double.
  template <class F>
  static DPMP_HOST void add_to(double* p, int terms, F&& f) {
    using Wide = typename detail::Vectors<double, W>::Real;
    Wide d;
    memcpy(&d, p, sizeof d);
    for (int i = 0; i < terms; ++i) d += __builtin_convertvector(f(i).v, Wide);
    memcpy(p, &d, sizeof d);
  }
};

namespace detail {
/// Lane k: offset + k == column ? x : y.
template <class R, int W>
DPMP_HOST HostPack<R, W> select_column(index_t offset, index_t column, HostPack<R, W> x, HostPack<R, W> y) {
  using Word = typename HostPack<R, W>::Word;
  Word lane;
  for (int k = 0; k < W; ++k) lane[k] = unsigned(k);
  const auto wanted = decltype(lane[0] + lane[0])(column - offset);
  return {lane == wanted ? x.v : y.v};
}
}  // namespace detail

/// W elements of a row from `offset`.
template <class R, int W>
struct FullSpan {
  using Pack = HostPack<R, W>;
  index_t offset;
  static constexpr int size() { return W; }
  /// Element of the row number `column` ? x : y.
  DPMP_HOST Pack select_column(index_t column, Pack x, Pack y) const { return detail::select_column(offset, column, x, y); }
  template <class T>
  DPMP_HOST Pack load(const T* row) const {
    return Pack::load(row + offset);
  }
  template <class T>
  DPMP_HOST void store(T* row, Pack p) const {
    p.store(row + offset);
  }
  /// row[k] += lane k of f(0), f(1), ... one after the other, in double.
  template <class F>
  DPMP_HOST void add_to(double* row, int terms, F&& f) const {
    Pack::add_to(row + offset, terms, f);
  }
  DPMP_HOST void add_to(double* row, Pack p) const {
    add_to(row, 1, [&](int) DPMP_LAMBDA { return p; });
  }
};
/// The `count` < W elements left at the end of a row.
template <class R, int W>
struct TailSpan {
  using Pack = HostPack<R, W>;
  index_t offset;
  int count;
  DPMP_HOST int size() const { return count; }
  /// Element of the row number `column` ? x : y.
  DPMP_HOST Pack select_column(index_t column, Pack x, Pack y) const { return detail::select_column(offset, column, x, y); }
  template <class T>
  DPMP_HOST Pack load(const T* row) const {
    T t[std::size_t(W)] = {};
    for (int k = 0; k < count; ++k) t[k] = row[offset + k];
    return Pack::load(t);
  }
  template <class T>
  DPMP_HOST void store(T* row, Pack p) const {
    T t[std::size_t(W)];
    p.store(t);
    for (int k = 0; k < count; ++k) row[offset + k] = t[k];
  }
  template <class F>
  DPMP_HOST void add_to(double* row, int terms, F&& f) const {
    double t[std::size_t(W)] = {};
    for (int k = 0; k < count; ++k) t[k] = row[offset + k];
    Pack::add_to(t, terms, f);
    for (int k = 0; k < count; ++k) row[offset + k] = t[k];
  }
  DPMP_HOST void add_to(double* row, Pack p) const {
    add_to(row, 1, [&](int) DPMP_LAMBDA { return p; });
  }
};

/// The vocabulary of a kernel: visit a row of n elements in packs, or reduce it. Every reduction has a fixed order for a
/// given W, with four independent accumulators that hide the latency of an addition.
template <class R, int W>
struct HostTeam {
  using Real = R;
  using Pack = HostPack<R, W>;
  /// What the team's threads have stored is seen by all of them after it; there is one.
  DPMP_HOST void synchronize() const {}

  template <class F>
  DPMP_HOST void for_each(index_t n, F&& f) const {
    index_t i = 0;
    for (; i + W <= n; i += W) f(FullSpan<R, W>{i});
    if (i < n) f(TailSpan<R, W>{i, int(n - i)});
  }
  /// Sum of f's packs over the row; lanes past its end do not count.
  template <class F>
  DPMP_HOST R sum(index_t n, F&& f) const {
    Pack s0{}, s1{}, s2{}, s3{};
    index_t i = 0;
    for (; i + 4 * W <= n; i += 4 * W) {
      s0 = s0 + f(FullSpan<R, W>{i});
      s1 = s1 + f(FullSpan<R, W>{i + W});
      s2 = s2 + f(FullSpan<R, W>{i + 2 * W});
      s3 = s3 + f(FullSpan<R, W>{i + 3 * W});
    }
    for (; i + W <= n; i += W) s0 = s0 + f(FullSpan<R, W>{i});
    s0 = (s0 + s1) + (s2 + s3);
    R total = 0;
    for (int k = 0; k < W; ++k) total += s0.lane(k);
    if (i < n) {
      const Pack tail = f(TailSpan<R, W>{i, int(n - i)});
      for (int k = 0; k < int(n - i); ++k) total += tail.lane(k);
    }
    return total;
  }
  /// The same in double, for sums over many elements: its error does not grow with their number.
  template <class F>
  DPMP_HOST double wide_sum(index_t n, F&& f) const {
    return sum_in_double(n, f, [](auto x) DPMP_LAMBDA { return x; });
  }
  /// Sum of the squares of f's packs over the row, in double: FP32 numbers neither overflow nor underflow there.
  template <class F>
  DPMP_HOST double sum_of_squares(index_t n, F&& f) const {
    return sum_in_double(n, f, [](auto x) DPMP_LAMBDA { return x * x; });
  }
  /// Largest element of f's packs over the row; `lowest` for an empty row. NaN elements are not preferred.
  template <class F>
  DPMP_HOST R max(index_t n, R lowest, F&& f) const {
    Pack m = Pack::splat(lowest);
    index_t i = 0;
    for (; i + W <= n; i += W) {
      const Pack x = f(FullSpan<R, W>{i});
      m = select_less(m, x, x, m);
    }
    R best = lowest;
    for (int k = 0; k < W; ++k) best = best < m.lane(k) ? m.lane(k) : best;
    if (i < n) {
      const Pack tail = f(TailSpan<R, W>{i, int(n - i)});
      for (int k = 0; k < int(n - i); ++k) best = best < tail.lane(k) ? tail.lane(k) : best;
    }
    return best;
  }

 private:
  /// Sum of term(elements as doubles) over f's packs.
  template <class F, class Term>
  DPMP_HOST double sum_in_double(index_t n, F&& f, Term&& term) const {
    if constexpr (std::is_same_v<R, double>) {
      return sum(n, [&](auto at) DPMP_LAMBDA { return term(f(at)); });
    } else {
      using Wide = typename detail::Vectors<R, W>::Wide;
      Wide even{}, odd{};
      index_t i = 0;
      for (; i + 2 * W <= n; i += 2 * W) {
        even += term(__builtin_convertvector(f(FullSpan<R, W>{i}).v, Wide));
        odd += term(__builtin_convertvector(f(FullSpan<R, W>{i + W}).v, Wide));
      }
      for (; i + W <= n; i += W) even += term(__builtin_convertvector(f(FullSpan<R, W>{i}).v, Wide));
      even += odd;
      double total = 0;
      for (int k = 0; k < W; ++k) total += even[k];
      if (i < n) {
        const Pack tail = f(TailSpan<R, W>{i, int(n - i)});
        for (int k = 0; k < int(n - i); ++k) total += term(double(tail.lane(k)));
      }
      return total;
    }
  }
};
}  // namespace dpmp::inline DPMP_ABI
