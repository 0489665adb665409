// SPDX-License-Identifier: Apache-2.0
// Everything between a spec and a library's plain FP32 (double) product on one thread: casts of low-precision operands in
// blocks, the split over threads, the epilogue while a block is in cache.
#pragma once
#include <algorithm>

#include "dpmp/gemm/epilogue.hpp"
#include "dpmp/gemm/product.hpp"

namespace dpmp::inline DPMP_ABI::detail {
/// c[m,n] = alpha * op(a) op(b), or +=; row-major, strides between stored rows, on the calling thread.
template <class T>
struct Product {
  index_t m, n, k;
  const T* a;
  index_t a_stride;
  bool a_transposed;
  const T* b;
  index_t b_stride;
  bool b_transposed;
  T* c;
  index_t c_stride;
  double alpha;
  bool accumulate;
};

/// A spec for operands In and outputs Out on top of a leaf: static void Leaf::multiply(const Product<Real>&).
template <class In, class Out, class Leaf>
class BlockedGemm {
 public:
  using Real = compute_t<In>;
  BlockedGemm(const Workers& workers, const GemmSpec& spec) : workers_(workers), spec_(spec), finish_{spec} {}

  void run() const {
    const int slots = workers_.threads;
    const index_t b_bytes = cast ? padded_bytes(spec_.k * spec_.n, 4) : 0, slot_bytes = row_block_bytes();
    if (spec_.batch >= slots) {
      const Scratch scratch(workers_.context, slots * (b_bytes + slot_bytes));
      workers_.for_chunks(spec_.batch, [&](int slot, index_t begin, index_t end) {
        char* mine = scratch.data() + slot * (b_bytes + slot_bytes);
        for (index_t i = begin; i < end; ++i) {
          if (i == begin || spec_.b.batch_stride != 0) cast_b(i, mine, 0, stored_b_rows());
          rows(i, 0, spec_.m, mine, mine + b_bytes);
        }
      });
      return;
    }
    const Scratch scratch(workers_.context, b_bytes + slots * slot_bytes);
    for (index_t i = 0; i < spec_.batch; ++i) {
      if (cast && (i == 0 || spec_.b.batch_stride != 0))
        workers_.for_chunks(stored_b_rows(),
                            [&](int, index_t begin, index_t end) { cast_b(i, scratch.data(), begin, end); });
      workers_.for_chunks(spec_.m, [&](int slot, index_t begin, index_t end) {
        rows(i, begin, end, scratch.data(), scratch.data() + b_bytes + slot * slot_bytes);
      });
    }
  }

 private:
  static constexpr bool cast = sizeof(In) == 2;
  static constexpr bool real_output = std::is_same_v<Out, Real>;
  /// Rows multiplied at a time where blocks are cast: enough to hide that a leaf packs b again for each block.
  static constexpr index_t block_rows = 256;

  bool sums_in_scratch() const { return !real_output || spec_.residual; }
  bool in_blocks() const { return cast || sums_in_scratch(); }
  index_t stored_b_rows() const { return spec_.b.transposed ? spec_.n : spec_.k; }
  index_t stored_b_columns() const { return spec_.b.transposed ? spec_.k : spec_.n; }
  index_t block() const { return in_blocks() ? std::min(block_rows, spec_.m) : spec_.m; }
  index_t row_block_bytes() const {
    return (cast ? padded_bytes(block() * spec_.k, 4) : 0) +
           (sums_in_scratch() ? padded_bytes(block() * spec_.n, sizeof(Real)) : 0);
  }
  const In* a(index_t batch) const { return static_cast<const In*>(spec_.a.data) + batch * spec_.a.batch_stride; }
  const In* b(index_t batch) const { return static_cast<const In*>(spec_.b.data) + batch * spec_.b.batch_stride; }

  void cast_b(index_t batch, char* to, index_t begin, index_t end) const {
    if constexpr (cast) {
      const index_t columns = stored_b_columns();
      widen_rows(b(batch) + begin * spec_.b.row_stride, spec_.b.row_stride, reinterpret_cast<float*>(to) + begin * columns,
                 columns, end - begin, columns);
    }
  }

  /// Rows [begin, end) of one matrix of the batch. b_cast: op(b) in FP32 if cast. scratch: row_block_bytes().
  void rows(index_t batch, index_t begin, index_t end, const char* b_cast, char* scratch) const {
    for (index_t first = begin; first < end; first += block()) {
      const index_t count = std::min(block(), end - first);
      Product<Real> p{};
      p.m = count;
      p.n = spec_.n;
      p.k = spec_.k;
      p.alpha = spec_.alpha;
      p.accumulate = spec_.accumulate;
      p.a_transposed = spec_.a.transposed;
      p.b_transposed = spec_.b.transposed;
      char* sums = scratch;
      if constexpr (cast) {
        const In* x = a(batch) + first * (spec_.a.transposed ? 1 : spec_.a.row_stride);
        float* y = reinterpret_cast<float*>(scratch);
        p.a_stride = spec_.a.transposed ? count : spec_.k;
        widen_rows(x, spec_.a.row_stride, y, p.a_stride, spec_.a.transposed ? spec_.k : count, p.a_stride);
        p.a = y;
        p.b = reinterpret_cast<const float*>(b_cast);
        p.b_stride = stored_b_columns();
        sums += padded_bytes(block() * spec_.k, 4);
      } else {
        p.a = a(batch) + first * (spec_.a.transposed ? 1 : spec_.a.row_stride);
        p.a_stride = spec_.a.row_stride;
        p.b = b(batch);
        p.b_stride = spec_.b.row_stride;
      }
      p.c = reinterpret_cast<Real*>(sums);
      p.c_stride = spec_.n;
      if constexpr (real_output)
        if (!sums_in_scratch()) {
          p.c = finish_.output(batch, first);
          p.c_stride = spec_.out.row_stride;
        }
      multiply(p);
      if (!real_output || spec_.has_epilogue())
        for (index_t r = 0; r < count; ++r) finish_.finish(p.c + r * p.c_stride, batch, first + r);
    }
  }
  static void multiply(const Product<Real>& p) {
    if (p.k > 0) return Leaf::multiply(p);
    if (!p.accumulate)
      for (index_t r = 0; r < p.m; ++r) std::fill_n(p.c + r * p.c_stride, p.n, Real(0));
  }

  const Workers& workers_;
  const GemmSpec& spec_;
  Epilogue<In, Out> finish_;
};

/// Runs a spec on a leaf, of any dtypes that the leaf multiplies (check_gemm and gemm() refuse others).
template <class Leaf>
void run_blocked(const Workers& workers, const GemmSpec& spec) {
  dispatch_stored(spec.a.dtype, [&](auto tag) {
    using In = typename decltype(tag)::type;
    if constexpr (requires(const Product<compute_t<In>>& p) { Leaf::multiply(p); }) {
      if (spec.out.dtype == spec.a.dtype)
        BlockedGemm<In, In, Leaf>(workers, spec).run();
      else
        BlockedGemm<In, compute_t<In>, Leaf>(workers, spec).run();
    }
  });
}
}  // namespace dpmp::inline DPMP_ABI::detail
